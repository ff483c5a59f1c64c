//! Reports that nodes have given up: each is an event, so that somebody can see that something of a job or a sandbox
//! was not told.

use crate::change::Note;
use crate::enroll::tell;
use crate::{Ctx, Error, Service};
use store::event;

/// Reports that are taken note of with one heartbeat.
pub const ONE_BEAT_MAX: usize = 32;
/// The longest text of one: an id, or a code.
const TEXT_BYTES_MAX: usize = 64;
/// Digits of the name that a node gives one.
const ID_DIGITS: usize = 32;

/// A report that a node has given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedReport {
    /// Made by the node, so that it is one event however often it is told.
    pub id: String,
    /// What it had told.
    pub what: &'static str,
    /// The job or the sandbox, or nothing.
    pub about: String,
    /// What it was refused with.
    pub code: String,
    /// Others that the node had no room to tell of.
    pub more: u64,
}

impl DroppedReport {
    fn is_plain(&self) -> bool {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let short = |text: &str| text.len() <= TEXT_BYTES_MAX && text.bytes().all(plain);
        let is_id = self.id.len() == ID_DIGITS && self.id.bytes().all(hex);
        is_id && short(&self.about) && short(&self.code)
    }
}

impl Service {
    /// A node has given reports up. Gives those that are in the record now, or were before; in an hour not more than of refusals,
    /// of all nodes together, and the rest is told again.
    ///
    /// # Errors
    /// [`Error::Invalid`]; those of the database, and then none is.
    pub async fn node_dropped(
        &self,
        ctx: &Ctx,
        dropped: Vec<DroppedReport>,
    ) -> Result<Vec<String>, Error> {
        let node = ctx.only_node()?.clone();
        if dropped.len() > ONE_BEAT_MAX || !dropped.iter().all(DroppedReport::is_plain) {
            let message = format!("at most {ONE_BEAT_MAX}, with ids and codes");
            return Err(Error::invalid("dropped", "invalid_argument", message));
        }
        let note = Note::new(ctx, self.now_ms());
        let dropped: Vec<_> = dropped
            .into_iter()
            .take_while(|_| self.may_note_drop(note.at_ms))
            .collect();
        let told = dropped.iter().map(|one| one.id.clone()).collect();
        for one in &dropped {
            tracing::warn!(%node, what = one.what, about = one.about, code = one.code, "a node gave a report up");
        }
        self.unit(move |tx| {
            for one in &dropped {
                // A node cannot take the name of another's.
                let id = format!("{node}.{}", one.id);
                if event::last_version(tx, "dropped", &id)? > 0 {
                    continue;
                }
                let data = serde_json::json!({"node": node.as_str(), "what": one.what, "about": one.about,
                    "code": one.code, "more": one.more});
                tell(tx, ("dropped", &id), "node.report_dropped", &data, &note)?;
            }
            Ok(())
        })
        .await?;
        Ok(told)
    }
}
