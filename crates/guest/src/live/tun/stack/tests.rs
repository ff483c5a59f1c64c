use super::*;
use crate::live::register;
use crate::live::tun::packet;
use smoltcp::wire::{Ipv4Packet, TcpPacket};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
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
