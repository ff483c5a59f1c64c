//! The standard streams of a job over an upgraded connection.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::{Client, ClientError};
use crate::attach;
use crate::routes;

/// Frames (see [`crate::attach`]) to and from the node; reads and writes like any tokio stream.
pub type AttachIo = TokioIo<Upgraded>;

impl Client {
    /// Connects to the standard streams of a job that was created with `attach`. Answers as soon as
    /// the server agrees; the node may still be on its way, and what is written until then waits.
    ///
    /// # Errors
    /// [`ClientError`]; `not_attachable` when the job has ended or was not created so.
    pub async fn job_attach(&self, id: &str) -> Result<AttachIo, ClientError> {
        let path = routes::fill(routes::JOB_ATTACH, &[id]);
        self.upgrade(path, attach::UPGRADE).await
    }
}
