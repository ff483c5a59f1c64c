//! Making, starting and reaping the processes of the workload.

use crate::confine::{self, Who, errno};
use guest::message::{Confine, Start, StartFailure};
use landlock::RulesetCreated;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How large the pipes of a command are, in bytes: fewer wake-ups for a command that prints much.
const PIPE_BYTES: usize = 256 * 1024;

/// What a pipe holds if nobody asks for more, see `pipe(7)`.
const PIPE_DEFAULT_BYTES: usize = 64 * 1024;

/// Where the child reads its `Start`, and where it tells what failed.
const START_FD: RawFd = 3;
const STATUS_FD: RawFd = 4;

/// The byte that a child sends once it is confined.
const CONFINED: u8 = b'C';

/// A process that is confined and waits for its command.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id, which is also its process group and session.
    pub(crate) pid: i32,
    /// Where `Start` is written to.
    pub(crate) start: Option<OwnedFd>,
    /// Where [`CONFINED`] and failures come from; closed by a successful `exec`.
    pub(crate) status: Option<OwnedFd>,
    /// The write end of its standard input.
    pub(crate) stdin: Option<OwnedFd>,
    /// The read ends of its output.
    pub(crate) stdout: Option<OwnedFd>,
    /// See `stdout`.
    pub(crate) stderr: Option<OwnedFd>,
}

/// What a child told on its status pipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing new.
    Nothing,
    /// It is confined and waits.
    Confined,
    /// It runs the command.
    Running,
    /// It is dead, because of this.
    Failed(StartFailure),
}

/// What a process of the workload is made from.
#[derive(Debug)]
pub(crate) struct Wanted<'w> {
    /// How it is confined.
    pub(crate) confine: &'w Confine,
    /// As whom.
    pub(crate) who: Who,
    /// The rules of `confine`, built ahead.
    pub(crate) landlock: Option<RulesetCreated>,
    /// Membership files of the control groups that it joins.
    pub(crate) cgroups: &'w [OwnedFd],
    /// What its standard streams are.
    pub(crate) streams: Streams,
}

/// The standard streams of a process that is wanted.
#[derive(Debug)]
pub(crate) enum Streams {
    /// Three pipes, with the other ends in [`Child`].
    Pipes,
    /// Its end of the terminal that it lives on.
    Terminal(OwnedFd),
    /// A socket whose other end somebody has for its input, and two pipes.
    Socket(OwnedFd),
    /// Somebody else's.
    Given([OwnedFd; 3]),
}

/// The child's ends of its standard streams.
#[derive(Debug)]
enum Inner {
    Three([OwnedFd; 3]),
    Terminal(OwnedFd),
}

impl Inner {
    fn each(&self) -> [&OwnedFd; 3] {
        match self {
            Inner::Three([stdin, stdout, stderr]) => [stdin, stdout, stderr],
            Inner::Terminal(terminal) => [terminal; 3],
        }
    }
}

/// Forks the process that will be the command, and confines it.
pub(crate) fn prepare(mut wanted: Wanted<'_>) -> Result<Child, Errno> {
    let (inner, outer) = streams(std::mem::replace(&mut wanted.streams, Streams::Pipes))?;
    let (start_read, start) = pipe()?;
    let (status, status_write) = pipe()?;
    match fork()? {
        0 => {
            let [stdin, stdout, stderr] = inner.each();
            let ends = [stdin, stdout, stderr, &start_read, &status_write];
            let terminal = matches!(inner, Inner::Terminal(_));
            child(wanted, ends, terminal)
        }
        pid => {
            rustix::io::ioctl_fionbio(&status, true)?;
            for fd in outer.iter().flatten() {
                make_ours(fd)?;
            }
            let [stdin, stdout, stderr] = outer;
            Ok(Child {
                pid,
                start: Some(start),
                status: Some(status),
                stdin,
                stdout,
                stderr,
            })
        }
    }
}

/// Makes our end of a pipe one that does not block, and holds much.
fn make_ours(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(fd, true)?;
    // More than the machine's limit is refused; the default is fine then.
    let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_BYTES);
    Ok(())
}

/// The pipes of a command: its ends, without that of its input where it has none, and ours.
pub(crate) fn pipes(with_input: bool) -> Result<(Vec<OwnedFd>, [Option<OwnedFd>; 3]), Errno> {
    let (mut theirs, mut ours) = (Vec::new(), [None, None, None]);
    for (at, slot) in ours.iter_mut().enumerate() {
        let (read, write) = match at {
            0 if !with_input => continue,
            _ => pipe()?,
        };
        let (inner, outer) = if at == 0 {
            (read, write)
        } else {
            (write, read)
        };
        make_ours(&outer)?;
        theirs.push(inner);
        *slot = Some(outer);
    }
    Ok((theirs, ours))
}

/// The two ends of the standard streams; ours are none where they are no pipes of ours.
fn streams(wanted: Streams) -> Result<(Inner, [Option<OwnedFd>; 3]), Errno> {
    let (stdin_read, stdin) = match wanted {
        Streams::Terminal(terminal) => return Ok((Inner::Terminal(terminal), [None, None, None])),
        Streams::Given(three) => return Ok((Inner::Three(three), [None, None, None])),
        Streams::Socket(theirs) => (theirs, None),
        Streams::Pipes => pipe().map(|(theirs, ours)| (theirs, Some(ours)))?,
    };
    let (stdout, stdout_write) = pipe()?;
    let (stderr, stderr_write) = pipe()?;
    let inner = Inner::Three([stdin_read, stdout_write, stderr_write]);
    Ok((inner, [stdin, Some(stdout), Some(stderr)]))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
}

/// Forks. In the child: 0.
#[expect(unsafe_code, reason = "fork has no safe wrapper")]
pub(crate) fn fork() -> Result<i32, Errno> {
    // SAFETY: this process has one thread, so the child may run any code and allocate.
    // JUSTIFICATION: the confinement must run between fork and exec, in our own code.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_raw_os_error(errno())),
        pid => Ok(pid),
    }
}

/// The life of the child until it is the command. Never returns.
fn child(wanted: Wanted<'_>, ends: [&OwnedFd; 5], terminal: bool) -> ! {
    let failed = match become_command(wanted, ends, terminal) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let failure = StartFailure {
        step: failed.0.to_owned(),
        errno: failed.1,
    };
    if let Ok(bytes) = postcard::to_stdvec(&failure) {
        let _ = rustix::io::write(status_fd(), &bytes);
    }
    exit_now()
}

#[expect(unsafe_code, reason = "a descriptor known by number")]
fn status_fd() -> rustix::fd::BorrowedFd<'static> {
    // SAFETY: the child put its status pipe there and keeps it open until it is gone.
    unsafe { rustix::fd::BorrowedFd::borrow_raw(STATUS_FD) }
}

#[expect(unsafe_code, reason = "a descriptor known by number")]
fn start_fd() -> rustix::fd::BorrowedFd<'static> {
    // SAFETY: the child put the pipe there and keeps it open until `exec`.
    unsafe { rustix::fd::BorrowedFd::borrow_raw(START_FD) }
}

#[expect(
    unsafe_code,
    reason = "leaving without running the guest's own clean-up"
)]
pub(crate) fn exit_now() -> ! {
    // SAFETY: `_exit` ends the process at once; nothing of the guest's state is touched.
    unsafe { libc::_exit(127) }
}

fn become_command(
    wanted: Wanted<'_>,
    ends: [&OwnedFd; 5],
    terminal: bool,
) -> Result<std::convert::Infallible, confine::Failed> {
    // The groups before the pipes: the pipes take the numbers at which the groups are open.
    let joined = confine::join_cgroups(wanted.cgroups);
    confine::apply_fds(ends)?;
    joined?;
    let failed = |step| move |errno: Errno| (step, errno.raw_os_error());
    own_session()?;
    if terminal {
        let stdin = rustix::stdio::stdin();
        rustix::process::ioctl_tiocsctty(stdin).map_err(failed("terminal"))?;
    }
    confine::apply(wanted.confine, wanted.who, wanted.landlock)?;
    close_from(5);
    let _ = rustix::io::write(status_fd(), &[CONFINED]);
    let start = read_start()?;
    exec(&start)
}

/// What a process has of its own before it is confined: a session, the signals and the mask of files.
pub(crate) fn own_session() -> Result<(), confine::Failed> {
    rustix::process::setsid().map_err(|errno| ("setsid", errno.raw_os_error()))?;
    reset_signals();
    rustix::process::umask(UMASK);
    Ok(())
}

/// What every login shell starts with; the launcher has none, so that its modes are exact.
const UMASK: rustix::fs::Mode = rustix::fs::Mode::from_raw_mode(0o022);

/// The last signal, see `signal(7)`.
const SIGNAL_LAST: i32 = 64;

/// Blocks until the guest sends the command. End of file means that there will be none.
fn read_start() -> Result<Start, confine::Failed> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(start_fd(), &mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(("start", errno.raw_os_error())),
        }
    }
    postcard::from_bytes(&bytes).map_err(|_| ("start", libc::EINVAL))
}

/// A signal that the guest, or whoever started the node, ignores or blocks would stay so in the command.
#[expect(unsafe_code, reason = "resetting dispositions")]
fn reset_signals() {
    for signal in 1..=SIGNAL_LAST {
        // SAFETY: setting the default disposition installs no handler of ours. Numbers that cannot be
        // set are refused, which changes nothing.
        // JUSTIFICATION: Rust's start-up ignores SIGPIPE, and `yes | head` must end.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was initialised, and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

#[expect(unsafe_code, reason = "closing by number")]
pub(crate) fn close_from(first: u32) {
    // SAFETY: everything from `first` up is a copy of the guest's descriptors that this process will
    // not use again; it execs or exits without running their owners' drops.
    // JUSTIFICATION: CLOEXEC alone would leave them open while the confined process waits.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Closes everything but the three standard streams and these.
#[expect(unsafe_code, reason = "closing by number")]
pub(crate) fn close_all_but(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.iter().copied().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: only in a forked child, which ends without running the drops of their owners.
            // JUSTIFICATION: a copy of a pipe or a connection of the guest would keep it open.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Becomes the command, or tells why not.
fn exec(start: &Start) -> Result<std::convert::Infallible, confine::Failed> {
    if !start.stdin {
        null_input()?;
    }
    Err(Image::new(start)?.become_it())
}

/// Has nothing as standard input.
pub(crate) fn null_input() -> Result<(), confine::Failed> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())
        .map_err(|errno| ("stdin", errno.raw_os_error()))?;
    confine::put_at(null.as_raw_fd(), 0)
}

/// A command as the kernel takes it.
pub(crate) struct Image {
    cwd: CString,
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// What `argv` and `env` point at.
    _texts: [Vec<CString>; 2],
}

impl Image {
    pub(crate) fn new(start: &Start) -> Result<Image, confine::Failed> {
        let cwd = CString::new(start.cwd.as_str()).map_err(|_| ("chdir", libc::EINVAL))?;
        let program = start.argv.first().ok_or(("exec", libc::ENOENT))?;
        // One with a zero byte cannot be given, and without it the command would be another.
        let text = |text: &str| CString::new(text).map_err(|_| ("exec", libc::EINVAL));
        let argv = start.argv.iter().map(|argument| text(argument));
        let argv = argv.collect::<Result<Vec<_>, _>>()?;
        let env = start.env.iter().map(|(k, v)| text(&format!("{k}={v}")));
        let env = env.collect::<Result<Vec<_>, _>>()?;
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            let each = list.iter().map(|text| text.as_ptr());
            each.chain([std::ptr::null()]).collect()
        };
        Ok(Image {
            cwd,
            candidates: candidates(program, &start.env),
            argv: pointers(&argv),
            env: pointers(&env),
            _texts: [argv, env],
        })
    }

    /// Becomes the command, or tells why not. Allocates nothing, because it may run in borrowed memory.
    pub(crate) fn become_it(&self) -> confine::Failed {
        if let Err(errno) = rustix::process::chdir(self.cwd.as_c_str()) {
            return ("chdir", errno.raw_os_error());
        }
        let mut last = libc::ENOENT;
        for candidate in &self.candidates {
            let error = self.execve(candidate);
            // As execvp(3): a name that is there but may not be run beats one that is not there.
            if error != libc::ENOENT && error != libc::ENOTDIR {
                last = error;
                if error != libc::EACCES {
                    break;
                }
            }
        }
        ("exec", last)
    }

    #[expect(unsafe_code, reason = "execve has no safe wrapper")]
    fn execve(&self, program: &CString) -> i32 {
        // SAFETY: both lists are null-terminated and point at strings that live as long as this.
        // JUSTIFICATION: this process must become the command; `Command` would fork again.
        unsafe { libc::execve(program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
        errno()
    }
}

/// The files that `program` may mean, in order.
fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path = env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let dirs = path.split(':').filter(|dir| !dir.is_empty());
    dirs.filter_map(|dir| CString::new(format!("{dir}/{program}")).ok())
        .collect()
}

impl Child {
    /// Reads what the child tells, without blocking.
    pub(crate) fn status(&mut self) -> Status {
        let Some(status) = &self.status else {
            return Status::Nothing;
        };
        let said = read_status(status);
        if matches!(said, Status::Running | Status::Failed(_)) {
            self.status = None; // Its end of file must not be taken for a successful `exec`.
        }
        said
    }

    /// Sends the command to the waiting process.
    pub(crate) fn start(&mut self, start: &Start) -> Result<(), Errno> {
        let Some(pipe) = self.start.take() else {
            return Err(Errno::ALREADY);
        };
        if !start.stdin {
            self.stdin = None;
        }
        let bytes = postcard::to_stdvec(start).map_err(|_| Errno::INVAL)?;
        // The pipe holds all of it, because the child may have been stopped by what runs beside it and
        // then reads nothing. What no pipe holds is longer than an `exec` takes.
        rustix::io::ioctl_fionbio(&pipe, true)?;
        if bytes.len() > PIPE_DEFAULT_BYTES {
            rustix::pipe::fcntl_setpipe_size(&pipe, bytes.len()).map_err(|_| Errno::TOOBIG)?;
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let n = rustix::io::write(&pipe, left)?;
            left = left.get(n..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Reads once what a child tells, without blocking.
pub(crate) fn read_status(status: &OwnedFd) -> Status {
    let mut bytes = [0; 256];
    match rustix::io::read(status, &mut bytes) {
        Ok(0) => Status::Running,
        Ok(n) => {
            let told = bytes.get(..n).unwrap_or_default();
            let rest = told.strip_prefix(&[CONFINED]).unwrap_or(told);
            if rest.is_empty() {
                Status::Confined
            } else {
                failed(rest)
            }
        }
        Err(_) => Status::Nothing,
    }
}

fn failed(told: &[u8]) -> Status {
    let unreadable = StartFailure {
        step: "status".to_owned(),
        errno: libc::EPROTO,
    };
    Status::Failed(postcard::from_bytes(told).unwrap_or(unreadable))
}

/// A process that was reaped.
#[derive(Debug)]
pub(crate) struct Reaped {
    /// Its process id.
    pub(crate) pid: i32,
    /// The exit code, where it ended by itself.
    pub(crate) code: Option<i32>,
    /// The signal, where one ended it.
    pub(crate) signal: Option<i32>,
    /// Processor time of it and of what it reaped, in milliseconds.
    pub(crate) cpu_us: u64,
    /// Its largest resident set in bytes.
    pub(crate) max_rss_bytes: u64,
}

/// What [`reap`] found.
#[derive(Debug)]
pub(crate) enum Reap {
    /// A dead child.
    Dead(Reaped),
    /// Children, but none of them dead.
    Alive,
    /// No child at all.
    None,
}

/// Takes one dead child, without blocking.
#[expect(unsafe_code, reason = "wait4 has no safe wrapper with usage")]
pub(crate) fn reap() -> Reap {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes for the length of the call.
    // JUSTIFICATION: only wait4 gives the usage of the very process that ended.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    if pid <= 0 {
        return if pid == 0 { Reap::Alive } else { Reap::None };
    }
    // SAFETY: zeroed is a valid `rusage`, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let micros = |t: libc::timeval| t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_usec.unsigned_abs();
    Reap::Dead(Reaped {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    })
}

/// Sends a signal to every process in the sandbox but the guest, or to one process group.
#[expect(unsafe_code, reason = "kill(-1) has no safe wrapper")]
pub(crate) fn signal(group: Option<i32>, signal: i32) {
    let whom = group.map_or(-1, |group| -group);
    // SAFETY: integers only. From the first process of a pid namespace, -1 reaches no further than it.
    unsafe { libc::kill(whom, signal) };
}

/// Whether there is no process in the sandbox but this one; one that is dead and not reaped counts as there.
#[expect(unsafe_code, reason = "kill(-1) has no safe wrapper")]
pub(crate) fn is_alone() -> bool {
    // SAFETY: integers only, and signal 0 is none.
    let found = unsafe { libc::kill(-1, 0) } == 0;
    !found && errno() == libc::ESRCH
}

/// Sets the identity that file access is judged by.
#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
pub(crate) fn set_fs_ids(uid: u32, gid: u32) {
    // SAFETY: integers only. The group first: without the right to it the user change is refused too.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: integers only.
    unsafe { libc::setfsuid(uid) };
}

/// The effective user id of this process.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group id of this process.
pub(crate) fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Milliseconds of the boot-time clock, which goes on while the machine sleeps.
pub(crate) fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Blocks every signal and returns a descriptor that tells when a child died.
#[expect(unsafe_code, reason = "signalfd has no safe wrapper")]
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
    let mut child = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set.
    unsafe { libc::sigemptyset(child.as_mut_ptr()) };
    // SAFETY: the set was initialised.
    unsafe { libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD) };
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set was initialised, and -1 asks for a new descriptor.
    match unsafe { libc::signalfd(-1, child.as_ptr(), flags) } {
        -1 => Err(Errno::from_raw_os_error(errno())),
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Takes all pending notices from [`child_signals`]; which child it was is found by reaping.
pub(crate) fn drain(signals: &OwnedFd) {
    let mut notice = [0; size_of::<libc::signalfd_siginfo>() * 4];
    while rustix::io::read(signals, &mut notice).is_ok_and(|n| n == notice.len()) {}
}
