//! Bytes that are sent here to be named by a job.

use crate::{Ctx, Error, Service};
use model::id::TenantId;
use model::limits;
use std::fs::File;
use store::blob::{BlobWriter, Written};
use store::upload::UploadRow;

impl Service {
    /// Begins to take in a file. The writer blocks on the disk, so it belongs on a thread that may.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::DiskFull`].
    pub fn blob_writer(&self, ctx: &Ctx) -> Result<BlobWriter, Error> {
        ctx.user()
            .map(drop)
            .or_else(|_| ctx.this_node().map(drop))?;
        if (self.inner.free_disk)() < limits::FREE_DISK_MIN_BYTES {
            return Err(Error::DiskFull);
        }
        let writer = self.inner.blobs.writer(limits::FILE_BYTES_MAX);
        writer.map_err(|error| Error::Internal(error.to_string()))
    }

    /// A file was taken in whole; from now on a job may name it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn blob_done(&self, ctx: &Ctx, written: &Written) -> Result<(), Error> {
        let row = UploadRow {
            tenant: ctx.user()?.clone(),
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
            created_at_ms: self.now_ms(),
        };
        Ok(self
            .inner
            .store
            .write(move |tx| store::upload::put(tx, &row))
            .await?)
    }

    /// Opens a file for a node that a job names it to.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn blob_open(&self, ctx: &Ctx, digest: &str) -> Result<File, Error> {
        ctx.this_node()?;
        let (tenant, wanted) = (TenantId::local(), digest.to_owned());
        let known = self
            .inner
            .store
            .read(move |tx| store::upload::get(tx, &tenant, &wanted))
            .await?;
        known.ok_or(Error::NotFound)?;
        self.open(digest).await
    }

    pub(crate) async fn open(&self, digest: &str) -> Result<File, Error> {
        let (blobs, digest) = (self.inner.blobs.clone(), digest.to_owned());
        let opened = tokio::task::spawn_blocking(move || blobs.open_blob(&digest)).await;
        match opened.map_err(|error| Error::Internal(error.to_string()))? {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound),
            other => other.map_err(|error| Error::Internal(error.to_string())),
        }
    }
}
