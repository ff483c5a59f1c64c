//! The guest's one loop: it owns all state, waits for any descriptor, and does one small thing.

use crate::Inherited;
use crate::carrier::Carrier;
use crate::confine::{self, Who};
use crate::conn::{Closed, Conn};
use crate::files::{self, Download, Upload};
use crate::handed::Device;
use crate::live;
use crate::output::Output;
use crate::process::{self, Child, Reap, Status, Wanted};
use guest::message::{
    self, Confine, Exited, FromGuest, Serve, Start, StartFailure, Stream, ToGuest, VERSION, WINDOW,
};
use guest::wire::{self, Kind};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Bytes of a file sent per frame: large enough to be fast, small enough that output is not held up.
const FILE_CHUNK: usize = 64 * 1024;

/// Connections that have not said what they are, at a time: the node makes one after the other.
const NEW_MAX: usize = 8;

/// How a connection begins that brings a line: `GET`. No frame does.
const LINE: [u8; 1] = [b'G'];

/// Where a job is.
#[derive(Debug)]
enum Phase {
    /// Nothing was asked yet.
    Idle,
    /// The process waits, confined.
    Prepared,
    /// The command runs.
    Running(Clock),
    /// The command could not be started.
    NotStarted(StartFailure),
    /// Everything is dead.
    Ended(Exited),
}

/// When what must happen, in milliseconds of the boot-time clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: u64,
    /// SIGTERM to all; `None` once it was sent.
    term: Option<u64>,
    /// SIGKILL to all.
    kill: Option<u64>,
    grace: u64,
    timed_out: bool,
}

/// What the processes that were reaped have used.
#[derive(Debug, Default)]
struct Used {
    cpu_us: u64,
    max_rss_bytes: u64,
    left_behind: u32,
}

/// The guest.
#[derive(Debug)]
pub(crate) struct Agent {
    listener: OwnedFd,
    signals: OwnedFd,
    cgroups: Vec<OwnedFd>,
    boot_id: OwnedFd,
    device: Device,
    conn: Option<Conn>,
    /// Connections that have not said yet what they are.
    new: VecDeque<OwnedFd>,
    /// Where there is a way out.
    carrier: Option<Carrier>,
    phase: Phase,
    confine: Option<Confine>,
    child: Option<Child>,
    main: Option<process::Reaped>,
    used: Used,
    stdout: Output,
    stderr: Output,
    stdin: VecDeque<u8>,
    stdin_taken: u64,
    stdin_end: bool,
    upload: Option<Upload>,
    download: Option<Download>,
    exit_said: bool,
    serve: Option<live::Orders>,
}

impl Agent {
    /// Prepares the process: unkillable from inside, not traceable, deaf to every signal but SIGCHLD.
    pub(crate) fn new(inherited: Inherited) -> Result<Agent, Errno> {
        let Inherited {
            listener,
            cgroups,
            boot_id,
            device,
        } = inherited;
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
        let signals = process::child_signals()?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Agent {
            listener,
            signals,
            cgroups,
            boot_id,
            device,
            conn: None,
            new: VecDeque::new(),
            carrier: None,
            phase: Phase::Idle,
            confine: None,
            child: None,
            main: None,
            used: Used::default(),
            stdout: Output::new(Kind::Stdout),
            stderr: Output::new(Kind::Stderr),
            stdin: VecDeque::new(),
            stdin_taken: 0,
            stdin_end: false,
            upload: None,
            download: None,
            exit_said: false,
            serve: None,
        })
    }

    /// Serves until the sandbox is killed. An error means that waiting itself does not work.
    pub(crate) fn run(mut self) -> Result<(), Errno> {
        loop {
            self.wait()?;
            self.reap();
            self.look_at_clock();
            self.stdout.fill();
            self.stderr.fill();
            self.accept();
            let served = self.serve();
            if let Err(Closed) = served {
                self.hang_up();
            }
            if let Some(serve) = self.serve.take() {
                self.hang_up();
                let inherited = Inherited {
                    listener: self.listener,
                    cgroups: self.cgroups,
                    boot_id: self.boot_id,
                    device: self.device,
                };
                return live::run(inherited, self.signals, serve);
            }
        }
    }

    /// Waits until a descriptor has something or the clock strikes.
    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        fds.extend(self.new.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if let Some(conn) = &self.conn {
            let out = if self.wants_output(conn) {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(&conn.fd, PollFlags::IN | out));
        }
        for output in [&self.stdout, &self.stderr] {
            if let (Some(pipe), true) = (&output.pipe, output.wants_input()) {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if let Some(child) = &self.child {
            if let Some(status) = &child.status {
                fds.push(PollFd::new(status, PollFlags::IN));
            }
            if let (Some(stdin), false) = (&child.stdin, self.stdin.is_empty()) {
                fds.push(PollFd::new(stdin, PollFlags::OUT));
            }
        }
        match rustix::event::poll(&mut fds, self.patience().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn wants_output(&self, conn: &Conn) -> bool {
        !conn.idle()
            || self.stdout.wants_output()
            || self.stderr.wants_output()
            || self.download.is_some()
    }

    /// How long to wait at most; nothing means for ever.
    fn patience(&self) -> Option<rustix::time::Timespec> {
        let Phase::Running(clock) = &self.phase else {
            return None;
        };
        let next = clock.term.or(clock.kill)?;
        let left = next.saturating_sub(process::boot_ms());
        // A machine that sleeps wakes late from this and then finds the boot-time clock past due.
        rustix::time::Timespec::try_from(std::time::Duration::from_millis(left + 1)).ok()
    }

    fn look_at_clock(&mut self) {
        let Phase::Running(clock) = &mut self.phase else {
            return;
        };
        let now = process::boot_ms();
        if clock.term.is_some_and(|at| now >= at) {
            clock.timed_out = true;
            clock.term = None;
            clock.kill = Some(now + clock.grace);
            process::signal(None, libc::SIGTERM);
        }
        if clock.kill.is_some_and(|at| now >= at) {
            clock.kill = None;
            process::signal(None, libc::SIGKILL);
        }
    }

    /// Takes the dead. When the command itself is dead, everything that it left behind is killed.
    fn reap(&mut self) {
        process::drain(&self.signals);
        loop {
            match process::reap() {
                Reap::Dead(dead) => self.bury(dead),
                Reap::Alive => return,
                Reap::None => return self.all_dead(),
            }
        }
    }

    fn bury(&mut self, dead: process::Reaped) {
        if self.carrier.as_ref().is_some_and(|one| one.pid == dead.pid) {
            // Not the command's, and nothing that it left behind.
            self.carrier = None;
            return;
        }
        self.used.cpu_us += dead.cpu_us;
        self.used.max_rss_bytes = self.used.max_rss_bytes.max(dead.max_rss_bytes);
        if self
            .child
            .as_ref()
            .is_some_and(|child| child.pid == dead.pid)
        {
            self.tell_status();
            self.main = Some(dead);
            process::signal(None, libc::SIGKILL);
        } else if self.main.is_some() {
            self.used.left_behind = self.used.left_behind.saturating_add(1);
        }
    }

    fn all_dead(&mut self) {
        let (Some(main), Phase::Running(clock)) = (&self.main, &self.phase) else {
            return;
        };
        // What the dead have written is still in the pipes; it is read to its end before this is told.
        self.phase = Phase::Ended(Exited {
            code: main.code,
            signal: main.signal,
            timed_out: clock.timed_out,
            cpu_ms: self.used.cpu_us / 1000,
            max_rss_bytes: self.used.max_rss_bytes,
            wall_ms: process::boot_ms().saturating_sub(clock.started),
            left_behind: self.used.left_behind,
        });
        self.stdin.clear();
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(fd) = rustix::net::accept_with(&self.listener, flags) {
            if self.new.len() >= NEW_MAX {
                self.new.pop_front();
            }
            self.new.push_back(fd);
        }
        for _ in 0..self.new.len() {
            if let Some(fd) = self.new.pop_front() {
                self.sort(fd);
            }
        }
    }

    /// A node that speaks frames takes the place of the one before; one that speaks HTTP brings a line.
    fn sort(&mut self, fd: OwnedFd) {
        let mut first = [0];
        match rustix::net::recv(&fd, &mut first, RecvFlags::PEEK) {
            Ok((_, 0)) => {}
            Ok(_) if first == LINE => self.take_line(&fd),
            Ok(_) => {
                self.hang_up();
                self.conn = Some(Conn::new(fd));
            }
            Err(Errno::AGAIN | Errno::INTR) => self.new.push_back(fd),
            Err(_) => {}
        }
    }

    /// Only beside a command: whoever lives on takes lines itself.
    fn take_line(&mut self, line: &OwnedFd) {
        if !matches!(self.phase, Phase::Prepared | Phase::Running(_)) {
            return;
        }
        if self.carrier.is_none() {
            self.carrier = Carrier::start(self.device.get()).ok();
        }
        if let Some(carrier) = &self.carrier {
            carrier.give(line);
        }
    }

    /// The node is gone. The command goes on; only what was half carried is given up.
    fn hang_up(&mut self) {
        self.conn = None;
        self.upload = None;
        self.download = None;
    }

    fn serve(&mut self) -> Result<(), Closed> {
        self.tell_status();
        self.feed_stdin()?;
        let Some(conn) = &mut self.conn else {
            return Ok(());
        };
        conn.fill()?;
        while let Some((kind, payload)) = self.conn.as_mut().map_or(Ok(None), Conn::next_frame)? {
            self.take(kind, &payload)?;
        }
        self.send()
    }

    fn say(&mut self, message: &FromGuest) -> Result<(), Closed> {
        self.conn.as_mut().map_or(Ok(()), |conn| conn.say(message))
    }

    fn take(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Closed> {
        match kind {
            Kind::Control => {
                let message = message::parse::<ToGuest>(payload).map_err(|_| Closed)?;
                self.obey(message)
            }
            Kind::Stdin => {
                if self.stdin.len() + payload.len() > WINDOW {
                    return Err(Closed); // The node ignores the window that it was given.
                }
                self.stdin.extend(payload);
                self.feed_stdin()
            }
            Kind::File => self.write_file(payload),
            Kind::Stdout | Kind::Stderr => Err(Closed),
        }
    }

    fn obey(&mut self, message: ToGuest) -> Result<(), Closed> {
        match message {
            ToGuest::Hello {
                version,
                stdout,
                stderr,
            } => self.hello(version, stdout, stderr),
            ToGuest::Confine(confine) => self.prepare(confine),
            ToGuest::Start(start) => self.start(&start),
            ToGuest::StdinEnd => {
                self.stdin_end = true;
                self.feed_stdin()
            }
            ToGuest::Signal(signal) => {
                if let (Phase::Running(_), Some(child)) = (&self.phase, &self.child) {
                    process::signal(Some(child.pid), signal);
                }
                Ok(())
            }
            ToGuest::Stop { grace_ms } => {
                self.stop(grace_ms);
                Ok(())
            }
            ToGuest::Ack { stream, offset } => {
                match stream {
                    Stream::Stdout => self.stdout.acknowledge(offset),
                    Stream::Stderr => self.stderr.acknowledge(offset),
                }
                Ok(())
            }
            ToGuest::Put(put) => self.put(&put),
            ToGuest::Get { path, max_bytes } => self.get(&path, max_bytes),
            ToGuest::Serve(serve) => self.live_on(serve),
        }
    }

    /// The last thing that is said in frames.
    fn live_on(&mut self, mut serve: Serve) -> Result<(), Closed> {
        if !matches!(self.phase, Phase::Idle) {
            return Err(Closed);
        }
        // Where values could not be taken out of what is told, nothing runs.
        let known = scrub::Known::new(serve.secret_values()).map_err(|_| Closed)?;
        let (uid, gid) = (serve.confine.uid, serve.confine.gid);
        for file in std::mem::take(&mut serve.files) {
            let put = message::Put {
                path: file.path,
                mode: file.mode,
                size_bytes: file.bytes.len() as u64,
            };
            let written = Upload::open(&put, uid, gid);
            if let Err(failed) = written.and_then(|mut upload| upload.write(&file.bytes)) {
                return self.file_failed(failed);
            }
        }
        self.serve = Some((serve, known));
        self.say(&FromGuest::Serving)
    }

    fn hello(&mut self, version: u32, stdout: u64, stderr: u64) -> Result<(), Closed> {
        if version != VERSION {
            return Err(Closed);
        }
        self.stdout.resume(stdout);
        self.stderr.resume(stderr);
        self.exit_said = false;
        let started = matches!(self.phase, Phase::Running(_) | Phase::Ended(_));
        let (stdout, stderr) = (self.stdout.next(), self.stderr.next());
        self.say(&FromGuest::Hello {
            version: VERSION,
            stdout,
            stderr,
            started,
        })
    }

    fn prepare(&mut self, confine: Confine) -> Result<(), Closed> {
        if !matches!(self.phase, Phase::Idle) {
            return Err(Closed);
        }
        let rules = confine
            .landlock
            .as_ref()
            .map(confine::landlock_rules)
            .transpose();
        let prepared = rules
            .map_err(|_| ("landlock", libc::EINVAL))
            .and_then(|rules| {
                let wanted = Wanted {
                    confine: &confine,
                    who: Who::User,
                    landlock: rules,
                    cgroups: &self.cgroups,
                    streams: process::Streams::Pipes,
                };
                process::prepare(wanted).map_err(|errno| ("fork", errno.raw_os_error()))
            });
        match prepared {
            Ok(mut child) => {
                self.stdout.pipe = child.stdout.take();
                self.stderr.pipe = child.stderr.take();
                self.child = Some(child);
                self.phase = Phase::Prepared;
            }
            Err((step, errno)) => self.not_started(StartFailure {
                step: step.to_owned(),
                errno,
            }),
        }
        self.confine = Some(confine);
        Ok(())
    }

    fn not_started(&mut self, failure: StartFailure) {
        let said = FromGuest::Started {
            failure: Some(failure.clone()),
        };
        self.phase = Phase::NotStarted(failure);
        // A node that hung up asks again and is told again.
        let _ = self.say(&said);
    }

    fn start(&mut self, start: &Start) -> Result<(), Closed> {
        if let Phase::NotStarted(failure) = &self.phase {
            let failure = Some(failure.clone());
            return self.say(&FromGuest::Started { failure });
        }
        let (Phase::Prepared, Some(child)) = (&self.phase, &mut self.child) else {
            return Err(Closed);
        };
        if let Err(errno) = child.start(start) {
            let failure = StartFailure {
                step: "start".to_owned(),
                errno: errno.raw_os_error(),
            };
            self.not_started(failure);
            return Ok(());
        }
        let now = process::boot_ms();
        self.phase = Phase::Running(Clock {
            started: now,
            term: Some(now.saturating_add(start.timeout_ms)),
            kill: None,
            grace: start.grace_ms,
            timed_out: false,
        });
        Ok(())
    }

    fn stop(&mut self, grace_ms: u64) {
        if let Phase::Running(clock) = &mut self.phase {
            let at = process::boot_ms().saturating_add(grace_ms);
            clock.term = None;
            clock.kill = Some(clock.kill.map_or(at, |kill| kill.min(at)));
            process::signal(None, libc::SIGTERM);
        }
    }

    /// Passes on what the child told: confined, running, or what failed.
    fn tell_status(&mut self) {
        loop {
            let status = self.child.as_mut().map_or(Status::Nothing, Child::status);
            let said = match status {
                Status::Nothing => return,
                Status::Confined => FromGuest::Confined,
                Status::Running => FromGuest::Started { failure: None },
                Status::Failed(failure) => return self.not_started(failure),
            };
            let _ = self.say(&said);
        }
    }

    fn feed_stdin(&mut self) -> Result<(), Closed> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let mut taken = 0;
        while let (Some(pipe), false) = (&child.stdin, self.stdin.is_empty()) {
            match rustix::io::write(pipe, self.stdin.as_slices().0) {
                Ok(n) => {
                    self.stdin.drain(..n);
                    taken += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => child.stdin = None, // The command closed it; the rest is swallowed below.
            }
        }
        if child.stdin.is_none() {
            taken += self.stdin.len() as u64;
            self.stdin.clear();
        }
        if self.stdin_end && self.stdin.is_empty() {
            child.stdin = None;
        }
        if taken == 0 {
            return Ok(());
        }
        self.stdin_taken += taken;
        let offset = self.stdin_taken;
        self.say(&FromGuest::StdinAck { offset })
    }

    fn ids(&self) -> (u32, u32) {
        let own = || (process::own_uid(), process::own_gid());
        self.confine
            .as_ref()
            .map_or_else(own, |confine| (confine.uid, confine.gid))
    }

    fn put(&mut self, put: &message::Put) -> Result<(), Closed> {
        let (uid, gid) = self.ids();
        match Upload::open(put, uid, gid) {
            Ok(upload) => {
                self.upload = Some(upload);
                self.write_file(&[])
            }
            Err(failed) => self.file_failed(failed),
        }
    }

    fn write_file(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        // Without an upload the last one failed, and these are the frames that were on their way.
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        if let Err(failed) = upload.write(bytes) {
            self.upload = None;
            return self.file_failed(failed);
        }
        if upload.complete() {
            self.upload = None;
            return self.say(&FromGuest::PutDone);
        }
        Ok(())
    }

    fn get(&mut self, path: &str, max_bytes: u64) -> Result<(), Closed> {
        let (uid, gid) = self.ids();
        match Download::open(path, max_bytes, uid, gid) {
            Ok(download) => {
                self.download = Some(download);
                Ok(())
            }
            Err(failed) => self.file_failed(failed),
        }
    }

    fn file_failed(&mut self, (step, errno): files::Failed) -> Result<(), Closed> {
        let errno = errno.raw_os_error();
        self.say(&FromGuest::FileFailed {
            errno,
            step: step.to_owned(),
        })
    }

    /// Sends until the socket is full: what was begun, then control frames, output, files.
    fn send(&mut self) -> Result<(), Closed> {
        loop {
            let Some(conn) = &mut self.conn else {
                return Ok(());
            };
            for output in [&mut self.stdout, &mut self.stderr] {
                if output.mid_frame() && !output.pump(conn)? {
                    return Ok(());
                }
            }
            if !conn.flush()? {
                return Ok(());
            }
            let before = (self.stdout.wants_output(), self.stderr.wants_output());
            for output in [&mut self.stdout, &mut self.stderr] {
                if output.wants_output() && !output.pump(conn)? {
                    return Ok(());
                }
            }
            let more = self.send_file()? | self.say_exit()?;
            if !more && before == (false, false) {
                return Ok(());
            }
        }
    }

    fn send_file(&mut self) -> Result<bool, Closed> {
        let Some(download) = &mut self.download else {
            return Ok(false);
        };
        match download.read(FILE_CHUNK) {
            Ok(bytes) if bytes.is_empty() => {
                let (size_bytes, mode) = (download.size_bytes, download.mode);
                self.download = None;
                self.say(&FromGuest::GetEnd { size_bytes, mode })?;
            }
            Ok(bytes) => {
                let frame = [&wire::head(Kind::File, bytes.len())[..], &bytes].concat();
                self.conn.as_mut().map_or(Ok(()), |conn| conn.push(frame))?;
            }
            Err(failed) => {
                self.download = None;
                self.file_failed(failed)?;
            }
        }
        Ok(true)
    }

    fn say_exit(&mut self) -> Result<bool, Closed> {
        let Phase::Ended(exited) = &self.phase else {
            return Ok(false);
        };
        if self.exit_said || !self.stdout.done() || !self.stderr.done() {
            return Ok(false);
        }
        self.exit_said = true;
        let exited = exited.clone();
        self.say(&FromGuest::Exited(exited))?;
        Ok(true)
    }
}
