//! A driver that isolates nothing and runs nothing: for tests of everything above it.
//!
//! It is a whole driver: its sandboxes are files in a directory, so they outlive the process as real
//! ones do, and a guest answers on each connection. What its commands do is in their arguments:
//! `fake exit=3 sleep=50 print=hello flood=1000000`, with times in milliseconds. Knobs of the driver
//! itself make it refuse, hang or leak. A sandbox that was told to live on answers HTTP, see [`live`].

mod live;

use crate::driver::{
    Body, Counted, Doing, Driver, DriverError, Ended, Found, HANDLE_VERSION, Handle, Plan, Spec,
    Unsupported,
};
use crate::guest::GuestStream;
use crate::host::Host;
use ::guest::message::{self, Confine, Exited, FromGuest, Start, ToGuest, VERSION};
use ::guest::wire::{self, Kind};
use model::enforcement::{Enforced, Held};
use model::id::SandboxId;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The driver's name.
pub const NAME: &str = "fake";

/// While a file of this name is in its directory, no network device can be made.
const NO_DEVICE: &str = "no-device";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Knobs {
    /// Plans are refused.
    pub refuse: bool,
    /// Starting fails.
    pub fail: bool,
    /// Guests never answer.
    pub hang: bool,
}

/// The driver.
#[derive(Debug)]
pub struct Fake {
    dir: PathBuf,
    knobs: Knobs,
}

impl Fake {
    /// A driver whose sandboxes are files in `dir`.
    ///
    /// # Errors
    /// Those of making the directory.
    pub fn new(dir: &Path, knobs: Knobs) -> io::Result<Fake> {
        std::fs::create_dir_all(dir)?;
        Ok(Fake {
            dir: dir.to_owned(),
            knobs,
        })
    }

    fn file(&self, id: &SandboxId) -> PathBuf {
        self.dir.join(id.as_str())
    }
}

impl Driver for Fake {
    fn name(&self) -> &'static str {
        NAME
    }

    fn plan(&self, spec: &Spec, _host: &Host) -> Result<Plan, Vec<Unsupported>> {
        if self.knobs.refuse {
            let why = "the fake driver was told to refuse".to_owned();
            return Err(vec![Unsupported {
                clause: "everything".to_owned(),
                why,
            }]);
        }
        if !spec.volumes.is_empty() {
            return Err(vec![Unsupported {
                clause: "volumes".to_owned(),
                why: "the fake driver keeps none".to_owned(),
            }]);
        }
        let isolation = Enforced {
            clause: "isolation".to_owned(),
            how: "none: this is the fake driver".to_owned(),
            value: None,
            asked: false,
            state: Held::NotHeld,
        };
        let rlimits = Vec::new();
        let seccomp = Vec::new();
        Ok(Plan {
            handle: self.handle(&spec.id),
            life: spec.life,
            enforced: vec![isolation],
            confine: Confine {
                uid: 1000,
                gid: 1000,
                rlimits,
                landlock: None,
                seccomp,
            },
            body: Body::Fake,
        })
    }

    fn start<'d>(&'d self, plan: &'d Plan) -> Doing<'d, ()> {
        Box::pin(async move {
            if self.knobs.fail {
                let source = io::Error::from(io::ErrorKind::Other);
                return Err(DriverError::SetUp {
                    step: "fake".to_owned(),
                    source,
                });
            }
            std::fs::write(self.file(&plan.handle.id), b"").map_err(broken)
        })
    }

    fn find<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Found> {
        Box::pin(async move {
            let there = self.file(&handle.id).exists();
            Ok(if there { Found::Running } else { Found::Gone })
        })
    }

    fn connect<'d>(&'d self, handle: &'d Handle) -> Doing<'d, GuestStream> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let guest = FakeGuest {
                file: self.file(&handle.id),
                io: theirs,
            };
            if self.knobs.hang {
                tokio::spawn(async move {
                    let _held = guest;
                    std::future::pending::<()>().await;
                });
            } else {
                // A connection that breaks is the other end's business.
                tokio::spawn(async move { drop(guest.serve().await) });
            }
            Ok(Box::new(ours) as GuestStream)
        })
    }

    fn ended<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Ended> {
        Box::pin(async move {
            while self.file(&handle.id).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(Ended {
                failure: None,
                deadline: false,
            })
        })
    }

    fn extend<'d>(&'d self, _handle: &'d Handle, _life: Duration) -> Doing<'d, ()> {
        Box::pin(async { Ok(()) })
    }

    fn network<'d>(&'d self, _handle: &'d Handle) -> Doing<'d, ()> {
        Box::pin(async {
            if self.dir.join(NO_DEVICE).exists() {
                return Err(broken(io::Error::other("there is no device today")));
            }
            Ok(())
        })
    }

    fn pause<'d>(&'d self, _handle: &'d Handle, _paused: bool) -> Doing<'d, ()> {
        Box::pin(async { Ok(()) })
    }

    /// A pretence: a directory with nothing in it.
    fn save<'d>(&'d self, _handle: &'d Handle, to: &'d Path) -> Doing<'d, u64> {
        Box::pin(async move {
            std::fs::create_dir(to).map_err(broken)?;
            Ok(0)
        })
    }

    fn counted<'d>(&'d self, _handle: &'d Handle) -> Doing<'d, Counted> {
        Box::pin(async { Ok(Counted::default()) })
    }

    fn counting<'d>(&'d self, _handle: &'d Handle) -> Doing<'d, Counted> {
        Box::pin(async { Ok(Counted::default()) })
    }

    fn destroy<'d>(&'d self, handle: &'d Handle) -> Doing<'d, ()> {
        Box::pin(async move {
            match std::fs::remove_file(self.file(&handle.id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(error)),
                _ => Ok(()),
            }
        })
    }

    fn list(&self) -> Doing<'_, Vec<SandboxId>> {
        Box::pin(async move {
            let entries = std::fs::read_dir(&self.dir).map_err(broken)?;
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            Ok(names.filter_map(|name| name.parse().ok()).collect())
        })
    }

    fn handle(&self, id: &SandboxId) -> Handle {
        let (driver, body) = (NAME.to_owned(), String::new());
        Handle {
            version: HANDLE_VERSION,
            driver,
            id: id.clone(),
            body,
        }
    }
}

fn broken(source: io::Error) -> DriverError {
    DriverError::Io {
        what: "keep a fake sandbox".to_owned(),
        source,
    }
}

/// What a fake command does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Act {
    exit: i32,
    sleep_ms: u64,
    print: String,
    flood: usize,
}

impl Act {
    fn printed(&self) -> Vec<u8> {
        [self.print.as_bytes(), &vec![b'x'; self.flood]].concat()
    }
}

/// Reads what to do from arguments; what is not understood is nothing.
fn act(argv: &[String]) -> Act {
    let mut act = Act::default();
    for (key, value) in argv.iter().filter_map(|argument| argument.split_once('=')) {
        match key {
            "exit" => act.exit = value.parse().unwrap_or(0),
            "sleep" => act.sleep_ms = value.parse().unwrap_or(0),
            "print" => value.clone_into(&mut act.print),
            "flood" => act.flood = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    act
}

/// How the file of a sandbox that lives on begins. The facts about what was run in it follow, one in a line.
const LIVE: &[u8] = b"live\n";

#[derive(Debug)]
struct FakeGuest {
    file: PathBuf,
    io: DuplexStream,
}

impl FakeGuest {
    async fn serve(mut self) -> io::Result<()> {
        if std::fs::read(&self.file).is_ok_and(|text| text.starts_with(LIVE)) {
            live::serve(self.io, self.file).await;
            return Ok(());
        }
        loop {
            let mut head = [0; wire::HEAD];
            self.io.read_exact(&mut head).await?;
            let (kind, len) = wire::parse_head(head).map_err(io::Error::other)?;
            let mut payload = vec![0; len];
            self.io.read_exact(&mut payload).await?;
            if kind == Kind::Control {
                let message = message::parse(&payload).map_err(io::Error::other)?;
                if let ToGuest::Serve(_) = message {
                    std::fs::write(&self.file, LIVE)?;
                    return self.say(&FromGuest::Serving).await;
                }
                self.obey(message).await?;
            } else if kind == Kind::File {
                self.say(&FromGuest::PutDone).await?;
            }
        }
    }

    async fn obey(&mut self, message: ToGuest) -> io::Result<()> {
        match message {
            ToGuest::Hello { stdout, stderr, .. } => {
                // The command of an earlier connection went on meanwhile; it ends now, and what it printed
                // that the node does not have is told.
                let text = std::fs::read(&self.file).unwrap_or_default();
                let started = !text.is_empty();
                self.say(&FromGuest::Hello {
                    version: VERSION,
                    stdout,
                    stderr,
                    started,
                })
                .await?;
                if !started {
                    return Ok(());
                }
                let argv: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
                let act = act(&argv);
                let printed = act.printed();
                let has = usize::try_from(stdout).unwrap_or(usize::MAX);
                self.print(printed.get(has..).unwrap_or_default()).await?;
                self.exit(act.exit, false).await
            }
            ToGuest::Confine(_) => self.say(&FromGuest::Confined).await,
            ToGuest::Start(start) => self.start(&start).await,
            ToGuest::Put(put) if put.size_bytes == 0 => self.say(&FromGuest::PutDone).await,
            ToGuest::Get { .. } => {
                self.say(&FromGuest::FileFailed {
                    errno: libc::ENOENT,
                    step: "open".into(),
                })
                .await
            }
            ToGuest::StdinEnd
            | ToGuest::Signal(_)
            | ToGuest::Stop { .. }
            | ToGuest::Ack { .. }
            | ToGuest::Put(_)
            | ToGuest::Serve(_) => Ok(()),
        }
    }

    async fn start(&mut self, start: &Start) -> io::Result<()> {
        std::fs::write(&self.file, serde_json::to_vec(&start.argv)?)?;
        self.say(&FromGuest::Started { failure: None }).await?;
        let act = act(&start.argv);
        let stopped = self
            .sleep(Duration::from_millis(act.sleep_ms.min(start.timeout_ms)))
            .await?;
        if stopped {
            return self.exit(128 + libc::SIGTERM, false).await;
        }
        self.print(&act.printed()).await?;
        self.exit(act.exit, act.sleep_ms > start.timeout_ms).await
    }

    /// Waits for the time, or for `Stop`. Other messages are acknowledgements, and are swallowed.
    async fn sleep(&mut self, time: Duration) -> io::Result<bool> {
        let until = tokio::time::Instant::now() + time;
        loop {
            let mut head = [0; wire::HEAD];
            // Only a whole head is taken off: a wait that ends inside one would lose its beginning.
            match tokio::time::timeout_at(until, self.io.read_exact(&mut head)).await {
                Err(_) => return Ok(false),
                Ok(result) => result.map(drop)?,
            }
            let (_, len) = wire::parse_head(head).map_err(io::Error::other)?;
            let mut payload = vec![0; len];
            self.io.read_exact(&mut payload).await?;
            if let Ok(ToGuest::Stop { .. }) = message::parse(&payload) {
                return Ok(true);
            }
        }
    }

    async fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(wire::FRAME_MAX) {
            self.io
                .write_all(&wire::head(Kind::Stdout, piece.len()))
                .await?;
            self.io.write_all(piece).await?;
        }
        Ok(())
    }

    async fn exit(&mut self, code: i32, timed_out: bool) -> io::Result<()> {
        let exited = Exited {
            code: Some(code),
            signal: None,
            timed_out,
            cpu_ms: 0,
            max_rss_bytes: 0,
            wall_ms: 0,
            left_behind: 0,
        };
        self.say(&FromGuest::Exited(exited)).await
    }

    async fn say(&mut self, message: &FromGuest) -> io::Result<()> {
        let frame = message::frame(message).map_err(io::Error::other)?;
        self.io.write_all(&frame).await
    }
}
