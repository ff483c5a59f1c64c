//! The standard streams of a job over an upgraded connection.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
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
        let mut call = self.call(Method::GET, routes::fill(routes::JOB_ATTACH, &[id]));
        call.headers
            .push((CONNECTION, HeaderValue::from_static("upgrade")));
        call.headers
            .push((UPGRADE, HeaderValue::from_static(attach::UPGRADE)));
        let deadline = call.deadline;
        let work = Box::pin(async {
            let answer = self.exchange(call).await?;
            if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.protocol("an answer that does not switch to attach"));
            }
            let upgraded = hyper::upgrade::on(answer.response).await;
            upgraded.map_err(|error| self.unreachable(error))
        });
        Ok(TokioIo::new(self.within(deadline, work).await?))
    }
}
