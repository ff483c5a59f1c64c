use super::*;
use proptest::prelude::*;

const HERE: Found = Found {
    address: Ipv4Addr::LOCALHOST,
    address6: None,
};

/// A question as programs send it.
fn question(name: &[&str], kind: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes
}

/// What is answered without anybody being asked, as a code.
fn at_once(bytes: &[u8]) -> Option<u8> {
    match read(bytes) {
        Ok(question) => panic!("{question:?} was read"),
        Err(answer) => answer.map(|answer| answer[3] & 0x0f),
    }
}

#[test]
fn a_name_is_read_in_lower_case_and_answered_as_it_was_written() {
    let bytes = question(&["WWW", "Example", "com"], A);
    let read = read(&bytes).unwrap();
    assert_eq!(
        (&*read.name, read.wanted),
        ("www.example.com", Wanted::Address)
    );
    let answer = read.answer(Ok(Found {
        address: Ipv4Addr::new(198, 18, 1, 1),
        address6: Some(Ipv6Addr::LOCALHOST),
    }));
    let mut expect = bytes.clone();
    expect[2..4].copy_from_slice(&[0x81, 0x80]);
    expect[7] = 1;
    expect.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 1, 1]);
    assert_eq!(answer, expect);
}

#[test]
fn an_address_of_ipv6_is_said_where_there_is_one() {
    let bytes = question(&["example", "com"], AAAA);
    let found = Found {
        address6: Some("fdb3::7".parse().unwrap()),
        ..HERE
    };
    let answer = read(&bytes).unwrap().answer(Ok(found));
    let mut expect = bytes.clone();
    expect[2..4].copy_from_slice(&[0x81, 0x80]);
    expect[7] = 1;
    expect.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16, 0xfd, 0xb3]);
    expect.extend([[0; 13].as_slice(), &[7]].concat());
    assert_eq!(answer, expect);
}

#[test]
fn there_is_nothing_else_to_say_of_a_name_that_is_there_and_no_ipv6_where_there_is_none() {
    for kind in [AAAA, HTTPS, SVCB] {
        let bytes = question(&["example", "com"], kind);
        let answer = read(&bytes).unwrap().answer(Ok(HERE));
        assert_eq!((answer.len(), answer[3], answer[7]), (bytes.len(), 0x80, 0));
    }
}

#[test]
fn what_becomes_of_a_question_is_its_code() {
    let bytes = question(&["example", "com"], A);
    for (code, expect) in [(Code::NoSuchName, 3), (Code::Refused, 5), (Code::Failed, 2)] {
        let answer = read(&bytes).unwrap().answer(Err(code));
        assert_eq!((answer[3] & 0x0f, answer[7]), (expect, 0));
    }
}

#[test]
fn other_records_are_not_served() {
    for kind in [2, 5, 6, 15, 16, 33, 35, 41, 43, 99, 251, 252, 255, 65_535] {
        assert_eq!(
            at_once(&question(&["example", "com"], kind)),
            Some(4),
            "{kind}"
        );
    }
    let pointer = question(&["1", "1", "18", "198", "in-addr", "arpa"], PTR);
    assert_eq!(at_once(&pointer), Some(3));
}

#[test]
fn what_no_host_can_be_called_is_no_name() {
    for name in [
        &[][..],
        &["a b"],
        &["a.b", "example"],
        &["*"],
        &["\0"],
        &["é"],
    ] {
        assert_eq!(at_once(&question(name, A)), Some(3), "{name:?}");
    }
    let longest = [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61),
    ];
    let mut labels: Vec<&str> = longest.iter().map(String::as_str).collect();
    assert_eq!(read(&question(&labels, A)).unwrap().name.len(), 253);
    let longer = "d".repeat(62);
    labels[3] = &longer;
    assert_eq!(at_once(&question(&labels, A)), Some(1));
}

#[test]
fn pointers_loops_and_pieces_are_malformed_or_nothing() {
    let fine = question(&["example", "com"], A);
    // A name that points to itself, to the head, behind the end, and a label of a kind that is gone.
    for name in [
        &[0xc0, 12][..],
        &[0xc0, 0],
        &[0xff, 0xff],
        &[0x41, 1],
        &[1, b'a', 0xc0, 12],
    ] {
        let bytes = [&fine[..HEAD], name, &[0, 1, 0, 1]].concat();
        assert_eq!(at_once(&bytes), Some(1), "{name:02x?}");
    }
    for length in 0..fine.len() {
        let expect = (length >= HEAD).then_some(1);
        assert_eq!(at_once(&fine[..length]), expect, "{length}");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = fine.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, expect) in [
        (with(2, 0x81), None),              // An answer.
        (with(2, 0x29), Some(4)),           // An update.
        (with(5, 0), Some(1)),              // No question.
        (with(5, 2), Some(1)),              // Two.
        (with(4, 1), Some(1)),              // Many.
        (with(7, 1), Some(1)),              // With an answer.
        (with(9, 1), Some(1)),              // With an authority.
        (with(fine.len() - 1, 3), Some(5)), // Class CHAOS.
    ] {
        assert_eq!(at_once(&bytes), expect, "{bytes:02x?}");
    }
    // What is added, such as EDNS, is not looked at.
    let added = [&with(11, 1)[..], &[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(read(&added).unwrap().name, "example.com");
}

proptest! {
    #[test]
    fn no_question_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), shape: bool) {
        let mut bytes = bytes;
        if shape && bytes.len() >= HEAD {
            bytes[2..HEAD].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let answer = match read(&bytes) {
            Ok(question) => {
                prop_assert!(!question.name.is_empty() && question.name.len() <= 253);
                prop_assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic()));
                Some(question.answer(Ok(HERE)))
            }
            Err(answer) => answer,
        };
        if let Some(answer) = answer {
            // Never cut off, and never much more than was asked.
            prop_assert!(answer.len() <= 512 && answer.len() <= bytes.len() + 16);
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            prop_assert!(answer[2] & 0x80 != 0);
        }
    }
}
