//! Files of this machine that go into a job.

use crate::cli::failure::{Failure, reason};
use crate::cli::units;
use api::Code;
use api::client::{Client, ClientError};
use api::job::FileInput;
use std::fs::{File, Metadata};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Sends one file; the part after the last colon says where it goes.
pub(crate) async fn upload(client: &Client, asked: &str) -> Result<FileInput, Failure> {
    let (source, target) = asked.rsplit_once(':').unwrap_or((asked, ""));
    if source.is_empty() {
        let message = format!("--file takes SRC or SRC:DST, not `{asked}`");
        let failure = Failure::new(Code::InvalidArgument, message);
        return Err(failure.hint("for example --file data.csv, or --file data.csv:/tmp/in.csv"));
    }
    let (file, meta) = open(Path::new(source)).map_err(|failure| explain(failure, asked))?;
    let own_name = Path::new(source).file_name().and_then(|name| name.to_str());
    let path = if target.is_empty() {
        own_name.unwrap_or_default()
    } else {
        target
    };
    let file = tokio::fs::File::from_std(file);
    let put = client.blob_put(file, Some(meta.len())).await;
    let blob = put.map_err(|error| refused(error, source, meta.len()))?;
    Ok(FileInput {
        path: path.to_owned(),
        digest: blob.digest,
        size_bytes: blob.size_bytes,
        mode: meta.permissions().mode() & 0o777,
    })
}

/// What the server says of a body is about a file here.
fn refused(error: ClientError, source: &str, size: u64) -> Failure {
    if !error.is(Code::BodyTooLarge) {
        return error.into();
    }
    let size = units::show_size(size);
    let message = format!("the file `{source}` is too large, with {size}");
    let hint = "a file may have 1 GiB; pack it, or send it in parts";
    Failure::new(Code::BodyTooLarge, message).hint(hint)
}

/// Opens a regular file. Nothing else is even waited for: to open a pipe takes until somebody writes to
/// it, and a device may have no end.
fn open(source: &Path) -> Result<(File, Metadata), Failure> {
    let missing = |why: &str| {
        let message = format!("the file `{}` {why}", source.display());
        Failure::new(Code::FileMissing, message)
    };
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let unread = |error: std::io::Error| missing(&format!("cannot be read: {}", reason(&error)));
    let opened = File::options().read(true).custom_flags(flags).open(source);
    let file = opened.map_err(unread)?;
    let meta = file.metadata().map_err(unread)?;
    if meta.is_dir() {
        let hint = "pack it first, for example with `tar -cf`, and unpack it in the sandbox";
        return Err(missing("is a directory").hint(hint));
    }
    if !meta.is_file() {
        let hint =
            "what is not a regular file can be piped in: the command reads our standard input";
        return Err(missing("is not a regular file").hint(hint));
    }
    Ok((file, meta))
}

/// A name may have a colon of its own, and then the last one was taken for ours.
fn explain(failure: Failure, asked: &str) -> Failure {
    if !asked.contains(':') || Path::new(asked).symlink_metadata().is_err() {
        return failure;
    }
    failure.hint(format!(
        "what follows the last colon is the place in the sandbox; for the file of this whole name \
         write `--file {asked}:`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_a_pipe_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        let said = |path: &Path| open(path).unwrap_err().to_string();
        assert!(said(&pipe).contains("not a regular file"));
        assert!(said(Path::new("/dev/zero")).contains("not a regular file"));
        assert!(said(dir.path()).contains("is a directory"));
        assert!(said(&dir.path().join("none")).contains("No such file"));
        let file = dir.path().join("a:b");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(open(&file).unwrap().1.len(), 1);
    }

    #[test]
    fn a_name_with_a_colon_is_told_how_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a:b");
        std::fs::write(&file, "x").unwrap();
        let missing = || Failure::new(Code::FileMissing, "x");
        let asked = file.to_str().unwrap();
        assert!(explain(missing(), asked).to_string().contains("a:b:`"));
        assert!(!explain(missing(), "no:such").to_string().contains("colon"));
    }
}
