//! A proxy, a client of it, and servers outside.

use bytes::Bytes;
use egress::exception::Exception;
use egress::proxy::{Proxy, Way};
use egress::record::{EgressRecord, Owner, Verdict};
use egress::resolve::Resolver;
use model::network::{NetworkAsked, NetworkMode, NetworkRules};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Nothing here takes longer, unless it never ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) way: Way,
    pub(crate) records: mpsc::Receiver<EgressRecord>,
}

impl World {
    /// The loopback is open on every port, and `*.test` is there.
    pub(crate) fn open() -> World {
        World::new(&["127.0.0.1"], open())
    }

    pub(crate) fn new(exceptions: &[&str], rules: NetworkRules) -> World {
        World::with(exceptions, rules, World::resolver())
    }

    pub(crate) fn resolver() -> Resolver {
        Resolver::with(|name| {
            Box::pin(async move {
                if name.ends_with(".test") {
                    Ok(vec![IpAddr::from([127, 0, 0, 1])])
                } else {
                    Err(io::ErrorKind::NotFound.into())
                }
            })
        })
    }

    pub(crate) fn with(exceptions: &[&str], rules: NetworkRules, resolver: Resolver) -> World {
        World::at(|| 7, exceptions, rules, resolver)
    }

    /// The same with this clock, in milliseconds since 1970.
    pub(crate) fn at(
        now_ms: fn() -> u64,
        exceptions: &[&str],
        rules: NetworkRules,
        resolver: Resolver,
    ) -> World {
        let exceptions: Vec<Exception> = exceptions
            .iter()
            .map(|one| one.parse().expect("the loopback works"))
            .collect();
        let (proxy, records) = Proxy::new(exceptions, resolver, 64, now_ms);
        let way = proxy.way(owner(), rules);
        World {
            proxy,
            way,
            records,
        }
    }

    /// A connection to the proxy.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let way = self.way.clone();
        tokio::spawn(async move {
            let place = way.place().await;
            way.clone().serve(place, (Bytes::new(), theirs)).await;
        });
        ours
    }

    /// What is answered to these bytes: a head at least, or nothing.
    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // It may have closed already.
        drop(stream.write_all(bytes.as_ref()).await);
        let mut all = Vec::new();
        let reading = async {
            while stream.read_buf(&mut all).await.is_ok_and(|n| n > 0) {
                if all.windows(4).any(|four| four == b"\r\n\r\n") {
                    return;
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("an answer in time");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// One GET, with `connection: close`.
    pub(crate) async fn get(&self, url: &str) -> String {
        let host = url.split('/').nth(2).unwrap_or_default();
        let mut stream = self.connect();
        let head = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the loopback works");
        read_all(&mut stream).await
    }

    /// The reason of the next record, and its host.
    pub(crate) async fn next(&mut self) -> EgressRecord {
        let record = tokio::time::timeout(PATIENCE, self.records.recv()).await;
        record.expect("a record in time").expect("a record")
    }

    pub(crate) async fn next_code(&mut self) -> &'static str {
        match self.next().await.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied(reason) | Verdict::Failed(reason) => reason.code(),
        }
    }
}

pub(crate) fn owner() -> Owner {
    let sandbox = "sbx_0193a5c0b4a07000800000000000000a";
    Owner {
        sandbox: sandbox.parse().expect("the loopback works"),
        job: None,
    }
}

/// Everything public.
pub(crate) fn open() -> NetworkRules {
    NetworkRules::all_or_nothing(true)
}

/// Rules with these lists.
pub(crate) fn lists(mode: NetworkMode, allow: &[&str], deny: &[&str]) -> NetworkRules {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let asked = NetworkAsked {
        mode: Some(mode),
        allow: texts(allow),
        deny: texts(deny),
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).expect("sound rules")
}

/// Everything up to the end.
pub(crate) async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let reading = async { while stream.read_buf(&mut all).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an end in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Everything up to and including these words.
pub(crate) async fn read_until(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    words: &str,
) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(words) {
            assert!(
                stream.read_buf(&mut all).await.expect("the loopback works") > 0,
                "{all:?}"
            );
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(
        read.is_ok(),
        "the words in time: {}",
        String::from_utf8_lossy(&all)
    );
    String::from_utf8_lossy(&all).into_owned()
}

/// A server that answers each connection with these bytes once it has read the end of a head, then closes. What it
/// read comes out.
pub(crate) async fn server(answer: impl Into<Vec<u8>>) -> (u16, mpsc::Receiver<String>) {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback works");
    let port = listener.local_addr().expect("the loopback works").port();
    let (seen, read) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), seen.clone());
            tokio::spawn(async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                drop(stream.write_all(&answer).await);
                drop(stream.shutdown().await);
                let rest = read_all(&mut stream).await;
                drop(seen.send(head + &rest).await);
            });
        }
    });
    (port, read)
}

/// A listener that nobody may reach.
pub(crate) async fn trap() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback works");
    (
        listener.local_addr().expect("the loopback works").port(),
        listener,
    )
}

/// Whether nobody has connected to it.
pub(crate) async fn is_untouched(trap: &TcpListener) -> bool {
    // A connection of our own comes through, so whatever came before it would be first in line.
    let own = TcpStream::connect(trap.local_addr().expect("the loopback works"))
        .await
        .expect("the loopback works");
    let (_, peer) = trap.accept().await.expect("the loopback works");
    peer == own.local_addr().expect("the loopback works")
}
