//! How what happened in a sandbox is told: the outcome, and a sentence for a person.

use api::node::OutcomeReport;
use driver::driver::Counted;
use driver::guest::message::{Exited, StartFailure};

/// An outcome and what a person should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) outcome: OutcomeReport,
    pub(crate) detail: Option<String>,
}

impl Told {
    pub(crate) fn refused(why: impl Into<String>) -> Told {
        Told {
            outcome: OutcomeReport::Refused { why: why.into() },
            detail: None,
        }
    }

    pub(crate) fn canceled() -> Told {
        Told {
            outcome: OutcomeReport::Canceled,
            detail: None,
        }
    }

    /// It is not to run without somebody at its streams, and nobody was there.
    pub(crate) fn unattended(why: &str) -> Told {
        Told {
            outcome: OutcomeReport::Canceled,
            detail: Some(format!("{why}; ask again, or with `run --detach`")),
        }
    }

    /// The same with other words.
    pub(crate) fn clean(self, words: impl Fn(&str) -> String) -> Told {
        let outcome = match self.outcome {
            OutcomeReport::Lost { why } => OutcomeReport::Lost { why: words(&why) },
            OutcomeReport::Refused { why } => OutcomeReport::Refused { why: words(&why) },
            other @ (OutcomeReport::Succeeded
            | OutcomeReport::Failed { .. }
            | OutcomeReport::TimedOut
            | OutcomeReport::Canceled) => other,
        };
        Told {
            outcome,
            detail: self.detail.map(|text| words(&text)),
        }
    }

    pub(crate) fn lost(why: impl Into<String>) -> Told {
        Told {
            outcome: OutcomeReport::Lost { why: why.into() },
            detail: None,
        }
    }
}

/// The command could not be started. As shells do: 127 when it is not there, 126 when it may not run.
pub(crate) fn not_started(program: &str, failure: &StartFailure) -> Told {
    let reason = std::io::Error::from_raw_os_error(failure.errno);
    let failed = |exit_code, detail: String| Told {
        outcome: OutcomeReport::Failed { exit_code },
        detail: Some(detail),
    };
    match (failure.step.as_str(), failure.errno) {
        ("exec", libc_errno::ENOENT) => failed(127, format!("`{program}` is not in the sandbox")),
        ("exec", _) => failed(126, format!("`{program}` cannot be run: {reason}")),
        ("chdir", _) => Told::refused(format!("the working directory cannot be entered: {reason}")),
        (step, _) => Told::refused(format!(
            "the process could not be confined at `{step}`: {reason}"
        )),
    }
}

/// Error numbers that are named here; see `errno(3)`.
mod libc_errno {
    pub(super) const ENOENT: i32 = 2;
}

/// Whether somebody asked the job to end before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nobody did.
    Nobody,
    /// Somebody did.
    ToStop,
}

/// The command ran and ended.
pub(crate) fn ended(exited: &Exited, counted: &Counted, asked: Asked) -> Told {
    let code = exited
        .code
        .or_else(|| exited.signal.map(|signal| 128 + signal))
        .unwrap_or(125);
    let outcome = match (exited.timed_out, asked, code) {
        (true, _, _) => OutcomeReport::TimedOut,
        (false, Asked::ToStop, _) => OutcomeReport::Canceled,
        (false, Asked::Nobody, 0) => OutcomeReport::Succeeded,
        (false, Asked::Nobody, code) => OutcomeReport::Failed { exit_code: code },
    };
    let mut notes = Vec::new();
    if counted.out_of_memory {
        notes.push("the kernel killed a process because the memory limit was reached".to_owned());
    }
    if counted.out_of_pids {
        notes.push("processes could not be made because the limit on them was reached".to_owned());
    }
    if exited.left_behind > 0 {
        notes.push(match exited.left_behind {
            1 => "1 process was left behind and killed".to_owned(),
            many => format!("{many} processes were left behind and killed"),
        });
    }
    Told {
        outcome,
        detail: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: Option<i32>, signal: Option<i32>, timed_out: bool) -> Exited {
        let (cpu_ms, max_rss_bytes, wall_ms, left_behind) = (0, 0, 0, 0);
        Exited {
            code,
            signal,
            timed_out,
            cpu_ms,
            max_rss_bytes,
            wall_ms,
            left_behind,
        }
    }

    #[test]
    fn codes_and_signals_become_what_shells_say() {
        let told = |exited: Exited, asked| ended(&exited, &Counted::default(), asked).outcome;
        assert_eq!(
            told(exited(Some(0), None, false), Asked::Nobody),
            OutcomeReport::Succeeded
        );
        let failed = |exit_code| OutcomeReport::Failed { exit_code };
        assert_eq!(told(exited(Some(3), None, false), Asked::Nobody), failed(3));
        assert_eq!(
            told(exited(None, Some(9), false), Asked::Nobody),
            failed(137)
        );
        assert_eq!(
            told(exited(None, Some(15), true), Asked::Nobody),
            OutcomeReport::TimedOut
        );
        assert_eq!(
            told(exited(Some(0), None, false), Asked::ToStop),
            OutcomeReport::Canceled
        );
    }

    #[test]
    fn a_job_to_whose_streams_nobody_came_says_so_and_what_to_do() {
        let told = Told::unattended("nobody came to its streams within 30 s");
        assert_eq!(told.outcome, OutcomeReport::Canceled);
        let detail = told.detail.unwrap();
        assert!(detail.starts_with("nobody came to its streams within 30 s; "));
        assert!(detail.contains("run --detach"), "{detail}");
        assert_eq!(Told::canceled().detail, None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = StartFailure {
            step: "exec".to_owned(),
            errno: 2,
        };
        let told = not_started("frobnicate", &failure);
        assert_eq!(told.outcome, OutcomeReport::Failed { exit_code: 127 });
        assert!(told.detail.unwrap().contains("frobnicate"));
    }
}
