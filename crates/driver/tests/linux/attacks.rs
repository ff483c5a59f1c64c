//! Named attacks on the way out, each tried by a program in a real sandbox against the real proxy.
//!
//! An attack is one function: its comment says what is tried in one sentence, and after `>` what happens. They run in
//! groups, one sandbox for a group. The list of all is `docs/attacks.md`; a test of `e2e` compares it with these files.
//! After each of them nobody may have come to the trap, which listens at every address of this machine.

/// A sandbox for a group, or the end of the test where there is none.
macro_rules! inside {
    ($world:expr) => {{
        if !std::path::Path::new("/usr/bin/python3").exists() {
            println!("skipped: there is no python3 to connect with");
            return;
        }
        crate::attacks::Inside::new(&$world).await
    }};
}

/// The same for a group whose programs know no proxy.
macro_rules! inside_with_a_device {
    ($world:expr) => {{
        if let Some(why) = &$world.host.no_tun {
            println!("skipped: {why}");
            return;
        }
        inside!($world)
    }};
}

/// Tries these attacks one after the other, under the same rules each.
macro_rules! tries {
    ($inside:ident: $($attack:ident),+ $(,)?) => {
        $(
            println!("attack: {}", stringify!($attack));
            $inside.rules(model::network::NetworkMode::Unrestricted, &[], crate::attacks::DENIED);
            drop(($inside.recorded(), $inside.heard(), $inside.asked()));
            $attack(&mut $inside).await;
            assert!($inside.is_untouched(), "somebody came to the trap");
        )+
        $inside.end().await;
    };
}

mod addresses;
mod bodies;
mod heads;
mod hosts;
mod kernel;
mod names;
mod neighbours;
mod tunnels;

use crate::egress::bring;
use crate::live_client::Served;
use crate::world::{DEFAULTS, World};
use driver::conformance::spec;
use driver::driver::{Mode as For, Spec};
use egress::proxy::{Proxy, Way};
use egress::record::{EgressRecord, Owner, Verdict};
use model::network::{NetworkAsked, NetworkMode, NetworkRules};
use std::io;
use std::net::{IpAddr, TcpListener as Trap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// The longest attack takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every script begins with: the ways to the proxy, and a greeting of TLS made by hand.
const PRELUDE: &str = include_str!("attacks/prelude.py");

/// What nobody may reach, unless an attack says otherwise.
const DENIED: &[&str] = &["denied.test", "*.denied.test"];

/// The clock of the proxies, in milliseconds.
static NOW_MS: AtomicU64 = AtomicU64::new(0);

/// A sandbox, its way out, and who is outside.
pub(crate) struct Inside<'w> {
    served: Served<'w>,
    proxy: Proxy,
    way: Way,
    records: mpsc::Receiver<EgressRecord>,
    /// Where a server of HTTP answers, at the loopback of this machine. The operator opened it.
    pub(crate) open: u16,
    /// Where everything comes back, likewise.
    pub(crate) echo: u16,
    /// Where nobody may come.
    pub(crate) trap: u16,
    listener: Trap,
    heard: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl<'w> Inside<'w> {
    pub(crate) async fn new(world: &'w World) -> Inside<'w> {
        let served = serve_one(world).await;
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let (open, echo) = (server(heard.clone()).await, echo().await);
        let listener = Trap::bind("0.0.0.0:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let trap = listener.local_addr().expect("an address").port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let exceptions = [open, echo].map(|port| format!("127.0.0.1:{port}").parse().expect("one"));
        let (proxy, records) = Proxy::new(exceptions.into(), names::resolver(&asked), 4096, || {
            NOW_MS.load(Ordering::Relaxed)
        });
        let way = way(&proxy, &served);
        let inside = Inside {
            served,
            proxy,
            way,
            records,
            open,
            echo,
            trap,
            listener,
            heard,
            asked,
        };
        inside.put().await;
        inside
    }

    /// A neighbour: another sandbox, with a way out of its own through the same proxy. It cannot be used for anything
    /// but to look.
    pub(crate) async fn beside(&self) -> Inside<'w> {
        let served = serve_one(self.served.world).await;
        let (way, listener) = (way(&self.proxy, &served), self.listener.try_clone());
        let inside = Inside {
            served,
            proxy: self.proxy.clone(),
            way,
            records: mpsc::channel(1).1,
            listener: listener.expect("a descriptor"),
            heard: self.heard.clone(),
            asked: self.asked.clone(),
            ..*self
        };
        inside.put().await;
        inside
    }

    /// What was counted for a minute begins anew.
    pub(crate) fn start_a_minute(&self) {
        NOW_MS.fetch_add(120_000, Ordering::Relaxed);
    }

    pub(crate) fn served(&self) -> &Served<'w> {
        &self.served
    }

    async fn put(&self) {
        let script = format!("cat >/tmp/attack.py <<'E'\n{PRELUDE}\nE");
        assert_eq!(self.served.sh(&script).await.1, 0);
    }

    pub(crate) fn rules(&self, mode: NetworkMode, allow: &[&str], deny: &[&str]) {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let asked = NetworkAsked {
            mode: Some(mode),
            allow: texts(allow),
            deny: texts(deny),
            ..NetworkAsked::default()
        };
        self.way
            .set_rules(NetworkRules::read(&asked).expect("sound rules"));
    }

    /// What a Python program in the sandbox says. `OPEN`, `ECHO` and `TRAP` are ports.
    pub(crate) async fn says(&self, script: &str) -> String {
        let (open, echo, trap) = (self.open, self.echo, self.trap);
        let script = format!(
            "cd /tmp; python3 - <<'E'\nfrom attack import *\nOPEN, ECHO, TRAP = {open}, {echo}, {trap}\n{script}\nE"
        );
        self.sh(&script).await
    }

    /// The same as root of the sandbox.
    pub(crate) async fn as_root(&self, script: &str) -> String {
        let script = format!("cd /tmp; python3 - <<'E'\nfrom attack import *\n{script}\nE");
        let said = self.while_served(async { self.served.as_root(&script).await.0 });
        said.await.trim_end().to_owned()
    }

    /// What a shell says.
    pub(crate) async fn sh(&self, script: &str) -> String {
        let said = self.while_served(async { self.served.sh(script).await.0 });
        said.await.trim_end().to_owned()
    }

    /// What comes of it, while a node brings lines.
    pub(crate) async fn while_served(&self, doing: impl Future<Output = String>) -> String {
        let running = async {
            tokio::select! {
                said = doing => said,
                () = bring(&self.served, &self.way, usize::MAX) => String::new(),
            }
        };
        let said = tokio::time::timeout(PATIENCE, running).await;
        said.expect("an end in time")
    }

    /// What was recorded since the last time: how, whom, and why not.
    pub(crate) fn recorded(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(record) = self.records.try_recv() {
            let why = match record.verdict {
                Verdict::Allowed => "allowed",
                Verdict::Denied(reason) | Verdict::Failed(reason) => reason.code(),
            };
            let host = record.host.map(|host| host.to_string()).unwrap_or_default();
            all.push(format!("{} {host} {why}", record.method.as_str()));
        }
        all
    }

    /// What the server of HTTP has heard since the last time.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().expect("a list"))
    }

    /// Which names a resolver outside was asked for since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("a list"))
    }

    pub(crate) fn is_untouched(&self) -> bool {
        let came = self.listener.accept();
        came.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(crate) async fn end(&self) {
        self.served.destroy().await;
    }
}

async fn serve_one(world: &World) -> Served<'_> {
    let spec = Spec {
        mode: For::Live { allow_root: true },
        way_out: true,
        ..spec(DEFAULTS)
    };
    world.serve_with(spec, true).await
}

fn way(proxy: &Proxy, served: &Served<'_>) -> Way {
    let owner = Owner {
        sandbox: served.plan.handle.id.clone(),
        job: None,
    };
    proxy.way(owner, NetworkRules::all_or_nothing(true))
}

/// The address by which this machine would reach the world.
pub(crate) fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A server that sends everything back, and ends when the client does.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    port
}

/// A server that answers each connection once, by the path, and keeps what it heard.
async fn server(heard: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, heard.clone()));
        }
    });
    port
}

async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Vec<String>>>) {
    let mut all = Vec::new();
    let ends = |all: &[u8]| {
        let text = String::from_utf8_lossy(all);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap_or("0");
        let length = length.lines().next().and_then(|line| line.parse().ok());
        let is_chunked = head.contains("transfer-encoding: chunked");
        body.len() >= length.unwrap_or(0) && (!is_chunked || body.ends_with("0\r\n\r\n"))
    };
    while !ends(&all) {
        match stream.read_buf(&mut all).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    // Before the answer: whoever has it may look at once. Who comes and says nothing has asked for nothing.
    if !text.is_empty() {
        heard.lock().expect("a list").push(text);
    }
    drop(stream.write_all(&bodies::answer(&path)).await);
    drop(stream.shutdown().await);
    let mut rest = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await);
}
