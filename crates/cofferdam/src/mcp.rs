//! `cofferdam mcp`: tools for a model on standard input and output, by the server that runs, or by a control
//! plane and a node in this process.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::compose::{self, Here, Size};
use crate::reach::running;
use crate::signals::Signals;
use api::ErrorBody;
use mcp::{Ports, Reaching, Tools, Way};
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What one client may have at a time, when there is no server: a model does a few things side by side.
const SIZE: Size = Size {
    slots: 16,
    sandboxes: 64,
};

/// What was started here, so that it can be ended. A server that ran when we came may be gone later, and then
/// there is one.
type Started = Arc<Mutex<Option<Here>>>;

/// Serves one client, until it closes our input or somebody ends us.
pub(crate) async fn serve(place: &Place) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    if std::io::stdin().is_terminal() {
        table::note(
            "a client speaks here; `cofferdam mcp install` tells those on this machine how",
        );
    }
    let started = Started::default();
    let (place, here) = (Arc::new(place.clone()), started.clone());
    let tools = Tools::new(Ports::Here, move || reaching(place.clone(), here.clone()));
    // While the client still says who it is.
    let warming = tools.clone();
    drop(tokio::spawn(async move { warming.warm().await }));
    let stop = async {
        signals.next().await;
    };
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let served = mcp::stdio(tools, stdin, stdout, stop).await;
    if let Some(here) = started.lock().await.take() {
        here.leave().await;
    }
    served.map_err(|error| Failure::ours("speak with the client", &error))?;
    Ok(ExitCode::SUCCESS)
}

fn reaching(place: Arc<Place>, started: Started) -> Reaching {
    Box::pin(async move {
        let reached = reach(&place, &started).await;
        reached.map_err(|failure| Box::new(told(&failure)))
    })
}

async fn reach(place: &Place, started: &Started) -> Result<Way, Failure> {
    if let Some(client) = running(place).await? {
        return Ok(Way { client, node: None });
    }
    let mut here = started.lock().await;
    let state = compose::own_state(place)?;
    state.make()?;
    let (client, new) = compose::start_here(&state, SIZE, None).await?;
    let node = Some(new.node());
    if let Some(old) = here.replace(new) {
        old.leave().await;
    }
    Ok(Way { client, node })
}

fn told(failure: &Failure) -> ErrorBody {
    let body = failure.body().cloned();
    body.unwrap_or_else(|| api::Code::Internal.body(failure.to_string(), ""))
}
