//! What was run in a sandbox: from its guest onto this node's disk, and from there to the control plane.
//!
//! The guest forgets a fact when it is asked for the next one, which is after the fact is in the file; the
//! file forgets it when the control plane has it. So whoever dies in between, the fact is told again, and
//! stored once by its number. The file is not synced: when the machine dies, so does the sandbox, and what
//! was told by then is in the control plane's database.

use super::record;
use crate::Node;
use crate::dropped::{Patience, give_up};
use crate::job::chain;
use api::dropped::DroppedWhat;
use api::exec::{ExecEnd, ExecFact, FACTS_MAX, NodeExecs};
use api::guest::{Guest, GuestError};
use driver::driver::Handle;
use scrub::Shapes;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one question to the guest waits for a fact.
const WAIT: Duration = Duration::from_secs(30);
/// How long facts are gathered before they are told, so that a busy sandbox costs a few transactions in a
/// second and not one for each command.
const GATHER: Duration = Duration::from_millis(200);
/// How long the last facts of a sandbox that is to go are waited for.
const LAST: Duration = Duration::from_secs(1);
/// Between two tries, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// Bytes of facts that wait for the control plane. More stay in the guest, which counts what it cannot keep.
const SPOOL_BYTES: usize = 4 << 20;
/// Bytes of one report, which is below what the control plane takes as one body.
const REPORT_BYTES: usize = 512 * 1024;
/// The file, in the directory of the sandbox.
const FILE: &str = "execs";
/// The file that takes its place.
const NEW: &str = "execs.new";

/// What is known and not told yet.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    file: Option<File>,
    /// The number before that of the first fact of this place: its guest counts from 1.
    base: u64,
    /// The number of the last fact that is or was in the file.
    last: u64,
    /// What is in the file, each with the length of its line.
    waiting: Vec<(ExecFact, usize)>,
    /// With the server, about the first of them.
    patience: Patience,
}

impl Spool {
    /// That of a sandbox, as the process before us left it.
    pub(super) fn open(node: &Node, id: &str) -> Option<Spool> {
        let mut spool = Spool::read(&record::dir_of(node, id)?);
        spool.base = record::of(node, id).map_or(0, |record| record.exec_base);
        spool.last = spool.last.max(spool.base);
        Some(spool)
    }

    /// Another place is made, of which nothing is known yet. What is left of the one before was told, or
    /// nobody was ever told of that place.
    pub(super) fn begin(&mut self, base: u64) {
        if !self.waiting.is_empty() {
            tracing::warn!(
                count = self.waiting.len(),
                "facts of an earlier place are lost"
            );
        }
        // Without it the next process begins with the base that is in the record.
        drop(std::fs::remove_file(self.dir.join(FILE)));
        let dir = std::mem::take(&mut self.dir);
        *self = Spool {
            dir,
            base,
            file: None,
            last: base,
            waiting: Vec::new(),
            patience: Patience::default(),
        };
    }

    /// The first line is the number of the last fact before those of the other lines. A line that is not
    /// whole was being written when the process died; the guest has it still.
    fn read(dir: &Path) -> Spool {
        let text = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let mut lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut last = lines
            .next()
            .and_then(|line| line.trim().parse().ok())
            .unwrap_or(0);
        let mut waiting = Vec::new();
        for line in lines {
            let Ok(fact) = serde_json::from_str::<ExecFact>(line) else {
                break;
            };
            last = fact.seq();
            waiting.push((fact, line.len()));
        }
        Spool {
            dir: dir.to_owned(),
            base: 0,
            file: None,
            last,
            waiting,
            patience: Patience::default(),
        }
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().map(|(_, len)| len).sum()
    }

    /// Writes facts down. Only those that go on upwards are: a guest that counts otherwise is not one.
    fn append(&mut self, facts: Vec<ExecFact>) -> io::Result<()> {
        let mut text = String::new();
        let mut new = Vec::new();
        let mut last = self.last;
        for fact in facts.into_iter().map(clean).filter(is_sound) {
            let fact = numbered(fact, self.base).ok_or(io::ErrorKind::InvalidData)?;
            if fact.seq() <= last {
                return Err(io::ErrorKind::InvalidData.into());
            }
            last = fact.seq();
            let line = serde_json::to_string(&fact)? + "\n";
            text.push_str(&line);
            new.push((fact, line.len()));
        }
        if self.file.is_none() {
            // What a process that died left of a line must not become the beginning of the next one.
            self.rewrite()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes())?;
        }
        self.last = last;
        self.waiting.extend(new);
        Ok(())
    }

    /// The next facts to tell.
    fn report(&self) -> Vec<ExecFact> {
        let mut room = REPORT_BYTES;
        let fits = |(_, len): &&(ExecFact, usize)| {
            let fits = room >= *len;
            room = room.saturating_sub(*len);
            fits
        };
        let facts = self.waiting.iter().take(FACTS_MAX).take_while(fits);
        facts.map(|(fact, _)| fact.clone()).collect()
    }

    /// Forgets so many, which the control plane has.
    fn forget(&mut self, told: usize) -> io::Result<()> {
        self.waiting.drain(..told.min(self.waiting.len()));
        self.rewrite()
    }

    /// Puts a file with what is waiting in the place of the one that is there.
    fn rewrite(&mut self) -> io::Result<()> {
        let first = self.waiting.first().map(|(fact, _)| fact.seq() - 1);
        let mut text = format!("{}\n", first.unwrap_or(self.last));
        for (fact, _) in &self.waiting {
            text.push_str(&serde_json::to_string(fact)?);
            text.push('\n');
        }
        let mut file = File::create(self.dir.join(NEW))?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(self.dir.join(NEW), self.dir.join(FILE))?;
        self.file = Some(file);
        Ok(())
    }
}

/// A fact without what looks like a credential. Values of secrets the guest has taken out, which has them;
/// these are most of all what people write into command lines.
fn clean(mut fact: ExecFact) -> ExecFact {
    let mut count = 0;
    let mut take_out = |text: &mut String| {
        let found;
        (*text, found) = Shapes::count(text);
        count += found;
    };
    match &mut fact {
        ExecFact::Started { asked, .. } => {
            asked.argv.iter_mut().for_each(&mut take_out);
            asked.env_names.iter_mut().for_each(&mut take_out);
            asked.tag.iter_mut().for_each(&mut take_out);
            take_out(&mut asked.cwd);
            // Whatever a guest has written there.
            asked.patterns_found = count;
        }
        ExecFact::Ended { end, .. } => match end {
            ExecEnd::Raised { name } => take_out(name),
            ExecEnd::NotStarted { why } => take_out(why),
            ExecEnd::Exited { .. }
            | ExecEnd::Signaled { .. }
            | ExecEnd::TimedOut
            | ExecEnd::Unknown
            | ExecEnd::Lost => {}
        },
        ExecFact::Missed { .. } => {}
    }
    fact
}

/// A fact with its number in the sandbox, of one with its number in the place; none where a guest counts
/// higher than one can.
fn numbered(mut fact: ExecFact, base: u64) -> Option<ExecFact> {
    match &mut fact {
        ExecFact::Started { seq, .. } | ExecFact::Missed { seq, .. } => {
            *seq = seq.checked_add(base)?;
        }
        ExecFact::Ended { seq, of, .. } => {
            *seq = seq.checked_add(base)?;
            *of = of.checked_add(base)?;
        }
    }
    Some(fact)
}

/// Longer texts than a guest of ours keeps of anything, with room for more to come.
const FACT_BYTES: usize = 64 * 1024;

/// Whether a fact is one that a guest of ours could tell. What is too long for a report would stop all that
/// come after it.
fn is_sound(fact: &ExecFact) -> bool {
    serde_json::to_string(fact).is_ok_and(|text| text.len() <= FACT_BYTES) && fact.seq() > 0
}

/// Learns what is run in a sandbox and tells it, for as long as somebody waits for this.
pub(super) async fn follow(
    node: &Node,
    id: &str,
    handle: &Handle,
    spool: &mut Spool,
) -> Infallible {
    let mut pause = PAUSE_FIRST;
    loop {
        if spool.waiting.is_empty() {
            if let Err(error) = learn(node, handle, spool, WAIT).await {
                tracing::debug!(sandbox.id = id, error, "what was run cannot be learnt");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
                continue;
            }
            if spool.waiting.is_empty() {
                continue;
            }
        }
        tokio::time::sleep(GATHER).await;
        if spool.bytes() < SPOOL_BYTES {
            // Without any, those that are there are told all the same.
            drop(learn(node, handle, spool, Duration::ZERO).await);
        }
        pause = match tell(node, id, spool).await {
            Told::Some => PAUSE_FIRST,
            Told::Later => {
                tokio::time::sleep(pause).await;
                (pause * 2).min(PAUSE_MOST)
            }
        };
    }
}

/// Asks the guest for what comes after the last fact, and writes it down.
async fn learn(
    node: &Node,
    handle: &Handle,
    spool: &mut Spool,
    wait: Duration,
) -> Result<(), String> {
    let stream = node.inner.driver.connect(handle).await;
    let stream = stream.map_err(|error| chain(&error))?;
    let asked = async {
        let after = spool.last.saturating_sub(spool.base);
        Guest::over(stream).await?.execs(after, wait).await
    };
    let facts = asked.await.map_err(|error: GuestError| chain(&error))?;
    if facts.is_empty() {
        return Ok(());
    }
    spool.append(facts).map_err(|error| error.to_string())?;
    node.at("node.execs_written");
    Ok(())
}

/// Whether facts were taken.
enum Told {
    Some,
    Later,
}

/// Tells the control plane what is waiting. What it refuses for good is forgotten: it would refuse it again.
async fn tell(node: &Node, id: &str, spool: &mut Spool) -> Told {
    let facts = spool.report();
    if facts.is_empty() {
        return Told::Some;
    }
    let told = facts.len();
    match node
        .inner
        .client
        .node_sandbox_execs(id, &NodeExecs { facts })
        .await
    {
        Err(error) if !spool.patience.is_over(&error) => return Told::Later,
        Err(error) => give_up(node, DroppedWhat::Execs, id, &error),
        Ok(_) => node.at("node.execs_told"),
    }
    spool.patience = Patience::default();
    if let Err(error) = spool.forget(told) {
        // It is told again, and stored once.
        tracing::warn!(sandbox.id = id, %error, "failed to forget what was told");
    }
    Told::Some
}

/// The last facts of a sandbox that is to go, as far as its guest still says them.
pub(super) async fn last(node: &Node, handle: &Handle, spool: &mut Spool) {
    let asking = async {
        let mut before = None;
        while before != Some(spool.last) {
            before = Some(spool.last);
            if learn(node, handle, spool, Duration::ZERO).await.is_err() {
                return;
            }
        }
    };
    // A guest that does not answer any more has nothing more to say.
    drop(tokio::time::timeout(LAST, asking).await);
}

/// Tells all that is left of a sandbox that is gone, however long it takes.
pub(super) async fn finish(node: &Node, id: &str, spool: &mut Spool) {
    let mut pause = PAUSE_FIRST;
    while !spool.waiting.is_empty() {
        if matches!(tell(node, id, spool).await, Told::Later) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(seq: u64) -> ExecFact {
        ExecFact::Missed {
            seq,
            at_ms: 5,
            count: 1,
        }
    }

    fn numbers(spool: &Spool) -> Vec<u64> {
        spool.waiting.iter().map(|(fact, _)| fact.seq()).collect()
    }

    #[test]
    fn facts_stay_until_they_are_told_and_their_numbers_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        assert_eq!((spool.last, numbers(&spool).len()), (0, 0));
        spool.append(vec![missed(1), missed(2), missed(4)]).unwrap();
        let again = Spool::read(dir.path());
        assert_eq!((again.last, numbers(&again)), (4, vec![1, 2, 4]));
        spool.forget(2).unwrap();
        let mut again = Spool::read(dir.path());
        assert_eq!((again.last, numbers(&again)), (4, vec![4]));
        again.forget(1).unwrap();
        let again = Spool::read(dir.path());
        assert_eq!((again.last, numbers(&again).len()), (4, 0));
    }

    #[test]
    fn facts_of_another_place_go_on_from_those_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append(vec![missed(1), missed(2)]).unwrap();
        spool.forget(2).unwrap();
        spool.begin(10);
        assert_eq!((spool.last, Spool::read(dir.path()).last), (10, 0));
        let end = ExecFact::Ended {
            seq: 2,
            at_ms: 5,
            of: 1,
            end: ExecEnd::TimedOut,
            stdout_bytes: 0,
            stderr_bytes: 0,
            patterns_found: 0,
        };
        spool.append(vec![missed(1), end]).unwrap();
        assert_eq!(numbers(&spool), [11, 12]);
        assert!(matches!(spool.waiting[1].0, ExecFact::Ended { of: 11, .. }));
        assert!(spool.append(vec![missed(u64::MAX)]).is_err());
        assert_eq!(numbers(&Spool::read(dir.path())), [11, 12]);
    }

    #[test]
    fn a_line_that_is_half_written_is_asked_for_again_and_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append(vec![missed(1), missed(2)]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        for cut in 0..text.len() {
            std::fs::write(dir.path().join(FILE), &text[..cut]).unwrap();
            let mut spool = Spool::read(dir.path());
            assert!(spool.last < 2, "{cut}");
            let next = spool.last + 1;
            spool.append((next..=3).map(missed).collect()).unwrap();
            assert_eq!(numbers(&Spool::read(dir.path())), [1, 2, 3], "{cut}");
        }
    }

    #[test]
    fn a_guest_that_does_not_count_upwards_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append(vec![missed(5)]).unwrap();
        for wrong in [vec![missed(5)], vec![missed(4)], vec![missed(7), missed(7)]] {
            assert!(spool.append(wrong).is_err());
        }
        assert_eq!((spool.last, numbers(&spool)), (5, vec![5]));
    }

    #[test]
    fn what_looks_like_a_credential_is_in_no_fact() {
        let dir = tempfile::tempdir().unwrap();
        let token = format!("ghp_{}", "a1B2".repeat(9));
        let text = format!(
            r#"[{{"kind":"started","seq":1,"at_ms":1,"asked":{{"argv":["curl","-H","Authorization: token {token}"],
            "cwd":"/{token}","user":"user","env_names":["{token}"],"tag":"{token}"}}}},
            {{"kind":"ended","seq":2,"at_ms":1,"of":1,"end":{{"how":"not_started","why":"{token}"}},
            "stdout_bytes":0,"stderr_bytes":0}}]"#
        );
        let mut spool = Spool::read(dir.path());
        spool.append(serde_json::from_str(&text).unwrap()).unwrap();
        let told = serde_json::to_string(&spool.report()).unwrap();
        assert_eq!(told.matches("[secret pattern:github-token]").count(), 5);
        assert!(told.contains(r#""patterns_found":4"#), "{told}");
        let kept = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!kept.contains(&token) && !told.contains(&token), "{kept}");
    }

    #[test]
    fn a_report_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::read(dir.path());
        spool.append((1..=1000).map(missed).collect()).unwrap();
        assert_eq!(spool.report().len(), FACTS_MAX);
    }
}
