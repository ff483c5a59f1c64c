//! Files kept from jobs, and files that somebody sent.

use model::id::{ArtifactId, TenantId};
use store::StoreError;
use store::artifact::{self, ArtifactRow};
use store::upload::{self, UploadRow};

use crate::db::{Db, race};
use crate::make::{job_id, principal, tenant};

fn artifact(number: u8, path: &str, digest: &str) -> ArtifactRow {
    ArtifactRow {
        id: ArtifactId::from_parts(1, [number; 10]),
        job_id: job_id(1),
        attempt: 1,
        path: path.to_owned(),
        digest: digest.to_owned(),
        size_bytes: 1 << 33,
        mode: 0o7777,
        created_at_ms: 4,
    }
}

fn keep(db: &Db, new: ArtifactRow) -> Result<ArtifactRow, StoreError> {
    db.write(move |tx| artifact::insert(tx, &new, (&tenant("a"), &principal())))
}

pub(crate) fn an_artifact_is_kept_once_for_its_path(db: &Db) {
    let first = artifact(1, "out", "d1");
    assert_eq!(keep(db, first.clone()).unwrap(), first);
    assert_eq!(keep(db, artifact(2, "out", "d1")).unwrap(), first);
    for refused in [artifact(2, "out", "d2"), artifact(1, "elsewhere", "d1")] {
        let refused = keep(db, refused);
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    let (found, of_another, there, gone) = db.read(|tx| {
        let id = artifact(1, "", "").id;
        Ok((
            artifact::get(tx, &job_id(1), &id)?,
            artifact::get(tx, &job_id(2), &id)?,
            artifact::is_kept(tx, "d1")?,
            artifact::is_kept(tx, "d2")?,
        ))
    });
    assert_eq!((found, of_another), (Some(first), None));
    assert_eq!((there, gone), (true, false));
}

pub(crate) fn artifacts_are_listed_by_path_and_attempt(db: &Db) {
    // In the order of their bytes, whatever the rules of a language say.
    let paths = ["B", "a b", "a-b", "a/b", "aB", "ab", "\u{e4}"];
    for (number, path) in (0..7_u8).zip(paths).rev() {
        keep(db, artifact(number, path, "d")).unwrap();
    }
    let second = ArtifactRow {
        attempt: 2,
        ..artifact(99, "a b", "d")
    };
    keep(db, second.clone()).unwrap();
    let list = |attempt| db.read(move |tx| artifact::list(tx, &job_id(1), attempt));
    let listed: Vec<String> = list(1).into_iter().map(|row| row.path).collect();
    assert_eq!(listed, paths);
    assert_eq!(list(2), [second]);
    assert_eq!(list(3), []);
}

pub(crate) fn one_path_kept_by_many_at_once_is_kept_once(db: &Db) {
    for round in 0..5_u8 {
        let path = format!("out {round}");
        let kept = race(6, |number| {
            let number = round * 10 + u8::try_from(number).unwrap();
            keep(db, artifact(number, &path, "d")).unwrap()
        });
        assert!(kept.iter().all(|row| *row == kept[0]), "{kept:?}");
    }
}

fn upload(name: &str, digest: &str, created_at_ms: u64) -> UploadRow {
    UploadRow {
        tenant: tenant(name),
        digest: digest.to_owned(),
        size_bytes: 3,
        created_at_ms,
    }
}

fn put(db: &Db, new: UploadRow) {
    db.write(move |tx| upload::put(tx, &new)).unwrap();
}

fn get(db: &Db, of: TenantId, digest: &'static str) -> Option<UploadRow> {
    db.read(move |tx| upload::get(tx, &of, digest))
}

fn forget(db: &Db, of: &str, digest: &'static str, before_ms: u64) -> bool {
    let of = tenant(of);
    db.write(move |tx| upload::forget(tx, &of, digest, before_ms))
        .unwrap()
}

pub(crate) fn an_upload_belongs_to_its_tenant(db: &Db) {
    put(db, upload("a", "d", 1));
    assert_eq!(get(db, tenant("a"), "d"), Some(upload("a", "d", 1)));
    assert_eq!(get(db, tenant("b"), "d"), None);
    put(db, upload("b", "d", 2));
    assert!(!forget(db, "a", "d", 9), "the other still has it");
    assert_eq!(get(db, tenant("a"), "d"), None);
    assert!(forget(db, "b", "d", 9));
}

pub(crate) fn an_upload_that_was_sent_again_is_not_forgotten(db: &Db) {
    put(db, upload("a", "d", 1));
    put(db, upload("a", "d", 5));
    assert!(!forget(db, "a", "d", 5));
    assert_eq!(get(db, tenant("a"), "d"), Some(upload("a", "d", 5)));
    assert!(forget(db, "a", "d", 6));
    assert!(forget(db, "a", "d", 6), "nobody has it");
}

pub(crate) fn old_uploads_are_found_oldest_first(db: &Db) {
    for (digest, at) in [("x", 3), ("y", 1), ("z", 2), ("w", 4)] {
        put(db, upload("a", digest, at));
    }
    let older = |before, limit| -> Vec<String> {
        let rows = db.read(move |tx| upload::older(tx, before, limit));
        rows.into_iter().map(|row| row.digest).collect()
    };
    assert_eq!(older(4, 9), ["y", "z", "x"]);
    assert_eq!(older(4, 2), ["y", "z"]);
    assert_eq!(older(1, 9), [""; 0]);
}
