//! Bytes kept by their digest.

use http::Method;
use tokio::io::AsyncRead;

use super::body::RequestBody;
use super::{Client, ClientError, UPLOAD_DEADLINE};
use crate::blob::BlobView;
use crate::routes;

impl Client {
    /// Sends bytes and learns their digest. With a size, the reader must yield exactly so many.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blob_put(
        &self,
        from: impl AsyncRead + Send + 'static,
        size_bytes: Option<u64>,
    ) -> Result<BlobView, ClientError> {
        let mut call = self.call(Method::POST, routes::BLOBS.to_owned());
        call.body = RequestBody::reader(from, size_bytes);
        call.deadline = UPLOAD_DEADLINE;
        self.json(call).await
    }
}
