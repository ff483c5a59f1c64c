//! The way out of a sandbox: a port of its loopback, lines that the node brings, and the proxy at their other end.

use crate::live_client::Served;
use crate::world::PATIENCE;
use driver::driver::Driver as _;
use driver::guest::{EgressClient, egress_line, socket};
use egress::proxy::{Proxy, Way};
use egress::record::Owner;
use egress::resolve::Resolver;
use model::network::NetworkRules;
use std::net::UdpSocket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Reads a URL through the proxy, and prints the status, the proxy's word and the body.
const FETCH: &str = r#"
import os, sys, urllib.request, urllib.error
# What is for the loopback inside is asked of the one outside here.
for name in ("no_proxy", "NO_PROXY"): os.environ.pop(name, None)
proxy = urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128", "https": "http://127.0.0.1:3128"})
try:
    got = urllib.request.build_opener(proxy).open(sys.argv[1], timeout=30)
    print(got.status, got.headers.get("x-proxy-error"), got.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.headers.get("x-proxy-error"))
except urllib.error.URLError as error:
    print(error.reason)
"#;

/// Ends the test where there is none.
macro_rules! needs_python {
    () => {
        if !std::path::Path::new("/usr/bin/python3").exists() {
            println!("skipped: there is no python3 to listen with");
            return;
        }
    };
}

/// One line after the other, as a node brings them, until `lines` were used.
pub(crate) async fn bring(served: &Served<'_>, way: &Way, lines: usize) {
    for _ in 0..lines {
        let stream = served.world.linux.connect(&served.plan.handle).await;
        let line = egress_line(stream.expect("a guest")).await.expect("a line");
        let client = line.client().await.expect("a client");
        let place = way.place().await;
        tokio::spawn(match client {
            EgressClient::Proxied(first, client) => {
                let client = socket(client).expect("a socket");
                way.clone().serve(place, (first, client))
            }
            EgressClient::Direct(first, client) => {
                let client = socket(client).expect("a socket");
                way.clone().serve_direct(place, (first, client))
            }
        });
    }
}

async fn fetch(served: &Served<'_>, way: &Way, url: &str) -> String {
    let script = format!("python3 -c '{FETCH}' {url}");
    let fetching = async {
        tokio::select! {
            (said, _) = served.sh(&script) => said,
            () = async { bring(served, way, usize::MAX).await } => String::new(),
        }
    };
    let said = tokio::time::timeout(PATIENCE, fetching).await;
    said.expect("an answer in time").trim().to_owned()
}

fn way(served: &Served<'_>, exceptions: &[String]) -> Way {
    let exceptions = exceptions
        .iter()
        .map(|one| one.parse().expect("an exception"));
    let (proxy, _) = Proxy::new(exceptions.collect(), Resolver::system(), 64, || 0);
    let owner = Owner {
        sandbox: served.plan.handle.id.clone(),
        job: None,
    };
    proxy.way(owner, NetworkRules::all_or_nothing(true))
}

/// A server of the machine, which says `hello`.
pub(crate) async fn hello() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            drop(stream.write_all(answer).await);
        }
    });
    port
}

#[tokio::test]
async fn programs_inside_reach_what_is_allowed_and_are_told_what_is_not() {
    let world = world!();
    needs_python!();
    let served = world.serve(false).await;
    let port = hello().await;
    let open = way(&served, &[format!("127.0.0.1:{port}")]);
    let shut = way(&served, &[]);
    let here = format!("http://127.0.0.1:{port}/");
    assert_eq!(fetch(&served, &open, &here).await, "200 None hello");
    assert_eq!(fetch(&served, &shut, &here).await, "403 address_loopback");
    let named = format!("http://localhost:{port}/");
    assert_eq!(fetch(&served, &shut, &named).await, "403 address_loopback");
    let metadata = "http://169.254.169.254/latest/meta-data/";
    assert_eq!(
        fetch(&served, &open, metadata).await,
        "403 address_metadata"
    );
    // The address by which this machine would reach the world, if it has one.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    if socket.connect("192.0.2.1:9").is_ok() {
        let own = socket.local_addr().expect("an address").ip();
        let said = fetch(&served, &open, &format!("http://{own}:{port}/")).await;
        assert!(said.starts_with("403 address_"), "{own}: {said}");
    }
    served.destroy().await;
}

/// Sends much through a tunnel, says that this was all, and only then reads what comes back of it.
const ECHO: &str = r#"
import hashlib, socket, sys, threading
stream = socket.create_connection(("127.0.0.1", 3128))
target = "127.0.0.1:" + sys.argv[1]
stream.sendall(("CONNECT %s HTTP/1.1\r\nhost: %s\r\n\r\n" % (target, target)).encode())
head = b""
while b"\r\n\r\n" not in head: head += stream.recv(1)
much = bytes(n * n % 251 for n in range(65536)) * 128
def send():
    stream.sendall(much)
    stream.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
back = hashlib.sha256()
while piece := stream.recv(1 << 16): back.update(piece)
print(back.digest() == hashlib.sha256(much).digest())
"#;

/// Sends back what it gets, and closes when the other end has.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.split();
            drop(tokio::io::copy(&mut from, &mut to).await);
        }
    });
    port
}

#[tokio::test]
async fn a_stream_out_of_a_sandbox_comes_back_whole_though_its_end_was_told_first() {
    let world = world!();
    needs_python!();
    let served = world.serve(false).await;
    let port = echo().await;
    let open = way(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!("python3 -c '{ECHO}' {port}");
    let streaming = async {
        tokio::select! {
            (said, _) = served.sh(&script) => said,
            () = async { bring(&served, &open, usize::MAX).await } => String::new(),
        }
    };
    let said = tokio::time::timeout(PATIENCE, streaming).await;
    assert_eq!(said.expect("an answer in time").trim(), "True");
    served.destroy().await;
}

#[tokio::test]
async fn without_the_proxy_there_is_nothing() {
    let world = world!();
    needs_python!();
    let served = world.serve(true).await;
    let script = "python3 - <<'E'\nimport errno, socket\nfor to in [('8.8.8.8', 53), ('169.254.169.254', 80)]:\n    \
        for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:\n        s = socket.socket(socket.AF_INET, kind)\n        \
        print(errno.errorcode[s.connect_ex(to)])\nE";
    let unreachable = "ENETUNREACH\n".repeat(4);
    assert_eq!(served.sh(script).await.0, unreachable);
    // Nobody listens before the node has brought a line, or ever, where there is no way out.
    let knock =
        "python3 -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", 3128)))'";
    assert_eq!(served.sh(knock).await.0, "111\n");
    let stream = served.world.linux.connect(&served.plan.handle).await;
    let line = egress_line(stream.expect("a guest")).await.expect("a line");
    assert_eq!(served.sh(knock).await.0, "0\n");
    assert_eq!(served.sh(script).await.0, unreachable);
    drop(line);
    served.destroy().await;
}

#[tokio::test]
async fn the_way_out_is_no_way_in() {
    let world = world!();
    let served = world.serve(false).await;
    // A request that does not ask to switch is not the node's.
    assert_eq!(served.get("/egress").await.status, 400);
    let stream = served.world.linux.connect(&served.plan.handle).await;
    let _line = egress_line(stream.expect("a guest")).await.expect("a line");
    let through = hyper::Request::connect("localhost:3128");
    let through = through
        .body(http_body_util::Full::default())
        .expect("a request");
    assert_eq!(served.send(through).await.status().as_u16(), 403);
    served.destroy().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_refusal_and_not_a_sandbox_without_a_way_out() {
    let world = world!();
    needs_python!();
    let served = world.serve(false).await;
    let taking = "import socket,time; s=socket.socket(); s.bind((\"127.0.0.1\",3128)); s.listen(); print(1,flush=True); time.sleep(60)";
    let mut taken = served.start(&format!("exec python3 -c '{taking}'")).await;
    taken.until("1\n").await;
    let stream = served.world.linux.connect(&served.plan.handle).await;
    assert!(egress_line(stream.expect("a guest")).await.is_err());
    served.destroy().await;
}

#[tokio::test]
async fn clients_wait_for_the_next_node_and_a_dead_line_is_passed_over() {
    let world = world!();
    needs_python!();
    let served = world.serve(false).await;
    let port = hello().await;
    let open = way(&served, &[format!("127.0.0.1:{port}")]);
    // A node that opened the way and died, twice.
    for _ in 0..2 {
        let stream = served.world.linux.connect(&served.plan.handle).await;
        drop(egress_line(stream.expect("a guest")).await.expect("a line"));
    }
    let script = format!("python3 -c '{FETCH}' http://127.0.0.1:{port}/; echo done");
    let mut waiting = served.start(&format!("echo begun; {script}")).await;
    waiting.until("begun\n").await;
    let said = tokio::select! {
        said = waiting.until("done\n") => said,
        () = async { bring(&served, &open, usize::MAX).await } => String::new(),
    };
    assert_eq!(said, "200 None hello\ndone\n");
    served.destroy().await;
}
