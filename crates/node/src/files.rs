//! Files into a sandbox before its command, and out of it afterwards; all by way of the guest.

use crate::outcome::Told;
use crate::pump::Lease;
use api::Code;
use api::client::{Client, ClientError};
use api::job::FileInput;
use api::node::ArtifactPutQuery;
use driver::guest::message::{FromGuest, Put, ToGuest};
use driver::guest::{GuestError, GuestReader, GuestWriter, Incoming};
use model::limits;
use tokio::io::AsyncWriteExt as _;

/// Bytes between a guest and the control plane while a file is carried out.
const PIPE: usize = 256 * 1024;

/// Why a file was not carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("carry a file")]
    Guest(#[from] GuestError),
    #[error("carry a file to or from the control plane")]
    Api(#[from] ClientError),
    #[error("{step} the file: {reason}")]
    Refused {
        step: String,
        reason: std::io::Error,
    },
    #[error("the guest answered something else")]
    Protocol,
}

impl FileError {
    /// What the job says of it. A quota is named with what is used of it, because its owner can do something about that.
    pub(crate) fn told(&self) -> String {
        match self {
            FileError::Api(error) if error.is(Code::QuotaExceeded) => error.body().message,
            FileError::Api(_)
            | FileError::Guest(_)
            | FileError::Refused { .. }
            | FileError::Protocol => self.to_string(),
        }
    }
}

fn refused(step: String, errno: i32) -> FileError {
    FileError::Refused {
        step,
        reason: std::io::Error::from_raw_os_error(errno),
    }
}

/// Puts one file into the sandbox.
pub(crate) async fn put(
    api: &Client,
    (reader, writer): (&mut GuestReader, &mut GuestWriter),
    file: &FileInput,
) -> Result<(), FileError> {
    let mut bytes = api.node_blob_get(&file.digest).await?;
    let (path, mode) = (file.path.clone(), file.mode);
    writer
        .say(&ToGuest::Put(Put {
            path,
            mode,
            size_bytes: file.size_bytes,
        }))
        .await?;
    while let Some(chunk) = bytes.chunk().await? {
        writer.file(&chunk).await?;
    }
    match reader.next().await? {
        Incoming::Message(FromGuest::PutDone) => Ok(()),
        Incoming::Message(FromGuest::FileFailed { errno, step }) => Err(refused(step, errno)),
        Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => Err(FileError::Protocol),
    }
}

/// Puts bytes that are here into the sandbox, as a file.
pub(crate) async fn put_bytes(
    (reader, writer): (&mut GuestReader, &mut GuestWriter),
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<(), FileError> {
    let put = Put {
        path: path.to_owned(),
        mode,
        size_bytes: bytes.len() as u64,
    };
    writer.say(&ToGuest::Put(put)).await?;
    writer.file(bytes).await?;
    match reader.next().await? {
        Incoming::Message(FromGuest::PutDone) => Ok(()),
        Incoming::Message(FromGuest::FileFailed { errno, step }) => Err(refused(step, errno)),
        Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => Err(FileError::Protocol),
    }
}

/// What a person is told when a file could not be put.
pub(crate) fn put_failed(file: &FileInput, error: &FileError) -> Told {
    Told::refused(format!(
        "the file `{}` could not be put into the sandbox: {error}",
        file.path
    ))
}

/// Gets one file out of the sandbox and keeps it as an artifact. Returns its size in bytes, which is
/// at most `most`: a file with holes may say that it is larger than the disk it is on.
pub(crate) async fn get(
    api: &Client,
    (reader, writer): (&mut GuestReader, &mut GuestWriter),
    lease: &Lease,
    path: &str,
    most: u64,
) -> Result<u64, FileError> {
    let asked = ToGuest::Get {
        path: path.to_owned(),
        max_bytes: most.min(limits::FILE_BYTES_MAX),
    };
    writer.say(&asked).await?;
    // The first answer says whether there is such a file; only then is anything sent on.
    let mut next = reader.next().await?;
    if let Incoming::Message(FromGuest::FileFailed { errno, step }) = next {
        return Err(refused(step, errno));
    }
    let (mut to, from) = tokio::io::duplex(PIPE);
    let query = ArtifactPutQuery {
        epoch: lease.epoch,
        attempt: lease.attempt,
        path: path.to_owned(),
        // The guest tells the mode after the bytes; what is kept is data, and is not run from here.
        mode: 0o644,
    };
    let upload = api.node_artifact_put(&lease.job_id, &query, from, None);
    let mut size_bytes = 0;
    let carry = async {
        loop {
            match next {
                Incoming::File(bytes) => {
                    size_bytes += bytes.len() as u64;
                    // The guest was told the limit; one that is broken or taken over is held to it.
                    if size_bytes > most {
                        return Err(FileError::Protocol);
                    }
                    let written = to.write_all(&bytes).await;
                    written.map_err(|_| FileError::Protocol)?;
                }
                Incoming::Message(FromGuest::GetEnd { .. }) => break,
                Incoming::Message(FromGuest::FileFailed { errno, step }) => {
                    return Err(refused(step, errno));
                }
                Incoming::Message(_) | Incoming::Output(..) => return Err(FileError::Protocol),
            }
            next = reader.next().await?;
        }
        to.shutdown().await.map_err(|_| FileError::Protocol)?;
        drop(to);
        Ok(())
    };
    let (uploaded, carried) = tokio::join!(upload, carry);
    carried?;
    uploaded?;
    Ok(size_bytes)
}
