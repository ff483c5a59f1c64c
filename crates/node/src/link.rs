//! The links of a node whose control plane is elsewhere: it dials them, and takes the streams that come.

use crate::tries::chance;
use api::attach::LinkOpen;
use api::client::Client;
use api::link::{LinkClass, take_streams};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Between two tries when the control plane does not answer, at first and at most. A link that has ended is
/// dialled again at once, so that who restarts a control plane waits for nobody.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(30);
/// A link that lived for less did not live: it is not dialled again at once.
const LIVED: Duration = Duration::from_secs(10);

/// Keeps the links of both classes open, and hands what comes over them to `takes`. Never returns.
/// Each one that is opened is told to `heard`.
pub async fn keep_links(client: Client, takes: mpsc::Sender<LinkOpen>, heard: Arc<Notify>) {
    let [interactive, bulk] = LinkClass::ALL.map(|class| keep(&client, class, (&takes, &*heard)));
    tokio::join!(interactive, bulk);
}

async fn keep(
    client: &Client,
    class: LinkClass,
    (takes, heard): (&mpsc::Sender<LinkOpen>, &Notify),
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let began = tokio::time::Instant::now();
        match client.node_link(class).await {
            Ok(io) => {
                tracing::debug!(class = class.as_str(), "a link is open");
                heard.notify_waiters();
                let end = take_streams(io, takes).await;
                tracing::info!(class = class.as_str(), %end, "a link has ended");
            }
            Err(error) => tracing::warn!(class = class.as_str(), %error, "failed to open a link"),
        }
        if began.elapsed() > LIVED {
            pause = PAUSE_FIRST;
        }
        // From half of it on, so that nodes that lost a server together do not come again together.
        let chance = f64::from(chance()) / f64::from(u16::MAX);
        tokio::time::sleep(pause.mul_f64(0.5 + chance / 2.0)).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}
