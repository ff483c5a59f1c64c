//! Fuzz targets: what a sandbox sends first. See `fuzz/engine.rs`.

#[path = "../../../fuzz/engine.rs"]
mod engine;

use crate::greeting::{self, Greeting};
use crate::proxy::{Proxy, Way};
use crate::record::{EgressRecord, Owner, Verdict};
use crate::resolve::Resolver;
use bytes::Bytes;
use model::network::{NetworkAsked, NetworkMode, NetworkRules};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Requests, tunnels and SOCKS, good and bad.
fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 14] = [
        b"GET http://open.test/x HTTP/1.1\r\nhost: open.test\r\n\r\n",
        b"GET http://open.test:8080/ HTTP/1.0\r\n\r\n",
        b"POST http://open.test/ HTTP/1.1\r\nhost: open.test\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST http://open.test/ HTTP/1.1\r\nhost: open.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"POST http://open.test/ HTTP/1.1\r\nhost: open.test\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET http://other.test/ HTTP/1.1\r\nhost: other.test\r\n\r\n",
        b"CONNECT open.test:443 HTTP/1.1\r\nhost: open.test:443\r\n\r\n\x16\x03\x01\0\x05",
        b"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nhost: [::ffff:127.0.0.1]:443\r\n\r\n",
        b"GET http://127.0.0.1/ HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: x, close\r\nx: y\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: open.test\r\n\r\n",
        b"\x05\x01\0\x05\x01\0\x03\x09open.test\x01\xbb\x16\x03\x01",
        b"\x05\x02\0\x02\x05\x01\0\x01\x7f\0\0\x01\0P",
        b"\x05\x01\0\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0P",
        b"\x05\x01\x02",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    texts.iter().map(|text| text.to_vec()).collect()
}

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b":",
    b"@",
    b"host: other.test\r\n",
    b"open.test",
    b"other.test",
    b"127.0.0.1",
    b"[::1]",
    b"http://",
    b"0x7f.1",
    b"2130706433",
    b"transfer-encoding: chunked\r\n",
    b"content-length: 0\r\n",
    b"connection: host\r\n",
    b"CONNECT ",
    b" HTTP/1.1",
    b"\x05\x01\0",
    b"\x16\x03\x01",
    b"\xfe\x0d\0\x01\0",
    b"%",
    b"xn--",
    b"..",
];

/// A way out on which one name is allowed, and what came of it.
struct World {
    way: Way,
    records: tokio::sync::mpsc::Receiver<EgressRecord>,
    /// The names that anybody asked for. Nobody answers.
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> World {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let asking = asked.clone();
        let resolver = Resolver::with(move |name| {
            asking.lock().unwrap().push(name);
            Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
        });
        let (proxy, records) = Proxy::new(Vec::new(), resolver, 64, || 0);
        let rules = NetworkAsked {
            mode: Some(NetworkMode::Allowlist),
            allow: vec!["open.test".to_owned()],
            ..NetworkAsked::default()
        };
        let owner = Owner {
            sandbox: "sbx_0193a5c0b4a07000800000000000000a".parse().unwrap(),
            job: None,
        };
        let way = proxy.way(owner, NetworkRules::read(&rules).unwrap());
        World {
            way,
            records,
            asked,
        }
    }

    /// What is answered to a client that says this and no more, once the connection is over.
    async fn answer(&self, input: &[u8], is_direct: bool) -> Vec<u8> {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let place = self.way.place().await;
        let serving = if is_direct {
            self.way.clone().serve_direct(place, (Bytes::new(), theirs))
        } else {
            self.way.clone().serve(place, (Bytes::new(), theirs))
        };
        let talking = async {
            drop(ours.write_all(input).await);
            drop(ours.shutdown().await);
            let mut answer = Vec::new();
            drop(ours.read_to_end(&mut answer).await);
            answer
        };
        tokio::join!(talking, serving).0
    }

    /// Nothing but the one name was asked for, and nothing was let out.
    fn check(&mut self) {
        let mut asked = self.asked.lock().unwrap();
        assert!(asked.drain(..).all(|name| name == "open.test"));
        while let Ok(record) = self.records.try_recv() {
            assert_ne!(record.verdict, Verdict::Allowed);
        }
    }
}

/// All of a client: it ends, and lets nothing out.
fn client(is_direct: bool) -> impl FnMut(&[u8]) {
    // Paused: what is waited for has been waited for when nothing else can happen.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (mut world, mut count) = (World::new(), 0);
    move |input: &[u8]| {
        // One that asked too often would be refused for that alone.
        count += 1;
        if count % 1000 == 0 {
            world = World::new();
        }
        let answer = runtime.block_on(world.answer(input, is_direct));
        let is_known = match answer.first() {
            None | Some(0..=5) => true,
            Some(_) => answer.starts_with(b"HTTP/1.") && !answer.starts_with(b"HTTP/1.1 2"),
        };
        assert!(is_known, "{}", answer.escape_ascii());
        world.check();
    }
}

#[test]
fn heads_of_http_and_socks_let_nothing_out_that_is_not_allowed() {
    engine::run("egress head", &seeds(), WORDS, client(false));
}

#[test]
fn questions_of_the_guest_let_nothing_out_that_is_not_allowed() {
    let questions = [
        b"\x01\x01\xbb\x09open.test".to_vec(),
        b"\x02\0\0\x09open.test".to_vec(),
        b"\x01\0P\x0a[::1]:8080".to_vec(),
        b"\x01\0P\x09127.0.0.1GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
    ];
    engine::run("egress question", &questions, WORDS, client(true));
}

/// What a greeting is does not change when more comes: however its sender cuts it, it is judged alike.
fn first_bytes(input: &[u8]) {
    let input = &input[..input.len().min(3000)];
    let whole = greeting::read(input);
    for cut in [
        input.len() / 3,
        input.len() / 2,
        input.len().saturating_sub(1),
    ] {
        let part = greeting::read(&input[..cut]);
        assert!(
            part == Greeting::Unfinished || part == whole,
            "{part:?} became {whole:?}"
        );
    }
}

#[test]
fn first_bytes_of_a_tunnel_are_judged_alike_however_they_are_cut() {
    let mut all = seeds();
    all.extend([
        b"GET / HTTP/1.1\r\nhost: open.test\r\n\r\n".to_vec(),
        b"\r\nGET / HTTP/1.1\nHost : other.test\n\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        // A ClientHello for open.test, in one record and in two.
        b"\x16\x03\x01\0\x45\x01\0\0\x41\x03\x03\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\x02\x13\x01\x01\0\0\x16\0\0\0\x0e\0\x0c\0\0\x09open.test\0\x2b\0\0".to_vec(),
        b"\x16\x03\x01\0\x03\x01\0\0\x16\x03\x01\0\x02\x41\x03".to_vec(),
        // The same with Encrypted Client Hello behind the name.
        b"\x16\x03\x01\0\x4f\x01\0\0\x4b\x03\x03\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\x02\x13\x01\x01\0\0\x20\0\0\0\x0e\0\x0c\0\0\x09open.test\xfe\x0d\0\x0a\0\0\x01\0\x01\x07\0\0\0\0".to_vec(),
    ]);
    engine::run("egress greeting", &all, WORDS, first_bytes);
}

/// What a server of DNS says is read to its end, or is nothing.
#[test]
fn answers_of_dns_are_read_or_refused() {
    let seeds = [
        b"\xab\xcd\x81\x80\0\x01\0\x01\0\0\0\0\x04open\x04test\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x09\x09\x09\x09".to_vec(),
        b"\xab\xcd\x81\x80\0\x01\0\x02\0\0\0\0\x04open\x04test\0\0\x1c\0\x01\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01a\xc0\x11\xc0\x27\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec(),
        b"\xab\xcd\x83\x80\0\x01\0\0\0\0\0\0\x04open\x04test\0\0\x01\0\x01".to_vec(),
    ];
    let words: [&[u8]; 8] = [
        b"\xc0\x0c",
        b"\xc0\x11",
        b"\0\x01\0\x01",
        b"\0\x05\0\x01",
        b"\0\x1c\0\x01",
        b"\x04open\x04test\0",
        b"\xff\xff",
        b"\x3f",
    ];
    engine::run("egress dns", &seeds, &words, |answer| {
        if let Some(found) = crate::dns::read_any(answer) {
            // An address is ten bytes of a record and four of itself at least.
            assert!(found.len() * 14 <= answer.len());
        }
    });
}
