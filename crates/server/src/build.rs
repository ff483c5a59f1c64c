//! Carries builds of profiles out: makes a sandbox, does what the recipe says inside it, saves what was written.
//!
//! Enters: builds that `service` gives away, one to whoever takes it first. Leaves: commands to guests, over the
//! links that requests take too, and what came of them. What a state becomes, and who has a build, is decided in
//! `model` and `service`; this is the hands.
//!
//! It keeps nothing that a crash could lose: a build whose hands are gone is begun again by others, from the
//! start, in a sandbox of its own. It never touches a file of a build outside a sandbox, and never believes what
//! a guest says beyond the log of its own build.
//!
//! Reading order: this file, `phases` (what is done in which order), `log` and `shell` (one command), `scripts`
//! (what the commands are), `finish`.

mod finish;
mod log;
mod phases;
mod scripts;
mod shell;

use crate::links::Links;
use model::limits;
use service::{BuildHold, Service};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a build that nobody tells of may wait until it is found: those that another process has begun, and
/// those whose hands are gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the hands can reach.
#[derive(Debug, Clone)]
struct World {
    service: Service,
    links: Links,
}

/// Carries builds out until `stop`, several at a time. Those that are under way then are begun again by the next
/// process.
pub async fn carry_builds(service: Service, links: Links, stop: CancellationToken) {
    let world = World { service, links };
    let places = Arc::new(Semaphore::new(limits::BUILDS_AT_ONCE));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            hold = next(&world) => {
                let stopped = stop.clone();
                let carried = carry(world.clone(), hold, place);
                tokio::spawn(async move {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        () = carried => {}
                    }
                });
            }
        }
    }
}

async fn next(world: &World) -> BuildHold {
    loop {
        match world.service.build_take().await {
            Ok(Some(hold)) => return hold,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = error.cause(), "failed to look for builds");
            }
        }
        tokio::select! {
            () = world.service.build_wanted() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn carry(world: World, hold: BuildHold, _place: OwnedSemaphorePermit) {
    let id = hold.row().id.clone();
    tracing::info!(build.id = %id, attempt = hold.row().attempt, "a build begins");
    match phases::carry_out(world, hold).await {
        Ok(()) => tracing::info!(build.id = %id, "a build is over"),
        // Another has it by now, or takes it when the lease ends.
        Err(error) => {
            let error = error.cause();
            tracing::warn!(build.id = %id, error, "a build was given up; it is begun again if it has tries left");
        }
    }
}
