//! Tunnels between real sockets, whose bytes stay in the kernel.

use crate::world::{PATIENCE, World, lists, open, read_until, trap};
use bytes::Bytes;
use egress::record::Verdict;
use model::network::{NetworkMode, NetworkRules};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A connection to the proxy over a socket, as a guest's is.
fn connect(world: &World) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let way = world.way.clone();
    tokio::spawn(async move {
        let place = way.place().await;
        way.clone().serve(place, (Bytes::new(), theirs)).await;
    });
    ours
}

/// Both ends of a tunnel through the proxy. `x` and `y` were said by each.
async fn tunnel(world: &World) -> (UnixStream, TcpStream) {
    let (port, listener) = trap().await;
    let mut program = connect(world);
    let head = format!("CONNECT one.test:{port} HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n\0");
    program.write_all(head.as_bytes()).await.expect("room");
    let mut outside = accept(&listener).await;
    // Nothing that a request could begin with, so that the kernel carries the rest.
    assert_eq!(outside.read_u8().await.expect("a byte"), 0);
    outside.write_all(b"y").await.expect("room");
    let answer = read_until(&mut program, "\r\n\r\ny").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    (program, outside)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
    accepted.expect("a connection in time").expect("one").0
}

async fn all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = stream.read_to_end(&mut all);
    // A reset is an end too.
    drop(
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an end in time"),
    );
    all
}

#[tokio::test]
async fn each_end_closes_by_itself_and_the_record_has_every_byte() {
    const OUT: usize = 3_000_017;
    const BACK: usize = 2_000_003;
    let mut world = World::open();
    let (mut program, mut outside) = tunnel(&world).await;
    let sending = async {
        program.write_all(&vec![7; OUT]).await.expect("room");
        program.shutdown().await.expect("an end");
    };
    let (read, ()) = tokio::join!(all(&mut outside), sending);
    assert!(read == vec![7; OUT]);
    // The other direction is open still.
    let answering = async {
        outside.write_all(&vec![8; BACK]).await.expect("room");
        outside.shutdown().await.expect("an end");
    };
    let (read, ()) = tokio::join!(all(&mut program), answering);
    assert!(read == vec![8; BACK]);
    let record = world.next().await;
    assert_eq!(record.verdict, Verdict::Allowed);
    let passed = (record.bytes_out, record.bytes_in);
    assert_eq!(passed, (OUT as u64 + 1, BACK as u64 + 1));
}

#[tokio::test]
async fn a_tunnel_is_cut_in_the_middle_of_a_stream_by_rules_that_changed() {
    let mut world = World::open();
    let (mut program, mut outside) = tunnel(&world).await;
    let (reading, sending) = (all(&mut outside), async {
        // Until it is cut.
        while program.write_all(&[7; 50_000]).await.is_ok() {}
    });
    let changing = async {
        // Something of it has passed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        world
            .way
            .set_rules(lists(NetworkMode::Allowlist, &["b.test"], &[]));
    };
    let (read, (), ()) = tokio::join!(reading, sending, changing);
    let record = world.next().await;
    let Verdict::Denied(reason) = record.verdict else {
        panic!("{record:?}")
    };
    assert_eq!(reason.code(), "host_not_allowed");
    // What it was told to send is what is recorded; a reset may have taken the last of it from the reader.
    assert!(record.bytes_out > read.len() as u64 && read.len() > 50_000);
}

fn at_most(bytes: u64) -> NetworkRules {
    let mut rules = open();
    rules.caps.bytes = Some(bytes);
    rules
}

#[tokio::test]
async fn a_cap_is_met_to_the_byte_in_each_direction() {
    const CAP: u64 = 1_000_003;
    for is_out in [true, false] {
        let mut world = World::new(&["127.0.0.1"], at_most(CAP));
        let (mut program, mut outside) = tunnel(&world).await;
        let much = vec![7; 3_000_000];
        let read = if is_out {
            let (read, _) = tokio::join!(all(&mut outside), program.write_all(&much));
            read
        } else {
            let (read, _) = tokio::join!(all(&mut program), outside.write_all(&much));
            read
        };
        // The first bytes count too.
        assert_eq!(read.len() as u64 + 2, CAP);
        let record = world.next().await;
        assert_eq!(record.bytes_out + record.bytes_in, CAP);
        let Verdict::Denied(reason) = record.verdict else {
            panic!("{record:?}")
        };
        assert_eq!(reason.code(), "byte_limit");
    }
}

#[tokio::test]
async fn a_reset_from_outside_ends_the_tunnel() {
    let mut world = World::open();
    let (mut program, outside) = tunnel(&world).await;
    outside.set_zero_linger().expect("a socket");
    drop(outside);
    assert_eq!(all(&mut program).await, b"");
    let record = world.next().await;
    assert_eq!((record.bytes_out, record.bytes_in), (1, 1));
}

#[tokio::test]
async fn a_program_that_goes_away_ends_the_tunnel() {
    let mut world = World::open();
    let (program, mut outside) = tunnel(&world).await;
    outside.write_all(b"unread").await.expect("room");
    drop(program);
    assert_eq!(all(&mut outside).await, b"");
    drop(outside);
    assert_eq!(world.next().await.bytes_out, 1);
}

/// Descriptors of this process that are pipes.
fn pipes() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let names = all
        .flatten()
        .filter_map(|one| std::fs::read_link(one.path()).ok());
    names
        .filter(|name| name.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[tokio::test]
async fn tunnels_that_idle_hold_no_pipe_and_slow_readers_a_bounded_number() {
    let world = World::open();
    let before = pipes();
    let mut tunnels = Vec::new();
    for _ in 0..60 {
        tunnels.push(tunnel(&world).await);
    }
    // A few are kept for the next stream.
    assert!(pipes() <= before + 16, "{} pipes", pipes() - before);
    for (program, _) in &mut tunnels {
        // All that there is room for, and nobody reads it.
        let write = async { while program.write(&[7; 64 * 1024]).await.is_ok() {} };
        drop(tokio::time::timeout(Duration::from_millis(50), write).await);
    }
    // Of 60 that would each hold one.
    assert!(pipes() <= before + 64 + 16, "{} pipes", pipes() - before);
    // Those that got none go on all the same.
    for (mut program, mut outside) in tunnels {
        let draining = async {
            drop(program.shutdown().await);
            all(&mut outside).await.len()
        };
        assert!(draining.await > 64 * 1024);
    }
}
