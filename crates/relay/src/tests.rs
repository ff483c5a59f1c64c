use super::*;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Nothing here takes longer, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(20);

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

fn share(most: usize) -> Share {
    Share::of(Arc::new(Pipes::new(most)), most)
}

fn numbers(count: usize) -> Vec<u8> {
    let number = |n: usize| u8::try_from(n / 7 % 251).unwrap();
    (0..count).map(number).collect()
}

/// Two ends that programs have, and the relay between them.
async fn between(
    share: Arc<Share>,
) -> (
    UnixStream,
    TcpStream,
    tokio::task::JoinHandle<io::Result<()>>,
) {
    let (program, one) = UnixStream::pair().unwrap();
    let (other, outside) = tcp().await;
    let relay = tokio::spawn(async move { both(&one, &other, &share).await });
    (program, outside, relay)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("an end in time")
}

/// Both directions at once, each with more than fits anywhere, and each closed by itself.
async fn carries_all(share: Share) {
    const BYTES: usize = 5_000_011;
    let share = Arc::new(share);
    let (program, outside, relay) = between(share.clone()).await;
    let sent = numbers(BYTES);
    let (mut from, mut to) = program.into_split();
    let (mut outside_from, mut outside_to) = outside.into_split();
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let writing = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let answering = async {
        outside_to.write_all(&sent[1..]).await.unwrap();
        outside_to.shutdown().await.unwrap();
    };
    soon(async {
        let reading = outside_from.read_to_end(&mut out);
        let hearing = from.read_to_end(&mut back);
        let (read, heard, (), ()) = tokio::join!(reading, hearing, writing, answering);
        (read.unwrap(), heard.unwrap())
    })
    .await;
    assert!(out == sent && back == sent[1..]);
    soon(relay).await.unwrap().unwrap();
    assert_eq!(share.held(), 0);
}

#[tokio::test]
async fn every_byte_comes_out_once_and_in_order_both_ways_at_once() {
    carries_all(share(2)).await;
}

#[tokio::test]
async fn without_a_pipe_a_buffer_does_it() {
    carries_all(share(0)).await;
    // One direction with, the other without.
    carries_all(share(1)).await;
}

#[tokio::test]
async fn an_end_that_has_said_all_still_hears_the_other() {
    let (mut program, mut outside, relay) = between(Arc::new(share(2))).await;
    program.write_all(b"question").await.unwrap();
    program.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(outside.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"question");
    for word in [&b"late "[..], b"answer"] {
        outside.write_all(word).await.unwrap();
    }
    outside.shutdown().await.unwrap();
    all.clear();
    soon(program.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"late answer");
    soon(relay).await.unwrap().unwrap();
    // And the other way round.
    let (mut program, mut outside, relay) = between(Arc::new(share(2))).await;
    outside.shutdown().await.unwrap();
    assert_eq!(soon(program.read(&mut [0; 8])).await.unwrap(), 0);
    program.write_all(b"still here").await.unwrap();
    drop(program);
    all.clear();
    soon(outside.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"still here");
    soon(relay).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_end_that_breaks_ends_the_other() {
    let (mut program, outside, relay) = between(Arc::new(share(2))).await;
    // Closed with a reset.
    rustix::net::sockopt::set_socket_linger(&outside, Some(Duration::ZERO)).unwrap();
    drop(outside);
    assert!(soon(relay).await.unwrap().is_err());
    assert_eq!(soon(program.read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn who_says_nothing_holds_nothing() {
    let share = Arc::new(share(64));
    let mut all = Vec::new();
    for _ in 0..50 {
        let (mut program, mut outside, relay) = between(share.clone()).await;
        let mut word = [0; 4];
        program.write_all(b"word").await.unwrap();
        soon(outside.read_exact(&mut word)).await.unwrap();
        outside.write_all(b"back").await.unwrap();
        soon(program.read_exact(&mut word)).await.unwrap();
        assert_eq!(&word, b"back");
        all.push((program, outside, relay));
    }
    // The relays are where they wait once they had a turn after the last word.
    for _ in 0..1000 {
        if share.held() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(share.held(), 0);
    assert!(share.kept() <= 2, "{}", share.kept());
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer_and_what_it_left_comes_out_nowhere_else() {
    let share = Arc::new(share(1));
    let (program, mut outside, relay) = between(share.clone()).await;
    let piece = vec![1; 64 * 1024];
    let mut taken = 0;
    // As long as there is room anywhere: the kernel's buffers, of which TCP's grow, and one pipe.
    while let Ok(wrote) =
        tokio::time::timeout(Duration::from_millis(300), write(&program, &piece)).await
    {
        taken += wrote;
        assert!(taken < 64 << 20, "it grows without an end");
    }
    assert_eq!((share.held(), share.kept()), (1, 0));
    relay.abort();
    assert!(soon(relay).await.unwrap_err().is_cancelled());
    // The pipe was not empty, and is gone.
    assert_eq!((share.held(), share.kept()), (0, 0));
    let mut first = [0; 1024];
    soon(outside.read_exact(&mut first)).await.unwrap();
    assert_eq!(first, [1; 1024]);
    let (mut program, mut outside, _relay) = between(share).await;
    program.write_all(b"new").await.unwrap();
    let mut all = [0; 3];
    soon(outside.read_exact(&mut all)).await.unwrap();
    assert_eq!(&all, b"new");
}

async fn write(to: &UnixStream, bytes: &[u8]) -> usize {
    loop {
        to.writable().await.unwrap();
        if let Ok(count) = to.try_write(bytes) {
            return count;
        }
    }
}

/// An end that may have so many bytes.
struct Bounded {
    io: TcpStream,
    left: AtomicUsize,
}

impl Bounded {
    fn give_back(&self, reserved: usize, bytes: usize) {
        let unused = reserved.checked_sub(bytes);
        let unused = unused.expect("not more than there was room for");
        self.left.fetch_add(unused, Ordering::Relaxed);
    }
}

impl End for Bounded {
    fn fd(&self) -> BorrowedFd<'_> {
        self.io.fd()
    }

    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<()>> + Send {
        End::ready(&self.io, interest)
    }

    fn when_ready<R>(
        &self,
        interest: Interest,
        deed: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.io.when_ready(interest, deed)
    }

    fn reserve(&self, most: usize) -> io::Result<usize> {
        let less = |left: usize| (left > 0).then(|| left.saturating_sub(most));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = self.left.fetch_update(set, fetch, less);
        let before = before.map_err(|_| io::ErrorKind::QuotaExceeded)?;
        Ok(before.min(most))
    }

    fn came(&self, reserved: usize, bytes: usize) {
        self.give_back(reserved, bytes);
    }

    fn went(&self, reserved: usize, bytes: usize) {
        self.give_back(reserved, bytes);
    }
}

#[tokio::test]
async fn no_byte_more_passes_than_there_is_room_for() {
    const ROOM: usize = 700_001;
    for pipes in [0, 2] {
        for is_out in [true, false] {
            let (program, one) = UnixStream::pair().unwrap();
            let (io, outside) = tcp().await;
            let left = AtomicUsize::new(ROOM);
            let share = share(pipes);
            let relay = tokio::spawn(async move {
                let ended = both(&one, &Bounded { io, left }, &share).await;
                ended.unwrap_err().kind()
            });
            let sent = numbers(ROOM + 100_000);
            let mut got = Vec::new();
            let (mut program_from, mut program_to) = program.into_split();
            let (mut outside_from, mut outside_to) = outside.into_split();
            soon(async {
                // Whoever writes more than there is room for may be told.
                if is_out {
                    let writing = program_to.write_all(&sent);
                    drop(tokio::join!(writing, outside_from.read_to_end(&mut got)));
                } else {
                    let writing = outside_to.write_all(&sent);
                    drop(tokio::join!(writing, program_from.read_to_end(&mut got)));
                }
            })
            .await;
            assert_eq!(soon(relay).await.unwrap(), io::ErrorKind::QuotaExceeded);
            assert!(got == sent[..ROOM], "{} of {ROOM}", got.len());
        }
    }
}
