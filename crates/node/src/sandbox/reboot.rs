//! Pause and resume, with what runs in a sandbox or without it.
//!
//! Without it, the guest kills everything, which is the node's only way to tell what runs from what serves. All
//! of it can be done again from the beginning: whoever dies in between leaves a sandbox that is halted, or that
//! has not begun, and the order comes again.

use crate::Node;
use api::guest::{Guest, GuestError};
use driver::driver::{DriverError, Handle};
use std::time::Duration;

/// How long the guest may take to end everything: the kernel takes back some gigabytes in a second, and a
/// machine that is busy takes longer.
const HALT: Duration = Duration::from_secs(30);
/// How long one request for that waits.
const HALT_STEP: Duration = Duration::from_secs(5);

/// How long a pause waits for the guest to let the time of commands stand.
const CLOCK: Duration = Duration::from_secs(2);

/// Why a sandbox could not be stopped, or brought back. Nobody knows then what runs in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebootError {
    #[error("freeze or thaw the sandbox")]
    Driver(#[from] DriverError),
    #[error("speak with the guest")]
    Guest(#[from] GuestError),
    #[error("end what runs in the sandbox in time")]
    Late,
}

/// Stops everything in its tracks; with `reboot` ends it before.
///
/// # Errors
/// [`RebootError`].
pub(super) async fn pause(node: &Node, handle: &Handle, reboot: bool) -> Result<(), RebootError> {
    if !reboot {
        clock(node, handle, false).await;
        let paused = node.inner.driver.pause(handle, true).await;
        if paused.is_err() {
            clock(node, handle, true).await;
        }
        return Ok(paused?);
    }
    halt(node, handle).await?;
    node.at("node.sandbox_halted");
    // Nothing is left to be frozen; but should something come to be against our will, it does not run.
    hold(node, handle, true).await
}

/// Lets everything go on; with `reboot` ends it before and lets it begin.
///
/// # Errors
/// [`RebootError`].
pub(super) async fn resume(node: &Node, handle: &Handle, reboot: bool) -> Result<(), RebootError> {
    if !reboot {
        node.inner.driver.pause(handle, false).await?;
        clock(node, handle, true).await;
        return Ok(());
    }
    halt(node, handle).await?;
    node.at("node.sandbox_halted");
    let booting = async { Ok(guest(node, handle).await?.boot().await?) };
    let booted = tokio::time::timeout(HALT, booting).await;
    booted.unwrap_or(Err(RebootError::Late))
}

/// Lets the time of the commands stand while the sandbox is frozen, or go on. A guest that does not answer, or
/// that is older than this, keeps no sandbox from being paused: its commands have less time then.
async fn clock(node: &Node, handle: &Handle, goes: bool) {
    let said = async { Ok::<_, RebootError>(guest(node, handle).await?.clock(goes).await?) };
    let said = tokio::time::timeout(CLOCK, said).await;
    if let Err(error) = said.unwrap_or(Err(RebootError::Late)) {
        tracing::warn!(sandbox.id = %handle.id, %error, goes, "the time of commands could not be held");
    }
}

/// Ends everything, frozen or not.
async fn halt(node: &Node, handle: &Handle) -> Result<(), RebootError> {
    let halting = async {
        // What is frozen gets its signal now, and when it is thawed it runs not a single line more.
        if guest(node, handle).await?.halt(Duration::ZERO).await? {
            return hold(node, handle, false).await;
        }
        hold(node, handle, false).await?;
        while !guest(node, handle).await?.halt(HALT_STEP).await? {}
        Ok(())
    };
    let halted = tokio::time::timeout(HALT, halting).await;
    halted.unwrap_or(Err(RebootError::Late))
}

/// Freezes or thaws where something can be frozen. Where nothing can, the guest holds the sandbox.
async fn hold(node: &Node, handle: &Handle, frozen: bool) -> Result<(), RebootError> {
    match node.inner.driver.pause(handle, frozen).await {
        Ok(()) | Err(DriverError::CannotPause) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn guest(node: &Node, handle: &Handle) -> Result<Guest, RebootError> {
    let stream = node.inner.driver.connect(handle).await?;
    Ok(Guest::over(stream).await?)
}
