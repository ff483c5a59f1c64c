//! Fuzz targets: what the workload sends to the device. See `fuzz/engine.rs`.

use super::{dns, packet};
use crate::engine;
use packet::Packet;
use std::net::{Ipv4Addr, Ipv6Addr};

const WORDS: &[&[u8]] = &[
    b"\xc0\x0c",
    b"\x3f",
    b"\0\x01\0\x01",
    b"\x04test",
    b"\xff\xff",
    b"\x45\0",
    b"\0",
];

/// A question is answered with its own number and at most one answer, or not at all.
fn question(input: &[u8]) {
    let answers = match dns::read(input) {
        Ok(question) => {
            assert!(question.name.len() <= 253 && !question.name.contains('\0'));
            vec![
                question.answer(Ok(dns::Found {
                    address: Ipv4Addr::new(198, 18, 1, 1),
                    address6: Some(Ipv6Addr::LOCALHOST),
                })),
                question.answer(Err(dns::Code::Refused)),
            ]
        }
        Err(answer) => answer.into_iter().collect(),
    };
    for answer in answers {
        assert!(
            answer.len() >= 12 && answer.len() <= input.len() + 28,
            "{answer:?}"
        );
        assert_eq!(answer[..2], input[..2]);
        assert!(answer[2] & 0x80 != 0, "it is an answer");
    }
}

#[test]
fn questions_of_dns_get_answers_that_are_theirs() {
    let seeds = [
        b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x04open\x04test\0\0\x01\0\x01".to_vec(),
        b"\xab\xcd\x01\x20\0\x01\0\0\0\0\0\x01\x04open\x04test\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0".to_vec(),
        b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec(),
        b"\xab\xcd\x81\0\0\x02\0\x01\0\0\0\0\0\0\x10\0\x01".to_vec(),
    ];
    engine::run("guest dns", &seeds, WORDS, question);
}

/// A packet is for us, or is refused with a packet that goes back to the sandbox and nowhere else.
fn arrives(input: &[u8]) {
    match packet::read(input) {
        Packet::Syn { head, .. } => {
            assert!(head <= input.len());
            let mut first = input[..head].to_vec();
            packet::cut(&mut first);
            assert!(
                matches!(packet::read(&first), Packet::Syn { head: again, .. } if again == head)
            );
        }
        Packet::Question {
            question: bytes, ..
        } => question(bytes),
        Packet::Refused { answer, .. } if answer.first().is_some_and(|first| first >> 4 == 6) => {
            assert_eq!(answer[24..40], guest::message::TUN_ADDRESS6.octets());
            // RFC 4443 section 3.1: as much as fits into the smallest that every link carries.
            assert!(answer.len() <= 1280);
        }
        Packet::Refused { answer, .. } => {
            assert_eq!(answer[16..20], guest::message::TUN_ADDRESS.octets());
            assert!(answer.len() <= 20 + 8 + 60 + 8);
        }
        Packet::Tcp { .. } | Packet::Ignored => {}
    }
}

#[test]
fn packets_are_carried_or_refused_to_whoever_sent_them() {
    let own = guest::message::TUN_ADDRESS.octets();
    let dns = guest::message::TUN_DNS.octets();
    let head = |kind: u8, length: u8, to: [u8; 4]| {
        let head = [0x45, 0, 0, length, 0, 0, 0x40, 0, 64, kind, 0, 0];
        [&head[..], &own, &to].concat()
    };
    let tcp = [
        0x9c, 0x40, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let udp = [0x9c, 0x40, 0, 53, 0, 36, 0, 0];
    let asked = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x04test\0\0\x01\0\x01\0\0\0\0\0";
    let seeds = [
        [head(6, 40, [9, 9, 9, 9]), tcp.to_vec()].concat(),
        [head(17, 56, dns), udp.to_vec(), asked.to_vec()].concat(),
        [head(17, 56, [9, 9, 9, 9]), udp.to_vec(), asked.to_vec()].concat(),
        [head(1, 28, [9, 9, 9, 9]), vec![8, 0, 0, 0, 0, 0, 0, 0]].concat(),
    ];
    engine::run("guest packet", &seeds, WORDS, arrives);
}

/// The head of a frame of the node or the guest names a length that is allowed, or is refused.
#[test]
fn heads_of_frames_are_bounded() {
    use guest::wire::{FRAME_MAX, HEAD, Kind, head, parse_head};
    let seeds: Vec<Vec<u8>> = (0..=255)
        .filter_map(Kind::from_byte)
        .map(|kind| head(kind, 3).to_vec())
        .collect();
    engine::run(
        "guest frame",
        &seeds,
        &[b"\xff\xff\xff\xff", b"\0\x04\0\0"],
        |input| {
            let Some(bytes) = input.first_chunk::<HEAD>() else {
                return;
            };
            if let Ok((kind, length)) = parse_head(*bytes) {
                assert!(length <= FRAME_MAX);
                assert_eq!(parse_head(head(kind, length)), Ok((kind, length)));
            }
        },
    );
}

/// A message of the node or the guest is what it is however it was written, and fits into a frame again.
#[test]
fn messages_of_either_side_are_read_or_refused() {
    use guest::message::{
        CONTROL_MAX, Exited, FromGuest, Put, Stream, ToGuest, VERSION, frame, parse,
    };
    use guest::wire::HEAD;
    fn one<M>(input: &[u8])
    where
        M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let Ok(message) = parse::<M>(input) else {
            return;
        };
        // Numbers may be written longer than they need be, and a text is as long as it is.
        let again = frame(&message).unwrap();
        assert!(again.len() <= HEAD + CONTROL_MAX);
        assert_eq!(parse::<M>(&again[HEAD..]).as_ref(), Ok(&message));
    }
    let bare = |bytes: Vec<u8>| bytes[HEAD..].to_vec();
    let exited = Exited {
        code: Some(3),
        signal: None,
        timed_out: false,
        cpu_ms: 300,
        max_rss_bytes: 1 << 20,
        wall_ms: 70_000,
        left_behind: 1,
    };
    let put = Put {
        path: "/home/user/x".to_owned(),
        mode: 0o644,
        size_bytes: 5,
    };
    let ack = ToGuest::Ack {
        stream: Stream::Stderr,
        offset: u64::MAX,
    };
    let hello = FromGuest::Hello {
        version: VERSION,
        stdout: 1 << 40,
        stderr: 0,
        started: true,
    };
    let seeds = [
        bare(frame(&ToGuest::Put(put)).unwrap()),
        bare(frame(&ack).unwrap()),
        bare(frame(&FromGuest::Exited(exited)).unwrap()),
        bare(frame(&hello).unwrap()),
    ];
    let words: [&[u8]; 4] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80",
        b"\x01\x06",
        b"\0\0",
    ];
    engine::run("guest message", &seeds, &words, |input| {
        one::<ToGuest>(input);
        one::<FromGuest>(input);
    });
}
