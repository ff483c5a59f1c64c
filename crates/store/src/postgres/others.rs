//! Other processes on the same database: telling them that something was written, and hearing it.
//!
//! What is told carries nothing, so that it can be told once for a hundred changes, get lost, or come from
//! somebody who has no business here. It goes over connections of its own: told in the transaction of a change, it
//! would make all commits of the database wait for each other (PostgreSQL takes one lock for all that notify).

use super::{Address, connect};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::watch;

/// What is told on. Not a name that another program on the same database has.
const TELL: &str = "NOTIFY cofferdam";
const LISTEN: &str = "LISTEN cofferdam";
/// Time between two tellings: all that is written meanwhile is told at once.
const TELL_EVERY: Duration = Duration::from_millis(5);
/// Time between two tries to connect, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// How often the one who listens looks whether anybody still wants to hear, and whether the connection is there.
const LOOK: Duration = Duration::from_secs(1);

/// Both ways.
#[derive(Debug, Clone)]
pub(crate) struct Others {
    tell: SyncSender<()>,
    heard: watch::Receiver<u64>,
}

impl Others {
    /// Starts the threads; they end with the last of the clones.
    pub(super) fn start(address: &Address) -> std::io::Result<Others> {
        let (tell, asked) = sync_channel(1);
        let (hears, heard) = watch::channel(0);
        // Of the connection that tells, so that the one that listens does not take our own words for another's.
        let own = Arc::new(AtomicI32::new(0));
        let (to_tell, to_hear) = (address.clone(), address.clone());
        let told_by = own.clone();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        thread("store-tell").spawn(move || tell_all(&to_tell, &asked, &told_by))?;
        thread("store-listen").spawn(move || listen(&to_hear, &hears, &own))?;
        Ok(Others { tell, heard })
    }

    pub(crate) fn tell(&self) {
        // One that is asked for already is for this too.
        let _ = self.tell.try_send(());
    }

    pub(crate) fn heard(&self) -> watch::Receiver<u64> {
        self.heard.clone()
    }
}

fn tell_all(address: &Address, asked: &Receiver<()>, own: &AtomicI32) {
    let mut client: Option<postgres::Client> = None;
    let mut pause = PAUSE_FIRST;
    while asked.recv().is_ok() {
        let told = match client.take().filter(|client| !client.is_closed()) {
            Some(mut open) => open.batch_execute(TELL).map(|()| open),
            None => first_told(address, own),
        };
        match told {
            Ok(open) => {
                (client, pause) = (Some(open), PAUSE_FIRST);
                std::thread::sleep(TELL_EVERY);
            }
            // What was to be told is lost; others find it by looking.
            Err(error) => {
                tracing::debug!(%error, "failed to tell other servers");
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

fn first_told(address: &Address, own: &AtomicI32) -> Result<postgres::Client, postgres::Error> {
    let mut client = connect(address)?;
    let row = client.query_one("SELECT pg_backend_pid()", &[])?;
    own.store(row.get(0), Ordering::Release);
    client.batch_execute(TELL)?;
    Ok(client)
}

fn listen(address: &Address, hears: &watch::Sender<u64>, own: &AtomicI32) {
    let mut pause = PAUSE_FIRST;
    while !hears.is_closed() {
        match connect(address).and_then(|mut client| {
            client.batch_execute(LISTEN)?;
            Ok(client)
        }) {
            Ok(mut client) => {
                pause = PAUSE_FIRST;
                // Whatever was told while nobody listened.
                hears.send_modify(|count| *count += 1);
                hear(&mut client, hears, own);
            }
            Err(error) => tracing::debug!(%error, "failed to listen to other servers"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Hears until the connection breaks or nobody wants to hear.
fn hear(client: &mut postgres::Client, hears: &watch::Sender<u64>, own: &AtomicI32) {
    use postgres::fallible_iterator::FallibleIterator as _;
    while !hears.is_closed() && !client.is_closed() {
        let first = client.notifications().timeout_iter(LOOK).next();
        let mut is_news = match first {
            Ok(Some(one)) => one.process_id() != own.load(Ordering::Acquire),
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, "the connection to other servers broke");
                return;
            }
        };
        // What came with it is no more news.
        while let Ok(Some(one)) = client.notifications().iter().next() {
            is_news |= one.process_id() != own.load(Ordering::Acquire);
        }
        if is_news {
            hears.send_modify(|count| *count += 1);
        }
    }
}
