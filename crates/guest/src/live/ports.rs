//! `GET /ports`: where somebody listens inside, among the addresses that a tunnel leads to.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read as _;

/// The kernel's tables of sockets (`proc_pid_net(5)`), of this process's network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// As much of a table is read: some seven thousand sockets. A workload can make more, and then some of its
/// ports are not told.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// As many ports are told.
const PORTS_MAX: usize = 256;
/// `TCP_LISTEN` of the kernel's `include/net/tcp_states.h`.
const LISTENS: &str = "0A";
/// Every address, and 127.0.0.1 and ::1, as the kernel writes them: in words of the machine's order.
const LOCAL: [&str; 6] = [
    "00000000",
    "0100007F",
    "00000000000000000000000000000000",
    "00000000000000000000000001000000",
    "0000000000000000FFFF000000000000",
    "0000000000000000FFFF00000100007F",
];

/// The ports, the least first.
pub(super) fn answer() -> Value {
    let mut ports = BTreeSet::new();
    for table in TABLES {
        let mut text = String::new();
        let read = std::fs::File::open(table)
            .and_then(|file| file.take(TABLE_BYTES_MAX).read_to_string(&mut text));
        if read.is_ok() {
            ports.extend(text.lines().filter_map(listens));
        }
    }
    let ports: Vec<u16> = ports.into_iter().take(PORTS_MAX).collect();
    json!({ "ports": ports })
}

/// The port of a line, if somebody listens there who can be reached.
fn listens(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    let is_listening = words.nth(1)? == LISTENS;
    let is_local = LOCAL.contains(&address);
    let port = u16::from_str_radix(port, 16).ok()?;
    (is_listening && is_local).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_where_somebody_listens_on_a_loopback() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 0 1000 0 1"
            )
        };
        for (address, state, expected) in [
            ("0100007F:1F90", "0A", Some(8080)),
            ("00000000:0050", "0A", Some(80)),
            ("00000000000000000000000001000000:0051", "0A", Some(81)),
            ("0100007F:1F90", "01", None),
            ("0200000A:1F90", "0A", None),
            ("0100007F", "0A", None),
            ("0100007F:FFFFF", "0A", None),
        ] {
            assert_eq!(
                listens(&line(address, state)),
                expected,
                "{address} {state}"
            );
        }
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when";
        assert_eq!((listens(head), listens("")), (None, None));
    }
}
