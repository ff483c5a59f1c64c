//! `cofferdam run`, as a person uses it.

use e2e::{Place, groups_of, left_behind, needs_sandbox, text, until};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

#[test]
fn the_exit_code_is_the_programs() {
    needs_sandbox!();
    let place = Place::new();
    let run = |script: &str| code(&place.run(&["run", "--", "sh", "-c", script]));
    assert_eq!(run("exit 0"), 0);
    assert_eq!(run("exit 3"), 3);
    assert_eq!(run("kill -9 $$"), 137);
    assert_eq!(run("kill -15 $$"), 143);
}

#[test]
fn a_program_that_is_not_there_is_127_and_named() {
    needs_sandbox!();
    let place = Place::new();
    let output = place.run(&["run", "--", "frobnicate"]);
    assert_eq!(code(&output), 127);
    assert!(text(&output.stderr).contains("frobnicate"), "{output:?}");
    assert_eq!(code(&place.run(&["run", "--", "/etc/passwd"])), 126);
}

#[test]
fn the_streams_pass_through_byte_by_byte() {
    needs_sandbox!();
    let place = Place::new();
    let input: Vec<u8> = (0..3_000_000u32)
        .map(|n| u8::try_from(n % 251).unwrap_or(0))
        .collect();
    let output = place.run_with_input(&["run", "--", "sh", "-c", "cat; echo err >&2"], &input);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(
        output.stdout == input,
        "{} bytes came back",
        output.stdout.len()
    );
    assert_eq!(text(&output.stderr), "err\n");
}

#[test]
fn output_comes_as_it_is_written_and_input_reaches_a_running_program() {
    needs_sandbox!();
    let place = Place::new();
    let mut command = place.command(&["run", "--", "sh", "-c", "echo ready; read x; echo got $x"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 6];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"word\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got word\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn files_go_in_and_come_out() {
    needs_sandbox!();
    let place = Place::new();
    std::fs::write(place.work().join("in.txt"), "three\n").unwrap();
    let script = "cat in.txt /tmp/sub/two.txt > out.txt; mkdir -p d; cp in.txt d/deep.txt";
    let output = place.run(&[
        "run",
        "--file",
        "in.txt",
        "--file",
        "in.txt:/tmp/sub/two.txt",
        "--out",
        "out.txt",
        "--out",
        "d/deep.txt",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(place.work().join(name)).unwrap();
    assert_eq!(read("out.txt"), "three\nthree\n");
    assert_eq!(read("d/deep.txt"), "three\n");
}

#[test]
fn time_that_is_over_is_124_and_everything_is_killed() {
    needs_sandbox!();
    let place = Place::new();
    let output = place.run(&["run", "--timeout", "300ms", "--", "sleep", "60"]);
    assert_eq!(code(&output), 124, "{output:?}");
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
}

#[test]
fn json_tells_everything_about_the_job() {
    needs_sandbox!();
    let place = Place::new();
    let job = place.json(&["run", "--json", "--pids", "32", "--", "true"]);
    assert_eq!(job["outcome"]["kind"], "succeeded");
    assert_eq!(job["outcome"]["exit_code"], 0);
    assert!(job["usage"]["wall_ms"].is_u64() && job["timings_ms"]["total"].is_u64());
    let clauses = job["enforcement"].as_array().unwrap();
    let clause = |name: &str| {
        clauses
            .iter()
            .find(|c| c["clause"] == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(
        (
            clause("pids")["asked"].clone(),
            clause("pids")["state"].clone()
        ),
        (true.into(), "held".into())
    );
    for name in ["isolation", "network", "seccomp", "disk"] {
        assert_eq!(clause(name)["state"], "held", "{name}");
    }
    assert!(groups_of(job["sandbox_id"].as_str().unwrap_or("none")).is_empty());
}

#[test]
fn with_json_there_is_one_object_and_what_the_command_wrote_is_in_it() {
    needs_sandbox!();
    let place = Place::new();
    let script = "echo '{\"outcome\":\"mine\"}'; printf 'a\\377b' >&2; exit 3";
    let output = place.run(&["run", "--json", "--", "sh", "-c", script]);
    assert_eq!((code(&output), text(&output.stderr).as_str()), (3, ""));
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(job["stdout"]["text"], "{\"outcome\":\"mine\"}\n");
    assert_eq!(job["stderr"]["text"], "a\u{fffd}b");
    assert_eq!(
        (&job["stderr"]["total_bytes"], &job["stdout"]["truncated"]),
        (&3.into(), &false.into())
    );
    let much = "head -c 3000000 /dev/zero | tr '\\0' x";
    let job = place.json(&["run", "--json", "--", "sh", "-c", much]);
    assert_eq!(job["stdout"]["truncated"], true);
    let kept = job["stdout"]["text"].as_str().unwrap().len();
    assert_eq!(Some(kept as u64), job["stdout"]["kept_bytes"].as_u64());
}

#[test]
fn a_file_that_does_not_come_back_is_told_in_the_one_object() {
    needs_sandbox!();
    let place = Place::new();
    let output = place.run(&["run", "--json", "--out", "none.txt", "--", "true"]);
    assert_eq!(code(&output), 125);
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(job["outcome"]["kind"], "succeeded");
    assert_eq!(job["error"]["code"], "file_missing");
}

/// Attack: A file that comes out is written through a link that waits for it outside.
#[test]
fn a_file_that_comes_out_replaces_what_is_there_and_follows_no_link() {
    needs_sandbox!();
    let place = Place::new();
    let (other, out) = (place.work().join("other"), place.work().join("out"));
    std::fs::write(&other, "untouched").unwrap();
    std::os::unix::fs::symlink(&other, &out).unwrap();
    let script = "echo new > out; chmod 4777 out";
    let output = place.run(&["run", "--out", "out", "--", "sh", "-c", script]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "untouched");
    let meta = std::fs::symlink_metadata(&out).unwrap();
    // No more than the file creation mask of the tests lets through, and never set-user-id.
    assert!(meta.is_file() && meta.permissions().mode() & 0o7002 == 0);
    std::fs::remove_file(&out).unwrap();
    std::fs::create_dir(&out).unwrap();
    let output = place.run(&["run", "--out", "out", "--", "sh", "-c", script]);
    assert_eq!(code(&output), 125);
    assert!(
        text(&output.stderr).contains("file_unwritable"),
        "{output:?}"
    );
    let names = std::fs::read_dir(place.work()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["other", "out"], "a part of a file is left");
}

#[test]
fn nothing_of_a_sandbox_is_left() {
    needs_sandbox!();
    let place = Place::new();
    assert_eq!(
        code(&place.run(&["run", "--", "sh", "-c", "sleep 100 & echo x > /tmp/y"])),
        0
    );
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
}

#[test]
fn a_limit_beyond_the_machine_is_refused() {
    needs_sandbox!();
    let place = Place::new();
    let output = place.run(&["run", "--json", "--memory", "90000G", "--", "true"]);
    assert_eq!(code(&output), 125);
    assert!(
        text(&output.stdout).contains("limit_beyond_machine"),
        "{output:?}"
    );
}

#[test]
fn a_list_for_a_program_has_no_titles_and_tabs_between_its_fields() {
    needs_sandbox!();
    let place = Place::new();
    // A state that somebody named and that is not there is a mistake of theirs.
    let absent = place.run(&["job", "ls"]);
    assert_eq!((code(&absent), absent.stdout.len()), (125, 0));
    place.run(&["secret", "ls"]);
    let empty = place.run(&["job", "ls"]);
    assert_eq!((code(&empty), empty.stdout.len()), (0, 0));
    assert!(text(&empty.stderr).contains("no jobs yet"), "{empty:?}");
    place.run(&["run", "--", "printf", "a\tb\u{1b}"]);
    let listed = text(&place.run(&["job", "ls"]).stdout);
    let fields: Vec<&str> = listed.trim_end().split('\t').collect();
    assert!(
        fields.len() == 5 && fields[0].starts_with("job_"),
        "{listed:?}"
    );
    assert_eq!((fields[1], fields[4]), ("succeeded", "printf a\\tb\\u{1b}"));
    let id = fields[0];
    let logs = text(&place.run(&["job", "logs", "--json", id]).stdout);
    let first: serde_json::Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["stream"], &first["data"]),
        (&"stdout".into(), &"a\tb\u{1b}".into())
    );
    let none = place.run(&["job", "artifacts", id]);
    assert_eq!((code(&none), none.stdout.len()), (0, 0));
}

#[test]
fn a_job_is_on_record_afterwards() {
    needs_sandbox!();
    let place = Place::new();
    place.run(&["run", "--", "echo", "remembered"]);
    let jobs = place.json(&["job", "ls", "--json"]);
    let id = jobs["jobs"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        text(&place.run(&["job", "logs", &id]).stdout),
        "remembered\n"
    );
    let shown = text(&place.run(&["job", "get", &id]).stdout);
    assert!(
        shown.contains("succeeded") && shown.contains("seccomp"),
        "{shown}"
    );
    assert_eq!(
        code(&place.run(&["job", "get", "job_00000000000000000000000000000000"])),
        125
    );
}
