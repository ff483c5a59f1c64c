//! Bytes on their way in and out.

use crate::{Caller, Ctx, Error, Service};
use model::id::NodeId;
use model::limits;
use std::fs::File;
use std::io;
use store::blob::{BlobWriter, Blobs, Written};
use store::upload::{self, UploadRow};

/// Jobs of one node that are looked through for a file.
pub(crate) const HELD_MAX: u32 = 1000;

impl Service {
    /// Begins a blob: a file for a job, or a file of one that a node keeps. Write to it and finish it on
    /// a thread that may block; then say [`Service::blob_done`] or [`Service::artifact_put`].
    ///
    /// # Errors
    /// [`Error::DiskFull`].
    pub async fn blob_writer(&self, ctx: &Ctx) -> Result<BlobWriter, Error> {
        let is_new_work = match &ctx.caller {
            Caller::User | Caller::Internal => true,
            // What is running must be able to report while there is any room at all.
            Caller::Node(_) => false,
        };
        if is_new_work && self.disk_is_full() {
            return Err(Error::DiskFull);
        }
        let blobs = self.inner.blobs.clone();
        blocking("begin a blob", move || blobs.writer(limits::FILE_BYTES_MAX)).await
    }

    /// Remembers a blob that was written, so that a job of this tenant may name it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it has been removed meanwhile: then it is sent again.
    pub async fn blob_done(&self, ctx: &Ctx, written: &Written) -> Result<(), Error> {
        ctx.only_user()?;
        let row = UploadRow {
            tenant: ctx.tenant.clone(),
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
            created_at_ms: self.now_ms(),
        };
        let _gate = self.inner.blob_gate.lock().await;
        self.check_blob(&written.digest).await?;
        self.unit(move |tx| Ok(upload::put(tx, &row)?)).await
    }

    /// A file of a job that this node has, open for reading.
    ///
    /// # Errors
    /// [`Error::NotFound`] also for a blob that no job of this node names.
    pub async fn blob_open(&self, ctx: &Ctx, digest: &str) -> Result<File, Error> {
        let node = ctx.only_node()?;
        if !self.names_blob(node, digest).await? {
            return Err(Error::NotFound);
        }
        opened(&self.inner.blobs, digest).await
    }

    async fn names_blob(&self, node: &NodeId, digest: &str) -> Result<bool, Error> {
        let (node, digest) = (node.clone(), digest.to_owned());
        self.look(move |tx| {
            let held = store::job::held_by(tx, &node, HELD_MAX)?;
            let mut files = held.iter().flat_map(|job| &job.spec.files);
            Ok(files.any(|file| file.digest == digest))
        })
        .await
    }

    /// Whether the file of a blob is there; asked behind the gate, before a row says that it is.
    pub(crate) async fn check_blob(&self, digest: &str) -> Result<(), Error> {
        match opened(&self.inner.blobs, digest).await {
            Ok(file) => {
                drop(file);
                Ok(())
            }
            Err(Error::NotFound) => Err(Error::Unavailable(None)),
            Err(error) => Err(error),
        }
    }
}

/// Opens a blob without keeping other requests waiting for the disk.
pub(crate) async fn opened(blobs: &Blobs, digest: &str) -> Result<File, Error> {
    let (blobs, digest) = (blobs.clone(), digest.to_owned());
    blocking("open a blob", move || blobs.open_blob(&digest)).await
}

/// Work with files, on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound),
        Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => Err(Error::DiskFull),
        Ok(Err(error)) => Err(Error::internal(what, error)),
        Err(error) => Err(Error::internal(what, error)),
    }
}
