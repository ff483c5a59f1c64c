//! Taking a file in: from the connection to the disk, without holding it in memory.

use std::io::Write as _;

use api::Code;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use model::limits;
use service::{BlobWriter, Ctx, Written};
use tokio::sync::mpsc;

use crate::App;
use crate::error::Error;
use crate::extract::{BODY_STALL, broken_off, check_length, stalled, too_large};

/// Pieces between the connection and the disk: enough that neither waits for the other's next one.
const PIECES: usize = 8;

/// What the connection says to the disk.
enum Piece {
    Data(Bytes),
    /// The body was whole. Without this, what was written is thrown away.
    End,
}

/// Writes a body to the blobs.
pub(crate) async fn take_in(app: &App, ctx: &Ctx, request: Request) -> Result<Written, Error> {
    check_length(request.headers(), limits::FILE_BYTES_MAX)?;
    let writer = app.service.blob_writer(ctx).await?;
    let (to_disk, pieces) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || write(writer, pieces));
    let read = read(request.into_body(), to_disk).await;
    let written = writing.await.map_err(Error::internal)?;
    // A disk that fails also ends the reading; its reason is the one that helps.
    match (read, written) {
        (_, Err(error)) => Err(disk_error(&error)),
        (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(None)) => Err(Error::internal("a whole body without an end")),
        (Ok(()), Ok(Some(written))) => Ok(written),
    }
}

async fn read(mut body: Body, to_disk: mpsc::Sender<Piece>) -> Result<(), Error> {
    loop {
        let frame = tokio::time::timeout(BODY_STALL, body.frame())
            .await
            .map_err(|_| stalled())?;
        let piece = match frame {
            None => Piece::End,
            Some(Err(_)) => return Err(broken_off()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_) => continue,
            },
        };
        let last = matches!(piece, Piece::End);
        // The disk gave up and says why itself.
        if to_disk.send(piece).await.is_err() || last {
            return Ok(());
        }
    }
}

fn write(
    mut writer: BlobWriter,
    mut pieces: mpsc::Receiver<Piece>,
) -> std::io::Result<Option<Written>> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(data) => writer.write_all(&data)?,
            Piece::End => return writer.finish().map(Some),
        }
    }
    Ok(None)
}

fn disk_error(error: &std::io::Error) -> Error {
    use std::io::ErrorKind as E;
    let kind = error.kind();
    if kind == E::FileTooLarge {
        too_large(limits::FILE_BYTES_MAX)
    } else if matches!(kind, E::StorageFull | E::QuotaExceeded) {
        Error::new(Code::DiskFull, "too little room is left on the disk")
    } else {
        Error::internal(error)
    }
}
