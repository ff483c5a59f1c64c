//! Telling the node of what is not carried, so that it is on record: once for each host and port, so few that a
//! flood of packets is no flood of records.

use super::packet::Refused;
use super::{Tun, ask};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

/// What is told in a minute. A browser that tries QUIC with each host of a page asks some tens.
const PER_MINUTE: usize = 60;

/// What is told at a time: each has a line, of which connections have more use.
const AT_ONCE: usize = 4;

/// What was refused in this minute.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    minute: Cell<u64>,
    seen: RefCell<HashSet<Refused>>,
    telling: Cell<usize>,
}

impl Refusals {
    /// Whether this is to be told, in this minute of any clock.
    fn is_new(&self, what: Refused, minute: u64) -> bool {
        let mut seen = self.seen.borrow_mut();
        if self.minute.replace(minute) != minute {
            seen.clear();
        }
        self.telling.get() < AT_ONCE && seen.len() < PER_MINUTE && seen.insert(what)
    }
}

/// Tells the node, if it is to know.
pub(super) fn tell(tun: &Rc<Tun>, what: Refused) {
    if !tun.refused.is_new(what, tun.now_s() / 60) {
        return;
    }
    let (kind, to) = match what {
        Refused::Datagram(to) => (guest::direct::DATAGRAM, to),
        Refused::Other(to) => (guest::direct::OTHER, to),
    };
    let host = tun.host_of(to);
    tun.refused.telling.set(tun.refused.telling.get() + 1);
    let tun = tun.clone();
    tokio::task::spawn_local(async move {
        ask::tell(&tun.lines, kind, &host, to.port()).await;
        tun.refused.telling.set(tun.refused.telling.get() - 1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    #[test]
    fn each_is_told_once_in_a_minute_and_no_more_than_so_many() {
        let refusals = Refusals::default();
        let to = |port| Refused::Datagram(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        assert!(refusals.is_new(to(1), 7) && !refusals.is_new(to(1), 7));
        let told = (0..500).filter(|port| refusals.is_new(to(*port), 7));
        assert_eq!(told.count(), PER_MINUTE - 1);
        assert!(refusals.is_new(to(1), 8));
        refusals.telling.set(AT_ONCE);
        assert!(!refusals.is_new(to(2), 8));
    }
}
