//! The child: reads questions from standard input, answers on standard output, until there are no more.

use crate::{DATA_BYTES_MAX, INSIDE, LINE_BYTES_MAX, Question, Reply, Verdict, cut};
use regorus::Engine;
use regorus::utils::limits::{ExecutionTimerConfig, LimitError};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::HashMap;
use std::io::{BufRead as _, Read as _, Write as _};
use std::num::NonZeroU32;
use std::process::ExitCode;

/// Modules that are kept ready. One more, and all are read anew.
const KEPT_MAX: usize = 128;
/// Steps between two looks at the clock.
const STEPS: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");

/// Answers until standard input ends.
pub fn serve() -> ExitCode {
    // The first operation that fails ends it: without its limits it answers nothing.
    let bounds = [(Resource::Data, DATA_BYTES_MAX), (Resource::Core, 0)];
    for (resource, most) in bounds {
        let most = Some(most);
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        if setrlimit(resource, limit).is_err() {
            return ExitCode::FAILURE;
        }
    }
    let mut kept = HashMap::new();
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut input).take(LINE_BYTES_MAX as u64);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(_) if line.ends_with(b"\n") => {}
            _ => return ExitCode::FAILURE,
        }
        let Ok(question) = serde_json::from_slice::<Question>(&line) else {
            return ExitCode::FAILURE;
        };
        let Ok(mut text) = serde_json::to_vec(&answer(&mut kept, question)) else {
            return ExitCode::FAILURE;
        };
        text.push(b'\n');
        if output
            .write_all(&text)
            .and_then(|()| output.flush())
            .is_err()
        {
            return ExitCode::FAILURE;
        }
    }
}

fn answer(kept: &mut HashMap<String, Engine>, question: Question) -> Reply {
    let Question { module, input } = question;
    let Some(input) = input else {
        return match read(&module) {
            Ok(_) => Reply::Good,
            Err(why) => Reply::Bad(cut(&why)),
        };
    };
    if !kept.contains_key(&module) {
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        match read(&module) {
            Ok(engine) => drop(kept.insert(module.clone(), engine)),
            Err(why) => return Reply::Says(Verdict::Deny(cut(&why))),
        }
    }
    let Some(engine) = kept.get_mut(&module) else {
        return Reply::Says(Verdict::Stopped);
    };
    Reply::Says(evaluate(engine, &input))
}

/// Reads a module, and looks whether it has what is asked for.
pub(crate) fn read(module: &str) -> Result<Engine, String> {
    let mut engine = Engine::new();
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: INSIDE,
        check_interval: STEPS,
    });
    let added = engine.add_policy("module".to_owned(), module.to_owned());
    let package = added.map_err(|error| one_line(&error.to_string()))?;
    if package != "data.policy" {
        let package = package.trim_start_matches("data.");
        return Err(format!("the package is `policy` and not `{package}`"));
    }
    engine.set_input(regorus::Value::new_object());
    match engine.eval_rule("data.policy.allow".to_owned()) {
        Ok(_) => Ok(engine),
        Err(error) if is_limit(&error.to_string()) => Ok(engine),
        Err(error) => Err(one_line(&error.to_string())),
    }
}

pub(crate) fn evaluate(engine: &mut Engine, input: &serde_json::Value) -> Verdict {
    let Ok(input) = regorus::Value::from_json_str(&input.to_string()) else {
        return Verdict::Deny("its input cannot be read".to_owned());
    };
    engine.set_input(input);
    let allow = match engine.eval_rule("data.policy.allow".to_owned()) {
        Ok(allow) => allow,
        Err(error) if is_limit(&error.to_string()) => return Verdict::Stopped,
        Err(error) => return Verdict::Deny(cut(&one_line(&error.to_string()))),
    };
    if allow == regorus::Value::Undefined {
        return Verdict::Deny(reason(engine, "no decision"));
    }
    match allow.as_bool() {
        Ok(true) => Verdict::Allow,
        Ok(false) => Verdict::Deny(reason(engine, "denied")),
        Err(_) => Verdict::Deny("its `allow` is neither true nor false".to_owned()),
    }
}

/// What the module says why, where it has a rule for that.
fn reason(engine: &mut Engine, other: &str) -> String {
    match engine.eval_rule("data.policy.reason".to_owned()) {
        Ok(regorus::Value::String(text)) => cut(&text),
        _ => other.to_owned(),
    }
}

/// The time was over. The library wraps its error in texts of the place, so only the text tells.
fn is_limit(text: &str) -> bool {
    let limit = LimitError::TimeLimitExceeded {
        elapsed: INSIDE,
        limit: INSIDE,
    };
    let limit = limit.to_string();
    let first = limit.split(|c: char| c.is_ascii_digit() || c == '(').next();
    first.is_some_and(|first| text.contains(first.trim()))
}

/// A place and what is wrong there, which the library writes as a picture.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
