//! Two servers that ask each other for links, with real TLS on loopback. They share a service, as two processes share
//! a database.

use super::tests::{World, hello};
use super::*;
use api::attach::{LinkOpen, LinkTarget};
use api::link::LinkClass;
use model::id::NodeId;
use server::Peers;
use service::LinkHeld;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Another server that the table has, and that nobody dials.
async fn another(world: &World) -> (ServerId, Replica) {
    let id = replica::new_id().unwrap();
    let authority = Some(world.authority.clone());
    let replica = Replica::new(id.clone(), None, authority, None).unwrap();
    replica.beat(&world.service).await.unwrap();
    (id, replica)
}

/// One beside that of the world, which asks whom a row names.
async fn beside(world: &World) -> (Links, Replica) {
    let (_, replica) = another(world).await;
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

const CLASS: &str = LinkClass::Interactive.as_str();

/// Who holds the link of a node, as soon as somebody does.
async fn holder_of(world: &World, node: &NodeId) -> LinkHeld {
    loop {
        let held = world.service.link_holder((node, CLASS)).await.unwrap();
        if let Some(held) = held {
            return held;
        }
        tokio::task::yield_now().await;
    }
}

/// A server by whose rows the link is somewhere, and that dials `holder` in any case: whoever is not meant says so.
/// When it is about to ask the one that a row names, `meanwhile` happens. With those that it has asked.
async fn misled(
    world: &World,
    holder: LinkHeld,
    meanwhile: impl Fn(&ServerId) + Send + Sync + 'static,
) -> (Links, Arc<Mutex<Vec<ServerId>>>) {
    let (id, replica) = another(world).await;
    let (links, asked) = (Links::default(), Arc::<Mutex<Vec<ServerId>>>::default());
    let asks = asked.clone();
    links.ask(Peers::new(id, world.service.clone(), move |held| {
        asks.lock().unwrap().push(held.server.id.clone());
        meanwhile(&held.server.id);
        replica.dial(&holder)
    }));
    (links, asked)
}

/// Writes that this server holds the link now, before anything else is done.
fn moves(service: &Service, node: &NodeId, to: &ServerId) {
    let written = service.link_opened((node, CLASS), to);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| runtime.block_on(written)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_late_is_looked_at_once_more_and_leads_to_who_has_the_link_by_then() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    let (takes, mut taken) = mpsc::channel(4);
    let keeping = tokio::spawn(node::keep_links(
        world.as_node(&own),
        takes,
        std::sync::Arc::default(),
    ));
    let holder = holder_of(&world, &own.node).await;
    let (late, _) = another(&world).await;
    let link = (&own.node, CLASS);
    world.service.link_opened(link, &late).await.unwrap();
    let now = holder.server.id.clone();
    let (service, node, to, from) = (
        world.service.clone(),
        own.node.clone(),
        now.clone(),
        late.clone(),
    );
    let meanwhile = move |of: &ServerId| {
        if *of == from {
            moves(&service, &node, &to);
        }
    };
    let (links, asked) = misled(&world, holder, meanwhile).await;
    let (mut client, asks) = open();
    assert!(links.open(&own.node, asks).await.is_ok());
    assert_eq!(*asked.lock().unwrap(), [late, now]);
    let mut got = taken.recv().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    got.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_late_is_followed_once_and_one_that_is_late_again_twice_at_most() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    let (takes, _taken) = mpsc::channel(4);
    let keeping = tokio::spawn(node::keep_links(
        world.as_node(&own),
        takes,
        std::sync::Arc::default(),
    ));
    let holder = holder_of(&world, &own.node).await;
    let (late, _) = another(&world).await;
    let link = (&own.node, CLASS);
    world.service.link_opened(link, &late).await.unwrap();
    let (links, asked) = misled(&world, holder.clone(), |_| {}).await;
    assert!(links.open(&own.node, open().1).await.is_err());
    assert_eq!(*asked.lock().unwrap(), std::slice::from_ref(&late));
    // Each time that one is asked, the row names another.
    let ((second, _), (third, _)) = (another(&world).await, another(&world).await);
    let (service, node, from, to) = (
        world.service.clone(),
        own.node.clone(),
        late.clone(),
        [second.clone(), third],
    );
    let meanwhile = move |of: &ServerId| moves(&service, &node, &to[usize::from(*of != from)]);
    let (links, asked) = misled(&world, holder, meanwhile).await;
    assert!(links.open(&own.node, open().1).await.is_err());
    assert_eq!(*asked.lock().unwrap(), [late, second]);
    keeping.abort();
}
