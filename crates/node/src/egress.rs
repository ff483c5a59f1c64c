//! What sandboxes and jobs have asked of the outside: from the proxy onto this node's disk, and from there to the
//! control plane.
//!
//! A record is in the file before the next one is taken, and the file forgets it when the control plane has it. If we
//! die in between, it is told again, and stored once by its name. What was still under way when we died has no record:
//! it was cut at that moment. The file is not synced: when the machine dies, so do its sandboxes.

use crate::Node;
use crate::dropped::{Patience, give_up};
use ::egress::record::{self, Verdict};
use api::client::ClientError;
use api::dropped::DroppedWhat;
use api::egress::{EgressDecision, EgressRecord, NodeEgress, RECORDS_MAX};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// How long records are gathered before they are told, so that a busy node costs a few transactions in a second.
const GATHER: Duration = Duration::from_millis(100);
/// Between two tries, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// How long the last records of a process that ends are told.
const LAST: Duration = Duration::from_secs(2);
/// Bytes that wait for the control plane: some ten thousand records. More are counted and dropped.
const SPOOL_BYTES: usize = 8 << 20;
/// Bytes of one report, which is below what the control plane takes as one body.
const REPORT_BYTES: usize = 512 * 1024;
/// Records that are taken at once.
const BATCH: usize = 256;
const _: () = assert!(record::ANSWERS_MAX == api::egress::ANSWERS_MAX);
/// The file, in the directory of the node, and the one that takes its place.
const FILE: &str = "egress";
const NEW: &str = "egress.new";

/// What is known and not told yet.
#[derive(Debug)]
struct Spool {
    dir: PathBuf,
    file: Option<File>,
    /// What is in the file, each with the length of its line.
    waiting: VecDeque<(EgressRecord, usize)>,
    bytes: usize,
    dropped: u64,
    /// With the server, about the first of them.
    patience: Patience,
}

impl Spool {
    /// That of a node, as the process before us left it. A line that is not whole was being written when it died.
    fn read(dir: &Path) -> Spool {
        let text = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let known = lines.filter_map(|line| Some((serde_json::from_str(line).ok()?, line.len())));
        let waiting: VecDeque<(EgressRecord, usize)> = known.collect();
        Spool {
            dir: dir.to_owned(),
            file: None,
            bytes: waiting.iter().map(|(_, len)| len).sum(),
            waiting,
            dropped: 0,
            patience: Patience::default(),
        }
    }

    /// Writes records down. A disk that is full costs the records and nothing else: they are told if we live.
    fn append(&mut self, records: Vec<EgressRecord>) -> io::Result<()> {
        let mut text = String::new();
        for record in records {
            let line = serde_json::to_string(&record)? + "\n";
            if self.bytes + line.len() > SPOOL_BYTES {
                self.dropped += 1;
                continue;
            }
            self.bytes += line.len();
            text.push_str(&line);
            self.waiting.push_back((record, line.len()));
        }
        if let Some(file) = &mut self.file {
            return file.write_all(text.as_bytes());
        }
        // What a process that died left of a line must not become the beginning of the next one.
        self.rewrite()
    }

    /// The next records to tell.
    fn report(&self) -> Vec<EgressRecord> {
        let mut room = REPORT_BYTES;
        let fits = |(_, len): &&(EgressRecord, usize)| {
            let fits = room >= *len;
            room = room.saturating_sub(*len);
            fits
        };
        let next = self.waiting.iter().take(RECORDS_MAX).take_while(fits);
        next.map(|(record, _)| record.clone()).collect()
    }

    /// Forgets so many, which the control plane has.
    fn forget(&mut self, told: usize) -> io::Result<()> {
        for (_, len) in self.waiting.drain(..told.min(self.waiting.len())) {
            self.bytes -= len;
        }
        self.rewrite()
    }

    /// Puts a file with what is waiting in the place of the one that is there.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = String::new();
        for (record, _) in &self.waiting {
            text.push_str(&serde_json::to_string(record)?);
            text.push('\n');
        }
        let mut file = File::create(self.dir.join(NEW))?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(self.dir.join(NEW), self.dir.join(FILE))?;
        self.file = Some(file);
        Ok(())
    }
}

type Telling = Pin<Box<dyn Future<Output = Result<usize, ClientError>> + Send>>;

/// Takes records and tells them, for as long as somebody waits for this.
pub(crate) async fn tell(node: &Node) {
    let mut records = node.inner.egress_records.lock().await;
    let mut spool = Spool::read(&node.inner.config.dir);
    let before = i64::try_from(spool.waiting.len()).unwrap_or(i64::MAX);
    node.inner.egress_told.send_modify(|told| *told -= before);
    let mut pause = PAUSE_FIRST;
    let mut telling: Option<Telling> = None;
    let mut batch = Vec::new();
    loop {
        if telling.is_none() && !spool.waiting.is_empty() {
            telling = Some(say_later(node, &spool, GATHER));
        }
        let said = async {
            match &mut telling {
                Some(telling) => telling.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = said => {
                telling = None;
                if done(node, &mut spool, said) {
                    pause = PAUSE_FIRST;
                } else {
                    telling = Some(say_later(node, &spool, pause));
                    pause = (pause * 2).min(PAUSE_MOST);
                }
            }
            count = records.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return; // The proxy is gone, and so is the node.
                }
                write(node, &mut spool, &mut batch);
            }
        }
    }
}

/// Waits until all is told, at most so long.
pub(crate) async fn told(node: &Node) {
    use std::sync::atomic::Ordering;
    let counts = node.inner.egress.counts();
    let made = || {
        let all = [&counts.allowed, &counts.denied, &counts.failed];
        let made: u64 = all.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let lost = counts.unrecorded.load(Ordering::Relaxed);
        i64::try_from(made.saturating_sub(lost)).unwrap_or(i64::MAX)
    };
    let mut told = node.inner.egress_told.subscribe();
    let all = told.wait_for(|told| *told >= made());
    // What is not told then is in the file.
    drop(tokio::time::timeout(LAST, all).await);
}

/// Writes down and tells what is left when a process ends in peace.
pub(crate) async fn last(node: &Node) {
    let mut records = node.inner.egress_records.lock().await;
    let mut spool = Spool::read(&node.inner.config.dir);
    let mut batch = Vec::new();
    while let Ok(record) = records.try_recv() {
        batch.push(record);
    }
    if batch.is_empty() && spool.waiting.is_empty() {
        return;
    }
    write(node, &mut spool, &mut batch);
    let telling = async {
        while !spool.waiting.is_empty() {
            let said = say_later(node, &spool, Duration::ZERO).await;
            if !done(node, &mut spool, said) {
                return;
            }
        }
    };
    // What is not told then is in the file.
    drop(tokio::time::timeout(LAST, telling).await);
}

fn write(node: &Node, spool: &mut Spool, batch: &mut Vec<record::EgressRecord>) {
    let dropped = spool.dropped;
    let records = batch.drain(..).map(|one| {
        log_one(&one);
        on_the_wire(node, one)
    });
    if let Err(error) = spool.append(records.collect()) {
        tracing::warn!(%error, "failed to write down what was asked of the outside");
    }
    let lost = i64::try_from(spool.dropped - dropped).unwrap_or(i64::MAX);
    node.inner.egress_told.send_modify(|told| *told += lost);
    if spool.dropped > dropped && dropped == 0 {
        tracing::warn!("too many records of the outside wait to be told; some are dropped");
    }
    node.at("node.egress_written");
}

fn say_later(node: &Node, spool: &Spool, after: Duration) -> Telling {
    let (node, records) = (node.clone(), spool.report());
    Box::pin(async move {
        tokio::time::sleep(after).await;
        let count = records.len();
        let report = NodeEgress { records };
        node.inner.client.node_egress(&report).await.map(|_| count)
    })
}

/// Whether it is worth going on at once. What is refused for good is forgotten: it would be refused again.
fn done(node: &Node, spool: &mut Spool, said: Result<usize, ClientError>) -> bool {
    let told = match said {
        Err(error) if !spool.patience.is_over(&error) => return false,
        Err(error) => {
            give_up(node, DroppedWhat::Egress, "", &error);
            spool.report().len()
        }
        Ok(told) => told,
    };
    spool.patience = Patience::default();
    let count = i64::try_from(told).unwrap_or(i64::MAX);
    node.inner.egress_told.send_modify(|told| *told += count);
    if let Err(error) = spool.forget(told) {
        // It is told again, and stored once.
        tracing::warn!(%error, "failed to forget what was told");
    }
    true
}

fn on_the_wire(node: &Node, one: record::EgressRecord) -> EgressRecord {
    let (decision, code) = match one.verdict {
        Verdict::Allowed => (EgressDecision::Allowed, None),
        Verdict::Denied(reason) => (EgressDecision::Denied, Some(reason.code())),
        Verdict::Failed(reason) => (EgressDecision::Failed, Some(reason.code())),
    };
    let number = &node.inner.egress_count;
    let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    EgressRecord {
        name: format!("{}.{number}", node.inner.config.incarnation),
        at_ms: one.at_ms,
        sandbox_id: one.owner.sandbox.to_string(),
        job_id: one.owner.job.map(|job| job.to_string()),
        method: one.method.as_str().to_owned(),
        host: one.host.map(|host| host.to_string()),
        port: one.port,
        address: one.address.map(|address| address.to_string()),
        answers: one.answers.iter().map(ToString::to_string).collect(),
        answers_unlisted: one.answers_unlisted,
        ttl_s: one.ttl_s,
        decision,
        code: code.map(str::to_owned),
        rule: one.rule,
        bytes_out: one.bytes_out,
        bytes_in: one.bytes_in,
        duration_ms: one.duration_ms,
    }
}

fn log_one(record: &record::EgressRecord) {
    let (verdict, reason) = match record.verdict {
        Verdict::Allowed => ("allowed", ""),
        Verdict::Denied(reason) => ("denied", reason.code()),
        Verdict::Failed(reason) => ("failed", reason.code()),
    };
    tracing::debug!(
        sandbox.id = %record.owner.sandbox,
        method = record.method.as_str(),
        host = record.host.as_ref().map(tracing::field::display),
        port = record.port,
        address = record.address.map(tracing::field::display),
        verdict,
        reason,
        bytes_out = record.bytes_out,
        bytes_in = record.bytes_in,
        duration_ms = record.duration_ms,
        "egress"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> EgressRecord {
        EgressRecord {
            name: number.to_string(),
            at_ms: 1,
            sandbox_id: "sbx_0193a5c0b4a07000800000000000000a".to_owned(),
            job_id: None,
            method: "connect".to_owned(),
            host: Some("a.example".to_owned()),
            port: 443,
            address: None,
            answers: Vec::new(),
            answers_unlisted: 0,
            ttl_s: None,
            decision: EgressDecision::Denied,
            code: Some("host_denied".to_owned()),
            rule: Some("deny a.example".to_owned()),
            bytes_out: 0,
            bytes_in: 0,
            duration_ms: 0,
        }
    }

    fn names(spool: &Spool) -> Vec<String> {
        let names = spool.waiting.iter().map(|(one, _)| one.name.clone());
        names.collect()
    }

    #[test]
    fn records_stay_until_they_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append(vec![record(1), record(2)]).unwrap();
        spool.append(vec![record(3)]).unwrap();
        let mut again = Spool::read(dir.path());
        assert_eq!(names(&again), ["1", "2", "3"]);
        assert_eq!(again.bytes, spool.bytes);
        again.forget(2).unwrap();
        assert_eq!(names(&Spool::read(dir.path())), ["3"]);
        again.forget(1).unwrap();
        let empty = Spool::read(dir.path());
        assert_eq!((names(&empty).len(), empty.bytes), (0, 0));
    }

    #[test]
    fn a_line_that_is_half_written_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append(vec![record(1), record(2)]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        for cut in 0..text.len() {
            std::fs::write(dir.path().join(FILE), &text[..cut]).unwrap();
            let mut spool = Spool::read(dir.path());
            let before = names(&spool).len();
            assert!(before < 2, "{cut}");
            spool.append(vec![record(3)]).unwrap();
            assert_eq!(names(&Spool::read(dir.path())).len(), before + 1, "{cut}");
        }
    }

    #[test]
    fn what_waits_and_what_is_told_at_once_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        let long = EgressRecord {
            rule: Some("x".repeat(100_000)),
            ..record(1)
        };
        spool.append(vec![long; 200]).unwrap();
        assert!(spool.bytes <= SPOOL_BYTES && spool.dropped > 0);
        assert!(spool.report().len() <= 5);
        spool.waiting.clear();
        spool.bytes = 0;
        spool.append((0..2000).map(record).collect()).unwrap();
        assert_eq!(spool.report().len(), RECORDS_MAX);
    }
}
