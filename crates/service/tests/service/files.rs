//! Files for jobs and files of jobs.

use crate::*;
use model::spec::InputFile;
use service::{NewArtifact, Written};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) async fn sent(world: &World, ctx: &Ctx, bytes: &[u8]) -> Written {
    let mut writer = world.service.blob_writer(ctx).await.unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn with_file(written: &Written) -> JobSpec {
    JobSpec {
        files: vec![InputFile {
            path: "in.txt".to_owned(),
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
            mode: 0o644,
        }],
        ..spec()
    }
}

/// Attack: Bytes that another tenant has sent are put into a job by their digest.
#[tokio::test]
async fn a_job_names_only_files_that_its_own_tenant_sent() {
    let world = World::new();
    let written = sent(&world, &user(), b"abc").await;
    let service = &world.service;
    let made = service.job_create(&user(), with_file(&written), None).await;
    assert_eq!(made.unwrap_err().code(), "blob_missing");
    service.blob_done(&user(), &written).await.unwrap();
    let made = service
        .job_create(&stranger(), with_file(&written), None)
        .await;
    assert_eq!(made.unwrap_err().code(), "blob_missing");
    let (node, _) = world.leased(with_file(&written)).await;
    let mut text = String::new();
    let mut file = service.blob_open(&node, &written.digest).await.unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
    let other = service.blob_open(&crate::node(2), &written.digest).await;
    assert_eq!(other.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn a_file_of_a_job_is_kept_once_and_can_be_read() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let new = |written: Written| NewArtifact {
        epoch: 1,
        attempt: 1,
        path: "/home/user/out".to_owned(),
        mode: 0o600,
        digest: written.digest,
        size_bytes: written.size_bytes,
    };
    let first = new(sent(&world, &node, b"one").await);
    let service = &world.service;
    let kept = service
        .artifact_put(&node, &row.id, first.clone())
        .await
        .unwrap();
    let again = service.artifact_put(&node, &row.id, first).await.unwrap();
    assert_eq!(kept.id, again.id);
    let other = new(sent(&world, &node, b"two").await);
    let error = service.artifact_put(&node, &row.id, other).await;
    assert_eq!(error.unwrap_err().code(), "conflict");
    let listed = service.artifact_list(&user(), &row.id).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&kept));
    let (_, mut file) = service
        .artifact_open(&user(), &row.id, &kept.id)
        .await
        .unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
    let open = service.artifact_open(&stranger(), &row.id, &kept.id).await;
    assert_eq!(open.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn an_upload_goes_after_a_day_unless_an_unfinished_job_names_it() {
    let world = World::new();
    let service = &world.service;
    let named = sent(&world, &user(), b"named").await;
    let unnamed = sent(&world, &user(), b"unnamed").await;
    for written in [&named, &unnamed] {
        service.blob_done(&user(), written).await.unwrap();
    }
    let row = world.create(with_file(&named)).await;
    world.clock.advance(limits::UPLOAD_MS + 1);
    let pass = service::loops::prune_pass(service).await.unwrap();
    assert_eq!(pass.uploads, 1);
    world.sweep().await;
    let lost = service.blob_done(&user(), &unnamed).await;
    assert_eq!(lost.unwrap_err().code(), "unavailable");
    service.blob_done(&user(), &named).await.unwrap();
    service.job_cancel(&user(), &row.id).await.unwrap();
    world.clock.advance(limits::UPLOAD_MS + 1);
    let pass = service::loops::prune_pass(service).await.unwrap();
    assert_eq!(pass.uploads, 1);
}

#[tokio::test]
async fn files_of_a_job_are_bounded_in_number_and_in_bytes() {
    for (size_bytes, most, code) in [
        (limits::FILE_BYTES_MAX, 4, "too_long"),
        (1, limits::OUTPUTS_MAX, "too_many"),
    ] {
        let world = World::new();
        let (node, row) = world.running(spec()).await;
        let written = sent(&world, &node, b"x").await;
        let put = |number: usize| {
            let new = NewArtifact {
                epoch: 1,
                attempt: 1,
                path: format!("out {number}"),
                mode: 0o600,
                digest: written.digest.clone(),
                size_bytes,
            };
            world.service.artifact_put(&node, &row.id, new)
        };
        for number in 0..most {
            put(number).await.unwrap();
        }
        assert_eq!(put(most).await.unwrap_err().code(), code);
        // What is there already takes no room again.
        put(0).await.unwrap();
    }
}

#[tokio::test]
async fn no_file_is_taken_into_the_storage_that_reports_need() {
    let world = World::new();
    let free = Arc::new(AtomicU64::new(limits::FREE_DISK_MIN_BYTES + (8 << 20)));
    let left = free.clone();
    let service = world.with_free(move || Some(left.load(Ordering::SeqCst)));
    for ctx in [user(), node(1)] {
        free.store(limits::FREE_DISK_MIN_BYTES + (8 << 20), Ordering::SeqCst);
        let mut writer = service.blob_writer(&ctx).await.unwrap();
        writer.write_all(&vec![0; 1 << 20]).unwrap();
        free.store(limits::FREE_DISK_MIN_BYTES + 1000, Ordering::SeqCst);
        let error = writer.write_all(&vec![0; 4 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        free.store(limits::FREE_DISK_MIN_BYTES - 1, Ordering::SeqCst);
        let refused = service.blob_writer(&ctx).await.unwrap_err();
        assert_eq!(refused.code(), "disk_full");
    }
}
