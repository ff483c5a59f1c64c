//! Packets of IPv4 (RFC 791) and IPv6 (RFC 8200) from the device, and those that go back without a connection. Pure.

use guest::message::{TUN_ADDRESS, TUN_ADDRESS6, TUN_DNS};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, UdpPacket,
    UdpRepr,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

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
    pub(super) from: SocketAddr,
    /// Whom it wants.
    pub(super) to: SocketAddr,
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
    /// Nothing that is carried; what is to be sent back, and what is to be recorded.
    Refused { answer: Vec<u8>, what: Refused },
    /// Nothing that is answered.
    Ignored,
}

/// What is not carried: to whom, at port 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refused {
    /// A datagram of UDP.
    Datagram(SocketAddr),
    /// A ping, or any other protocol.
    Other(SocketAddr),
}

/// The head of a packet, as far as the two versions have the same.
#[derive(Debug, Clone, Copy)]
struct Head {
    from: IpAddr,
    to: IpAddr,
    kind: IpProtocol,
    /// Where the head ends.
    at: usize,
    /// Where the packet ends.
    end: usize,
}

/// Looks at a packet. Only what comes from the sandbox's own address gets an answer, and only what is for one
/// host.
pub(super) fn read(bytes: &[u8]) -> Packet<'_> {
    let head = match bytes.first().map(|first| first >> 4) {
        Some(4) => head_of_4(bytes),
        Some(6) => head_of_6(bytes),
        _ => None,
    };
    let Some(head) = head else {
        return Packet::Ignored;
    };
    let Some(payload) = bytes.get(head.at..head.end) else {
        return Packet::Ignored;
    };
    if head.kind == IpProtocol::Tcp {
        tcp(head, payload)
    } else if head.kind == IpProtocol::Udp {
        udp(head, payload)
    } else {
        other(head, payload)
    }
}

/// `None` for what is cut short, in pieces, from somebody else or for many.
fn head_of_4(bytes: &[u8]) -> Option<Head> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
    let is_one = !to.is_multicast() && !to.is_broadcast() && !to.is_unspecified();
    (from == TUN_ADDRESS && is_whole && is_one).then(|| Head {
        from: from.into(),
        to: to.into(),
        kind: packet.next_header(),
        at: usize::from(packet.header_len()),
        end: usize::from(packet.total_len()),
    })
}

/// The same. Headers between the first one and TCP or UDP, a routing header or a piece's, are a protocol like any
/// other that is not carried: nothing here walks along them.
fn head_of_6(bytes: &[u8]) -> Option<Head> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let is_one = !to.is_multicast() && !to.is_unspecified();
    (from == TUN_ADDRESS6 && is_one).then(|| Head {
        from: from.into(),
        to: to.into(),
        kind: packet.next_header(),
        at: packet.header_len(),
        end: packet.total_len(),
    })
}

fn tcp<'p>(head: Head, payload: &[u8]) -> Packet<'p> {
    let Ok(segment) = TcpPacket::new_checked(payload) else {
        return Packet::Ignored;
    };
    let flow = Flow {
        from: SocketAddr::new(head.from, segment.src_port()),
        to: SocketAddr::new(head.to, segment.dst_port()),
    };
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return Packet::Ignored;
    }
    if segment.syn() && !segment.ack() && !segment.rst() && !segment.fin() {
        let head = head.at + usize::from(segment.header_len());
        return Packet::Syn { flow, head };
    }
    Packet::Tcp { flow }
}

fn udp(head: Head, payload: &[u8]) -> Packet<'_> {
    let Ok(datagram) = UdpPacket::new_checked(payload) else {
        return Packet::Ignored;
    };
    let question = payload
        .get(8..usize::from(datagram.len()))
        .unwrap_or_default();
    match (head.from, head.to, datagram.dst_port()) {
        (IpAddr::V4(from), to, DNS_PORT) if to == TUN_DNS => {
            if question.len() > QUESTION_MAX {
                return Packet::Ignored;
            }
            let from = SocketAddrV4::new(from, datagram.src_port());
            Packet::Question { from, question }
        }
        (_, to, port) => Packet::Refused {
            answer: unreachable(head, payload, Unreachable::Port),
            what: Refused::Datagram(SocketAddr::new(to, port)),
        },
    }
}

/// A ping, and what no program inside can send. Messages of ICMP that are no question are not answered
/// (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
fn other<'p>(head: Head, payload: &[u8]) -> Packet<'p> {
    const PING: u8 = 8;
    const PING6: u8 = 128;
    let first = payload.first();
    if (head.kind == IpProtocol::Icmp && first != Some(&PING))
        || (head.kind == IpProtocol::Icmpv6 && first != Some(&PING6))
    {
        return Packet::Ignored;
    }
    Packet::Refused {
        answer: unreachable(head, payload, Unreachable::Prohibited),
        what: Refused::Other(SocketAddr::new(head.to, 0)),
    }
}

/// Why something cannot be reached, as RFC 792, RFC 1812 and RFC 4443 say it.
#[derive(Debug, Clone, Copy)]
enum Unreachable {
    /// The program gets `ECONNREFUSED` at once, and one that tried QUIC goes on with TCP.
    Port,
    /// It is forbidden.
    Prohibited,
}

/// Bytes of a packet that are sent back with the reason, behind its head: the ports, and of IPv6 also those behind
/// a header between.
const ABOUT: usize = 8;
const ABOUT6: usize = 128;

/// "Unreachable", with the head that it is about and a few bytes more.
fn unreachable(about: Head, payload: &[u8], why: Unreachable) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    match (about.from, about.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let message = Icmpv4Repr::DstUnreachable {
                reason: match why {
                    Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
                    Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                },
                header: Ipv4Repr {
                    src_addr: from,
                    dst_addr: to,
                    next_header: about.kind,
                    payload_len: payload.len(),
                    hop_limit: HOPS,
                },
                data: payload.get(..ABOUT).unwrap_or(payload),
            };
            let (mut answer, at) = head(to, from, IpProtocol::Icmp, message.buffer_len());
            let body = answer.get_mut(at..).unwrap_or_default();
            message.emit(&mut Icmpv4Packet::new_unchecked(body), &checksums);
            answer
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = |from, to, next_header, payload_len| Ipv6Repr {
                src_addr: from,
                dst_addr: to,
                next_header,
                payload_len,
                hop_limit: HOPS,
            };
            let message = Icmpv6Repr::DstUnreachable {
                reason: match why {
                    Unreachable::Port => Icmpv6DstUnreachable::PortUnreachable,
                    Unreachable::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                },
                header: header(from, to, about.kind, payload.len()),
                data: payload.get(..ABOUT6).unwrap_or(payload),
            };
            let outer = header(to, from, IpProtocol::Icmpv6, message.buffer_len());
            let mut answer = vec![0; outer.buffer_len() + message.buffer_len()];
            outer.emit(&mut Ipv6Packet::new_unchecked(&mut answer[..]));
            let body = answer.get_mut(outer.buffer_len()..).unwrap_or_default();
            message.emit(
                &to,
                &from,
                &mut Icmpv6Packet::new_unchecked(body),
                &checksums,
            );
            answer
        }
        // A packet has addresses of one version.
        _ => Vec::new(),
    }
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
    // Of IPv4 the length of all, of IPv6 without the first head.
    let (without, field) = match syn.first().map(|first| first >> 4) {
        Some(6) => (40, 4..6),
        _ => (0, 2..4),
    };
    let Ok(length) = u16::try_from(syn.len().saturating_sub(without)) else {
        return;
    };
    if let Some(field) = syn.get_mut(field) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
