//! Two servers that ask each other for links, with real TLS on loopback. They share a service, as two processes share
//! a database.

use super::tests::{World, hello};
use super::*;
use api::attach::{LinkOpen, LinkTarget};
use api::link::LinkClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Another server beside that of the world, which nobody dials.
async fn beside(world: &World) -> (Links, Replica) {
    let id = replica::new_id().unwrap();
    let authority = Some(world.authority.clone());
    let replica = Replica::new(id, None, authority, None).unwrap();
    replica.beat(&world.service).await.unwrap();
    let links = Links::default();
    links.ask(replica.peers(&world.service));
    (links, replica)
}

fn open() -> (tokio::io::DuplexStream, LinkOpen) {
    let (client, io) = tokio::io::duplex(1024);
    let id = "sbx_1".to_owned();
    let target = LinkTarget::Sandbox { id };
    (client, LinkOpen { target, io })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_borrowed_from_the_server_that_holds_it_and_from_no_other() {
    let world = World::new().await;
    let (links, replica) = beside(&world).await;
    let own = world.enrolled("a").await;
    assert!(
        links.open(&own.node, open().1).await.is_err(),
        "nobody holds it"
    );
    let (takes, mut taken) = mpsc::channel(4);
    let keeping = tokio::spawn(node::keep_links(
        world.as_node(&own),
        takes,
        std::sync::Arc::default(),
    ));
    let mut client = loop {
        let (client, asked) = open();
        if links.open(&own.node, asked).await.is_ok() {
            break client;
        }
        tokio::task::yield_now().await;
    };
    let mut got = taken.recv().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    got.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    // A node may not borrow, and a server only from the one that it means.
    let (node, class) = (own.node.as_str(), LinkClass::Interactive);
    let refused = world.as_node(&own).peer_link("srv_x", node, class).await;
    assert!(refused.unwrap_err().is(Code::CertificateUnknown));
    let held = world.service.link_holder((&own.node, class.as_str())).await;
    let held = held.unwrap().unwrap();
    let asks = replica.dial(&held).unwrap();
    let other = asks.peer_link("srv_x", node, class).await;
    assert!(other.unwrap_err().is(Code::LinkElsewhere));
    let (id, none) = (held.server.id.as_str(), "node_x");
    let nobody = asks.peer_link(id, none, class).await;
    assert!(nobody.unwrap_err().is(Code::LinkElsewhere));
    // With a certificate that says so, and has no other route.
    let forbidden = asks.node_register(&hello()).await;
    assert!(forbidden.unwrap_err().is(Code::CertificateUnknown));
    // The link ends, and what was borrowed with it.
    keeping.abort();
    drop((keeping.await, taken, got));
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    while links.open(&own.node, open().1).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_the_next_server_when_one_does_not_answer() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    // Somebody took the port of the first and says nothing, and nobody has that of the second.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("https://{}", silent.local_addr().unwrap());
    let dialer = own
        .dialer_of(&[&silent, "https://127.0.0.1:1", &world.url])
        .unwrap();
    let client = crate::identity::client(dialer);
    client.node_register(&hello()).await.unwrap();
}
