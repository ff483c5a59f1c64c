//! Packets of IPv4 (RFC 791) from the device, and those that go back without a connection. Pure.

use guest::message::{TUN_ADDRESS, TUN_DNS};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpPacket, UdpPacket, UdpRepr,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The port of DNS, over UDP and TCP.
pub(super) const DNS_PORT: u16 = 53;

/// The longest question that is looked at, in bytes: a name has 255, and what programs add to it some dozens.
const QUESTION_MAX: usize = 1024;

/// The hops that a packet of ours may have, of which it has none.
const HOPS: u8 = 64;

/// One connection of TCP, as a program inside sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    /// The program's end.
    pub(super) from: SocketAddrV4,
    /// Whom it wants.
    pub(super) to: SocketAddrV4,
}

/// What a packet is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'p> {
    /// The first of a connection; its first `head` bytes are the heads without any data.
    Syn { flow: Flow, head: usize },
    /// Another one of a connection, or of none.
    Tcp { flow: Flow },
    /// A question for us.
    Question {
        from: SocketAddrV4,
        question: &'p [u8],
    },
    /// Nothing that is carried; what is to be sent back.
    Refused { answer: Vec<u8> },
    /// Nothing that is answered.
    Ignored,
}

/// Looks at a packet. Only what comes from the sandbox's own address gets an answer, and only what is for one
/// host.
pub(super) fn read(bytes: &[u8]) -> Packet<'_> {
    let Ok(packet) = Ipv4Packet::new_checked(bytes) else {
        return Packet::Ignored; // Another version, or cut short.
    };
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let is_whole = packet.version() == 4 && !packet.more_frags() && packet.frag_offset() == 0;
    let is_one = !to.is_multicast() && !to.is_broadcast() && !to.is_unspecified();
    if from != TUN_ADDRESS || !is_whole || !is_one {
        return Packet::Ignored;
    }
    let kind = packet.next_header();
    if kind == IpProtocol::Tcp {
        tcp(bytes, &packet)
    } else if kind == IpProtocol::Udp {
        udp(bytes, &packet)
    } else {
        // What a ping asks is not known here.
        Packet::Ignored
    }
}

fn tcp<'p>(bytes: &'p [u8], packet: &Ipv4Packet<&'p [u8]>) -> Packet<'p> {
    let Some(segment) = payload(bytes, packet).and_then(|p| TcpPacket::new_checked(p).ok()) else {
        return Packet::Ignored;
    };
    let flow = Flow {
        from: SocketAddrV4::new(packet.src_addr(), segment.src_port()),
        to: SocketAddrV4::new(packet.dst_addr(), segment.dst_port()),
    };
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return Packet::Ignored;
    }
    if segment.syn() && !segment.ack() && !segment.rst() && !segment.fin() {
        let head = usize::from(packet.header_len()) + usize::from(segment.header_len());
        return Packet::Syn { flow, head };
    }
    Packet::Tcp { flow }
}

fn udp<'p>(bytes: &'p [u8], packet: &Ipv4Packet<&'p [u8]>) -> Packet<'p> {
    let Some(datagram) = payload(bytes, packet).and_then(|p| UdpPacket::new_checked(p).ok()) else {
        return Packet::Ignored;
    };
    if packet.dst_addr() != TUN_DNS || datagram.dst_port() != DNS_PORT {
        let answer = unreachable(bytes, packet);
        return Packet::Refused { answer };
    }
    let question = datagram.payload();
    if question.len() > QUESTION_MAX {
        return Packet::Ignored;
    }
    let from = SocketAddrV4::new(packet.src_addr(), datagram.src_port());
    Packet::Question { from, question }
}

/// What follows the head, by the lengths that were checked.
fn payload<'p>(bytes: &'p [u8], packet: &Ipv4Packet<&'p [u8]>) -> Option<&'p [u8]> {
    bytes.get(usize::from(packet.header_len())..usize::from(packet.total_len()))
}

/// ICMP's "port unreachable" (RFC 792) with the head that it is about and eight bytes more: the program gets
/// `ECONNREFUSED` at once, and one that tried QUIC goes on with TCP.
fn unreachable(bytes: &[u8], packet: &Ipv4Packet<&[u8]>) -> Vec<u8> {
    let about = payload(bytes, packet).unwrap_or_default();
    let message = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::PortUnreachable,
        header: Ipv4Repr {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            next_header: IpProtocol::Udp,
            payload_len: about.len(),
            hop_limit: packet.hop_limit(),
        },
        data: about.get(..8).unwrap_or(about),
    };
    let (mut answer, at) = head(
        packet.dst_addr(),
        packet.src_addr(),
        IpProtocol::Icmp,
        message.buffer_len(),
    );
    let body = answer.get_mut(at..).unwrap_or_default();
    message.emit(
        &mut Icmpv4Packet::new_unchecked(body),
        &ChecksumCapabilities::default(),
    );
    answer
}

/// A datagram with an answer to a question.
pub(super) fn datagram(to: SocketAddrV4, bytes: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: DNS_PORT,
        dst_port: to.port(),
    };
    let (mut packet, at) = head(
        TUN_DNS,
        *to.ip(),
        IpProtocol::Udp,
        udp.header_len() + bytes.len(),
    );
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.get_mut(at..).unwrap_or_default()),
        &IpAddress::Ipv4(TUN_DNS),
        &IpAddress::Ipv4(*to.ip()),
        bytes.len(),
        |room| room.copy_from_slice(bytes),
        &ChecksumCapabilities::default(),
    );
    packet
}

/// A packet with its head and nothing else in it, and where the rest begins.
fn head(from: Ipv4Addr, to: Ipv4Addr, kind: IpProtocol, length: usize) -> (Vec<u8>, usize) {
    let head = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: kind,
        payload_len: length,
        hop_limit: HOPS,
    };
    let at = head.buffer_len();
    let mut packet = vec![0; at + length];
    head.emit(
        &mut Ipv4Packet::new_unchecked(&mut packet[..]),
        &ChecksumCapabilities::default(),
    );
    (packet, at)
}

/// Makes the heads of a first packet a packet of their own: what they say of their length is made true, and
/// data that came with them comes again.
pub(super) fn cut(syn: &mut [u8]) {
    let Ok(length) = u16::try_from(syn.len()) else {
        return;
    };
    if let Some(field) = syn.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
