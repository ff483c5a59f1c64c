//! Network and mount namespaces that are there for as long as somebody holds them, and links between them that can
//! be cut and made slow. Nothing of it is seen outside, and nothing is left when the test is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the relay of each node listens. The address is of the range for measurements (RFC 2544).
const RELAY_PORT: u16 = 7300;

pub(crate) fn address(node: usize) -> String {
    format!("198.18.{node}.1")
}

/// By what a node dials its servers.
pub(crate) fn url(node: usize) -> String {
    format!("https://{}:{RELAY_PORT}", address(node))
}

/// A namespace; a process that waits for its standard input to end holds it.
#[derive(Debug)]
pub(crate) struct Space {
    holder: Child,
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what makes the network is not what is tested"
)]
fn program(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// Runs a line of the shell here.
fn sh(line: &str) -> bool {
    program(&["sh", "-ec", line])
        .status()
        .is_ok_and(|status| status.success())
}

impl Space {
    /// One of its own, in which this line was carried out; `$1` is `arg`.
    pub(crate) fn new(kinds: &[&str], line: &str, arg: &Path) -> Result<Space, String> {
        let script = format!("ip link set lo up; {line}; echo ready; exec cat >/dev/null");
        let mut holder = program(&["unshare"]);
        holder.args(kinds).args(["sh", "-ec", &script, "sh"]);
        holder.arg(arg).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().map_err(|error| error.to_string())?;
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        drop(BufReader::new(stdout).read_line(&mut said));
        let space = Space { holder };
        if said.trim() == "ready" {
            return Ok(space);
        }
        Err("no network namespace can be made here".to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// This thread, and those that it starts, go on in this network.
    pub(crate) fn enter(&self) -> Result<(), String> {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.pid()));
        let file = file.map_err(|error| error.to_string())?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
            .map_err(|error| error.to_string())
    }

    /// The words before a command that is to run in it.
    pub(crate) fn words(&self) -> Vec<String> {
        let pid = self.pid().to_string();
        ["nsenter", "-t", &pid, "--net", "--mount", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// What is at this path in it.
    pub(crate) fn seen(&self, path: &Path) -> std::path::PathBuf {
        let root = format!("/proc/{}/root", self.pid());
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The way of one node to the servers: a pair of devices, and a relay that can wait.
#[derive(Debug)]
pub(crate) struct Link {
    node: usize,
    delay_ms: Arc<AtomicU64>,
}

impl Link {
    /// From the space of the node to where this thread is; the servers listen there on these ports.
    pub(crate) fn new(node: usize, space: &Space, servers: Vec<u16>) -> Result<Link, String> {
        let pid = space.pid();
        let line = format!(
            "ip link add v{node} type veth peer name eth0 netns {pid}
             ip addr add {}/30 dev v{node}
             ip link set v{node} up
             nsenter -t {pid} --net ip addr add 198.18.{node}.2/30 dev eth0
             nsenter -t {pid} --net ip link set eth0 up",
            address(node)
        );
        if !sh(&line) {
            return Err("no devices can be made here".to_owned());
        }
        let delay_ms = Arc::new(AtomicU64::new(0));
        let listener = TcpListener::bind((address(node), RELAY_PORT));
        let listener = listener.map_err(|error| error.to_string())?;
        let delay = delay_ms.clone();
        std::thread::spawn(move || relay(&listener, &servers, &delay));
        Ok(Link { node, delay_ms })
    }

    /// What is on its way is lost, and nobody is told.
    pub(crate) fn cut(&self) {
        assert!(sh(&format!("ip link set v{} down", self.node)));
    }

    pub(crate) fn mend(&self) {
        assert!(sh(&format!("ip link set v{} up", self.node)));
    }

    pub(crate) fn slow_down(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }
}

/// Each connection to another server, as far as one answers.
fn relay(listener: &TcpListener, servers: &[u16], delay: &Arc<AtomicU64>) {
    for (number, client) in listener.incoming().flatten().enumerate() {
        let nth = |one| servers[(number + one) % servers.len()];
        let dial = |port| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok();
        let Some(server) = (0..servers.len()).map(nth).find_map(dial) else {
            continue;
        };
        let pairs = [
            (client.try_clone(), server.try_clone()),
            (Ok(server), Ok(client)),
        ];
        for (from, to) in pairs {
            let (Ok(from), Ok(to)) = (from, to) else {
                continue;
            };
            let delay = delay.clone();
            std::thread::spawn(move || carry(from, to, &delay));
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    drop(to.set_nodelay(true));
    let mut piece = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut piece) {
        let wait = delay.load(Ordering::Relaxed);
        if wait > 0 {
            std::thread::sleep(Duration::from_millis(wait));
        }
        let bytes = piece.get(..count).unwrap_or_default();
        if count == 0 || to.write_all(bytes).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}
