//! What a node left behind is listed, and taken away when that is asked for; what a record names stays.

use e2e::{Place, guests, no_sandbox, text, until};

fn reap(place: &Place, more: &[&str]) -> serde_json::Value {
    let args = ["node", "reap", "--idle", "0s", "--json"];
    place.json(&[&args, more].concat())
}

fn kinds(report: &serde_json::Value) -> Vec<String> {
    let all = report["leftovers"].as_array().cloned().unwrap_or_default();
    let kind = |line: &serde_json::Value| line["kind"].as_str().unwrap_or_default().to_owned();
    // Others on this machine may have left groups.
    let kinds = all.iter().map(kind);
    kinds.filter(|kind| kind != "groups").collect()
}

#[test]
fn a_sandbox_without_a_record_is_reaped_and_one_with_a_record_is_not() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let server = place.up(&["--spares", "0"], &[]);
    let create = || {
        let made = place.run(&["sandbox", "create"]);
        let line = text(&made.stdout);
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let (kept, lost) = (create(), create());
    assert!(lost.starts_with("sbx_"), "{lost}");
    // A process that lives looks after them itself.
    assert_eq!(kinds(&reap(&place, &[])), Vec::<String>::new());
    server.kill();
    assert_eq!(kinds(&reap(&place, &[])), Vec::<String>::new());
    assert_eq!(guests(&place.state()).len(), 2);
    let nodes = std::fs::read_dir(place.state().join("nodes")).expect("there is a node");
    let node = nodes.flatten().next().expect("there is a node").path();
    let records = std::fs::read_dir(node.join("sandboxes")).expect("there are records");
    for record in records.flatten() {
        let words = std::fs::read_to_string(record.path().join("record.json")).unwrap_or_default();
        if words.contains(&lost) {
            std::fs::remove_dir_all(record.path()).expect("it is ours");
        }
    }
    let dry = reap(&place, &[]);
    assert_eq!(kinds(&dry), ["sandbox"], "{dry}");
    assert_eq!(guests(&place.state()).len(), 2);
    let done = reap(&place, &["--apply"]);
    assert_eq!(kinds(&done), ["sandbox"], "{done}");
    assert!(until(|| guests(&place.state()).len() == 1), "{done}");
    assert_eq!(kinds(&reap(&place, &[])), Vec::<String>::new());
    // The other one is taken up by the next process.
    let _server = place.up(&["--spares", "0"], &[]);
    let said = place.run(&["sandbox", "exec", &kept, "--", "echo", "here"]);
    assert_eq!(text(&said.stdout), "here\n", "{said:?}");
}
