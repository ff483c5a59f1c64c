//! Files for builds. A client names an archive by a hash of what it was made of, which is no hash of the archive;
//! so that nobody gets what another has sent, the names of a tenant mean its own archives only.
//!
//! The bytes are kept as those of any upload: for a day after somebody has sent or named them.

use crate::blob::opened;
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::profile::{Recipe, What, is_files_name};
use std::fs::File;
use store::Tx;
use store::blob::Written;
use store::build::{self, FileRow};
use store::upload::{self, UploadRow};

impl Service {
    /// Whether files of this name are here; they stay for another day then.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no name.
    pub async fn build_file(&self, ctx: &Ctx, name: &str) -> Result<Option<FileRow>, Error> {
        // Whoever asks gets an address to send them to.
        ctx.may(Action::ProfileWrite)?;
        check_name(name)?;
        let (ctx, name, at_ms) = (ctx.clone(), name.to_owned(), self.now_ms());
        self.unit(move |tx| touch(tx, &ctx, &name, at_ms)).await
    }

    /// Remembers files that were written, by the name that whoever sent them has for them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no name; [`Error::Unavailable`] when the bytes were removed meanwhile: then
    /// they are sent again.
    pub async fn build_file_put(
        &self,
        ctx: &Ctx,
        name: &str,
        written: &Written,
    ) -> Result<(), Error> {
        ctx.may(Action::ProfileWrite)?;
        check_name(name)?;
        self.blob_kept(ctx, written).await?;
        let row = FileRow {
            tenant: ctx.tenant.clone(),
            name: name.to_owned(),
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
            used_at_ms: self.now_ms(),
        };
        // If we die before this line, the bytes are an upload that nobody names, and go after a day.
        self.unit(move |tx| Ok(build::put_file(tx, &row)?)).await
    }

    /// The archive of this name, open for reading, and its length.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn build_file_open(&self, ctx: &Ctx, name: &str) -> Result<(File, u64), Error> {
        ctx.may(Action::ProfileWrite)?;
        let row = self.build_file(ctx, name).await?.ok_or(Error::NotFound)?;
        let file = opened(&self.inner.blobs, &row.digest).await?;
        Ok((file, row.size_bytes))
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if is_files_name(name) {
        return Ok(());
    }
    let message = "files are named by 64 hexadecimal digits in small letters";
    Err(Error::invalid("hash", "invalid_argument", message))
}

/// Lets the files stay for another day, if they are here.
fn touch(tx: &mut Tx<'_>, ctx: &Ctx, name: &str, at_ms: u64) -> Result<Option<FileRow>, Fail> {
    let Some(row) = build::file(tx, &ctx.tenant, name)? else {
        return Ok(None);
    };
    // The name may outlive the bytes by the time between two passes.
    let Some(there) = upload::get(tx, &ctx.tenant, &row.digest)? else {
        return Ok(None);
    };
    let upload = UploadRow {
        created_at_ms: at_ms,
        ..there
    };
    upload::put(tx, &upload)?;
    let row = FileRow {
        used_at_ms: at_ms,
        ..row
    };
    build::put_file(tx, &row)?;
    Ok(Some(row))
}

/// The same for all that a recipe names; one that is not here is found out when its turn comes.
pub(super) fn touch_all(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    recipe: &Recipe,
    at_ms: u64,
) -> Result<(), Fail> {
    for one in &recipe.instructions {
        if let What::Copy { files, .. } = &one.what {
            touch(tx, ctx, files, at_ms)?;
        }
    }
    Ok(())
}
