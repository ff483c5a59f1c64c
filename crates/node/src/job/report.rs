//! What a node tells of a job's end: the rest of its output, and the outcome; or that it gives it back.

use super::{Job, Report, Told};
use crate::convert;
use crate::dropped::{Patience, give_up};
use crate::job::fence;
use crate::spool::{Piece, Spool};
use api::Code;
use api::client::ClientError;
use api::dropped::DroppedWhat;
use api::log::StreamName;
use api::node::{JobFinished, JobOutput, JobRelease, OutputSegment};
use model::limits;
use model::node::PROTOCOL_DECLARED_GAPS;
use scrub::Shapes;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Output that is reported together with the outcome, in bytes: most jobs print less.
const INLINE_BYTES: usize = 64 * 1024;
/// Between two tries of a report, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(15);
/// How long a node takes no work that could not write down what it took: its disk is full, and whoever sees to
/// it takes longer than that.
const UNWRITABLE_MS: u64 = 10_000;

impl Job {
    /// Reports what is not reported yet, and the outcome.
    pub(super) async fn finish(&self, report: Report) {
        if let Some(running) = self.node.jobs().get_mut(&self.lease.job_id)
            && running.epoch == self.lease.epoch
        {
            running.over = true;
        }
        let (mut stdout, mut stderr) = (
            api::job::StreamReport::default(),
            api::job::StreamReport::default(),
        );
        let mut segments = Vec::new();
        if let Some((out, err)) = report.spools {
            (stdout, stderr) = (convert::stream(&out), convert::stream(&err));
            let both = [
                (StreamName::Stdout, out, &mut stdout),
                (StreamName::Stderr, err, &mut stderr),
            ];
            for (name, spool, said) in both {
                let lost = self.report_rest(name, &spool, &mut segments).await;
                said.lost_bytes += lost;
                said.kept_bytes = said.kept_bytes.saturating_sub(lost);
            }
        }
        let told = self.told(report.told);
        let mut finished = JobFinished {
            epoch: self.lease.epoch,
            attempt: self.lease.attempt,
            outcome: told.outcome,
            usage: report.usage,
            enforcement: report.enforcement,
            stdout,
            stderr,
            detail: told.detail,
            segments,
        };
        let client = &self.node.inner.client;
        let job = self.lease.job_id.as_str();
        while let Err(error) = insist(|| client.node_job_finished(job, &finished)).await {
            if finished.segments.is_empty() || !is_of_output(&error) {
                give_up(&self.node, DroppedWhat::Finished, job, &error);
                break;
            }
            // A disk that has lost what was noted on it must not cost the outcome.
            give_up(&self.node, DroppedWhat::Output, job, &error);
            finished = without_output(finished);
        }
        self.node.at("node.reported");
    }

    /// What is told of the end, without values of secrets and without what looks like a credential: a
    /// guest chose some of its words.
    fn told(&self, told: Told) -> Told {
        told.clean(|text| match self.known() {
            Some(known) => Shapes::text(&known.text(text)),
            None => Shapes::text(text),
        })
    }

    /// Gathers the rest of a stream: into `segments` as long as it is little, else in reports of its own. Says how
    /// many bytes could not be told.
    async fn report_rest(
        &self,
        stream: StreamName,
        spool: &Spool,
        segments: &mut Vec<OutputSegment>,
    ) -> u64 {
        let rest = spool.rest(limits::OUTPUT_SEGMENT_BYTES);
        let (read, mut lost) = readable(&self.lease.job_id, rest);
        let segment = |piece: Piece| OutputSegment::new(stream, piece.offset, &piece.bytes);
        let read = read.into_iter();
        let mut pieces: Vec<_> = read.map(|(len, piece)| (len, segment(piece))).collect();
        let has: usize = segments.iter().map(|one| one.data.len()).sum();
        let sizes: Vec<usize> = pieces.iter().map(|(_, one)| one.data.len()).collect();
        let last = pieces.split_off(before_the_outcome(&sizes, INLINE_BYTES.saturating_sub(has)));
        let mut reached = self.reached(spool);
        for (len, segment) in pieces {
            let (epoch, attempt) = (self.lease.epoch, self.lease.attempt);
            let segment = reached.declare(segment);
            let end = segment.offset_bytes + len;
            let output = JobOutput {
                epoch,
                attempt,
                segments: vec![segment],
            };
            let client = &self.node.inner.client;
            let sent = insist(|| client.node_job_output(&self.lease.job_id, &output)).await;
            match sent {
                Ok(_) => reached.end = end,
                Err(error) => {
                    give_up(&self.node, DroppedWhat::Output, &self.lease.job_id, &error);
                    lost += len;
                }
            }
        }
        for (len, segment) in last {
            let segment = reached.declare(segment);
            reached.end = segment.offset_bytes + len;
            segments.push(segment);
        }
        lost
    }

    /// How far the server has this stream before the rest of it is told.
    fn reached(&self, spool: &Spool) -> Reached {
        let speaks = self.node.inner.server_speaks.load(Ordering::Acquire);
        Reached {
            end: spool.safe(),
            declares: speaks >= PROTOCOL_DECLARED_GAPS,
        }
    }

    /// Gives the job to another node: its command was not let go, and this one could not find it again. If we
    /// die here, the lease ends.
    pub(super) async fn give_back(&self, error: &std::io::Error) {
        let until = fence::boot_ms() + UNWRITABLE_MS;
        let inner = &self.node.inner;
        inner.unwritable_until.store(until, Ordering::Release);
        let job = self.lease.job_id.as_str();
        tracing::error!(%error, job.id = job, "the node cannot write its records; it gives a job back");
        let release = JobRelease {
            epoch: self.lease.epoch,
            why: format!("the node cannot write its records: {error}"),
        };
        let given = insist(|| inner.client.node_job_release(job, &release)).await;
        if let Err(error) = given {
            give_up(&self.node, DroppedWhat::Release, job, &error);
        }
    }
}

/// How far the server has a stream, as far as its node has heard. What begins later does so after a gap, which it says:
/// the end of a stream whose middle was too much, what comes after a piece that could not be read or was not taken.
#[derive(Debug, Clone, Copy)]
struct Reached {
    end: u64,
    /// Whether the server knows the word: one of the version before refuses it, and takes a gap without.
    declares: bool,
}

impl Reached {
    /// The piece, with what will never come before it.
    fn declare(self, segment: OutputSegment) -> OutputSegment {
        let missing = segment.offset_bytes.saturating_sub(self.end);
        let dropped_before = (self.declares && missing > 0).then_some(missing);
        OutputSegment {
            dropped_before,
            ..segment
        }
    }
}

/// Whether a report may have been refused for its pieces: they leave a hole, or other bytes are where they would be.
fn is_of_output(error: &ClientError) -> bool {
    error.is(Code::OutputHole) || error.is(Code::Conflict)
}

/// The same report without its output, which counts as lost.
fn without_output(mut report: JobFinished) -> JobFinished {
    for segment in std::mem::take(&mut report.segments) {
        let said = match segment.stream {
            StreamName::Stdout => &mut report.stdout,
            StreamName::Stderr => &mut report.stderr,
        };
        let lost = segment.into_bytes().map_or(0, |bytes| bytes.len() as u64);
        said.lost_bytes += lost;
        said.kept_bytes = said.kept_bytes.saturating_sub(lost);
    }
    report
}

/// What could be read of the rest of a stream, each piece with its length, and how many bytes could not: a sector of
/// the disk that is gone takes its piece, and no other.
fn readable(job: &str, rest: Vec<(u64, std::io::Result<Piece>)>) -> (Vec<(u64, Piece)>, u64) {
    let (mut read, mut lost) = (Vec::new(), 0);
    for (len, piece) in rest {
        match piece {
            Ok(piece) => read.push((len, piece)),
            Err(error) => {
                tracing::warn!(%error, job.id = job, "failed to read the spool");
                lost += len;
            }
        }
    }
    (read, lost)
}

/// How many of these pieces of a stream go before the outcome: the others have room beside it. Pieces are told
/// in their order, because they are shown in the order in which they came. Pure.
fn before_the_outcome(sizes: &[usize], room: usize) -> usize {
    let mut left = room;
    let fit = sizes.iter().rev().take_while(|size| {
        let rest = left.checked_sub(**size);
        left = rest.unwrap_or(0);
        rest.is_some()
    });
    sizes.len() - fit.count()
}

/// Repeats a report until it is answered: a control plane that is away comes back. An answer that
/// repeating cannot change ends it, and so does a server that fails over it for two hours.
pub(crate) async fn insist<T, F, R>(report: F) -> Result<T, ClientError>
where
    F: Fn() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    let (mut pause, mut patience) = (RETRY_FIRST, Patience::default());
    loop {
        match report().await {
            Err(error) if !patience.is_over(&error) => {
                tracing::debug!(%error, "a report is repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MOST);
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_of_a_stream_is_a_gap_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut spool = Spool::open(&path, false).unwrap();
        spool.append(&[b'x'; 250]).unwrap();
        let mut rest = spool.rest(100);
        rest[1].1 = Err(std::io::Error::other("a sector is gone"));
        let (read, lost) = readable("job", rest);
        let told: Vec<(u64, usize)> = read
            .iter()
            .map(|(_, piece)| (piece.offset, piece.bytes.len()))
            .collect();
        assert_eq!((told, lost), (vec![(0, 100), (200, 50)], 100));
        // A file that was cut off is read as far as it goes.
        let file = std::fs::File::options().write(true).open(&path);
        file.unwrap().set_len(24 + 150).unwrap();
        let (read, lost) = readable("job", spool.rest(100));
        let told: u64 = read.iter().map(|(len, _)| len).sum();
        assert_eq!((told, lost, told + lost), (100, 150, spool.kept()));
    }

    /// What a node tells of a stream, the pieces that are `gone` not being read or not being taken.
    fn declared(spool: &Spool, gone: &[usize], declares: bool) -> Vec<(u64, u64, Option<u64>)> {
        let mut reached = Reached {
            end: spool.safe(),
            declares,
        };
        let mut told = Vec::new();
        for (number, (len, piece)) in spool.rest(200_000).into_iter().enumerate() {
            if gone.contains(&number) {
                continue;
            }
            let piece = piece.unwrap();
            let segment = OutputSegment::new(StreamName::Stdout, piece.offset, &piece.bytes);
            let segment = reached.declare(segment);
            reached.end = segment.offset_bytes + len;
            told.push((segment.offset_bytes, len, segment.dropped_before));
        }
        told
    }

    #[test]
    fn what_is_missing_before_a_piece_is_declared_to_the_byte_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(&dir.path().join("s"), false).unwrap();
        spool.append(&vec![b'x'; 1_700_000]).unwrap();
        spool.unreported(100_000).unwrap();
        spool.reported().unwrap();
        // One whose answer did not come: it is told again, and is not missing.
        spool.unreported(50_000).unwrap();
        let whole = [
            (100_000, 50_000, None),
            (150_000, 200_000, None),
            (350_000, 150_000, None),
            (1_200_000, 200_000, Some(700_000)),
            (1_400_000, 200_000, None),
            (1_600_000, 100_000, None),
        ];
        assert_eq!(declared(&spool, &[], true), whole);
        assert_eq!(
            declared(&spool, &[0, 2, 4], true),
            [
                (150_000, 200_000, Some(50_000)),
                (1_200_000, 200_000, Some(850_000)),
                (1_600_000, 100_000, Some(200_000)),
            ]
        );
        // Each begins where the last one ended, but for what was said.
        for gone in [&[][..], &[1], &[0, 1, 2], &[5], &[3, 4]] {
            let mut end = spool.safe();
            for (begins, len, dropped) in declared(&spool, gone, true) {
                assert_eq!(begins, end + dropped.unwrap_or(0), "{gone:?}");
                end = begins + len;
            }
        }
        let silent = declared(&spool, &[1], false);
        assert!(silent.iter().all(|(_, _, dropped)| dropped.is_none()));
    }

    #[test]
    fn an_outcome_whose_output_is_not_taken_is_told_without_and_counts_it_as_lost() {
        let stream = |total_bytes| api::job::StreamReport {
            total_bytes,
            kept_bytes: total_bytes,
            ..api::job::StreamReport::default()
        };
        let report = JobFinished {
            epoch: 1,
            attempt: 1,
            outcome: api::node::OutcomeReport::Succeeded,
            usage: None,
            enforcement: None,
            stdout: stream(10),
            stderr: stream(3),
            detail: None,
            segments: vec![
                OutputSegment::new(StreamName::Stdout, 6, b"abcd"),
                OutputSegment::new(StreamName::Stderr, 0, b"\xff\xfe\xfd"),
            ],
        };
        let told = without_output(report);
        assert!(told.segments.is_empty());
        let counts = [told.stdout, told.stderr].map(|one| (one.kept_bytes, one.lost_bytes));
        assert_eq!(counts, [(6, 4), (0, 3)]);
    }

    #[test]
    fn a_small_piece_does_not_wait_for_the_outcome_where_a_larger_one_follows() {
        for (sizes, room, expect) in [
            (&[][..], 64, 0),
            (&[10], 64, 0),
            (&[10, 20], 64, 0),
            (&[70], 64, 1),
            (&[10, 70], 64, 2),
            (&[70, 10], 64, 1),
            (&[70, 10, 54], 64, 1),
            (&[10, 60], 64, 1),
            (&[1], 0, 1),
        ] {
            assert_eq!(before_the_outcome(sizes, room), expect, "{sizes:?} {room}");
        }
    }
}
