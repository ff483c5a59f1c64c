//! The real SDK of E2B against the real binary and real sandboxes.

use e2e::{Place, no_sandbox, until};
use std::process::{Command, Stdio};

/// Exported variables as `cofferdam env` prints them.
fn variables(place: &Place) -> Vec<(String, String)> {
    let printed = String::from_utf8(place.run(&["env", "e2b"]).stdout).expect("text");
    let lines = printed.lines();
    let pairs = lines.filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment is cleared at once, and the program is the test's"
)]
fn python(path: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a script of the SDK against a server of its own, or says why that cannot be.
fn script(text: &str) -> Result<std::process::Output, String> {
    if let Some(why) = no_sandbox() {
        return Err(why);
    }
    let Some(path) = std::env::var_os("COFFERDAM_E2B_PYTHON") else {
        return Err("COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B".to_owned());
    };
    let place = Place::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut up = place.command(&["up", "--listen", &address, "--spares", "0"]);
    let mut up = up.stderr(Stdio::null()).spawn().expect("a server");
    assert!(until(|| std::net::TcpStream::connect(&address).is_ok()));
    let output = python(&path)
        .args(["-c", text])
        .envs(variables(&place))
        .output();
    drop(up.kill());
    drop(up.wait());
    let output = output.expect("a Python");
    if output.status.code() == Some(77) {
        let why = String::from_utf8_lossy(&output.stdout);
        return Err(why.trim().to_owned());
    }
    Ok(output)
}

#[test]
fn the_python_sdk_does_in_real_sandboxes_what_its_users_do_in_a_day() {
    match script(include_str!("e2b.py")) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
        }
        Err(why) => println!("skipped: {why}"),
    }
}

#[test]
fn the_python_sdk_saves_sandboxes_and_begins_others_with_them() {
    match script(include_str!("snapshot.py")) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
        }
        Err(why) => println!("skipped: {why}"),
    }
}
