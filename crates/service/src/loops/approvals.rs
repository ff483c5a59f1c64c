//! Approvals that nobody decided in time.

use super::BATCH;
use crate::approval::expire;
use crate::{Ctx, Error, Service};
use store::approval;

/// Ends approvals whose time is over, with the jobs that waited for them. Each is a transaction of its own: what a pass
/// that ends in between has not come to, the next one finds again. Says how many.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn approvals_pass(service: &Service) -> Result<u32, Error> {
    let now = service.now_ms();
    let late = service.look(move |tx| Ok(approval::expired(tx, now, BATCH)?));
    let mut ended = 0;
    for row in late.await? {
        let note = crate::change::Note::new(&Ctx::internal("expire"), now);
        let (is_ended, job) = service
            .unit(move |tx| expire(tx, &row.id, note.clone()))
            .await?;
        if let Some(job) = job {
            service.announce(&job);
        }
        ended += u32::from(is_ended);
    }
    Ok(ended)
}
