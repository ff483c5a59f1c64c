//! The record, with the real binary: it is sealed while a server runs, goes on after that was killed, and tells when
//! somebody has changed what was signed.

use e2e::{Place, until};
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn verify(place: &Place) -> (bool, serde_json::Value) {
    let output = place.run(&["audit", "verify", "--json"]);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), value)
}

#[test]
fn the_record_is_sealed_signed_and_read_and_tells_when_what_was_signed_is_changed() {
    let place = Place::new();
    let server = place.up(&["--driver", "fake"], &[]);
    for _ in 0..5 {
        assert!(place.run(&["run", "--", "true"]).status.success());
    }
    let list = place.run(&["audit", "ls", "--kind", "job.finished"]);
    assert_eq!(said(&list).matches("job.finished").count(), 5, "{list:?}");
    let (is_well, checked) = verify(&place);
    assert!(is_well, "{checked}");
    // At the first look after a start what was sealed is signed.
    let heads = place.state().join("audit/heads.jsonl");
    drop(server.kill());
    let server = place.up(&["--driver", "fake"], &[]);
    assert!(until(|| heads.exists()));
    let exported = place.run(&["audit", "export"]);
    let lines = said(&exported);
    let kinds: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].to_string())
        .collect();
    assert!(kinds.contains(&"\"audit.read\"".to_owned()), "{kinds:?}");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "\"job.queued\"")
            .count(),
        5
    );
    let (is_well, checked) = verify(&place);
    assert!(is_well && checked["head"]["number"].is_u64(), "{checked}");
    drop(server.end());
    // Somebody with the files changes what was signed. What can be done in the database is tried in the tests of the
    // service.
    let signed = std::fs::read_to_string(&heads).unwrap();
    let changed = signed.replace("\"at_ms\":1", "\"at_ms\":2");
    assert_ne!(changed, signed);
    std::fs::write(&heads, changed).unwrap();
    let (is_well, checked) = verify(&place);
    assert!(!is_well, "{checked}");
    let flaws = checked["flaws"].as_array().unwrap();
    let is_found = flaws.iter().any(|flaw| flaw["code"] == "signature");
    assert!(is_found, "{checked}");
}
