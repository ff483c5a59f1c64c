//! Profiles, as a person uses them: written in a file, run by, and never more than they allow.

use e2e::{Place, all, good, no_sandbox};

#[test]
fn a_profile_is_written_used_turned_and_taken_away() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let put = |toml: &str| place.run_with_input(&["profile", "put", "agent", "-"], toml.as_bytes());
    let first = "timeout_max_ms = 60000\nworkdir = \"/tmp\"\n[limits]\npids = 20\n[env]\nWHO = \"one\"\n\
                 [network]\nallow = [\"*.example.org\"]\n[[secrets]]\nname = \"*\"\nas = [\"env\"]\n";
    assert_eq!(good(&put(first)), "agent\t1\n");
    assert_eq!(good(&put(first)), "agent\t1\n");
    let script = "pwd; echo $WHO; echo $HTTPS_PROXY | cut -c1-4";
    let run = |profile: &str, more: &[&str]| {
        let mut asked = vec!["run", "--profile", profile];
        asked.extend(more);
        asked.extend(["--", "sh", "-c", script]);
        place.run(&asked)
    };
    assert_eq!(
        good(&run("agent", &["--timeout", "1h"])),
        "/tmp\none\nhttp\n"
    );
    let misspelt = put("[network]\nalow = []\n");
    assert_eq!(misspelt.status.code(), Some(125), "{}", all(&misspelt));
    let refused = run("agent", &["--net", "unrestricted"]);
    assert!(all(&refused).contains("--net:"), "{}", all(&refused));
    // The next version changes what is made from now on, and the first can still be named.
    assert_eq!(good(&put("[env]\nWHO = \"two\"\n")), "agent\t2\n");
    assert_eq!(good(&run("agent", &[])), "/home/user\ntwo\n\n");
    assert_eq!(good(&run("agent:1", &[])), "/tmp\none\nhttp\n");
    // The second version does not say that secrets may be variables.
    good(&place.run_with_input(&["secret", "set", "token"], b"value-of-it\n"));
    let secret = ["--secret", "token=env:TOKEN"];
    assert_eq!(run("agent", &secret).status.code(), Some(125));
    good(&run("agent:1", &secret));
    let jobs = good(&place.run(&["job", "ls", "--json"]));
    assert!(jobs.contains(r#""profile": "agent""#), "{jobs}");
    assert!(good(&place.run(&["profile", "ls"])).contains("agent"));
    let versions = good(&place.run(&["profile", "get", "--versions", "agent"]));
    assert_eq!(versions.lines().count(), 2, "{versions}");
    good(&place.run(&["profile", "rm", "agent"]));
    let gone = run("agent", &[]);
    assert!(all(&gone).contains("there is no profile"), "{}", all(&gone));
}
