//! The streams of a job, from the client to its node.

use api::Code;
use api::attach::{FrameKind, FrameReader, LinkOpen, LinkTarget, write_frame};
use api::node::OutcomeReport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::life::{create, finished, job, lease, register, started};
use crate::world::{World, bare};

async fn attachable(world: &World) -> String {
    let mut asked = job(&["cat"]);
    asked.attach = true;
    create(world, &asked).await.id
}

/// The node's side: sends back what it gets, in capitals, and ends when the input does.
async fn shout(mut link: mpsc::Receiver<LinkOpen>) -> u32 {
    let open = link.recv().await.unwrap();
    let (read, mut write) = tokio::io::split(open.io);
    let mut frames = FrameReader::new(read);
    write_frame(&mut write, FrameKind::Started, b"")
        .await
        .unwrap();
    while let Some(frame) = frames.next().await.unwrap() {
        if frame.kind == FrameKind::StdinEof {
            break;
        }
        assert_eq!(frame.kind, FrameKind::Stdin);
        let bytes = frame.payload.to_ascii_uppercase();
        write_frame(&mut write, FrameKind::Stdout, &bytes)
            .await
            .unwrap();
    }
    write_frame(&mut write, FrameKind::Ended, b"")
        .await
        .unwrap();
    match open.target {
        LinkTarget::Job { attempt, .. } => attempt,
        LinkTarget::Sandbox { .. } | LinkTarget::Connections { .. } => 0,
    }
}

#[tokio::test]
async fn a_client_reaches_the_job_even_when_it_comes_before_the_node() {
    let world = World::new().await;
    register(&world).await;
    let (link, opened) = mpsc::channel(4);
    world.links.insert(world.node_id.clone(), link);
    let id = attachable(&world).await;
    let io = world.user.job_attach(&id).await.unwrap();
    let (read, mut write) = tokio::io::split(io);
    // More than the buffers between hold, so it must be written while somebody reads.
    let client = tokio::spawn(async move {
        write_frame(&mut write, FrameKind::Stdin, b"early ").await?;
        for _ in 0..3 {
            write_frame(&mut write, FrameKind::Stdin, &vec![b'x'; 1_000_000]).await?;
        }
        write_frame(&mut write, FrameKind::StdinEof, b"").await?;
        Ok::<_, std::io::Error>(write)
    });
    let lease = lease(&world).await;
    world
        .node
        .node_job_started(&id, &started(&lease))
        .await
        .unwrap();
    let node = tokio::spawn(shout(opened));
    let mut frames = FrameReader::new(read);
    let (mut kinds, mut bytes) = (Vec::new(), Vec::new());
    while let Some(frame) = frames.next().await.unwrap() {
        if !kinds.contains(&frame.kind) {
            kinds.push(frame.kind);
        }
        bytes.extend(frame.payload);
    }
    assert_eq!(
        kinds,
        [FrameKind::Started, FrameKind::Stdout, FrameKind::Ended]
    );
    assert_eq!(&bytes[..7], b"EARLY X");
    assert_eq!(bytes.len(), 3_000_006);
    assert_eq!(node.await.unwrap(), 1);
    drop(client.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_client_is_let_go_when_the_job_ends_before_a_node_has_it() {
    let world = World::new().await;
    let id = attachable(&world).await;
    let mut io = world.user.job_attach(&id).await.unwrap();
    world.user.job_cancel(&id).await.unwrap();
    assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
}

/// So many clients are attached, as the server counts them.
async fn until_attached(world: &World, count: u32) {
    let line = format!("cofferdam_attached_streams {count}");
    loop {
        let text = world.ask(bare("GET", "/metrics")).await.body;
        if String::from_utf8_lossy(&text).contains(&line) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_left_before_a_node_has_the_job_holds_nothing_and_does_not_end_the_input_of_whoever_came_back()
 {
    let world = World::new().await;
    register(&world).await;
    let (link, mut opened) = mpsc::channel(4);
    world.links.insert(world.node_id.clone(), link);
    let id = attachable(&world).await;
    let gone = world.user.job_attach(&id).await.unwrap();
    until_attached(&world, 1).await;
    drop(gone);
    until_attached(&world, 0).await;
    let io = world.user.job_attach(&id).await.unwrap();
    let lease = lease(&world).await;
    let told = world.node.node_job_started(&id, &started(&lease)).await;
    told.unwrap();
    let open = opened.recv().await.unwrap();
    let (_read, mut write) = tokio::io::split(io);
    write_frame(&mut write, FrameKind::Stdin, b"all of it")
        .await
        .unwrap();
    write_frame(&mut write, FrameKind::StdinEof, b"")
        .await
        .unwrap();
    let mut frames = FrameReader::new(open.io);
    let first = frames.next().await.unwrap().unwrap();
    assert_eq!(
        (first.kind, &first.payload[..]),
        (FrameKind::Stdin, &b"all of it"[..])
    );
    let second = frames.next().await.unwrap().unwrap();
    assert_eq!(second.kind, FrameKind::StdinEof);
    assert!(opened.try_recv().is_err());
}

#[tokio::test]
async fn a_client_that_keeps_its_side_open_holds_nothing() {
    let world = World::new().await;
    register(&world).await;
    let (link, mut opened) = mpsc::channel(4);
    world.links.insert(world.node_id.clone(), link);
    let id = attachable(&world).await;
    let lease = lease(&world).await;
    world
        .node
        .node_job_started(&id, &started(&lease))
        .await
        .unwrap();
    let mut io = world.user.job_attach(&id).await.unwrap();
    drop(opened.recv().await.unwrap());
    assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
    // The client has not closed, yet the server has: it no longer counts anybody.
    until_attached(&world, 0).await;
    io.shutdown().await.unwrap_or(());
}

#[tokio::test]
async fn what_cannot_be_attached_to_says_so() {
    let world = World::new().await;
    register(&world).await;
    let plain = create(&world, &job(&["true"])).await.id;
    let error = world.user.job_attach(&plain).await.unwrap_err();
    assert!(error.is(Code::NotAttachable), "{error:?}");
    let lease_of_plain = lease(&world).await;
    let end = finished(&lease_of_plain, OutcomeReport::Succeeded);
    world.node.node_job_finished(&plain, &end).await.unwrap();

    let id = attachable(&world).await;
    let reply = world
        .ask(bare("GET", &format!("/v1/jobs/{id}/attach")))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (426, "upgrade_required")
    );
    world.user.job_cancel(&id).await.unwrap();
    let error = world.user.job_attach(&id).await.unwrap_err();
    assert!(error.is(Code::NotAttachable), "{error:?}");
}
