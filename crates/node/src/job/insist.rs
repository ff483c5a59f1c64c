//! Reports that are repeated until somebody has taken them.

use api::client::ClientError;
use std::future::Future;
use std::time::Duration;

/// Between two tries of a report, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(15);

/// Repeats a report until it is answered: a control plane that is away comes back. An answer that
/// repeating cannot change ends it.
pub(crate) async fn insist<T, F, R>(report: F) -> Result<T, ClientError>
where
    F: Fn() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    let mut pause = RETRY_FIRST;
    loop {
        match report().await {
            Err(error) if error.body().retryable => {
                tracing::debug!(%error, "a report is repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MOST);
            }
            answer => return answer,
        }
    }
}
