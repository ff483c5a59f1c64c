//! Policies, as a person uses them: written in a file, asked before, and held by the binary that everybody runs.

use e2e::{Place, all, good, no_sandbox};
use std::process::Output;

const RULES: &str = "version = 1\nlayer = \"tenant\"\n[commands]\nforbid = [\"sudo\"]\n\
                     unchecked_in_sandboxes = true\n[network]\nallow = [\"*.example.org\"]\n\
                     [resources]\npids = 20\n";
const MODULE: &str = "version = 1\nlayer = \"global\"\nrego = '''\npackage policy\n\ndefault allow := false\n\n\
                      allow if input.request.argv[0] != \"env\"\n\nreason := \"env is not for us\" if not allow\n'''\n";

/// Somewhere in what it wrote.
fn says(output: &Output, words: &str) {
    assert!(all(output).contains(words), "{}", all(output));
}

#[test]
fn a_policy_is_written_tested_held_explained_and_taken_away() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let set = |name: &str, toml: &str| {
        place.run_with_input(&["policy", "set", name, "-"], toml.as_bytes())
    };
    let run = |argv: &[&str]| place.run(&[&["run", "--"][..], argv].concat());
    assert_eq!(good(&set("rules", RULES)), "rules\t1\n");
    good(&run(&["true"]));
    let refused = run(&["sh", "-c", "cd /; sudo ls"]);
    assert_eq!(refused.status.code(), Some(125), "{}", all(&refused));
    says(&refused, "tenant/0/rules@1");
    let out = place.run(&["run", "--net", "unrestricted", "--", "true"]);
    assert!(all(&out).contains("tenant/0/rules@1"), "{}", all(&out));
    // A module is asked by a process of its own, which is this same program.
    let broken = set(
        "module",
        "version = 1\nlayer = \"tenant\"\nrego = \"package policy\\nallow if {\"\n",
    );
    assert!(all(&broken).contains("module:2"), "{}", all(&broken));
    assert_eq!(good(&set("module", MODULE)), "module\t1\n");
    good(&run(&["true"]));
    let refused = run(&["env"]);
    says(&refused, "env is not for us");
    let test = |body: &str| place.run_with_input(&["policy", "test", "-"], body.as_bytes());
    let told = test(r#"{"job":{"argv":["sudo","ls"]}}"#);
    assert_eq!(told.status.code(), Some(1), "{}", all(&told));
    let unread = test("{");
    assert_eq!(unread.status.code(), Some(125), "{}", all(&unread));
    assert!(
        all(&told).starts_with("refused\n  commands: `sudo` is forbidden"),
        "{}",
        all(&told)
    );
    let told = good(&test(r#"{"job":{"argv":["ls"]}}"#));
    assert!(told.starts_with("allowed\n"), "{told}");
    assert!(told.contains("resources.pids\t"), "{told}");
    let told = test(r#"{"principal":"user:nobody","job":{"argv":["ls"]}}"#);
    says(
        &told,
        "there is no principal `user:nobody`; this is what it would get",
    );
    let jobs = good(&place.run(&["job", "ls", "--json"]));
    let jobs: serde_json::Value = serde_json::from_str(&jobs).unwrap();
    let id = jobs["jobs"][0]["id"].as_str().unwrap();
    let explained = good(&place.run(&["policy", "explain", id]));
    assert!(explained.contains("resources.pids"), "{explained}");
    assert!(explained.contains("global/0/module@1"), "{explained}");
    // Nodes say of themselves what they isolate with, and nobody is let in by that name.
    let driver = "version = 1\nlayer = \"tenant\"\ndrivers = [\"linux\"]\n";
    good(&set("driver", driver));
    good(&run(&["true"]));
    let of_nobody = "version = 1\nlayer = \"principal\"\nof = \"user:nobody\"\n";
    let told = set("driver", of_nobody);
    says(&told, "there is no principal `user:nobody`");
    good(&told);
    good(&place.run(&["policy", "rm", "driver"]));
    assert!(good(&place.run(&["policy", "ls"])).contains("rules"));
    good(&place.run(&["policy", "rm", "rules"]));
    good(&place.run(&["policy", "rm", "module"]));
    good(&run(&["env"]));
}

#[test]
fn a_policy_of_a_volume_is_written_before_there_is_one_and_holds_whoever_wants_it() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let policy = "version = 1\nlayer = \"volume\"\nof = \"data\"\n[network]\nmode = \"none\"\n";
    let set = place.run_with_input(&["policy", "set", "hands-off", "-"], policy.as_bytes());
    says(&set, "there is no volume `data` now");
    assert_eq!(good(&set), "hands-off\t1\n");
    let listed = good(&place.run(&["policy", "ls"]));
    assert!(listed.contains("volume"), "{listed}");
    let wants = |volume: &str| {
        let volume = format!("{volume}:/data");
        let net = ["--net", "unrestricted", "--volume", &volume];
        place.run(&[&["sandbox", "create", "--allow-root"][..], &net].concat())
    };
    let refused = wants("data");
    assert!(!refused.status.success(), "{}", all(&refused));
    says(&refused, "volume/0/hands-off@1");
    let missing = wants("Data");
    assert!(!missing.status.success(), "{}", all(&missing));
    says(&missing, "there is no such volume");
    let asked = br#"{"sandbox":{"allow_root":true,"network":{"allow":["a.test"]},
        "volumes":[{"name":"data","path":"/data"}]}}"#;
    let tested = place.run_with_input(&["policy", "test", "-"], asked);
    assert_eq!(tested.status.code(), Some(1), "{}", all(&tested));
    says(&tested, "volume/0/hands-off@1");
    good(&place.run(&["policy", "rm", "hands-off"]));
}
