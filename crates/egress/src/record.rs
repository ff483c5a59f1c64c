//! What is written down of each thing that a sandbox asked for.

use crate::decide::Refusal;
use crate::reason::Reason;
use crate::target::Target;
use crate::total::Total;
use crate::traffic::Traffic;
use crate::under_way::{Listed, UnderWay};
use model::host::Host;
use model::id::{JobId, SandboxId};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use tokio::sync::mpsc;

/// Addresses of a name that a record lists. Honest names have a handful, and the 10,000 records of a sandbox are in
/// the database.
pub const ANSWERS_MAX: usize = 16;

/// How something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A request that was passed on.
    Http,
    /// A tunnel by HTTP.
    Connect,
    /// A tunnel by SOCKS5.
    Socks,
    /// A request in a tunnel that was looked into.
    Https,
    /// A connection of a program that knows no proxy.
    Direct,
    /// A name that such a program asked for. There is no port and nothing was dialled.
    Dns,
    /// A datagram of UDP of such a program.
    Udp,
    /// A ping, or anything else that is neither TCP nor UDP.
    Icmp,
}

impl Method {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Http => "http",
            Method::Connect => "connect",
            Method::Socks => "socks5",
            Method::Https => "https",
            Method::Direct => "direct",
            Method::Dns => "dns",
            Method::Udp => "udp",
            Method::Icmp => "icmp",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let out, and answered.
    Allowed,
    /// A rule said no.
    Denied(Reason),
    /// No rule said no, and it came to nothing.
    Failed(Reason),
}

/// Whose way out it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The job that brought the sandbox with it, if one did.
    pub job: Option<JobId>,
}

/// One thing that a sandbox asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRecord {
    /// When it was asked for, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub owner: Owner,
    /// How.
    pub method: Method,
    /// Whom, in its one form; `None` where it could not be read.
    pub host: Option<Host>,
    /// At which port; 0 where it could not be read.
    pub port: u16,
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// Of a name that was asked for, the addresses that it has outside and that could be dialled: those that are closed
    /// are the business of the node's own network, and would be read here by whoever may use the sandbox. The sandbox
    /// itself is told of none. At most [`ANSWERS_MAX`].
    pub answers: Vec<IpAddr>,
    /// How many more it has: closed ones, and those beyond [`ANSWERS_MAX`].
    pub answers_unlisted: u32,
    /// How long the sandbox may keep its own answer, in seconds.
    pub ttl_s: Option<u32>,
    /// What became of it.
    pub verdict: Verdict,
    /// The rule that let it out or did not, where one was asked.
    pub rule: Option<String>,
    /// Bytes that went out, those of the proxy's own making included.
    pub bytes_out: u64,
    /// Bytes that came back.
    pub bytes_in: u64,
    /// From the request to its end.
    pub duration_ms: u64,
}

/// Totals of a node since its start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Let out and answered.
    pub allowed: AtomicU64,
    /// Denied by a rule.
    pub denied: AtomicU64,
    /// Came to nothing.
    pub failed: AtomicU64,
    /// Records that nobody took in time.
    pub unrecorded: AtomicU64,
}

/// Where records go. A reader that is slow loses records, which is counted; it slows nobody down.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    pub(crate) to: mpsc::Sender<EgressRecord>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) now_ms: fn() -> u64,
}

/// A record that is being made, and is listed until then. It is sent when this is dropped, however the request ends.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Recorder,
    listed: Listed,
    pub(crate) traffic: Arc<Traffic>,
    is_discarded: bool,
}

impl Recording {
    pub(crate) fn begin(
        recorder: &Recorder,
        owner: &Owner,
        total: &Arc<Total>,
        method: Method,
    ) -> Recording {
        let record = EgressRecord {
            at_ms: (recorder.now_ms)(),
            owner: owner.clone(),
            method,
            host: None,
            port: 0,
            address: None,
            answers: Vec::new(),
            answers_unlisted: 0,
            ttl_s: None,
            // What stands here if the client goes away before anything was decided or answered.
            verdict: Verdict::Failed(Reason::AnswerTimeout),
            rule: None,
            bytes_out: 0,
            bytes_in: 0,
            duration_ms: 0,
        };
        let listed = Listed::new(&recorder.under_way, record, Traffic::of(total.clone()));
        Recording {
            recorder: recorder.clone(),
            traffic: listed.entry().traffic.clone(),
            listed,
            is_discarded: false,
        }
    }

    fn record(&self) -> MutexGuard<'_, EgressRecord> {
        self.listed.entry().record()
    }

    /// Nothing was asked after all, or what was asked has records of its own.
    pub(crate) fn discard(mut self) {
        self.is_discarded = true;
    }

    pub(crate) fn asks(&mut self, target: &Target) {
        let mut record = self.record();
        record.host = Some(target.host.clone());
        record.port = target.port;
    }

    pub(crate) fn dialled(&mut self, address: SocketAddr) {
        self.record().address = Some(address);
    }

    /// A name has so many addresses, of which these could be dialled.
    pub(crate) fn found(&mut self, open: &[IpAddr], count: usize) {
        let mut record = self.record();
        record.answers = open.iter().take(ANSWERS_MAX).copied().collect();
        let unlisted = count.saturating_sub(record.answers.len());
        record.answers_unlisted = u32::try_from(unlisted).unwrap_or(u32::MAX);
    }

    /// What is said of a name may be kept so long.
    pub(crate) fn may_be_kept(&mut self, seconds: u32) {
        self.record().ttl_s = Some(seconds);
    }

    pub(crate) fn allowed(&mut self) {
        self.record().verdict = Verdict::Allowed;
    }

    /// Which rule let it out.
    pub(crate) fn by(&mut self, rule: String) {
        self.record().rule = Some(rule);
    }

    /// What was dialled, once it was.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.record().address
    }

    /// It ends here; gives the reason back, to be told.
    pub(crate) fn denied(&mut self, refusal: Refusal) -> Refusal {
        let reason = refusal.reason;
        let mut record = self.record();
        record.verdict = if reason.is_denial() {
            Verdict::Denied(reason)
        } else {
            Verdict::Failed(reason)
        };
        if refusal.rule.is_some() {
            record.rule.clone_from(&refusal.rule);
        }
        drop(record);
        refusal
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.is_discarded {
            return;
        }
        if let Some(cut) = self.traffic.was_cut().cloned() {
            self.denied(cut);
        }
        let mut record = self.record().clone();
        let counts = &self.recorder.counts;
        let count = match record.verdict {
            Verdict::Allowed => &counts.allowed,
            Verdict::Denied(_) => &counts.denied,
            Verdict::Failed(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        record.bytes_out = self.traffic.out();
        record.bytes_in = self.traffic.back();
        let duration = self.listed.entry().since.elapsed().as_millis();
        record.duration_ms = u64::try_from(duration).unwrap_or(u64::MAX);
        if self.recorder.to.try_send(record).is_err() {
            counts.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
    }
}
