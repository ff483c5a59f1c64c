//! Files for jobs and files of jobs.

use crate::*;
use model::spec::InputFile;
use service::{NewArtifact, Written};
use std::io::{Read as _, Write as _};

async fn sent(world: &World, ctx: &Ctx, bytes: &[u8]) -> Written {
    let mut writer = world.service.blob_writer(ctx).await.unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn with_file(written: &Written) -> JobSpec {
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

#[tokio::test]
async fn a_job_names_only_files_that_its_own_tenant_sent() {
    let world = World::new();
    let written = sent(&world, &user(), b"abc").await;
    let service = &world.service;
    let made = service.job_create(&user(), with_file(&written), None).await;
    assert_eq!(made.unwrap_err().code(), "file_missing");
    service.blob_done(&user(), &written).await.unwrap();
    let made = service
        .job_create(&stranger(), with_file(&written), None)
        .await;
    assert_eq!(made.unwrap_err().code(), "file_missing");
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
    let pass = service::loops::expire_pass(service).await.unwrap();
    assert_eq!(pass.uploads, 1);
    let lost = service.blob_done(&user(), &unnamed).await;
    assert_eq!(lost.unwrap_err().code(), "unavailable");
    service.blob_done(&user(), &named).await.unwrap();
    service.job_cancel(&user(), &row.id).await.unwrap();
    world.clock.advance(limits::UPLOAD_MS + 1);
    let pass = service::loops::expire_pass(service).await.unwrap();
    assert_eq!(pass.uploads, 1);
}
