//! The TUN device of a sandbox that has a way out: all that programs send beyond the loopback goes to it, and
//! the guest reads it at the other end. Made by a process that is root of the network namespace: the first one
//! of the sandbox, before it drops that, or one that comes from outside to a sandbox that stands. Nothing that
//! runs inside has the right to change it.
//!
//! Of IPv6 it has one address, which is given here: nothing is announced, asked for or made up on it.

use crate::mount::failed;
use crate::sandbox::{Given, lift};
use crate::sys;
use jail::message::{self, Failure};
use jail::plan::{Sandbox, Tun};
use jail::socket;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Packets that wait to be read by the guest: the first ones of as many connections as there may be. What is
/// beyond that is dropped, and TCP sends it again a second later.
const QUEUE: u32 = 1024;

/// The other end of the sandbox's device, if it is to have one.
pub(crate) fn tun(sandbox: &Sandbox, given: &Given<'_>) -> Result<Option<OwnedFd>, Failure> {
    match (&sandbox.tun, given.tun) {
        (Some(plan), Some(device)) => {
            let tun = make(plan, device)?;
            lift(&tun, given).map(Some).map_err(failed("tun", "dup"))
        }
        (None, None) => Ok(None),
        _ => Err(failed("tun", "descriptor")(Errno::BADF)),
    }
}

/// A process that makes the device of a sandbox that stands, so that the launcher goes on.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) id: String,
    pub(crate) pidfd: OwnedFd,
    said: OwnedFd,
}

impl Maker {
    /// `first` is the sandbox's first process, and `go` leads to it.
    pub(crate) fn start(
        id: String,
        (first, go): (&OwnedFd, &OwnedFd),
        (plan, device): (&Tun, &OwnedFd),
    ) -> Result<Maker, Errno> {
        let (said, say) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let Some((_, pidfd)) = sys::fork_into(0)? else {
            let made = enter(first).and_then(|()| hand_over(go, plan, device));
            if let Some(bytes) = message::encode(&made) {
                let _ = rustix::io::write(&say, &bytes);
            }
            sys::exit_now(0)
        };
        Ok(Maker { id, pidfd, said })
    }

    /// What it said before it ended.
    pub(crate) fn result(&self) -> Result<(), Failure> {
        let mut bytes = [0; 1024];
        let n = rustix::io::read(&self.said, &mut bytes).unwrap_or(0);
        let silent = || Err(failed("tun", "to the end")(Errno::CANCELED));
        message::decode(bytes.get(..n).unwrap_or_default()).unwrap_or_else(silent)
    }
}

/// Goes into the user and network namespaces of a sandbox, with one right there, and dies with the launcher. It
/// is in no other namespace of it: nobody inside sees this process, so none can stop or trace it.
fn enter(first: &OwnedFd) -> Result<(), Failure> {
    sys::enter(first, libc::CLONE_NEWUSER | libc::CLONE_NEWNET).map_err(failed("tun", "enter"))?;
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)
        .map_err(failed("tun", "death signal"))?;
    let sets = CapabilitySets {
        effective: CapabilitySet::NET_ADMIN,
        permitted: CapabilitySet::NET_ADMIN,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed("tun", "capabilities"))
}

/// If we die before the guest has it, the device goes with the last descriptor; so one that is there is the
/// guest's already.
fn hand_over(go: &OwnedFd, plan: &Tun, device: &OwnedFd) -> Result<(), Failure> {
    match make(plan, device) {
        Ok(tun) => socket::send(go, b"n", &[tun.as_fd()]).map_err(failed("tun", "hand over")),
        Err(failure) if failure.errno == Errno::BUSY.raw_os_error() => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn make(plan: &Tun, device: &OwnedFd) -> Result<OwnedFd, Failure> {
    // A descriptor of the device belongs to the network namespace in which it was opened, so that is here.
    let path = format!("/proc/self/fd/{}", device.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("tun", "open"))?;
    sys::make_tun(&tun, &plan.name).map_err(failed("tun", "make"))?;
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(failed("tun", "netlink"))?;
    let index = name_to_index(&socket, &plan.name).map_err(failed("tun", "index"))?;
    let has_ipv6 = if_ipv6(ask(&socket, &nothing_of_its_own(index)))?;
    ask(&socket, &up(index, plan.mtu)).map_err(failed("tun", "up"))?;
    let own = address(libc::AF_INET, index, &plan.address.octets());
    ask(&socket, &own).map_err(failed("tun", "address"))?;
    ask(&socket, &default_route(libc::AF_INET, index)).map_err(failed("tun", "route"))?;
    let own = address(libc::AF_INET6, index, &plan.address6.octets());
    if has_ipv6 && if_ipv6(ask(&socket, &own))? {
        ask(&socket, &default_route(libc::AF_INET6, index)).map_err(failed("tun", "route"))?;
    }
    Ok(tun)
}

/// False of a kernel without IPv6, or one that was told to have none on new devices: then programs are told at
/// once that there is none.
fn if_ipv6(asked: Result<(), Errno>) -> Result<bool, Failure> {
    match asked {
        Ok(()) => Ok(true),
        Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(failed("tun", "IPv6")(errno)),
    }
}

/// A message of `rtnetlink(7)`, numbers in the machine's order.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, body: &[u8]) -> Message {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0);
        let mut bytes = vec![0; 4]; // The length, when it is known.
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]); // Sequence and port: one question at a time needs neither.
        bytes.extend(body);
        Message(bytes)
    }

    /// Adds an attribute; `netlink(7)` has them begin at multiples of four.
    fn with(mut self, kind: u16, value: &[u8]) -> Message {
        self.0.extend(attribute(kind, value));
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0).to_ne_bytes();
        for (to, from) in self.0.iter_mut().zip(length) {
            *to = from;
        }
        self.0
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(0);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let head = [0, 0, 0, 0]; // Any family, padding, any type.
    [
        head,
        index.to_ne_bytes(),
        flags.to_ne_bytes(),
        flags.to_ne_bytes(),
    ]
    .concat()
}

/// No link-local address is made, so nothing is ever announced or asked there.
fn nothing_of_its_own(index: u32) -> Vec<u8> {
    const ADDR_GEN_MODE: u16 = 8; // IFLA_INET6_ADDR_GEN_MODE of linux/if_link.h
    const NONE: u8 = 1; // IN6_ADDR_GEN_MODE_NONE
    let family = u16::try_from(libc::AF_INET6).unwrap_or(0);
    let inner = attribute(family, &attribute(ADDR_GEN_MODE, &[NONE]));
    Message::new(libc::RTM_NEWLINK, 0, &link(index, 0))
        .with(libc::IFLA_AF_SPEC, &inner)
        .bytes()
}

fn up(index: u32, mtu: u32) -> Vec<u8> {
    let up = libc::IFF_UP.unsigned_abs();
    Message::new(libc::RTM_NEWLINK, 0, &link(index, up))
        .with(libc::IFLA_MTU, &mtu.to_ne_bytes())
        .with(libc::IFLA_TXQLEN, &QUEUE.to_ne_bytes())
        .bytes()
}

/// `struct ifaddrmsg`: one address, whose network is itself.
fn address(family: i32, index: u32, octets: &[u8]) -> Vec<u8> {
    let family = u8::try_from(family).unwrap_or(0);
    let bits = u8::try_from(8 * octets.len()).unwrap_or(0);
    // Nobody else could have it: it need not be tried out (`ip-address(8)`, nodad).
    let flags = u8::try_from(libc::IFA_F_NODAD).unwrap_or(0);
    let body = [[family, bits, flags, 0], index.to_ne_bytes()].concat();
    Message::new(
        libc::RTM_NEWADDR,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &body,
    )
    .with(libc::IFA_LOCAL, octets)
    .with(libc::IFA_ADDRESS, octets)
    .bytes()
}

/// `struct rtmsg`: everything that is not on the machine.
fn default_route(family: i32, index: u32) -> Vec<u8> {
    let family = u8::try_from(family).unwrap_or(0);
    let body = [
        family,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_LINK,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    Message::new(
        libc::RTM_NEWROUTE,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &body,
    )
    .with(libc::RTA_OIF, &index.to_ne_bytes())
    .bytes()
}

/// Asks, and reads the answer: `struct nlmsghdr`, and then an error number that is negative, or 0.
fn ask(socket: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    const HEAD: usize = 16;
    // A socket that is not bound or connected speaks to the kernel.
    rustix::net::send(socket, message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (_, length) = rustix::net::recv(socket, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let kind = answer.get(4..6) == Some(&i32_low(libc::NLMSG_ERROR));
    let error = answer.get(HEAD..).and_then(<[u8]>::first_chunk::<4>);
    match error.copied().map(i32::from_ne_bytes) {
        Some(0) if kind => Ok(()),
        Some(error) if kind => Err(Errno::from_raw_os_error(error.wrapping_neg())),
        _ => Err(Errno::PROTO),
    }
}

fn i32_low(kind: i32) -> [u8; 2] {
    u16::try_from(kind).unwrap_or(0).to_ne_bytes()
}
