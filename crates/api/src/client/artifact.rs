//! Files kept from jobs.

use http::Method;

use super::{Client, ClientError, Download};
use crate::artifact::ArtifactList;
use crate::routes;

impl Client {
    /// The files that were kept from a job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn artifact_list(&self, job_id: &str) -> Result<ArtifactList, ClientError> {
        self.get(routes::fill(routes::JOB_ARTIFACTS, &[job_id]))
            .await
    }

    /// The bytes of one kept file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn artifact_get(
        &self,
        job_id: &str,
        artifact_id: &str,
    ) -> Result<Download, ClientError> {
        let path = routes::fill(routes::JOB_ARTIFACT, &[job_id, artifact_id]);
        self.download(self.call(Method::GET, path)).await
    }
}
