//! How many requests are taken of one principal, of one node, and of one address behind which nobody is known.
//!
//! The attackers are whoever runs wild with a credential, and whoever has none and tries. Everything here is in memory
//! and of this process alone, and bounded: an address that is new pushes out the ones that asked longest ago, which
//! begin with a full bucket again, so a flood of addresses shuts nobody out.
//!
//! Who comes by a Unix socket of the owner, or from inside the process, is not counted: they could end us anyway. A tool
//! that makes something for somebody else takes it of their bucket. What goes on into a sandbox by its own name is not
//! counted either; connections bound that.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use api::Code;
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use model::id::NodeId;
use model::limits::RATES_KNOWN_MAX;
use model::rate::{Bucket, Class, Level, Rate};
use service::Who;

use crate::error::Error;
use crate::metrics::Metrics;

/// Requests wait for each other only where they fall into the same part.
const PARTS: usize = 16;
/// What was asked in vain may be asked again after so many seconds, where nobody knows better: somebody else has to end
/// something first.
const LATER_S: &str = "5";
/// By the draft of the IETF as it is now (draft-ietf-httpapi-ratelimit-headers-10): what there is, and what is left.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
/// By its drafts up to 6, which clients in use read, among them those of E2B.
const OLD_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const OLD_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const OLD_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
/// What is made by a `POST`, by the last part of its path, at all doors.
const MADE: [&str; 16] = [
    "blobs",
    "builds",
    "enroll-tokens",
    "fork",
    "jobs",
    "keys",
    "principals",
    "recreate",
    "sandboxes",
    "secrets",
    "snapshots",
    "templates",
    "tenants",
    "test",
    "versions",
    "volumes",
];

/// The buckets of everybody. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Buckets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rates: model::rate::Rates,
    since: Instant,
    hasher: RandomState,
    known: Table<Bucket>,
    sources: Table<Bucket>,
    /// Keys that counted lately. They are not held up by others who try from the same address.
    good: Table<()>,
    metrics: Metrics,
}

/// What a request has taken, on its way to the headers of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metered {
    class: Class,
    rate: Rate,
    level: Level,
}

/// A bounded number of entries by digests that nobody outside can choose. Those that were not asked for longest go.
#[derive(Debug)]
struct Table<T> {
    parts: Vec<Mutex<Part<T>>>,
    most: usize,
}

/// The young ones, and those that were young before: when there are too many young ones, the old ones go.
#[derive(Debug)]
struct Part<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
}

impl<T: Copy + Default> Table<T> {
    fn new(most: usize) -> Self {
        let part = || {
            Mutex::new(Part {
                young: HashMap::new(),
                old: HashMap::new(),
            })
        };
        Self {
            parts: (0..PARTS).map(|_| part()).collect(),
            most: most / PARTS / 2,
        }
    }

    /// Changes an entry, which is a new one where there was none.
    fn with<R>(&self, digest: u64, change: impl FnOnce(&mut T) -> R) -> R {
        let mut nobody = T::default();
        let Some(part) = self.part(digest) else {
            return change(&mut nobody);
        };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = part.young.get_mut(&digest) {
            return change(entry);
        }
        if part.young.len() >= self.most {
            part.old = std::mem::take(&mut part.young);
        }
        let mut entry = part.old.remove(&digest).unwrap_or_default();
        let changed = change(&mut entry);
        part.young.insert(digest, entry);
        changed
    }

    /// An entry as it is, without keeping it for longer.
    fn get(&self, digest: u64) -> Option<T> {
        let part = self.part(digest)?;
        let part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let found = part.young.get(&digest).or_else(|| part.old.get(&digest));
        found.copied()
    }

    fn part(&self, digest: u64) -> Option<&Mutex<Part<T>>> {
        let count = self.parts.len() as u64;
        self.parts.get(usize::try_from(digest % count).unwrap_or(0))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.lock().unwrap());
        parts.map(|part| part.young.len() + part.old.len()).sum()
    }
}

impl Buckets {
    pub(crate) fn new(rates: model::rate::Rates, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            rates,
            since: Instant::now(),
            hasher: RandomState::new(),
            known: Table::new(RATES_KNOWN_MAX),
            sources: Table::new(RATES_KNOWN_MAX),
            good: Table::new(RATES_KNOWN_MAX),
            metrics,
        }))
    }

    /// A request of a principal. All its keys share one bucket, so that more keys are not more requests.
    pub(crate) fn who(&self, who: &Who, class: Class) -> Metered {
        self.take((&who.tenant, &who.principal), class, &self.0.known)
    }

    /// A request of a node.
    pub(crate) fn node(&self, node: &NodeId) -> Metered {
        self.take(node, Class::Nodes, &self.0.known)
    }

    /// A request of an address behind which nobody is known.
    pub(crate) fn stranger(&self, source: Option<IpAddr>) -> Metered {
        self.take(network(source), Class::Strangers, &self.0.sources)
    }

    /// A credential that did not count came from an address.
    pub(crate) fn failed(&self, source: Option<IpAddr>) -> Metered {
        self.take(network(source), Class::Failures, &self.0.sources)
    }

    /// Whether what somebody at that address has shown is looked at: a key that has counted lately always is, and so is
    /// a token of an issuer, because the table is not asked about one whose signature is wrong.
    pub(crate) fn may_try(&self, source: Option<IpAddr>, text: &str) -> Result<(), Error> {
        if service::is_jwt_text(text) || self.0.good.get(self.digest(text)).is_some() {
            return Ok(());
        }
        self.may_guess(source)
    }

    /// Whether another credential of that address is looked for in the table.
    pub(crate) fn may_guess(&self, source: Option<IpAddr>) -> Result<(), Error> {
        if self.0.rates.off {
            return Ok(());
        }
        let (class, rate) = (Class::Failures, self.0.rates.failures);
        let bucket = self.0.sources.get(self.digest((network(source), class)));
        let level = bucket.unwrap_or_default().look(rate, self.now_ns());
        self.check(Metered { class, rate, level }).map(drop)
    }

    /// A key has counted.
    pub(crate) fn is_good(&self, key: &str) {
        self.0.good.with(self.digest(key), |()| ());
    }

    /// Refuses a request for which there was nothing in its bucket.
    pub(crate) fn check(&self, metered: Metered) -> Result<Metered, Error> {
        if metered.level.is_let_in() {
            return Ok(metered);
        }
        self.0.metrics.rate_limited(metered.class);
        let Rate { per_second, burst } = metered.rate;
        let class = metered.class.as_str();
        let message = format!(
            "more than {per_second} `{class}` in a second, or {burst} at once, came from one {}",
            whom(metered.class)
        );
        let error = Error::new(Code::RateLimited, message);
        Err(error.metered(metered))
    }

    fn take(&self, of: impl Hash, class: Class, table: &Table<Bucket>) -> Metered {
        let (rate, now) = (self.0.rates.of(class), self.now_ns());
        if self.0.rates.off {
            let level = Bucket::default().look(rate, now);
            return Metered { class, rate, level };
        }
        let digest = self.digest((of, class));
        let level = table.with(digest, |bucket| bucket.take(rate, now));
        Metered { class, rate, level }
    }

    fn digest(&self, of: impl Hash) -> u64 {
        self.0.hasher.hash_one(of)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn whom(class: Class) -> &'static str {
    match class {
        Class::Reads | Class::Writes | Class::Creates => "principal",
        Class::Nodes => "node",
        Class::Strangers | Class::Failures => "address",
    }
}

/// What one customer of a provider has: an address, or in IPv6 the 2^64 of a network.
fn network(source: Option<IpAddr>) -> Option<IpAddr> {
    source.map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    })
}

/// What kind of request it is.
pub(crate) fn class(method: &Method, path: &str) -> Class {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Class::Reads;
    }
    let last = path.trim_end_matches('/').rsplit('/').next();
    let is_made = last.is_some_and(|last| MADE.contains(&last));
    match *method == Method::POST && is_made {
        true => Class::Creates,
        false => Class::Writes,
    }
}

/// Says in an answer what is left, and with every 429 when to come again.
pub(crate) fn tell(response: &mut Response, metered: Option<Metered>) {
    let status = response.status();
    let headers = response.headers_mut();
    if let Some(Metered { class, rate, level }) = metered {
        let name = class.as_str();
        let mut tell = |header: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(header, value);
            }
        };
        if !matches!(class, Class::Strangers | Class::Failures | Class::Nodes) {
            let (burst, left, reset) = (rate.burst, level.left, level.full_in_s());
            tell(
                POLICY,
                format!("\"{name}\";q={burst};w={}", rate.window_s()),
            );
            tell(LEFT, format!("\"{name}\";r={left};t={reset}"));
            tell(OLD_LIMIT, burst.to_string());
            tell(OLD_REMAINING, left.to_string());
            tell(OLD_RESET, reset.to_string());
        }
        if !level.is_let_in() {
            tell(RETRY_AFTER, level.wait_s().to_string());
        }
    }
    if status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(LATER_S));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(burst: u32) -> Buckets {
        let rates = model::rate::Rates {
            reads: Rate::new(1, burst),
            strangers: Rate::new(1, burst),
            failures: Rate::new(1, burst),
            ..model::rate::Rates::default()
        };
        Buckets::new(rates, Metrics::new())
    }

    fn who(name: &str) -> Who {
        Who::owner(name.parse().unwrap())
    }

    #[test]
    fn a_principal_has_a_bucket_of_each_class_and_nobody_elses() {
        let all = buckets(2);
        let let_in = |name: &str, class| all.who(&who(name), class).level.is_let_in();
        assert!(let_in("user:a", Class::Reads) && let_in("user:a", Class::Reads));
        assert!(!let_in("user:a", Class::Reads));
        assert!(let_in("user:b", Class::Reads));
        assert!(let_in("user:a", Class::Writes));
    }

    #[test]
    fn an_address_of_ipv6_is_its_network_and_a_mapped_one_is_that_of_ipv4() {
        let of = |text: &str| network(Some(text.parse().unwrap())).unwrap().to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn a_stranger_with_many_addresses_does_not_grow_the_table() {
        let all = buckets(1);
        for number in 0..200_000_u32 {
            all.stranger(Some(IpAddr::V4(number.into())));
        }
        let count = all.0.sources.len();
        assert!(count <= RATES_KNOWN_MAX, "{count}");
        assert_eq!(all.0.known.len(), 0);
        // One that keeps asking is not forgotten for those.
        let first = Some(IpAddr::from([10, 0, 0, 1]));
        assert!(all.stranger(first).level.is_let_in());
        for number in 0..20_000_u32 {
            all.stranger(Some(IpAddr::V4(number.into())));
            assert!(number % 100 != 0 || !all.stranger(first).level.is_let_in());
        }
    }

    #[test]
    fn who_guesses_is_not_looked_at_and_a_key_that_has_counted_is() {
        let all = buckets(2);
        let from = Some(IpAddr::from([192, 0, 2, 1]));
        all.is_good("good");
        for _ in 0..2 {
            assert!(all.may_try(from, "guess").is_ok());
            all.failed(from);
        }
        let code = |key| all.may_try(from, key).map_err(|error| error.code());
        assert_eq!(code("guess"), Err(Code::RateLimited));
        assert_eq!(code("good"), Ok(()));
        assert_eq!(code("eyJhbGciOiJ9.eyJzdWIiOiJ9.c2ln"), Ok(()));
        let elsewhere = Some(IpAddr::from([192, 0, 2, 2]));
        assert!(all.may_try(elsewhere, "guess").is_ok());
    }

    #[test]
    fn what_is_made_counts_as_that_at_all_doors() {
        let post = |path| class(&Method::POST, path);
        for path in [
            "/v1/jobs",
            "/sandboxes",
            "/v3/templates",
            "/v1/sandboxes/x/fork",
        ] {
            assert_eq!(post(path), Class::Creates, "{path}");
        }
        assert_eq!(post("/v1/jobs/x/cancel"), Class::Writes);
        assert_eq!(class(&Method::GET, "/v1/jobs"), Class::Reads);
        assert_eq!(class(&Method::DELETE, "/v1/keys"), Class::Writes);
    }

    /// What a decision costs, printed with `--no-capture`; the bound is for a machine that is busy with other tests.
    #[test]
    fn a_decision_costs_less_than_ten_microseconds() {
        let all = buckets(u32::MAX >> 12);
        let names: Vec<Who> = (0..1000).map(|one| who(&format!("user:p{one}"))).collect();
        let (since, rounds) = (Instant::now(), 200);
        for _ in 0..rounds {
            for one in &names {
                assert!(all.check(all.who(one, Class::Reads)).is_ok());
            }
        }
        let each = since.elapsed().as_nanos() / (rounds * 1000);
        println!("{each} ns for a decision");
        assert!(each < 10_000, "{each} ns");
    }
}
