//! What a node tells of a job's end: the rest of its output, and the outcome; or that it gives it back.

use super::{Job, Report, Told};
use crate::convert;
use crate::dropped::{Patience, give_up};
use crate::job::fence;
use crate::spool::{Piece, Spool};
use api::client::ClientError;
use api::dropped::DroppedWhat;
use api::log::StreamName;
use api::node::{JobFinished, JobOutput, JobRelease, OutputSegment};
use model::limits;
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
        let finished = JobFinished {
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
        match insist(|| client.node_job_finished(job, &finished)).await {
            Ok(_) => {}
            Err(error) => give_up(&self.node, DroppedWhat::Finished, job, &error),
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
        for (len, segment) in pieces {
            let (epoch, attempt) = (self.lease.epoch, self.lease.attempt);
            let output = JobOutput {
                epoch,
                attempt,
                segments: vec![segment],
            };
            let client = &self.node.inner.client;
            let sent = insist(|| client.node_job_output(&self.lease.job_id, &output)).await;
            if let Err(error) = sent {
                give_up(&self.node, DroppedWhat::Output, &self.lease.job_id, &error);
                lost += len;
            }
        }
        segments.extend(last.into_iter().map(|(_, segment)| segment));
        lost
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
