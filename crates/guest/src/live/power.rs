//! Off and on: what a reboot is to a machine. The node orders it for a sandbox that is to keep its files and
//! nothing else.
//!
//! Off means that every process but this one is dead, and that no other is made; on, that the workload sees
//! another boot id. What the node orders twice, because it died in between, is the same as once.

use super::body::{self, Answer};
use super::failure::{Code, Failure};
use super::{Live, context, query};
use crate::process;
use hyper::StatusCode;
use serde_json::json;
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that the node waits for the dead with one request.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether all are dead: at first, because the kernel takes its time to end one, and at most.
const LOOK_FIRST: Duration = Duration::from_micros(200);
const LOOK_MOST: Duration = Duration::from_millis(20);

/// Where the kernel makes ids in the form of a boot id.
const UUID: &str = "/proc/sys/kernel/random/uuid";
/// How long one is, with its line end. Another length would leave the end of the old one.
const BOOT_ID_BYTES: usize = 37;

/// Whether there is power.
#[derive(Debug)]
pub(super) struct Power {
    is_off: Cell<bool>,
    back: Notify,
    /// What the workload sees as its boot id.
    boot_id: OwnedFd,
}

impl Power {
    pub(super) fn new(boot_id: OwnedFd) -> Power {
        Power {
            is_off: Cell::new(false),
            back: Notify::new(),
            boot_id,
        }
    }

    /// Nothing is started without power.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.is_off.get() {
            let why = "the sandbox is being paused or brought back";
            return Err(Failure::new(Code::Unavailable, why));
        }
        Ok(())
    }

    /// Waits until there is power.
    pub(super) async fn on(&self) {
        loop {
            // Before the look, so that what happens in between is not missed.
            let back = self.back.notified();
            if !self.is_off.get() {
                return;
            }
            back.await;
        }
    }
}

/// Kills everything and lets nothing new begin. Answers whether all are dead, at once or after a wait: what is
/// frozen dies only when the node thaws it.
pub(super) async fn halt(live: &Rc<Live>, query: Option<&str>) -> Answer {
    let wait = query::value(query, "wait_ms").and_then(|text| text.parse().ok());
    let wait = Duration::from_millis(wait.unwrap_or(0)).min(WAIT_MAX);
    live.power.is_off.set(true);
    context::forget(live);
    live.ahead.borrow_mut().take();
    let end = Instant::now() + wait;
    let mut pause = LOOK_FIRST;
    loop {
        // Again each time: one that forks while the kernel goes through all may leave a child that was missed.
        process::signal(None, libc::SIGKILL);
        let is_done = process::is_alone();
        if is_done || Instant::now() >= end {
            return body::json(StatusCode::OK, &json!({ "halted": is_done }));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MOST);
    }
}

/// Gives the workload another boot id and lets it begin.
pub(super) fn boot(live: &Rc<Live>) -> Result<Answer, Failure> {
    if !process::is_alone() {
        let why = "something of before still runs";
        return Err(Failure::new(Code::FailedPrecondition, why));
    }
    let broken = |error: std::io::Error| Failure::new(Code::Internal, error.to_string());
    let id = std::fs::read(UUID).map_err(broken)?;
    if id.len() != BOOT_ID_BYTES {
        return Err(Failure::new(Code::Internal, "the kernel made no boot id"));
    }
    // One page of a file system in memory: there is no half of this.
    let written = rustix::io::pwrite(&live.power.boot_id, &id, 0);
    written.map_err(|errno| Failure::errno("write the boot id", errno))?;
    live.power.is_off.set(false);
    // It may have been frozen before it was halted.
    live.clock.stand(false);
    live.power.back.notify_waiters();
    context::warm(live);
    Ok(body::json(StatusCode::OK, &json!({})))
}
