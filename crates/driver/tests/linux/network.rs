//! There is a loopback, and nothing behind it.

use crate::probe;
use crate::world::DEFAULTS;
use driver::conformance::spec;
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

/// A socket with a name is in the tree and not in the network namespace, and a mount that is read-only
/// is no obstacle to a connection. The daemon of Nix, for one, listens in the directory that it shows.
#[tokio::test]
async fn no_named_socket_of_the_host_is_reached_through_the_tree() {
    let world = world!();
    let mut spec = spec(DEFAULTS);
    spec.root = Some(probe::root(&world));
    let path = world.dir.path().join("root/open/socket");
    let _unix = UnixListener::bind(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&path, mode).unwrap();
    let outside = probe::ask_outside(&world, &["named", &path.display().to_string()]);
    assert_eq!(outside, ["0"]);
    let mut prepared = world.start(&spec, |_| {}).await;
    let answers = probe::run(&mut prepared, &["/bin/probe", "named", "/open/socket"]).await;
    assert_ne!(answers, ["0"]);
    world.destroy(&prepared).await;
}
