//! Names of a sandbox by servers that its rules name, in the place of the node's own resolver: RFC 1035 over UDP, and
//! over TCP where an answer does not fit.
//!
//! Such a server is whoever somebody says, and others can write to the port that waits for it: an answer counts only
//! from its address, with the number of the question, which is random as the port is, and with the question itself.
//! What it says is addresses, which are checked as all are.

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take with one question. All of them share the time that a name has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Datagrams that are looked at for one question. Who does not know its number can send many.
const DATAGRAMS_MAX: usize = 64;

/// An answer over UDP, to a question that does not say that more may come, and room for those who send more.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Records of one answer. One with more is refused rather than cut.
const RECORDS_MAX: u16 = 256;

/// Aliases from a name to its addresses.
const ALIASES_MAX: usize = 16;

/// The longest name as it is written there, RFC 1035 section 2.3.4.
const NAME_BYTES_MAX: usize = 255;

/// The addresses of a name by the first server that knows anything of it.
pub(crate) async fn addresses(name: &str, servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let wire = wire_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let (of_v4, of_v6) = tokio::join!(
            asked(*server, &wire, DnsQueryType::A),
            asked(*server, &wire, DnsQueryType::Aaaa)
        );
        match (of_v4, of_v6) {
            (Ok(mut found), Ok(more)) => {
                found.extend(more);
                return Ok(found);
            }
            // Half of the addresses are not those that were checked, so another one is asked.
            (Err(error), _) | (_, Err(error)) => last = error,
        }
    }
    Err(last)
}

async fn asked(server: SocketAddr, name: &[u8], kind: DnsQueryType) -> io::Result<Vec<IpAddr>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let over_udp = tokio::time::timeout(PATIENCE, by_datagram(server, name, kind));
    match over_udp.await.map_err(late)?? {
        Said::Found(found) => Ok(found),
        Said::TooLong => {
            let over_tcp = tokio::time::timeout(PATIENCE, by_stream(server, name, kind));
            over_tcp.await.map_err(late)?
        }
        Said::Failed => Err(io::ErrorKind::Other.into()),
    }
}

async fn by_datagram(server: SocketAddr, name: &[u8], kind: DnsQueryType) -> io::Result<Said> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The kernel chooses a port at random, and then passes on what comes from this server alone.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = number()?;
    socket.send(&question(id, name, kind)).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..DATAGRAMS_MAX {
        let count = socket.recv(&mut answer).await?;
        let answer = answer.get(..count).unwrap_or_default();
        if let Some(said) = read(answer, id, name, kind) {
            return Ok(said);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn by_stream(server: SocketAddr, name: &[u8], kind: DnsQueryType) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = number()?;
    let question = question(id, name, kind);
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let message = [&length.to_be_bytes(), question.as_slice()].concat();
    stream.write_all(&message).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    match read(&answer, id, name, kind) {
        Some(Said::Found(found)) => Ok(found),
        Some(Said::TooLong | Said::Failed) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn number() -> io::Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u16::from_be_bytes(bytes))
}

/// A name as labels, each behind its length.
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=63).contains(&length) {
            return None;
        }
        wire.push(length);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= NAME_BYTES_MAX).then_some(wire)
}

fn question(id: u16, name: &[u8], kind: DnsQueryType) -> Vec<u8> {
    let question = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name, type_: kind },
    };
    let mut bytes = vec![0; question.buffer_len()];
    question.emit(&mut DnsPacket::new_unchecked(bytes.as_mut_slice()));
    bytes
}

/// What a server says of a name.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// These addresses; none of that family, or no such name at all.
    Found(Vec<IpAddr>),
    /// More than fits.
    TooLong,
    /// It does not know, or does not say, or says something that cannot be.
    Failed,
}

/// Reads an answer; nothing for what is none to this question.
fn read(answer: &[u8], id: u16, name: &[u8], kind: DnsQueryType) -> Option<Said> {
    let packet = DnsPacket::new_checked(answer).ok()?;
    let flags = packet.flags();
    let is_answer = flags.contains(DnsFlags::RESPONSE) && packet.opcode() == DnsOpcode::Query;
    if packet.transaction_id() != id || !is_answer || packet.question_count() != 1 {
        return None;
    }
    let (records, asked) = DnsQuestion::parse(packet.payload()).ok()?;
    if asked.type_ != kind || !asked.name.eq_ignore_ascii_case(name) {
        return None;
    }
    if flags.contains(DnsFlags::TRUNCATED) {
        return Some(Said::TooLong);
    }
    Some(match packet.rcode() {
        DnsRcode::NXDomain => Said::Found(Vec::new()),
        DnsRcode::NoError => found(&packet, records, name, kind).map_or(Said::Failed, Said::Found),
        DnsRcode::FormErr
        | DnsRcode::ServFail
        | DnsRcode::NotImp
        | DnsRcode::Refused
        | DnsRcode::YXDomain
        | DnsRcode::YXRRSet
        | DnsRcode::NXRRSet
        | DnsRcode::NotAuth
        | DnsRcode::NotZone
        | DnsRcode::Unknown(_) => Said::Failed,
    })
}

/// The addresses at the end of a chain of aliases; nothing for records that cannot be read.
fn found(
    packet: &DnsPacket<&[u8]>,
    mut rest: &[u8],
    name: &[u8],
    kind: DnsQueryType,
) -> Option<Vec<IpAddr>> {
    let count = packet.answer_record_count();
    let (mut addresses, mut aliases) = (Vec::new(), Vec::new());
    for _ in 0..Some(count).filter(|count| *count <= RECORDS_MAX)? {
        let (after, record) = DnsRecord::parse(rest).ok()?;
        rest = after;
        let owner = full_name(packet, record.name)?;
        match record.data {
            DnsRecordData::A(address) if kind == DnsQueryType::A => {
                addresses.push((owner, IpAddr::V4(address)));
            }
            DnsRecordData::Aaaa(address) if kind == DnsQueryType::Aaaa => {
                addresses.push((owner, IpAddr::V6(address)));
            }
            DnsRecordData::Cname(target) => aliases.push((owner, full_name(packet, target)?)),
            // Signatures and the like, and what nobody asked for.
            DnsRecordData::A(_) | DnsRecordData::Aaaa(_) | DnsRecordData::Other(..) => {}
        }
    }
    let mut name = name.to_ascii_lowercase();
    for _ in 0..=ALIASES_MAX {
        let of_it = addresses.iter().filter(|(owner, _)| *owner == name);
        let of_it: Vec<IpAddr> = of_it.map(|(_, address)| *address).collect();
        let alias = aliases.iter().find(|(owner, _)| *owner == name);
        match alias {
            Some((_, target)) if of_it.is_empty() => name.clone_from(target),
            _ => return Some(of_it),
        }
    }
    None
}

/// A name without pointers into the packet, in small letters.
fn full_name(packet: &DnsPacket<&[u8]>, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for label in packet.parse_name(bytes) {
        let label = label.ok()?;
        name.push(u8::try_from(label.len()).ok()?);
        name.extend(label.iter().map(u8::to_ascii_lowercase));
        if name.len() >= NAME_BYTES_MAX {
            return None;
        }
    }
    name.push(0);
    Some(name)
}

/// For the fuzz targets: an answer to a question for `open.test`.
#[cfg(test)]
pub(crate) fn read_any(answer: &[u8]) -> Option<Vec<IpAddr>> {
    let name = wire_name("open.test")?;
    let id = u16::from_be_bytes([*answer.first()?, *answer.get(1)?]);
    let kinds = [DnsQueryType::A, DnsQueryType::Aaaa];
    kinds.into_iter().find_map(|kind| {
        let said = read(answer, id, &name, kind)?;
        match said {
            Said::Found(found) => Some(found),
            Said::TooLong | Said::Failed => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0xabcd;

    /// An answer to a question for a name with these records: the name, the type and the data, in hexadecimal or as
    /// they are.
    fn answer(name: &str, kind: DnsQueryType, records: &[(&str, u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question(ID, &wire_name(name).unwrap(), kind);
        bytes[2] |= 0x80;
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (owner, kind, data) in records {
            bytes.extend(wire_name(owner).unwrap());
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    fn said(bytes: &[u8]) -> Option<Said> {
        read(bytes, ID, &wire_name("a.test").unwrap(), DnsQueryType::A)
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([9, 9, 9, last])
    }

    #[test]
    fn addresses_of_the_name_and_of_its_aliases_are_found_and_no_others() {
        let b = wire_name("B.test").unwrap();
        let plain = answer(
            "A.Test",
            DnsQueryType::A,
            &[
                ("a.test", 1, &[9, 9, 9, 1]),
                ("c.test", 1, &[9, 9, 9, 9]),
                ("a.test", 1, &[9, 9, 9, 2]),
            ],
        );
        assert_eq!(said(&plain), Some(Said::Found(vec![v4(1), v4(2)])));
        let aliased = answer(
            "a.test",
            DnsQueryType::A,
            &[
                ("b.test", 1, &[9, 9, 9, 3]),
                ("a.TEST", 5, &b),
                ("a.test", 46, b"sig"),
            ],
        );
        assert_eq!(said(&aliased), Some(Said::Found(vec![v4(3)])));
        // A pointer to the name of the question.
        let mut pointed = answer("a.test", DnsQueryType::A, &[]);
        pointed[7] = 1;
        pointed.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 9, 9, 9, 4]);
        assert_eq!(said(&pointed), Some(Said::Found(vec![v4(4)])));
        let mut none = answer("a.test", DnsQueryType::A, &[]);
        none[3] = 3;
        assert_eq!(said(&none), Some(Said::Found(Vec::new())));
        none[3] = 2;
        assert_eq!(said(&none), Some(Said::Failed));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_passed_over_and_what_cannot_be_is_refused() {
        let a: &[(&str, u16, &[u8])] = &[("a.test", 1, &[9, 9, 9, 1])];
        let good = answer("a.test", DnsQueryType::A, a);
        let mut other_number = good.clone();
        other_number[0] ^= 1;
        let mut a_question = good.clone();
        a_question[2] &= 0x7f;
        for bytes in [
            other_number,
            a_question,
            answer("b.test", DnsQueryType::A, a),
            answer("a.test", DnsQueryType::Aaaa, a),
            good[..12].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(said(&bytes), None);
        }
        let mut cut = good.clone();
        cut[2] |= 2;
        assert_eq!(said(&cut), Some(Said::TooLong));
        let a_name = wire_name("a.test").unwrap();
        let short: &[(&str, u16, &[u8])] = &[("a.test", 1, &[9, 9])];
        let circle: &[(&str, u16, &[u8])] = &[("a.test", 5, &a_name)];
        let mut missing = good.clone();
        missing[7] = 2;
        let mut many = good;
        many[6] = 1;
        many[7] = 1;
        for bytes in [
            answer("a.test", DnsQueryType::A, short),
            answer("a.test", DnsQueryType::A, circle),
            missing,
            many,
        ] {
            assert_eq!(said(&bytes), Some(Said::Failed));
        }
    }

    #[test]
    fn a_name_is_labels() {
        assert_eq!(wire_name("a.bc").as_deref(), Some(&b"\x01a\x02bc\0"[..]));
        assert_eq!(wire_name(""), None);
        assert_eq!(wire_name("a..b"), None);
        assert_eq!(wire_name(&"x".repeat(64)), None);
        assert_eq!(
            wire_name(&"x.".repeat(127)[..253]).map(|one| one.len()),
            Some(255)
        );
    }
}
