//! What is under way now: connections and requests that have no record yet, because they are not over.
//!
//! It is in memory alone. Whoever asks gets a copy, bounded, that was true at that moment.

use crate::record::{EgressRecord, Method, Owner, Verdict};
use crate::traffic::Traffic;
use model::host::Host;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// When it was asked for, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub owner: Owner,
    /// How.
    pub method: Method,
    /// Whom, in its one form.
    pub host: Host,
    /// At which port; 0 of a name that is asked for.
    pub port: u16,
    /// What was dialled, once it was.
    pub address: Option<SocketAddr>,
    /// It stands. Else it is being judged, resolved or dialled, or a tunnel is looked into, whose requests are
    /// judged one by one.
    pub is_allowed: bool,
    /// The rule that lets it out, once one was asked.
    pub rule: Option<String>,
    /// Bytes that went out so far.
    pub bytes_out: u64,
    /// Bytes that came back so far.
    pub bytes_in: u64,
    /// Since it was asked for.
    pub age_ms: u64,
}

/// All that is under way on a node, by a number that grows, so that the oldest come first.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    all: Mutex<(u64, BTreeMap<u64, Arc<Entry>>)>,
}

/// A record that is being made, and its bytes.
#[derive(Debug)]
pub(crate) struct Entry {
    record: Mutex<EgressRecord>,
    pub(crate) since: Instant,
    pub(crate) traffic: Arc<Traffic>,
}

/// A place in the list, which is left when this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    list: Arc<UnderWay>,
    number: u64,
    entry: Arc<Entry>,
}

impl UnderWay {
    /// Those for which `is_meant`, the oldest first, at most so many; and whether there are more.
    pub(crate) fn list(
        &self,
        is_meant: impl Fn(&Owner) -> bool,
        most: usize,
    ) -> (Vec<Connection>, bool) {
        // Only the pointers are copied under the lock that every connection takes.
        let entries: Vec<Arc<Entry>> = self.all().1.values().cloned().collect();
        let mut known = entries.iter().filter_map(|entry| entry.shown(&is_meant));
        let shown = known.by_ref().take(most).collect();
        (shown, known.next().is_some())
    }

    fn all(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Entry>>)> {
        // Each statement under the lock leaves the map whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(crate) fn record(&self) -> MutexGuard<'_, EgressRecord> {
        // Whoever holds it sets one field, or copies.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where nothing was asked yet.
    fn shown(&self, is_meant: impl Fn(&Owner) -> bool) -> Option<Connection> {
        let record = self.record();
        let host = record.host.clone().filter(|_| is_meant(&record.owner))?;
        let age = self.since.elapsed().as_millis();
        Some(Connection {
            at_ms: record.at_ms,
            owner: record.owner.clone(),
            method: record.method,
            host,
            port: record.port,
            address: record.address,
            is_allowed: record.verdict == Verdict::Allowed,
            rule: record.rule.clone(),
            bytes_out: self.traffic.out(),
            bytes_in: self.traffic.back(),
            age_ms: u64::try_from(age).unwrap_or(u64::MAX),
        })
    }
}

impl Listed {
    pub(crate) fn new(list: &Arc<UnderWay>, record: EgressRecord, traffic: Traffic) -> Listed {
        let entry = Arc::new(Entry {
            record: Mutex::new(record),
            since: Instant::now(),
            traffic: Arc::new(traffic),
        });
        let mut all = list.all();
        let number = all.0;
        all.0 += 1;
        all.1.insert(number, entry.clone());
        drop(all);
        let list = list.clone();
        Listed {
            list,
            number,
            entry,
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.all().1.remove(&self.number);
    }
}
