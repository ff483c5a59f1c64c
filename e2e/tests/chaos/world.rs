//! The fleet: servers on one PostgreSQL, and nodes that each have a network and a disk of their own.

use crate::clock::{self, Clock};
use crate::net::{Link, Space, address, url};
use crate::plan::Fault;
use e2e::postgres::Postgres;
use e2e::{Place, guests, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the second server must have alike, beside the database and the blobs.
const SHARED: [&str; 2] = ["node-authority.json", "secret.key"];
pub(crate) const NODES: usize = 3;
pub(crate) const LEASE_S: u64 = 5;
/// What a node's disk holds: a little more than the 1 GiB that has to be free for new work.
const DISK: &str = "1200m";
const PORT: u16 = 7301;

/// A process, its clock, and how it is started again.
#[derive(Debug)]
pub(crate) struct Part {
    name: String,
    words: Vec<String>,
    clock: Clock,
    child: Option<Child>,
}

impl Part {
    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().map(Child::id);
        let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        pid.map(|pid| kill_process(pid, signal));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) state: PathBuf,
    pub(crate) space: Space,
    pub(crate) link: Link,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) place: Place,
    postgres: Postgres,
    servers: Vec<Part>,
    /// How many of them there are to be.
    count: usize,
    nodes: Vec<Part>,
    pub(crate) machines: Vec<Machine>,
    /// Clocks can be moved here.
    pub(crate) has_clocks: bool,
    _hub: Space,
}

impl Drop for World {
    fn drop(&mut self) {
        for part in self.nodes.iter_mut().chain(&mut self.servers) {
            part.kill();
        }
        for machine in &self.machines {
            for guest in guests(&machine.state) {
                let _ = kill_process(guest, Signal::KILL);
            }
        }
    }
}

impl World {
    /// All of it, or why it cannot be had here.
    pub(crate) fn start(servers: usize) -> Result<World, String> {
        let postgres = Postgres::start()?;
        let hub = Space::new(&["--net"], ":", Path::new("/"))?;
        hub.enter()?;
        let place = Place::new();
        let library = clock::library(&place.work());
        let mut world = World {
            postgres,
            servers: Vec::new(),
            count: servers,
            nodes: Vec::new(),
            machines: Vec::new(),
            has_clocks: library.is_some(),
            _hub: hub,
            place,
        };
        for server in 0..servers {
            world.add_server(server, library.clone());
        }
        for node in 0..NODES {
            world.add_node(node, library.clone())?;
        }
        let are_online = until(|| world.online() == NODES);
        assert!(are_online, "{}", world.logs());
        Ok(world)
    }

    /// Where the first server listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.place.state().join("cofferdam.sock")
    }

    /// Where each of them does.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let socket = |server| self.state_of(server).join("cofferdam.sock");
        (0..self.count).map(socket).collect()
    }

    /// A command line that never makes a server of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_at(0, args)
    }

    /// The same at one of the servers, by a number of which there may be more than servers.
    pub(crate) fn command_at(&self, number: usize, args: &[&str]) -> Command {
        let socket = self.state_of(number % self.count).join("cofferdam.sock");
        let mut command = self.place.command(args);
        command.env("COFFERDAM_URL", format!("unix:{}", socket.display()));
        command
    }

    fn state_of(&self, server: usize) -> PathBuf {
        match server {
            0 => self.place.state(),
            more => self.place.work().join(format!("server{more}")),
        }
    }

    fn add_server(&mut self, number: usize, library: Option<PathBuf>) {
        let name = format!("server{number}");
        let mut names: Vec<String> = (0..NODES)
            .map(|node| format!("\"{}\"", address(node)))
            .collect();
        // By which the other server dials it.
        names.push("\"127.0.0.1\"".to_owned());
        let (state, port) = (self.state_of(number), port(number));
        let config = format!(
            "[server]\nstate = \"{}\"\ndatabase = \"{}\"\nblobs = \"{}\"\nname = \"{name}\"\n\
             lease_seconds = {LEASE_S}\n[server.nodes]\nlisten = \"127.0.0.1:{port}\"\n\
             address = \"127.0.0.1:{port}\"\nnames = [{}]\n",
            state.display(),
            self.postgres.address(),
            self.place.work().join("blobs").display(),
            names.join(", "),
        );
        if number > 0 {
            self.share(&state);
        }
        let file = self.place.work().join(format!("{name}.toml"));
        std::fs::write(&file, config).expect("a file");
        let words = [e2e::program().display().to_string()];
        let args = [
            "server".to_owned(),
            "--config".to_owned(),
            file.display().to_string(),
        ];
        let part = Part {
            clock: Clock::new(self.place.work().join(format!("{name}.clock")), library),
            words: words.into_iter().chain(args).collect(),
            child: None,
            name,
        };
        self.servers.push(part);
        self.start_server(number);
        let socket = self.state_of(number).join("cofferdam.sock");
        let is_up = until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert!(is_up, "{}", self.logs());
    }

    /// Gives another server what all must have alike, for its user alone.
    fn share(&self, state: &Path) {
        let mut dir = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut dir, 0o700);
        dir.create(state).expect("a directory");
        for name in SHARED {
            let from = self.state_of(0).join(name);
            std::fs::copy(from, state.join(name)).expect("the first server has it");
        }
    }

    fn add_node(&mut self, number: usize, library: Option<PathBuf>) -> Result<(), String> {
        let name = format!("node{number}");
        let state = self.place.work().join(&name);
        std::fs::create_dir(&state).map_err(|error| error.to_string())?;
        let line = format!("mount -t tmpfs -o size={DISK},mode=700 none \"$1\"");
        let kinds = ["--net", "--mount", "--propagation", "private"];
        let space = Space::new(&kinds, &line, &state)?;
        let link = Link::new(number, &space, (0..self.count).map(port).collect())?;
        let token = self.command(&["node", "enroll-token"]).output();
        let token = String::from_utf8_lossy(&token.expect("a token").stdout)
            .trim()
            .to_owned();
        let program = e2e::program().display().to_string();
        let path = state.display().to_string();
        let mut words = space.words();
        words.push(program);
        let enroll = [
            "node",
            "enroll",
            "--server",
            &url(number),
            "--state",
            &path,
            "--token",
            &token,
        ];
        let mut all = words.clone();
        all.extend(enroll.map(str::to_owned));
        let enrolled = self.started(&all).output().expect("a node enrolls");
        assert!(enrolled.status.success(), "{enrolled:?} {}", self.logs());
        let file = self.place.work().join(format!("{name}.toml"));
        let config = format!(
            "[node]\nstate = \"{path}\"\nname = \"{name}\"\nslots = 8\nsandboxes = 8\nspares = 0\n"
        );
        std::fs::write(&file, config).expect("a file");
        words.extend(["node", "--config", &file.display().to_string()].map(str::to_owned));
        let clock = Clock::new(self.place.work().join(format!("{name}.clock")), library);
        self.nodes.push(Part {
            name,
            words,
            clock,
            child: None,
        });
        self.machines.push(Machine { state, space, link });
        self.start_node(number);
        Ok(())
    }

    /// A command line of more than our program, with nothing of ours in its environment.
    fn started(&self, words: &[String]) -> Command {
        let plain = self.place.command(&[]);
        #[expect(
            clippy::disallowed_methods,
            reason = "what a child inherits is cleared below"
        )]
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .current_dir(self.place.work());
        for (name, value) in plain.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.stdin(Stdio::null());
        command
    }

    fn spawn(&self, part: &Part) -> Child {
        let log = self.place.work().join(format!("{}.log", part.name));
        let log = std::fs::File::options().create(true).append(true).open(log);
        let mut command = self.started(&part.words);
        part.clock.give(&mut command);
        command.env("COFFERDAM_LOG", "info");
        command
            .stderr(log.expect("a file"))
            .spawn()
            .expect("it starts")
    }

    fn start_server(&mut self, number: usize) {
        self.servers[number].child = Some(self.spawn(&self.servers[number]));
    }

    fn start_node(&mut self, number: usize) {
        self.nodes[number].child = Some(self.spawn(&self.nodes[number]));
    }

    pub(crate) fn online(&self) -> usize {
        let list = self
            .command(&["node", "ls", "--json"])
            .output()
            .expect("it starts");
        let list: Value = serde_json::from_slice(&list.stdout).unwrap_or_default();
        let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .filter(|node| node["connectivity"] == "online")
            .count()
    }

    /// The end of what each part said.
    pub(crate) fn logs(&self) -> String {
        let mut all = String::new();
        for part in self.servers.iter().chain(&self.nodes) {
            let path = self.place.work().join(format!("{}.log", part.name));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(40).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            let _ = writeln!(all, "{}:\n{}", part.name, lines.join("\n"));
        }
        all
    }

    pub(crate) fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer(one) => self.servers[one].kill(),
            Fault::StopServer(one) => self.servers[one].signal(Signal::STOP),
            Fault::KillNode(one) => self.nodes[one].kill(),
            Fault::StopNode(one) => self.nodes[one].signal(Signal::STOP),
            Fault::Cut(one) => self.machines[one].link.cut(),
            Fault::Delay(one, ms) => self.machines[one].link.slow_down(ms),
            Fault::KillDatabase => self.database(Signal::KILL),
            Fault::StopDatabase => self.database(Signal::STOP),
            Fault::RestartDatabase => assert!(self.postgres.restart()),
            Fault::FillDisk(one) => self.fill(one),
            Fault::SkewServer(one, seconds) => self.servers[one].clock.set(seconds),
            Fault::SkewNode(one, seconds) => self.nodes[one].clock.set(seconds),
        }
    }

    pub(crate) fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer(one) => self.start_server(one),
            Fault::StopServer(one) => self.servers[one].signal(Signal::CONT),
            Fault::KillNode(one) => self.start_node(one),
            Fault::StopNode(one) => self.nodes[one].signal(Signal::CONT),
            Fault::Cut(one) => self.machines[one].link.mend(),
            Fault::Delay(one, _) => self.machines[one].link.slow_down(0),
            // What it had made ends by itself when it sees that the first is gone.
            Fault::KillDatabase => assert!(until(|| self.postgres.start_again())),
            Fault::StopDatabase => self.database(Signal::CONT),
            Fault::RestartDatabase => {}
            Fault::FillDisk(one) => drop(std::fs::remove_file(self.filler(one))),
            Fault::SkewServer(one, _) => self.servers[one].clock.set(0),
            Fault::SkewNode(one, _) => self.nodes[one].clock.set(0),
        }
    }

    /// A server that ended by itself would be started again by its supervisor, and so would a node.
    pub(crate) fn supervise(&mut self) -> Vec<String> {
        let ended = |part: &mut Part| {
            let status = part
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            status.map(|status| format!("{} {status}", part.name))
        };
        let (mut said, parts) = (Vec::new(), (self.servers.len(), self.nodes.len()));
        for one in 0..parts.0 {
            if let Some(why) = ended(&mut self.servers[one]) {
                said.push(why);
                self.start_server(one);
            }
        }
        for one in 0..parts.1 {
            if let Some(why) = ended(&mut self.nodes[one]) {
                said.push(why);
                self.start_node(one);
            }
        }
        said
    }

    fn database(&self, signal: Signal) {
        for pid in self.postgres.processes() {
            let _ = kill_process(pid, signal);
        }
    }

    fn filler(&self, node: usize) -> PathBuf {
        let machine = &self.machines[node];
        machine.space.seen(&machine.state.join("filler"))
    }

    /// Nothing more can be written there, by anybody.
    fn fill(&self, node: usize) {
        let zeros = vec![0; 1 << 20];
        let mut file = std::fs::File::create(self.filler(node)).expect("a file");
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }
}

fn port(server: usize) -> u16 {
    PORT + u16::try_from(server).unwrap_or(0)
}
