//! Asking the guest, and standing in for the command until it has ended.

use guest::sudo::{self, Ask, Ended, MESSAGE_MAX, SOCKET, Then};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::ExitCode;

/// Where this program is found again, by the guest.
const SELF: &str = "/usr/bin/sudo";

/// Signals that whoever types means for the command.
const FORWARDED: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];

/// Has the guest run this program again as root, with the same arguments.
pub(crate) fn send(args: &[String]) -> Result<ExitCode, String> {
    let said = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
    let signals = catch_signals().map_err(said("cannot wait for signals"))?;
    let socket =
        connect().map_err(|_| "this sandbox does not allow it, or its guest is busy".to_owned())?;
    let ask = ask(args)?;
    let bytes = sudo::encode(&ask).ok_or("the command and its environment are too long")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    if !control.push(SendAncillaryMessage::ScmRights(&streams)) {
        return Err("its streams cannot be passed on".to_owned());
    }
    let slices = [IoSlice::new(&bytes)];
    rustix::net::sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL)
        .map_err(said("the sandbox does not take it"))?;
    loop {
        let mut fds = [
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(said("cannot wait")(errno)),
        }
        let [ended, signaled] = fds.map(|fd| !fd.revents().is_empty());
        if ended {
            return end(&socket);
        }
        if signaled {
            pass_on(&signals, &socket);
        }
    }
}

fn connect() -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // What a buffer holds by default may be less than one message; more than is allowed is not given.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, 2 * MESSAGE_MAX);
    rustix::net::connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(socket)
}

fn ask(args: &[String]) -> Result<Ask, String> {
    let cwd = std::env::current_dir().map_err(|error| format!("where am I: {error}"))?;
    let cwd = cwd.into_os_string().into_string();
    let mut argv = vec![SELF.to_owned()];
    argv.extend(args.iter().cloned());
    // A variable that is no text is not passed on, as those are not that have no place in root's.
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: Vec<(String, String)> = texts
        .filter(|(name, _)| !name.starts_with("SUDO_"))
        .collect();
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    env.push(("SUDO_UID".to_owned(), uid.as_raw().to_string()));
    env.push(("SUDO_GID".to_owned(), gid.as_raw().to_string()));
    Ok(Ask {
        argv,
        env,
        cwd: cwd.map_err(|_| "the working directory's name is no UTF-8".to_owned())?,
    })
}

fn end(socket: &OwnedFd) -> Result<ExitCode, String> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut read = || rustix::net::recv(socket, &mut *bytes, rustix::net::RecvFlags::empty());
    let got = match read() {
        // It hung up before it had read all; what it said before comes after this.
        Err(Errno::CONNRESET) => read(),
        got => got,
    };
    let n = got.map_or(0, |(n, _)| n);
    match sudo::decode(bytes.get(..n).unwrap_or_default()) {
        Some(Ended::Code(code)) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(255))),
        Some(Ended::Signal(signal)) => {
            Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(255)))
        }
        Some(Ended::NotStarted { step, errno }) => {
            Err(format!("{step}: {}", Errno::from_raw_os_error(errno)))
        }
        Some(Ended::Refused) => Err("the sandbox refuses it".to_owned()),
        None => Err("the sandbox did not answer".to_owned()),
    }
}

fn pass_on(signals: &OwnedFd, socket: &OwnedFd) {
    let mut notice = [0_u8; size_of::<libc::signalfd_siginfo>()];
    if !rustix::io::read(signals, &mut notice).is_ok_and(|n| n == notice.len()) {
        return;
    }
    // The number is the first member, see `signalfd(2)`.
    let number = notice
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if let Some(bytes) = sudo::encode(&Then::Signal(number)) {
        // A command that has ended takes no signal, and its end is read next.
        let _ = rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL);
    }
}

/// Blocks what is forwarded and returns a descriptor that tells of it.
#[expect(unsafe_code, reason = "signalfd has no safe wrapper")]
fn catch_signals() -> Result<OwnedFd, Errno> {
    let failed =
        || Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in FORWARDED {
        // SAFETY: the set was initialised.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set was initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) } != 0 {
        return Err(failed());
    }
    // SAFETY: the set was initialised, and -1 asks for a new descriptor.
    match unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC) } {
        -1 => Err(failed()),
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}
