use super::*;
use proptest::prelude::*;
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

const HOST: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

fn packet_of(from: Ipv4Addr, to: Ipv4Addr, kind: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let (mut packet, at) = head(from, to, kind, payload.len());
    packet[at..].copy_from_slice(payload);
    packet
}

fn udp_to(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40];
    datagram.extend(port.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    packet_of(from, to, IpProtocol::Udp, &datagram)
}

fn tcp_to(port: u16, control: TcpControl, ack: bool, payload: &[u8]) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: 40_000,
        dst_port: port,
        control,
        seq_number: TcpSeqNumber(7),
        ack_number: ack.then_some(TcpSeqNumber(1)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let (mut packet, at) = head(TUN_ADDRESS, HOST, IpProtocol::Tcp, segment.buffer_len());
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut packet[at..]),
        &IpAddress::Ipv4(TUN_ADDRESS),
        &IpAddress::Ipv4(HOST),
        &ChecksumCapabilities::default(),
    );
    packet
}

#[test]
fn a_first_packet_is_told_from_others_and_its_data_is_cut_off() {
    let flow = Flow {
        from: SocketAddr::from((TUN_ADDRESS, 40_000)),
        to: SocketAddr::from((HOST, 443)),
    };
    let early = tcp_to(443, TcpControl::Syn, false, b"early data");
    let Packet::Syn { flow: of, head } = read(&early) else {
        panic!("no first packet");
    };
    assert_eq!((of, head), (flow, early.len() - 10));
    let mut alone = early[..head].to_vec();
    cut(&mut alone);
    assert_eq!(read(&alone), Packet::Syn { flow, head });
    for (control, ack) in [
        (TcpControl::None, true),
        (TcpControl::Syn, true),
        (TcpControl::Rst, false),
        (TcpControl::Fin, true),
    ] {
        let packet = tcp_to(443, control, ack, b"");
        assert_eq!(read(&packet), Packet::Tcp { flow }, "{control:?}");
    }
    assert_eq!(
        read(&tcp_to(0, TcpControl::Syn, false, b"")),
        Packet::Ignored
    );
}

#[test]
fn a_datagram_that_is_no_question_is_unreachable_and_says_which() {
    for (to, port) in [(HOST, 443), (HOST, 53), (TUN_DNS, 443)] {
        let packet = udp_to(TUN_ADDRESS, to, port, b"hello");
        let Packet::Refused { answer, what } = read(&packet) else {
            panic!("not refused");
        };
        assert_eq!(what, Refused::Datagram(SocketAddr::from((to, port))));
        let back = Ipv4Packet::new_checked(&answer[..]).unwrap();
        assert!(back.verify_checksum());
        assert_eq!((back.src_addr(), back.dst_addr()), (to, TUN_ADDRESS));
        let message = Icmpv4Packet::new_checked(back.payload()).unwrap();
        assert!(message.verify_checksum());
        assert_eq!((u8::from(message.msg_type()), message.msg_code()), (3, 3));
        // The head of what it is about, and its ports.
        assert_eq!(message.data()[16..20], to.octets());
        assert_eq!(message.data()[20..24], packet[20..24]);
    }
}

#[test]
fn a_question_is_for_the_one_who_answers_and_an_answer_comes_from_there() {
    let packet = udp_to(TUN_ADDRESS, TUN_DNS, 53, b"question");
    let from = SocketAddrV4::new(TUN_ADDRESS, 40_000);
    let question = b"question";
    assert_eq!(read(&packet), Packet::Question { from, question });
    let answer = datagram(from, b"answer");
    let back = Ipv4Packet::new_checked(&answer[..]).unwrap();
    assert_eq!((back.src_addr(), back.dst_addr()), (TUN_DNS, TUN_ADDRESS));
    let udp = UdpPacket::new_checked(back.payload()).unwrap();
    assert!(udp.verify_checksum(&TUN_DNS.into(), &TUN_ADDRESS.into()));
    assert_eq!(
        (udp.src_port(), udp.dst_port(), udp.payload()),
        (53, 40_000, &b"answer"[..])
    );
    let long = udp_to(TUN_ADDRESS, TUN_DNS, 53, &[0; QUESTION_MAX + 1]);
    assert_eq!(read(&long), Packet::Ignored);
}

#[test]
fn what_is_not_from_the_sandbox_or_for_many_or_in_pieces_is_not_answered() {
    let many = Ipv4Addr::new(224, 0, 0, 251);
    let loopback = Ipv4Addr::LOCALHOST;
    let mut piece = udp_to(TUN_ADDRESS, HOST, 443, b"hello");
    piece[6] = 0x20;
    let mut later = udp_to(TUN_ADDRESS, HOST, 443, b"hello");
    later[7] = 1;
    let mut six = udp_to(TUN_ADDRESS, HOST, 443, b"hello");
    six[0] = 0x65;
    for packet in [
        udp_to(TUN_ADDRESS, many, 5353, b"hello"),
        udp_to(TUN_ADDRESS, Ipv4Addr::BROADCAST, 67, b"hello"),
        udp_to(TUN_ADDRESS, Ipv4Addr::UNSPECIFIED, 67, b"hello"),
        udp_to(loopback, HOST, 443, b"hello"),
        udp_to(HOST, HOST, 443, b"hello"),
        // An answer to a ping, and that something cannot be reached: answers to them would never end.
        packet_of(TUN_ADDRESS, HOST, IpProtocol::Icmp, &[0; 8]),
        packet_of(TUN_ADDRESS, HOST, IpProtocol::Icmp, &[3; 8]),
        packet_of(TUN_ADDRESS, HOST, IpProtocol::Tcp, &[0; 19]),
        packet_of(TUN_ADDRESS, HOST, IpProtocol::Udp, &[0; 7]),
        piece,
        later,
        six,
        vec![0x45; 19],
        vec![],
    ] {
        assert_eq!(read(&packet), Packet::Ignored, "{packet:02x?}");
    }
}

/// A packet of IPv6 from the sandbox.
fn six_of(to: &str, kind: u8, payload: &[u8]) -> Vec<u8> {
    let to: std::net::Ipv6Addr = to.parse().unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([kind, 64]);
    packet.extend([TUN_ADDRESS6.octets(), to.octets()].concat());
    packet.extend(payload);
    packet
}

const HOST6: &str = "2606:4700::1111";

/// A datagram from port 40,000 to port 443.
const DATAGRAM: [u8; 10] = [0x9c, 0x40, 1, 0xbb, 0, 10, 0, 0, 1, 2];

#[test]
fn what_is_not_carried_of_ipv6_is_unreachable_with_the_reason_of_each() {
    let routed = [&[17, 0, 2, 0, 0, 0, 0, 0][..], &DATAGRAM].concat();
    let ping = [128, 0, 0, 0, 0, 0, 0, 0];
    for (kind, payload, code, port) in [
        (17, &DATAGRAM[..], 4, 443),
        (58, &ping[..], 1, 0),
        // A routing header, options, a piece of something, no more headers, and a protocol that nobody has.
        (43, &routed[..], 1, 0),
        (0, &routed[..], 1, 0),
        (60, &routed[..], 1, 0),
        (44, &routed[..], 1, 0),
        (59, &[], 1, 0),
        (253, &[1; 2000], 1, 0),
    ] {
        let packet = six_of(HOST6, kind, payload);
        let Packet::Refused { answer, what } = read(&packet) else {
            panic!("{kind} is not refused");
        };
        let to = SocketAddr::new(HOST6.parse().unwrap(), port);
        let is_datagram = kind == 17;
        let expect = if is_datagram {
            Refused::Datagram(to)
        } else {
            Refused::Other(to)
        };
        assert_eq!(what, expect);
        let back = Ipv6Packet::new_checked(&answer[..]).unwrap();
        assert_eq!(
            (IpAddr::V6(back.src_addr()), back.dst_addr()),
            (to.ip(), TUN_ADDRESS6)
        );
        let message = Icmpv6Packet::new_checked(back.payload()).unwrap();
        assert!(message.verify_checksum(&back.src_addr(), &back.dst_addr()));
        assert_eq!(
            (u8::from(message.msg_type()), message.msg_code()),
            (1, code),
            "{kind}"
        );
        assert!(answer.len() <= 40 + 8 + 40 + ABOUT6);
    }
}

#[test]
fn what_of_ipv6_is_for_many_or_not_from_the_sandbox_is_not_answered() {
    let mut forged = six_of(HOST6, 17, &DATAGRAM);
    forged[23] = 9;
    for packet in [
        six_of("ff02::2", 58, &[133, 0, 0, 0, 0, 0, 0, 0]),
        six_of("ff02::16", 0, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0]),
        six_of("::", 17, &DATAGRAM),
        six_of(HOST6, 58, &[129; 8]),
        six_of(HOST6, 58, &[1; 8]),
        six_of(HOST6, 58, &[]),
        six_of(HOST6, 6, &[0; 19]),
        six_of(HOST6, 17, &[0; 7]),
        forged,
        vec![0x60; 39],
    ] {
        assert_eq!(read(&packet), Packet::Ignored, "{packet:02x?}");
    }
}

#[test]
fn a_ping_is_answered_with_the_reason_why_not() {
    let ping = packet_of(
        TUN_ADDRESS,
        HOST,
        IpProtocol::Icmp,
        &[8, 0, 0, 0, 0, 0, 0, 0],
    );
    let Packet::Refused { answer, what } = read(&ping) else {
        panic!("not refused");
    };
    assert_eq!(what, Refused::Other(SocketAddr::from((HOST, 0))));
    let back = Ipv4Packet::new_checked(&answer[..]).unwrap();
    let message = Icmpv4Packet::new_checked(back.payload()).unwrap();
    assert_eq!((u8::from(message.msg_type()), message.msg_code()), (3, 13));
}

proptest! {
    #[test]
    fn no_packet_is_too_strange(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), shape in 0_u8..5) {
        // Most random bytes are no IPv4 at all; these are in part.
        if shape > 0 && bytes.len() >= 20 {
            bytes[0] = 0x45 + (bytes[0] & 1);
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[6..8].copy_from_slice(&[0, 0]);
            bytes[9] = if shape == 1 { 6 } else { 17 };
            bytes[12..16].copy_from_slice(&TUN_ADDRESS.octets());
        }
        if shape == 3 && bytes.len() >= 40 {
            bytes[0] = 0x60;
            let length = u16::try_from(bytes.len() - 40).unwrap();
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes[8..24].copy_from_slice(&TUN_ADDRESS6.octets());
        }
        match read(&bytes) {
            Packet::Syn { head, .. } => {
                prop_assert!((40..=bytes.len()).contains(&head));
                let mut alone = bytes[..head].to_vec();
                cut(&mut alone);
                let is_whole = matches!(read(&alone), Packet::Syn { head: whole, .. } if whole == head);
                prop_assert!(is_whole);
            }
            Packet::Refused { answer, .. } => prop_assert!(answer.len() <= 88 + ABOUT6),
            Packet::Question { question, .. } => prop_assert!(question.len() <= bytes.len()),
            Packet::Tcp { .. } | Packet::Ignored => {}
        }
    }
}
