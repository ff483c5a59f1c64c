//! The signals that ask this process to end.

use crate::cli::failure::Failure;
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};

/// Those that come within this time are one. A person needs longer for a second Ctrl-C.
const SAME: Duration = Duration::from_millis(100);

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// From a supervisor, or because the terminal is gone.
    Terminate,
}

impl Signal {
    /// What a shell says of a program that it ended.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// Listens from now on, instead of dying.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Signals, Failure> {
        let failed = |error| Failure::ours("listen for signals", &error);
        let listen = |kind| unix::signal(kind).map_err(failed);
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one that is a wish of its own after another: `timeout`, a shell and a terminal tell the process
    /// and its group, and that is one wish.
    pub(crate) async fn another(&mut self) -> Signal {
        let same = tokio::time::sleep(SAME);
        tokio::pin!(same);
        loop {
            tokio::select! {
                () = &mut same => return self.next().await,
                _ = self.next() => {}
            }
        }
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Terminate,
        }
    }
}
