use super::*;
use crate::live::register;
use crate::live::tun::packet;
use smoltcp::wire::{Ipv4Packet, TcpPacket};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::Waker;
use tokio::io::Interest;

#[test]
fn a_few_connections_have_much_and_all_together_a_bounded_amount() {
    assert_eq!(share(0), BUFFER_MAX);
    let mut used = 0;
    for _ in 0..crate::live::tun::CONNECTIONS_MAX {
        used += 2 * share(used);
    }
    assert!(used <= 48 << 20, "{used}");
}

/// A device that is a socket, and its other end.
fn device() -> (Stream, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (register(ours, Interest::READABLE).unwrap(), theirs)
}

const FROM: Ipv4Addr = guest::message::TUN_ADDRESS;
const TO: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// A first packet from this port, as the kernel makes them.
fn syn(port: u16) -> (Flow, Vec<u8>) {
    let flow = Flow {
        from: SocketAddr::from((FROM, port)),
        to: SocketAddr::from((TO, 443)),
    };
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([FROM.octets(), TO.octets()].concat());
    bytes.extend([port.to_be_bytes(), 443_u16.to_be_bytes()].concat());
    bytes.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    (flow, bytes)
}

/// The next packet that programs would get: its ports, and whether it is a SYN, an ACK, a RST.
fn got(device: &OwnedFd) -> Option<(u16, [bool; 3])> {
    let mut bytes = [0; 1500];
    let length = rustix::io::read(device, &mut bytes).ok()?;
    let packet = Ipv4Packet::new_checked(&bytes[..length]).unwrap();
    assert!(packet.verify_checksum());
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    assert!(tcp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
    Some((tcp.dst_port(), [tcp.syn(), tcp.ack(), tcp.rst()]))
}

#[tokio::test(flavor = "current_thread")]
async fn a_first_packet_is_answered_only_after_the_decision_and_by_it() {
    let (device, programs) = device();
    let mut stack = Stack::default();
    let (flow, first) = syn(40_001);
    assert!(matches!(
        packet::read(&first),
        packet::Packet::Syn { head: 40, .. }
    ));
    stack.expect(flow);
    assert_eq!(stack.status(flow), Some(Status::Asked));
    assert_eq!(got(&programs), None);
    stack.accept(&device, flow, &first);
    stack.flush(&device, flow);
    assert_eq!(stack.status(flow), Some(Status::Open));
    assert_eq!(got(&programs), Some((40_001, [true, true, false])));
    let (_, refused) = syn(40_002);
    stack.refuse(&device, &refused);
    assert_eq!(got(&programs), Some((40_002, [false, true, true])));
    // What it took is given back.
    assert!(stack.buffers > 0);
    stack.remove(flow);
    stack.rest();
    assert_eq!(
        (stack.buffers, stack.len(), stack.incoming.len()),
        (0, 0, 0)
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_packet_of_no_connection_is_reset_and_one_that_is_asked_about_too() {
    let (device, programs) = device();
    let mut stack = Stack::default();
    let (flow, mut other) = syn(40_003);
    other[33] = 0x10; // ACK
    for _ in 0..2 {
        stack.incoming()[..40].copy_from_slice(&other);
        stack.feed(&device, flow, 40);
        assert_eq!(got(&programs), Some((40_003, [false, false, true])));
        stack.expect(flow);
    }
    // Random bytes are nothing to it.
    for seed in 0..=255_u8 {
        let length = usize::from(seed) + 1;
        let bytes = stack.incoming();
        for (n, byte) in bytes.iter_mut().take(length).enumerate() {
            *byte = seed
                .wrapping_mul(31)
                .wrapping_add(u8::try_from(n % 256).unwrap());
        }
        bytes[0] = 0x45;
        stack.feed(&device, flow, length);
    }
    assert_eq!(stack.len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_of_ipv6_is_answered_whatever_address_it_is_for() {
    use smoltcp::wire::Ipv6Packet;
    let (device, programs) = device();
    let mut stack = Stack::default();
    let from = guest::message::TUN_ADDRESS6;
    let to: std::net::Ipv6Addr = "2606:4700::1111".parse().unwrap();
    let mut first = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    first.extend([from.octets(), to.octets()].concat());
    first.extend([40_004_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat());
    first.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let packet::Packet::Syn { flow, head: 60 } = packet::read(&first) else {
        panic!("no first packet");
    };
    stack.expect(flow);
    for is_refused in [true, false] {
        if is_refused {
            stack.refuse(&device, &first);
        } else {
            stack.accept(&device, flow, &first);
            stack.flush(&device, flow);
        }
        let mut bytes = [0; 1500];
        let length = rustix::io::read(&programs, &mut bytes).unwrap();
        let answer = Ipv6Packet::new_checked(&bytes[..length]).unwrap();
        assert_eq!((answer.src_addr(), answer.dst_addr()), (to, from));
        let tcp = TcpPacket::new_checked(answer.payload()).unwrap();
        assert!(tcp.verify_checksum(&to.into(), &from.into()));
        assert_eq!((tcp.ack(), tcp.rst()), (true, is_refused));
    }
}

/// A connection of a program, of which the tests play the kernel.
struct Played {
    stack: Stack,
    device: Stream,
    programs: OwnedFd,
    flow: Flow,
    /// What the stack has sent so far, as the number of its next byte.
    next: u32,
}

/// A packet of the stack: its first number, and how many bytes it brings.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    number: u32,
    length: usize,
}

impl Played {
    fn open() -> Played {
        let (device, programs) = device();
        let mut stack = Stack::default();
        let (flow, first) = syn(40_005);
        stack.expect(flow);
        stack.accept(&device, flow, &first);
        let mut played = Played {
            stack,
            device,
            programs,
            flow,
            next: 0,
        };
        played.flush();
        let answer = played.hears().unwrap();
        played.next = answer.number.wrapping_add(1);
        played.says(played.next, 60_000);
        played
    }

    /// The kernel has everything before this number, and room for so much more.
    fn says(&mut self, has: u32, room: u16) {
        let (_, mut bytes) = syn(40_005);
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[20..]);
        tcp.set_seq_number(smoltcp::wire::TcpSeqNumber(8));
        tcp.set_ack_number(smoltcp::wire::TcpSeqNumber(has.cast_signed()));
        tcp.clear_flags();
        tcp.set_header_len(20);
        tcp.set_ack(true);
        tcp.set_window_len(room);
        self.stack.incoming()[..bytes.len()].copy_from_slice(&bytes);
        self.stack.feed(&self.device, self.flow, bytes.len());
    }

    fn hears(&self) -> Option<Said> {
        let mut bytes = vec![0; 70_000];
        let length = rustix::io::read(&self.programs, &mut bytes).ok()?;
        let packet = Ipv4Packet::new_checked(&bytes[..length]).unwrap();
        let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(!tcp.rst(), "the connection was broken off");
        let number = tcp.seq_number().0.cast_unsigned();
        let length = tcp.payload().len();
        Some(Said { number, length })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.stack.socket(self.flow, Waker::noop()).unwrap()
    }

    fn flush(&mut self) -> Duration {
        let delay = self.stack.flush(&self.device, self.flow);
        delay.unwrap_or(Duration::MAX)
    }

    /// Lets so much time go by.
    fn passes(&mut self, time: Duration) {
        self.stack.since = self.stack.since.checked_sub(time).unwrap();
    }

    /// Says so much to the kernel, which gets it, or drops it.
    fn sends(&mut self, length: usize) -> Said {
        assert_eq!(self.socket().send_slice(&vec![7; length]), Ok(length));
        self.flush();
        self.hears().unwrap()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_kernel_has_dropped_is_sent_again_in_less_than_a_tenth_of_a_second() {
    let mut played = Played::open();
    let next = played.next;
    let lost = played.sends(400);
    let (number, length) = (next, 400);
    assert_eq!(lost, Said { number, length });
    let mut waited = Duration::ZERO;
    for _ in 0..5 {
        let delay = played.flush();
        played.passes(delay);
        waited += delay;
        played.flush();
        assert_eq!(played.hears(), Some(Said { number, length }));
        assert!(waited <= Duration::from_millis(1600), "{waited:?}");
    }
    assert!(played.hears().is_none());
    played.says(next.wrapping_add(400), 60_000);
    // What is new is known to be lost as soon as at the beginning.
    played.sends(500);
    played.says(next.wrapping_add(900), 60_000);
    played.sends(500);
    let delay = played.flush();
    assert!(delay <= Duration::from_millis(100), "{delay:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_window_that_was_closed_over_what_was_dropped_is_asked_for_until_it_opens() {
    let mut played = Played::open();
    let next = played.next;
    played.sends(400);
    played.says(next, 0);
    // The kernel says once that there is room again, and that is lost.
    let delay = played.flush();
    played.passes(delay);
    let delay = played.flush();
    assert!(played.hears().is_none(), "there is no room");
    assert!(delay <= Duration::from_secs(1), "{delay:?}");
    played.passes(delay);
    played.flush();
    let asked = played.hears().unwrap();
    assert!(asked.length <= 1, "{asked:?}");
    played.says(next, 60_000);
    played.flush();
    let (number, length) = (next, 400);
    assert_eq!(played.hears(), Some(Said { number, length }));
}

#[tokio::test(flavor = "current_thread")]
async fn a_program_that_does_not_read_for_ten_minutes_keeps_its_connection_and_is_asked_seldom() {
    let mut played = Played::open();
    let next = played.next;
    played.sends(400);
    played.says(next, 0);
    let (mut gone, mut asked) = (Duration::ZERO, 0);
    while gone < Duration::from_secs(600) {
        let delay = played.flush().max(Duration::from_millis(1));
        played.passes(delay);
        gone += delay;
        played.flush();
        while played.hears().is_some() {
            asked += 1;
            played.says(next, 0);
        }
    }
    assert!((10..300).contains(&asked), "{asked}");
    assert_eq!(
        played.socket().state(),
        smoltcp::socket::tcp::State::Established
    );
    played.says(next, 60_000);
    played.flush();
    let (number, length) = (next, 400);
    assert_eq!(played.hears(), Some(Said { number, length }));
}
