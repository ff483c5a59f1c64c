//! Names that lie.

use crate::world::{World, is_untouched, open, server, trap};
use egress::resolve::Resolver;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn always(address: &'static str) -> Resolver {
    Resolver::with(move |_| Box::pin(async move { Ok(vec![address.parse().expect("an address")]) }))
}

#[tokio::test]
async fn a_name_of_a_closed_address_is_denied_whatever_block_it_is_in() {
    let (port, trap) = trap().await;
    for (address, code) in [
        ("127.0.0.1", "address_loopback"),
        ("::1", "address_loopback"),
        ("::ffff:127.0.0.1", "address_loopback"),
        ("0.0.0.0", "address_unspecified"),
        ("::", "address_unspecified"),
        ("10.0.0.1", "address_private"),
        ("fd00::1", "address_private"),
        ("169.254.169.254", "address_metadata"),
        ("::ffff:169.254.169.254", "address_metadata"),
        ("fd00:ec2::254", "address_metadata"),
        ("169.254.1.1", "address_link_local"),
        ("fe80::1", "address_link_local"),
        ("100.64.0.1", "address_shared"),
        ("224.0.0.1", "address_multicast"),
        ("ff02::1", "address_multicast"),
        ("255.255.255.255", "address_broadcast"),
        ("64:ff9b::7f00:1", "address_translated"),
        ("2002:7f00:1::", "address_translated"),
        ("::7f00:1", "address_translated"),
    ] {
        let mut world = World::with(&[], open(), always(address));
        let answer = world.get(&format!("http://a.example:{port}/")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{address}: {answer}");
        assert!(
            answer.contains(&format!("x-proxy-error: {code}\r\n")),
            "{address}: {answer}"
        );
        let record = world.next().await;
        assert_eq!(record.address, None, "nothing was dialled");
    }
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn a_name_with_a_good_and_a_bad_address_is_denied() {
    let (port, trap) = trap().await;
    let both = || {
        Box::pin(async {
            let found: Vec<IpAddr> = vec!["8.8.8.8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
            Ok(found)
        }) as egress::resolve::Answering
    };
    let world = World::with(&[], open(), Resolver::with(move |_| both()));
    let answer = world.get(&format!("http://a.example:{port}/")).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback"),
        "{answer}"
    );
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn a_name_that_is_bound_anew_between_check_and_dial_is_dialled_where_it_was_checked() {
    // The first answer is open by the exception, every later one is not.
    let (port, _seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let resolver = Resolver::with(move |_| {
        let first = counting.fetch_add(1, Ordering::SeqCst) == 0;
        let address = if first { "127.0.0.1" } else { "127.0.0.2" };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    });
    let mut world = World::with(&["127.0.0.1"], open(), resolver);
    let url = format!("http://a.example:{port}/");
    assert!(world.get(&url).await.starts_with("HTTP/1.1 204"));
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "one resolution for one request"
    );
    let record = world.next().await;
    assert_eq!(
        record.address.unwrap().to_string(),
        format!("127.0.0.1:{port}")
    );
    let again = world.get(&url).await;
    assert!(again.contains("x-proxy-error: address_loopback"), "{again}");
}

#[tokio::test]
async fn addresses_in_odd_forms_never_reach_a_resolver() {
    let (port, trap) = trap().await;
    // One that would take any of them for the loopback, as `getaddrinfo(3)` does.
    let world = World::with(&[], open(), always("127.0.0.1"));
    for host in [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127.0.0.01",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "[::]",
        "0",
        "0.0.0.0",
        "LOCALHOST",
        "localhost.",
        "x.localhost",
    ] {
        let answer = world.get(&format!("http://{host}:{port}/")).await;
        let refused = answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 400");
        assert!(
            refused && answer.contains("x-proxy-error"),
            "{host}: {answer}"
        );
    }
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn the_machines_own_public_address_is_closed() {
    let own = egress::own::Own::default().addresses().unwrap();
    let others: Vec<_> = own
        .iter()
        .filter(|address| !address.is_loopback())
        .collect();
    if others.is_empty() {
        println!("skipped: this machine has no address but the loopback");
    }
    for address in others {
        let host = model::host::Host::of_address(*address);
        let mut world = World::new(&[], open());
        let answer = world.get(&format!("http://{host}:1/")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
        assert!(world.next_code().await.starts_with("address_"));
    }
}

#[tokio::test]
async fn a_resolver_that_never_answers_holds_up_only_the_sandbox_that_asked_it() {
    let resolver = Resolver::with(|name| {
        Box::pin(async move {
            if name == "slow.test" {
                std::future::pending::<()>().await;
            }
            Ok(vec![[127, 0, 0, 1].into()])
        })
    });
    let world = World::with(&["127.0.0.1"], open(), resolver);
    let (port, _seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = world.connect();
        let ask = "GET http://slow.test/ HTTP/1.1\r\nhost: slow.test\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes())
            .await
            .unwrap();
        slow.push(stream);
    }
    let other = World {
        way: world.proxy.way(crate::world::owner(), open()),
        ..World::open()
    };
    let answer = other.get(&format!("http://fast.test:{port}/")).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    drop(slow);
}
