//! `sudo` inside a sandbox. A set-user-id program gains nothing there, so this one asks the guest, which
//! starts it again as the sandbox's root where that is allowed; as root it becomes whoever was asked for
//! and runs the command.
//!
//! It has no rights of its own and decides nothing: the guest looks at who asks. There are no passwords and
//! no rules, because there is one user, and what root may do inside is what the sandbox allows anyway.

mod become_user;
mod options;
mod request;

use options::Options;
use std::process::ExitCode;

/// What `sudo` ends with when it has not run the command.
const REFUSED: u8 = 1;

fn main() -> ExitCode {
    let args: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(|a| a.into_string())
        .collect();
    let Ok(args) = args else {
        return refuse("an argument is no UTF-8");
    };
    match options::parse(&args) {
        Err(why) => refuse(&why),
        Ok(Options::Tell(text)) => {
            say(1, &text);
            ExitCode::SUCCESS
        }
        Ok(Options::Nothing) => ExitCode::SUCCESS,
        Ok(Options::Run(wanted)) => {
            let told = if rustix::process::geteuid().is_root() {
                become_user::run(&wanted)
            } else {
                request::send(&args)
            };
            told.unwrap_or_else(|why| refuse(&why))
        }
    }
}

fn refuse(why: &str) -> ExitCode {
    say(2, &format!("sudo: {why}\n"));
    ExitCode::from(REFUSED)
}

fn say(stream: i32, text: &str) {
    let fd = if stream == 1 {
        rustix::stdio::stdout()
    } else {
        rustix::stdio::stderr()
    };
    // Who does not listen is not told.
    let _ = rustix::io::write(fd, text.as_bytes());
}
