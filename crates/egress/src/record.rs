//! What is written down of each thing that a sandbox asked for.

use crate::host::Host;
use crate::reason::Reason;
use crate::target::Target;
use crate::traffic::Traffic;
use model::id::SandboxId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

/// How something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A request that was passed on.
    Http,
    /// A tunnel by HTTP.
    Connect,
    /// A tunnel by SOCKS5.
    Socks,
    /// A connection of a program that knows no proxy.
    Direct,
    /// A name that such a program asked for. There is no port and nothing was dialled.
    Dns,
}

impl Method {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Http => "http",
            Method::Connect => "connect",
            Method::Socks => "socks5",
            Method::Direct => "direct",
            Method::Dns => "dns",
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

/// One thing that a sandbox asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRecord {
    /// When it was asked for, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub sandbox: SandboxId,
    /// How.
    pub method: Method,
    /// Whom, in its one form; `None` where it could not be read.
    pub host: Option<Host>,
    /// At which port; 0 where it could not be read.
    pub port: u16,
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// What became of it.
    pub verdict: Verdict,
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
    pub(crate) now_ms: fn() -> u64,
}

/// A record that is being made. It is sent when this is dropped, however the request ends.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Recorder,
    record: EgressRecord,
    since: Instant,
    pub(crate) traffic: Arc<Traffic>,
}

impl Recording {
    pub(crate) fn begin(recorder: &Recorder, sandbox: &SandboxId, method: Method) -> Recording {
        let record = EgressRecord {
            at_ms: (recorder.now_ms)(),
            sandbox: sandbox.clone(),
            method,
            host: None,
            port: 0,
            address: None,
            // What stands here if the client goes away before anything was decided or answered.
            verdict: Verdict::Failed(Reason::AnswerTimeout),
            bytes_out: 0,
            bytes_in: 0,
            duration_ms: 0,
        };
        Recording {
            recorder: recorder.clone(),
            record,
            since: Instant::now(),
            traffic: Arc::default(),
        }
    }

    pub(crate) fn asks(&mut self, target: &Target) {
        self.record.host = Some(target.host.clone());
        self.record.port = target.port;
    }

    pub(crate) fn dialled(&mut self, address: SocketAddr) {
        self.record.address = Some(address);
    }

    pub(crate) fn allowed(&mut self) {
        self.record.verdict = Verdict::Allowed;
    }

    pub(crate) fn refused(&mut self, reason: Reason) {
        self.record.verdict = if reason.is_denial() {
            Verdict::Denied(reason)
        } else {
            Verdict::Failed(reason)
        };
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let counts = &self.recorder.counts;
        let count = match self.record.verdict {
            Verdict::Allowed => &counts.allowed,
            Verdict::Denied(_) => &counts.denied,
            Verdict::Failed(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.record.bytes_out = self.traffic.out();
        self.record.bytes_in = self.traffic.back();
        let duration = self.since.elapsed().as_millis();
        self.record.duration_ms = u64::try_from(duration).unwrap_or(u64::MAX);
        if self.recorder.to.try_send(self.record.clone()).is_err() {
            counts.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
    }
}
