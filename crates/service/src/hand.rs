//! Leases on their way from a commit to the poll of their node.

use crate::change::{Note, apply};
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::job::{JobEvent, JobState};
use store::job::JobRow;

/// Leases that are written and that their node does not know of yet. Dropped before it is delivered,
/// on any way, a lease is given back at once: a poll can end between any two lines, because its
/// connection can.
pub(crate) struct Undelivered {
    service: Service,
    rows: Vec<JobRow>,
}

impl Undelivered {
    pub(crate) fn new(service: &Service, rows: Vec<JobRow>) -> Undelivered {
        Undelivered {
            service: service.clone(),
            rows,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The answer is being written. If it does not arrive, the node's heartbeat shows that.
    pub(crate) fn deliver(mut self) -> Vec<JobRow> {
        std::mem::take(&mut self.rows)
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return;
        }
        // Without a runtime the process is ending; the reaper of the next one finds these.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let service = self.service.clone();
        drop(runtime.spawn(async move {
            for row in rows {
                if let Err(error) = service.give_back(&row).await {
                    tracing::warn!(job.id = %row.id, error = error.cause(), "a lease that nobody took was not given back");
                }
            }
        }));
    }
}

impl std::fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.rows.iter().map(|row| &row.id))
            .finish()
    }
}

impl Service {
    /// Gives a lease back that its node never heard of.
    async fn give_back(&self, leased: &JobRow) -> Result<(), Error> {
        let note = Note::new(&Ctx::internal("poll"), self.now_ms()).because("the poll was gone");
        let (id, epoch) = (leased.id.clone(), leased.epoch);
        let moved = self
            .unit(move |tx| {
                let Some(row) = store::job::get(tx, None, &id)? else {
                    return Ok::<_, Fail>(None);
                };
                let ours = row.epoch == epoch;
                // Canceled meanwhile, it is `stopping`, and giving it back ends it.
                let unstarted = matches!(
                    row.state,
                    JobState::Leased { .. } | JobState::Stopping { .. }
                );
                if !(ours && unstarted) {
                    return Ok(None);
                }
                apply(tx, &row, &JobEvent::Release { epoch }, note.clone())
            })
            .await?;
        if let Some(row) = moved {
            self.announce(&row);
        }
        Ok(())
    }
}
