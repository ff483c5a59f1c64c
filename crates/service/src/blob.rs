//! Bytes on their way in and out.

use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::NodeId;
use model::limits;
use std::fs::File;
use std::io;
use store::blob::{Blobs, Written};
use store::upload::{self, UploadRow};

/// Bytes of a blob that are written between two looks at the storage that is left: so few that many
/// writers together do not take much more than they may.
const GRANT_BYTES: u64 = 1 << 20;

/// A blob that is being written. Dropped before [`BlobWriter::finish`], nothing of it stays.
#[derive(Debug)]
pub struct BlobWriter {
    writer: store::blob::BlobWriter,
    service: Service,
    /// Bytes that may be written before the next look.
    granted: u64,
}

impl io::Write for BlobWriter {
    /// Fails with [`io::ErrorKind::StorageFull`] where too little storage would be left.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len() as u64;
        if len > self.granted {
            let grant = len.max(GRANT_BYTES);
            if self.service.is_full_with(grant) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.granted = grant;
        }
        let n = io::Write::write(&mut self.writer, bytes)?;
        self.granted = self.granted.saturating_sub(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut self.writer)
    }
}

impl BlobWriter {
    /// Keeps the blob for good: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// Those of syncing and renaming a file.
    pub fn finish(self) -> io::Result<Written> {
        self.writer.finish()
    }
}

impl Service {
    /// Begins a blob: a file for a job, or a file of one that a node keeps. Write to it and finish it on
    /// a thread that may block; then say [`Service::blob_done`] or [`Service::artifact_put`].
    ///
    /// Whoever sends it: the storage that is left below the bound is for what jobs that run report, which
    /// is small, and neither new work nor their files may take it.
    ///
    /// # Errors
    /// [`Error::DiskFull`]; [`Error::Forbidden`].
    pub async fn blob_writer(&self, ctx: &Ctx) -> Result<BlobWriter, Error> {
        // For a job or a build, or what a node keeps of a job.
        let may = |action| ctx.may(action).is_ok();
        if !may(Action::NodeReport) && !may(Action::ProfileWrite) {
            ctx.may(Action::JobWrite)?;
        }
        if self.is_full_with(0) {
            return Err(Error::DiskFull);
        }
        let blobs = self.inner.blobs.clone();
        let begin = move || blobs.writer(limits::FILE_BYTES_MAX);
        Ok(BlobWriter {
            writer: blocking("begin a blob", begin).await?,
            service: self.clone(),
            granted: 0,
        })
    }

    /// Remembers a blob that was written, so that a job of this tenant may name it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it has been removed meanwhile: then it is sent again.
    pub async fn blob_done(&self, ctx: &Ctx, written: &Written) -> Result<(), Error> {
        ctx.may(Action::JobWrite)?;
        self.blob_kept(ctx, written).await
    }

    pub(crate) async fn blob_kept(&self, ctx: &Ctx, written: &Written) -> Result<(), Error> {
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
            let held = store::job::held_by(tx, &node, crate::node::HELD_MAX)?;
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
