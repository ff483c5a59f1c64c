//! TCP, as far as smoltcp knows it: each connection has a socket in a set of its own, so a packet costs the same
//! however many there are. What is bounded is bounded here: buffers of all connections together.

use super::packet::Flow;
use crate::live::Stream;
use guest::message::{TUN_DNS, TUN_MTU};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration as Span, Instant as Moment};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpListenEndpoint};
use std::collections::HashMap;
use std::fmt;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Bytes of buffers that the first connections share; each takes an eighth of what is left for each direction,
/// so a few have much and many have little.
const BUFFERS: usize = 16 << 20;

/// Bytes of one buffer, at most and at least: four of the longest packets, and what 1,024 connections may have.
const BUFFER_MAX: usize = 256 << 10;
const BUFFER_MIN: usize = 16 << 10;

/// Bytes of buffers after which what they took is given back to the machine: the allocator keeps it else, where one
/// small thing lies above it.
const TRIM_FROM: usize = 1 << 20;

/// How many times faster the clock of TCP goes than ours. smoltcp sends what was lost again after a second, and then
/// after twice as long each time, as is right for networks of the world (RFC 6298). Here both ends are on one machine,
/// and what is lost was dropped by its kernel, because the program's buffer had less room for a packet than the window
/// had said (`TCPRcvQDrop`). A slow reader on a busy machine brings that about again and again.
const HASTE: u32 = 20;

/// How long the other end, which is this machine's kernel, may leave unanswered what was sent.
const SILENCE_MAX: Span = hasty(60_000);

/// When the other end is asked for its window while something is to be sent and no timer runs. It is where the window
/// was closed over what was under way and dropped: smoltcp then gives up to send it again and has not begun to probe,
/// and waits for a packet in which the kernel says that the window is open. That is sent once, and may get lost.
const ASK_AGAIN: Span = hasty(1000);

/// So many of our milliseconds.
const fn hasty(ms: u64) -> Span {
    Span::from_millis(ms * HASTE as u64)
}

/// Packets of one connection that are sent before others get their turn.
const BURST: usize = 16;

/// The longest packet.
const PACKET_MAX: usize = TUN_MTU as usize;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The node is being asked.
    Asked,
    /// It has a socket.
    Open,
}

enum Connection {
    Asked,
    Open(Box<Open>),
}

struct Open {
    set: SocketSet<'static>,
    handle: SocketHandle,
    waker: Option<Waker>,
    buffers: usize,
}

/// See the module.
pub(super) struct Stack {
    interface: Option<Interface>,
    connections: HashMap<Flow, Connection>,
    /// What packets of no connection are shown to: it answers with a reset.
    nobody: SocketSet<'static>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    buffers: usize,
    /// The most that these were since there was no connection.
    most: usize,
    since: Instant,
}

impl Default for Stack {
    fn default() -> Stack {
        Stack {
            interface: None,
            connections: HashMap::new(),
            nobody: SocketSet::new(Vec::new()),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            buffers: 0,
            most: 0,
            since: Instant::now(),
        }
    }
}

/// Gives back to the machine whatever the allocator does not use, `malloc_trim(3)`.
#[expect(unsafe_code, reason = "the allocator has no safe interface")]
fn trim() {
    // SAFETY: takes a number, and frees only pages of memory that nobody has.
    unsafe { libc::malloc_trim(0) };
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("connections", &self.connections.len())
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// Where the next packet is read to.
    pub(super) fn incoming(&mut self) -> &mut [u8] {
        if self.incoming.is_empty() {
            self.incoming = vec![0; PACKET_MAX];
        }
        &mut self.incoming
    }

    /// Gives back what an idle sandbox need not hold.
    pub(super) fn rest(&mut self) {
        if self.connections.is_empty() {
            if self.most >= TRIM_FROM {
                trim();
            }
            let since = self.since;
            *self = Stack {
                since,
                ..Stack::default()
            };
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn status(&self, flow: Flow) -> Option<Status> {
        self.connections.get(&flow).map(|one| match one {
            Connection::Asked => Status::Asked,
            Connection::Open(_) => Status::Open,
        })
    }

    /// The node is asked about this one from now on.
    pub(super) fn expect(&mut self, flow: Flow) {
        self.connections.insert(flow, Connection::Asked);
    }

    /// Forgets a connection that is over.
    pub(super) fn remove(&mut self, flow: Flow) {
        if let Some(Connection::Open(open)) = self.connections.remove(&flow) {
            self.buffers -= open.buffers;
        }
    }

    /// Answers the first packet of a connection with a socket.
    pub(super) fn accept(&mut self, device: &Stream, flow: Flow, syn: &[u8]) {
        let size = share(self.buffers);
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        // Both ends are on this machine: nothing is gained by waiting for more to send or to confirm.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(SILENCE_MAX));
        let endpoint = IpListenEndpoint {
            addr: Some(IpAddress::from(flow.to.ip())),
            port: flow.to.port(),
        };
        // Without it the socket is closed, and the packet gets a reset.
        let _ = socket.listen(endpoint);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        self.buffers += 2 * size;
        self.most = self.most.max(self.buffers);
        let open = Open {
            set,
            handle,
            waker: None,
            buffers: 2 * size,
        };
        self.connections
            .insert(flow, Connection::Open(Box::new(open)));
        self.show(device, Some(flow), syn);
    }

    /// Answers the first packet of a connection with a reset.
    pub(super) fn refuse(&mut self, device: &Stream, syn: &[u8]) {
        self.show(device, None, syn);
    }

    /// Shows the packet that was read last to its connection, and lets that go on.
    pub(super) fn feed(&mut self, device: &Stream, flow: Flow, length: usize) {
        let incoming = std::mem::take(&mut self.incoming);
        let packet = incoming.get(..length).unwrap_or_default();
        self.show(device, Some(flow), packet);
        self.incoming = incoming;
        if let Some(Connection::Open(open)) = self.connections.get_mut(&flow)
            && let Some(waker) = open.waker.take()
        {
            waker.wake();
        }
    }

    fn show(&mut self, device: &Stream, flow: Option<Flow>, packet: &[u8]) {
        let now = self.now();
        let mut port = Port {
            device,
            incoming: Some(packet),
            outgoing: &mut self.outgoing,
        };
        let set = match flow.and_then(|flow| self.connections.get_mut(&flow)) {
            Some(Connection::Open(open)) => &mut open.set,
            Some(Connection::Asked) | None => &mut self.nobody,
        };
        let interface = self.interface.get_or_insert_with(|| interface(&mut port));
        interface.poll_ingress_single(now, &mut port, set);
    }

    /// The socket of a connection. Whoever asks is woken when something comes for it.
    pub(super) fn socket(&mut self, flow: Flow, waker: &Waker) -> Option<&mut Socket<'static>> {
        match self.connections.get_mut(&flow)? {
            Connection::Asked => None,
            Connection::Open(open) => {
                open.waker = Some(waker.clone());
                Some(open.set.get_mut(open.handle))
            }
        }
    }

    /// Sends what a connection has to send, and says when there will be more to do if nothing comes.
    pub(super) fn flush(&mut self, device: &Stream, flow: Flow) -> Option<Duration> {
        let now = self.now();
        let Some(Connection::Open(open)) = self.connections.get_mut(&flow) else {
            return None;
        };
        let socket: &mut Socket<'static> = open.set.get_mut(open.handle);
        let has_more = socket.send_queue() > 0;
        socket.set_keep_alive(has_more.then_some(ASK_AGAIN));
        let mut port = Port {
            device,
            incoming: None,
            outgoing: &mut self.outgoing,
        };
        let interface = self.interface.as_mut()?;
        for _ in 0..BURST {
            if interface.poll_egress(now, &mut port, &mut open.set) == PollResult::None {
                break;
            }
        }
        let delay = interface.poll_delay(now, &open.set)?;
        Some(Duration::from_micros(delay.total_micros()) / HASTE)
    }

    fn now(&self) -> Moment {
        let micros = self.since.elapsed().as_micros();
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        Moment::from_micros(micros.saturating_mul(i64::from(HASTE)))
    }
}

/// The bytes of each buffer of one connection more, when the others have so many.
fn share(used: usize) -> usize {
    (BUFFERS.saturating_sub(used) / 8).clamp(BUFFER_MIN, BUFFER_MAX)
}

/// One end of everything: whatever address a packet is for, it is for this.
fn interface(port: &mut Port<'_>) -> Interface {
    let mut seed = [0; 8];
    // Where sequences begin. Nobody outside sees them, and without random numbers they are still some.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = u64::from_ne_bytes(seed);
    let mut interface = Interface::new(config, port, Moment::ZERO);
    interface.update_ip_addrs(|addresses| {
        // There is room for one.
        let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(TUN_DNS), 32));
    });
    interface.set_any_ip(true);
    interface
}

/// The device, with the packet that was read from it.
struct Port<'p> {
    device: &'p Stream,
    incoming: Option<&'p [u8]>,
    outgoing: &'p mut Vec<u8>,
}

struct Received<'p>(&'p [u8]);

struct Room<'p> {
    device: &'p Stream,
    outgoing: &'p mut Vec<u8>,
}

impl phy::Device for Port<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Moment) -> Option<(Received<'_>, Room<'_>)> {
        let packet = self.incoming.take()?;
        Some((Received(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _: Moment) -> Option<Room<'_>> {
        Some(Room {
            device: self.device,
            outgoing: self.outgoing,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = PACKET_MAX;
        // What comes from the kernel was in no other hands.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        if self.outgoing.len() < length {
            self.outgoing.resize(length, 0);
        }
        let packet = self.outgoing.get_mut(..length).unwrap_or_default();
        let result = f(packet);
        // One that the kernel does not take is lost, as on any network, and sent again.
        let _ = rustix::io::write(self.device, packet);
        result
    }
}

#[cfg(test)]
mod tests;
