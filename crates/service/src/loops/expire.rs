//! Ends what has waited too long, and forgets what nobody needs any more.

use crate::loops::{BATCH, Counts};
use crate::{Ctx, Error, Service};
use model::job::JobEvent;
use model::limits;
use store::Tx;
use store::upload::UploadRow;

/// Ends jobs that no node took in time; forgets keys and uploads after a day.
pub async fn expire_pass(service: &Service) -> Counts {
    let mut counts = Counts::default();
    let mut count = |result: Result<u64, Error>| match result {
        Ok(changed) => counts.changed += changed,
        Err(error) => {
            tracing::warn!(%error, "failed to expire something");
            counts.failed += 1;
        }
    };
    count(queue_timeouts(service).await);
    count(idempotency(service).await);
    count(uploads(service).await);
    counts
}

async fn queue_timeouts(service: &Service) -> Result<u64, Error> {
    let now = service.now_ms();
    let expired = service
        .inner
        .store
        .read(move |tx| store::queue::expired(tx, now, BATCH))
        .await?;
    let ctx = Ctx::internal("expire");
    let mut changed = 0;
    for row in expired {
        let data = r#"{"why":"no node took it in time"}"#;
        match service
            .step(&ctx, None, &row.id, JobEvent::QueueTimeout, data)
            .await
        {
            Ok(_) => changed += 1,
            // A node took it meanwhile.
            Err(Error::WrongState { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

async fn idempotency(service: &Service) -> Result<u64, Error> {
    let before = service.now_ms().saturating_sub(limits::IDEMPOTENCY_MS);
    Ok(service
        .inner
        .store
        .write(move |tx| store::idempotency::prune(tx, before))
        .await?)
}

async fn uploads(service: &Service) -> Result<u64, Error> {
    let before = service.now_ms().saturating_sub(limits::UPLOAD_MS);
    let old = service
        .inner
        .store
        .read(move |tx| store::upload::older(tx, before, BATCH))
        .await?;
    let mut changed = 0;
    for upload in old {
        changed += forget(service, upload, before).await?;
    }
    Ok(changed)
}

/// The row goes first: we can be here if we died after it and before the file, and then the file stays
/// until the same bytes are sent and forgotten again. The other order could lose bytes that somebody
/// has just sent.
async fn forget(service: &Service, upload: UploadRow, before: u64) -> Result<u64, Error> {
    let digest = upload.digest.clone();
    let unit = move |tx: &mut Tx<'_>| {
        let unsent = store::upload::forget(tx, &upload.tenant, &upload.digest, before)?;
        Ok(unsent && !store::artifact::is_kept(tx, &upload.digest)?)
    };
    if service.inner.store.write(unit).await? {
        let blobs = service.inner.blobs.clone();
        let removed = tokio::task::spawn_blocking(move || blobs.remove(&digest)).await;
        let removed = removed.map_err(std::io::Error::other).flatten();
        removed.map_err(|error| Error::Internal(error.to_string()))?;
    }
    Ok(1)
}
