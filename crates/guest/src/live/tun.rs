//! The other end of the sandbox's TUN device: programs that know no proxy connect as they would anywhere, and
//! what they send comes here as packets. Each connection of TCP gets a line to the node, with the name that its
//! address stands for, and is answered only when the node has said yes; questions of DNS are answered with such
//! addresses. Everything else is refused at once, and the node is told for its record.
//!
//! Nothing is decided here, and a workload that fooled this would get what it can ask the proxy for. The packets
//! are made by the kernel, because the workload may open no socket that makes its own; still, none is
//! believed. Whatever the workload does to this, it does to its own sandbox: memory is bounded for each, and
//! packets that come faster than anybody needs wait.

mod ask;
mod carry;
mod dns;
#[cfg(test)]
mod fuzz;
mod name;
mod names;
mod offload;
mod packet;
mod refused;
mod stack;

use super::egress::Lines;
use super::{Stream, register};
use names::Names;
use packet::Packet;
use stack::{Stack, Status};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::time::Instant;

/// Connections at a time, those that wait for an answer of the node included: as many as the node serves. What
/// comes then is not answered, and the kernel asks again.
const CONNECTIONS_MAX: usize = 1024;

/// Packets that are read before others get their turn.
const BATCH: usize = 64;

/// Packets in [`SLICE`]: with the longest ones more than memory can be copied, with the shortest a tenth of a
/// processor. This process is in none of the workload's control groups, so it must hold itself.
const SLICE_MAX: usize = 5000;
const SLICE: Duration = Duration::from_millis(100);

/// What all of it shares.
#[derive(Debug)]
pub(super) struct Tun {
    device: Stream,
    lines: Rc<Lines>,
    stack: RefCell<Stack>,
    names: RefCell<Names>,
    asking: RefCell<name::Asking>,
    /// Questions of DNS that are being answered.
    questions: Cell<usize>,
    /// Connections over which such questions come.
    askers: Cell<usize>,
    /// What was refused lately.
    refused: refused::Refusals,
    /// What the names' ages are counted from.
    since: Instant,
}

/// Serves the device until the sandbox ends.
pub(super) async fn serve(device: OwnedFd, lines: Rc<Lines>) {
    offload::leave_out_sums(&device);
    // The runtime has no room for one descriptor more: as if there were no device.
    let Ok(device) = register(device, Interest::READABLE) else {
        return;
    };
    let tun = Rc::new(Tun {
        device,
        lines,
        stack: RefCell::default(),
        names: RefCell::default(),
        asking: RefCell::default(),
        questions: Cell::new(0),
        askers: Cell::new(0),
        refused: refused::Refusals::default(),
        since: Instant::now(),
    });
    let (mut slice, mut count) = (Instant::now(), 0);
    loop {
        let Ok(mut ready) = tun.device.readable().await else {
            return;
        };
        let read = tun.take_batch();
        if read < BATCH {
            ready.clear_ready();
        }
        count += read;
        let now = Instant::now();
        if now.duration_since(slice) >= SLICE {
            (slice, count) = (now, read);
        } else if count > SLICE_MAX {
            tokio::time::sleep_until(slice + SLICE).await;
        }
        // What was read wakes the tasks of connections, and they make the room for more.
        tokio::task::yield_now().await;
    }
}

impl Tun {
    /// Reads what is there, at most so much at once. Fewer than [`BATCH`] mean that there is no more.
    fn take_batch(self: &Rc<Self>) -> usize {
        for count in 0..BATCH {
            let mut stack = self.stack.borrow_mut();
            let Ok(length @ 1..) = rustix::io::read(&self.device, stack.incoming()) else {
                stack.rest();
                return count;
            };
            drop(stack);
            self.take(length);
        }
        BATCH
    }

    /// Handles the packet that was read last.
    fn take(self: &Rc<Self>, length: usize) {
        let mut stack = self.stack.borrow_mut();
        let bytes = stack.incoming().get(..length).unwrap_or_default();
        match packet::read(bytes) {
            Packet::Syn { flow, head } => {
                let syn = bytes.get(..head).unwrap_or_default().to_vec();
                match stack.status(flow) {
                    None if stack.len() < CONNECTIONS_MAX => {
                        stack.expect(flow);
                        drop(stack);
                        let connecting = carry::connect(self.clone(), flow, syn);
                        tokio::task::spawn_local(connecting);
                    }
                    Some(Status::Open) => stack.feed(&self.device, flow, length),
                    // It is being asked about, or there are too many.
                    None | Some(Status::Asked) => {}
                }
            }
            Packet::Tcp { flow } => stack.feed(&self.device, flow, length),
            Packet::Question { from, question } => {
                let question = question.to_vec();
                drop(stack);
                name::answer_datagram(self, from, question);
            }
            Packet::Refused { answer, what } => {
                drop(stack);
                self.send(&answer);
                refused::tell(self, what);
            }
            Packet::Ignored => {}
        }
    }

    /// Sends a packet to the programs inside. One that the kernel does not take is lost, as on any network.
    fn send(&self, packet: &[u8]) {
        let _ = rustix::io::write(&self.device, packet);
    }

    /// Seconds since the device is served.
    fn now_s(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// The host that an address stands for: the name that it was given for, or itself.
    fn host_of(&self, address: SocketAddr) -> String {
        let name = self.names.borrow_mut().name_of(address.ip());
        match (name, address.ip()) {
            (Some(name), _) => name.to_string(),
            (None, IpAddr::V4(ip)) => ip.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        }
    }
}
