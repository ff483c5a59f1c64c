//! Killed at any moment, started again: every job is finished or runs again as its retry rule says, and
//! nothing is left behind.

use e2e::{Place, Server, http, left_behind, no_sandbox, until, visited};
use std::collections::BTreeMap;

const JOBS: usize = 2;

fn create(place: &Place, argv: &str, attempts: u32) -> Option<String> {
    // One kind of job finds a spare sandbox, the other does not.
    let limits = if attempts == 1 {
        "{}"
    } else {
        r#"{"pids":60}"#
    };
    let body =
        format!(r#"{{"argv":[{argv}],"limits":{limits},"retry":{{"max_attempts":{attempts}}}}}"#);
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = place.state().join("cofferdam.sock");
    let (_, answer) = http(&socket, &request);
    answer
        .split('"')
        .find(|part| part.starts_with("job_"))
        .map(str::to_owned)
}

/// Every job by id: its state, outcome and attempt.
fn jobs(place: &Place) -> BTreeMap<String, (String, String, u64)> {
    let list = place.json(&["job", "ls", "--json", "--limit", "200"]);
    let each = list["jobs"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|job| {
            let field = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let outcome = field(&job["outcome"]["kind"]);
            (
                field(&job["id"]),
                (
                    field(&job["state"]),
                    outcome,
                    job["attempt"].as_u64().unwrap_or(0),
                ),
            )
        });
    each.collect()
}

fn all_finished(place: &Place) -> bool {
    jobs(place)
        .values()
        .all(|(state, _, _)| state == "finished")
}

/// What must be true after any crash and a restart.
fn check(place: &Place, known: &[String], point: &str) {
    assert!(until(|| all_finished(place)), "{point}: {:?}", jobs(place));
    let ended = jobs(place);
    for id in known {
        assert!(
            ended.contains_key(id),
            "{point}: a job that was answered is gone: {id}"
        );
    }
    for (id, (_, outcome, attempt)) in &ended {
        let fine = ["succeeded", "lost"].contains(&outcome.as_str());
        assert!(fine && *attempt <= 3, "{point}: {id} {outcome} {attempt}");
    }
    assert!(
        until(|| left_behind(place).is_empty()),
        "{point}: {:?}",
        left_behind(place)
    );
}

fn scenario(place: &Place, server: &mut Server) -> Vec<String> {
    let argv = r#""fake","sleep=30","print=hello""#;
    let attempts = [1, 3];
    let known: Vec<String> = (0..JOBS)
        .filter_map(|n| create(place, argv, attempts[n % 2]))
        .collect();
    until(|| server.has_ended() || all_finished(place));
    known
}

/// The points that the scenario visits, each as often as it does.
fn points() -> Vec<String> {
    let place = Place::new();
    let mut server = place.up(&["--driver", "fake"], &[("COFFERDAM_DIE_AT", "trace")]);
    scenario(&place, &mut server);
    visited(&server.end().1)
}

#[test]
fn a_server_killed_at_every_write_point_loses_nothing_and_leaves_nothing() {
    let points = points();
    let names: std::collections::BTreeSet<&str> = points
        .iter()
        .filter_map(|point| point.split('#').next())
        .collect();
    let expected = [
        "node.acknowledged",
        "node.destroyed",
        "node.ended",
        "node.recorded",
        "node.released",
        "node.removed",
        "node.reported",
        "node.sandboxed",
        "node.spared",
        "store.after_commit",
        "store.before_commit",
    ];
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        expected,
        "a point that no run visits proves nothing"
    );
    for point in &points {
        let place = Place::new();
        let mut server = place.up(&["--driver", "fake"], &[("COFFERDAM_DIE_AT", point)]);
        let known = scenario(&place, &mut server);
        drop(server);
        let restarted = place.up(&["--driver", "fake", "--spares", "0"], &[]);
        check(&place, &known, point);
        drop(restarted);
    }
    println!("killed at {} points", points.len());
}

#[test]
fn a_server_killed_at_random_with_real_sandboxes_goes_on_with_them() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let mut adopted = false;
    // Milliseconds after the first job was created; spread over all that happens to it.
    for delay in [0, 2, 4, 7, 11, 20, 60, 250] {
        let place = Place::new();
        let server = place.up(&[], &[]);
        let argv = r#""sh","-c","echo one; sleep 0.5; echo two""#;
        let known: Vec<String> = (0..4)
            .filter_map(|n| create(&place, argv, 1 + n % 2 * 2))
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        server.kill();
        let restarted = place.up(&["--spares", "0"], &[]);
        check(&place, &known, &format!("{delay} ms"));
        for (id, (_, outcome, _)) in jobs(&place) {
            let log = place.run(&["job", "logs", &id]).stdout;
            if outcome == "succeeded" {
                assert_eq!(
                    String::from_utf8_lossy(&log),
                    "one\ntwo\n",
                    "output is whole: {id}"
                );
            }
        }
        let (_, log) = restarted.end();
        adopted |= log.contains("outlived its agent");
    }
    assert!(adopted, "no sandbox outlived its agent in any round");
}
