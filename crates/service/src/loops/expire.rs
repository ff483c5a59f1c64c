//! Places in the queue that were waited in for too long.

use super::BATCH;
use crate::change::{Note, apply};
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::job::{JobEvent, JobState};
use store::{job, queue};

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Jobs that waited too long for a node.
    pub jobs: u32,
}

/// Ends jobs that have waited for a node for longer than they may. Each is a transaction of its own: what a
/// pass that ends in between has not come to, the next one finds again.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn expire_pass(service: &Service) -> Result<Expired, Error> {
    let now = service.now_ms();
    let late = service.look(move |tx| Ok(queue::expired(tx, now, BATCH)?));
    let mut jobs = 0;
    for row in late.await? {
        let note = Note::new(&Ctx::internal("expire"), now).because("no node took it in time");
        let moved = service
            .unit(move |tx| match job::get(tx, None, &row.id)? {
                Some(row) if row.state == JobState::Queued => {
                    apply(tx, &row, &JobEvent::QueueTimeout, note.clone())
                }
                // Leased since.
                _ => Ok::<_, Fail>(None),
            })
            .await?;
        if let Some(row) = moved {
            service.announce(&row);
            jobs += 1;
        }
    }
    Ok(Expired { jobs })
}
