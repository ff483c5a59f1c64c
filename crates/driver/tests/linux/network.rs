//! There is a loopback, and nothing behind it.

use crate::probe;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

const REFUSED: &str = "111";

#[tokio::test]
async fn there_is_no_interface_but_the_loopback_and_no_route() {
    let world = world!();
    let script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; tail -n +2 /proc/net/route; \
                  grep -v ' lo$' /proc/net/ipv6_route; true";
    assert_eq!(world.sh(script).await, "lo\n");
}

#[tokio::test]
async fn the_loopback_works() {
    let world = world!();
    // Nobody listens there; without the interface the network would be unreachable instead.
    assert_eq!(probe::ask(&world, &["tcp", "1"]).await, [REFUSED]);
}

#[tokio::test]
async fn no_socket_of_the_host_is_reached() {
    let world = world!();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let name = format!("cofferdam-test-{port}");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _unix = UnixListener::bind_addr(&address).unwrap();
    for question in [["tcp", &*port], ["abstract", &*name]] {
        assert_eq!(probe::ask_outside(&world, &question), ["0"], "{question:?}");
        assert_eq!(
            probe::ask(&world, &question).await,
            [REFUSED],
            "{question:?}"
        );
    }
    let listed = world
        .sh("tail -n +2 /proc/net/unix; tail -n +2 /proc/net/tcp")
        .await;
    assert_eq!(listed, "");
}
