//! The work in a context: one execution after the other, each in the kernel that there is.

use super::super::Live;
use super::event::{self, Which};
use super::kernel::Kernel;
use super::language::Language;
use super::record::Step;
use super::stream::Run;
use super::{Failure, State};
use std::rc::Rc;
use tokio::sync::mpsc;

/// Where the work is done.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) live: Rc<Live>,
    pub(super) state: Rc<State>,
    pub(super) language: Language,
    pub(super) cwd: String,
    /// A kernel is started before anybody wants it.
    pub(super) starts_at_once: bool,
}

impl Place {
    async fn start(&self) -> Result<Kernel, Failure> {
        Kernel::start(&self.live, &self.state, self.language, &self.cwd).await
    }
}

/// Marks a context as one in which code runs.
#[derive(Debug)]
struct Busy<'s>(&'s State);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.is_busy.set(false);
    }
}

/// Works until the context is taken away.
pub(super) async fn work(place: Place, mut runs: mpsc::Receiver<Run>, mut kernel: Option<Kernel>) {
    // Why what the code has left in memory is gone, while nobody has been told.
    let mut lost = None;
    if place.starts_at_once {
        // If it does not start, the first execution tries again and is told why not.
        kernel = place.start().await.ok();
    }
    loop {
        let next = match &mut kernel {
            None => runs.recv().await,
            Some(there) => tokio::select! {
                run = runs.recv() => run,
                ended = there.idle() => {
                    kernel = None;
                    lost = Some(ended.why());
                    anew(&place, &mut kernel, &mut lost).await;
                    continue;
                }
            },
        };
        let Some(run) = next else { return };
        // Whoever was told of the restart may be faster than the death of the old kernel.
        if place.state.is_restarting.get() {
            kernel = None;
            anew(&place, &mut kernel, &mut lost).await;
        }
        if run.events.is_closed() {
            continue;
        }
        place.state.is_busy.set(true);
        let busy = Busy(&place.state);
        let ended = execute(&place, &mut kernel, &run, lost.take()).await;
        drop(busy);
        if let Some(why) = ended {
            lost = run.events.is_closed().then_some(why);
            anew(&place, &mut kernel, &mut lost).await;
        }
        // Only now, when the context can be used again.
        run.tell(event::END.to_vec()).await;
    }
}

/// Runs one, in a new kernel if need be. What is returned is why the kernel is no more.
async fn execute(
    place: &Place,
    kernel: &mut Option<Kernel>,
    run: &Run,
    lost: Option<String>,
) -> Option<String> {
    let mut there = match kernel.take() {
        Some(there) => there,
        None => match place.start().await {
            Ok(there) => there,
            Err(failure) => {
                Step::not_started(&place.live, &run.asked, &failure.message);
                run.tell(event::failed("ContextError", &failure.message))
                    .await;
                return None;
            }
        },
    };
    if let Some(why) = lost {
        let text = format!("{why}; the context begins anew, and its variables are gone\n");
        run.tell(event::output(Which::Stderr, &text, 0)).await;
    }
    let mut step = Step::begin(&place.live, &run.asked, place.state.pid.get());
    match there.run(run, &mut step).await {
        Ok(()) => {
            step.done();
            *kernel = Some(there);
            None
        }
        Err(ended) => {
            step.end = ended.end();
            drop((there, step));
            let why = if place.state.is_restarting.get() {
                "the context was restarted".to_owned()
            } else {
                ended.why()
            };
            run.tell(event::failed(event::GONE, &why)).await;
            Some(why)
        }
    }
}

/// Starts a new kernel where the old one was killed for that, and then nothing was lost unasked.
async fn anew(place: &Place, kernel: &mut Option<Kernel>, lost: &mut Option<String>) {
    if place.state.is_restarting.replace(false) {
        *lost = None;
        // If it does not start, the next execution tries again and is told why not.
        *kernel = place.start().await.ok();
    }
}
