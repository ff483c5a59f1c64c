//! What waits for a person, with the real binary: an agent asks, somebody else decides, and the record says who.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use e2e::{Place, Server, all, good, needs_sandbox, text, until, visited};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStderr, Output, Stdio};

const RULES: &str = "version = 1\nlayer = \"tenant\"\n[commands]\napprove = [\"fake print=hello\"]\n\
                     unchecked_in_sandboxes = true\n[approvals]\nnetwork_unrestricted = \"needs_approval\"\n";

/// What a command says that has only an id or a key to say.
fn line(output: &Output) -> String {
    good(output).trim_end().to_owned()
}

/// A server with one rule, and the key of an agent.
struct Scene {
    place: Place,
    url: String,
    key: String,
}

impl Scene {
    fn new() -> Scene {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", port.local_addr().unwrap());
        Scene {
            place: Place::new(),
            url,
            key: String::new(),
        }
    }

    fn up(&self, env: &[(&str, &str)]) -> Server {
        let address = self.url.trim_start_matches("http://").to_owned();
        let args = ["--driver", "fake", "--spares", "0"];
        self.place.up_at_with(&address, &args, env)
    }

    fn prepare(&mut self) {
        let rules = RULES.as_bytes();
        good(
            &self
                .place
                .run_with_input(&["policy", "set", "rules", "-"], rules),
        );
        good(&self.owner(&[
            "principal",
            "create",
            "bot",
            "--kind",
            "agent",
            "--role",
            "admin",
        ]));
        self.key = line(&self.owner(&["key", "create", "agent:bot"]));
    }

    fn owner(&self, args: &[&str]) -> Output {
        self.place.run(args)
    }

    fn agent(&self, args: &[&str]) -> Output {
        let mut command = self.place.command(args);
        command.env("COFFERDAM_URL", &self.url);
        command.env("COFFERDAM_TOKEN", &self.key);
        command.output().unwrap()
    }

    /// The job that waits, and its approval.
    fn asks(&self) -> (String, String) {
        let made = self.agent(&["run", "--detach", "--json", "--", "fake", "print=hello"]);
        let made: serde_json::Value = serde_json::from_str(&good(&made)).unwrap();
        assert_eq!(made["state"], "awaiting_approval", "{made}");
        let of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        (of(&made["id"]), of(&made["approval"]["id"]))
    }

    /// A plain `run` of the agent that waits for somebody, with what it says on its standard error from then on; its
    /// job, and the approval of that.
    fn attends(&self, words: &[&str]) -> (Child, BufReader<ChildStderr>, String, String) {
        let line: Vec<&str> = ["run", "--"].iter().chain(words).copied().collect();
        let mut command = self.place.command(&line);
        command.env("COFFERDAM_URL", &self.url);
        command.env("COFFERDAM_TOKEN", &self.key);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        assert!(line.contains("waits for a person"), "{line}");
        let listed = self.place.json(&["approval", "ls", "--json"]);
        // The newest is first.
        let newest = &listed["approvals"][0];
        let of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        (child, told, of(&newest["subject_id"]), of(&newest["id"]))
    }

    fn job(&self, id: &str) -> serde_json::Value {
        self.place.json(&["job", "get", id, "--json"])
    }

    fn is_finished(&self, id: &str) -> bool {
        self.job(id)["state"] == "finished"
    }
}

#[test]
fn an_agent_waits_for_a_yes_that_it_cannot_give_and_the_record_says_who_gave_it() {
    let mut scene = Scene::new();
    let _server = scene.up(&[]);
    scene.prepare();
    let (job, id) = scene.asks();
    let listed = good(&scene.owner(&["approval", "ls"]));
    assert!(
        listed.contains(&id) && listed.contains("agent:bot"),
        "{listed}"
    );
    let shown = good(&scene.agent(&["approval", "show", &id]));
    assert!(shown.contains("`fake print=hello`"), "{shown}");
    for word in ["approve", "reject"] {
        let refused = scene.agent(&["approval", word, &id]);
        assert_eq!(refused.status.code(), Some(125), "{}", all(&refused));
        assert!(
            all(&refused).contains("only people decide"),
            "{}",
            all(&refused)
        );
    }
    let waived = scene.owner(&["approval", "waive", &id]);
    assert_ne!(waived.status.code(), Some(0), "{}", all(&waived));
    assert_eq!(scene.job(&job)["state"], "awaiting_approval");
    let said = scene.owner(&["approval", "approve", &id, "--comment", "read it"]);
    assert_eq!(line(&said), format!("{id}\tapproved"));
    assert!(until(|| scene.is_finished(&job)));
    let ended = scene.job(&job);
    assert_eq!(ended["outcome"]["kind"], "succeeded", "{ended}");
    assert_eq!(ended["approval"]["comment"], "read it");
    assert_eq!(line(&scene.agent(&["job", "logs", &job])), "hello");
    let by = ended["approval"]["approved_by"]
        .as_str()
        .unwrap()
        .to_owned();
    let record = good(&scene.owner(&["audit", "export"]));
    let lines = record
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let approved: Vec<_> = lines
        .filter(|line| line["kind"] == "approval.approved")
        .collect();
    assert_eq!(approved.len(), 1, "{record}");
    assert_eq!(approved[0]["principal"], by.as_str());
    assert!(
        approved[0].to_string().contains("read it"),
        "{}",
        approved[0]
    );
}

#[test]
fn a_rejected_job_never_runs_and_what_the_owner_asks_needs_somebody_else() {
    let mut scene = Scene::new();
    let _server = scene.up(&[]);
    scene.prepare();
    let (job, id) = scene.asks();
    good(&scene.owner(&["approval", "reject", &id, "--comment", "not on a Friday"]));
    assert!(until(|| scene.is_finished(&job)));
    let ended = scene.job(&job);
    assert_eq!(ended["outcome"]["kind"], "canceled", "{ended}");
    assert_eq!(ended["attempt"], 0);
    assert!(
        ended["detail"]
            .as_str()
            .unwrap()
            .contains("not on a Friday"),
        "{ended}"
    );
    let late = scene.owner(&["approval", "approve", &id]);
    assert!(all(&late).contains("approval_over"), "{}", all(&late));
    let own = good(&scene.owner(&["run", "--detach", "--json", "--", "fake", "print=hello"]));
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let own = own["approval"]["id"].as_str().unwrap();
    let refused = scene.owner(&["approval", "approve", own]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        all(&refused).contains("principal create"),
        "{}",
        all(&refused)
    );
    good(&scene.owner(&["principal", "create", "eve", "--role", "operator"]));
    let eve = Scene {
        key: line(&scene.owner(&["key", "create", "user:eve"])),
        ..scene
    };
    good(&eve.agent(&["approval", "waive", own, "--comment", "on call"]));
    let kept = good(&eve.owner(&["approval", "show", own]));
    assert!(
        kept.contains("user:eve") && kept.contains("on call"),
        "{kept}"
    );
}

#[test]
fn a_sandbox_is_made_once_by_the_same_request_after_a_yes() {
    let mut scene = Scene::new();
    let _server = scene.up(&[]);
    scene.prepare();
    let create = || scene.agent(&["sandbox", "create", "--net", "unrestricted"]);
    let refused = create();
    assert_eq!(refused.status.code(), Some(125), "{}", all(&refused));
    let said = all(&refused);
    assert!(said.contains("a person has to say yes: apv_"), "{said}");
    assert!(!said.contains("things are wrong"), "{said}");
    let at = said.find("apv_").unwrap();
    let id = &said[at..at + "apv_".len() + 32];
    good(&scene.owner(&["approval", "approve", id]));
    good(&create());
    assert_eq!(create().status.code(), Some(125));
    let none = scene.agent(&[
        "approval",
        "ask",
        "--sandbox",
        "sbx_0197747bb4007000800000000000dead",
        "--to",
        "pypi.org:443",
    ]);
    let said = all(&none);
    assert!(
        said.contains("there is no sandbox `sbx_0197747bb4007000800000000000dead`"),
        "{said}"
    );
    assert!(said.contains("`cofferdam sandbox ls`"), "{said}");
}

#[test]
fn an_attached_run_that_waits_comes_back_after_a_restart_and_a_job_that_nobody_attends_says_so() {
    let mut scene = Scene::new();
    let server = scene.up(&[]);
    scene.prepare();
    let (run, mut told, job, id) = scene.attends(&["fake", "print=hello", "exit=3"]);
    let (mut gone, _told, left, of_left) = scene.attends(&["fake", "print=hello"]);
    gone.kill().unwrap();
    gone.wait().unwrap();
    drop(server.kill());
    let _server = scene.up(&[]);
    assert_eq!(scene.job(&job)["state"], "awaiting_approval");
    for waiting in [&id, &of_left] {
        good(&scene.owner(&["approval", "approve", waiting]));
    }
    let run = run.wait_with_output().unwrap();
    let mut said = String::new();
    told.read_to_string(&mut said).unwrap();
    assert_eq!(text(&run.stdout).trim_end(), "hello", "{said}");
    assert_eq!(run.status.code(), Some(3), "{said}");
    assert!(said.contains("trying again"), "{said}");
    assert!(until(|| scene.is_finished(&left)));
    let ended = scene.job(&left);
    assert_eq!(ended["outcome"]["kind"], "canceled", "{ended}");
    let detail = ended["detail"].as_str().unwrap();
    assert!(detail.contains("nobody came to its streams"), "{detail}");
    assert!(detail.contains("run --detach"), "{detail}");
}

#[test]
fn a_job_that_waits_without_a_server_says_what_lets_others_come_and_runs_after_their_yes() {
    needs_sandbox!();
    let scene = Scene::new();
    let address = scene.url.trim_start_matches("http://").to_owned();
    let up = || scene.place.up_at_with(&address, &["--spares", "0"], &[]);
    let server = up();
    let rules = "version = 1\nlayer = \"tenant\"\n[commands]\napprove = [\"true\"]\n\
                 unchecked_in_sandboxes = true\n";
    let words = ["policy", "set", "rules", "-"];
    good(&scene.place.run_with_input(&words, rules.as_bytes()));
    good(&scene.owner(&["principal", "create", "eve", "--role", "operator"]));
    let key = line(&scene.owner(&["key", "create", "user:eve"]));
    drop(server.end());
    let made = scene.owner(&["run", "--detach", "--json", "--", "true"]);
    let said = text(&made.stderr);
    assert!(said.contains("start `cofferdam up`"), "{said}");
    let made: serde_json::Value = serde_json::from_str(&good(&made)).unwrap();
    let [job, id] = [&made["id"], &made["approval"]["id"]].map(|one| one.as_str().unwrap());
    // What was started for the job ends by itself, and has the state until then.
    let mut server = None;
    assert!(until(|| {
        let mut next = up();
        until(|| next.has_ended() || TcpStream::connect(&address).is_ok());
        server = (!next.has_ended()).then_some(next);
        server.is_some()
    }));
    assert_eq!(scene.job(job)["state"], "awaiting_approval");
    let eve = Scene { key, ..scene };
    good(&eve.agent(&["approval", "approve", id]));
    assert!(until(|| eve.is_finished(job)));
    let ended = eve.job(job);
    assert_eq!(ended["outcome"]["kind"], "succeeded", "{ended}");
    drop(server);
}

/// As many commits as a server makes from its start to a little behind a yes that is said at once.
const COMMITS: usize = 20;

/// The commits of a server that says a yes, each with its number.
fn points() -> Vec<String> {
    let mut scene = Scene::new();
    let server = scene.up(&[("COFFERDAM_DIE_AT", "trace")]);
    scene.prepare();
    let (job, id) = scene.asks();
    good(&scene.owner(&["approval", "approve", &id]));
    assert!(until(|| scene.is_finished(&job)));
    visited(&server.end().1)
}

#[test]
fn a_server_killed_at_any_commit_around_a_yes_has_said_it_and_queued_the_job_or_neither() {
    let points = points().into_iter();
    let commits = points.filter(|point| point.starts_with("store."));
    let commits: Vec<String> = commits.take(COMMITS).collect();
    assert_eq!(commits.len(), COMMITS, "{commits:?}");
    let mut seen = [0, 0];
    for point in &commits {
        let mut scene = Scene::new();
        let server = scene.up(&[]);
        scene.prepare();
        let (job, id) = scene.asks();
        drop(server.kill());
        // Numbers of points begin anew: the yes is among the first.
        let mut dying = scene.up(&[("COFFERDAM_DIE_AT", point)]);
        drop(scene.owner(&["approval", "approve", &id]));
        until(|| dying.has_ended() || scene.is_finished(&job));
        drop(dying);
        let _server = scene.up(&[]);
        let state = scene.place.json(&["approval", "show", &id, "--json"])["state"].clone();
        match state.as_str() {
            Some("approved") => {
                assert!(
                    until(|| scene.is_finished(&job)),
                    "{point}: {}",
                    scene.job(&job)
                );
                seen[0] += 1;
            }
            Some("pending") => {
                assert_eq!(scene.job(&job)["state"], "awaiting_approval", "{point}");
                seen[1] += 1;
            }
            other => panic!("{point}: {other:?}"),
        }
    }
    println!(
        "killed at {} points: {} said, {} not",
        commits.len(),
        seen[0],
        seen[1]
    );
    assert!(
        seen[0] > 0 && seen[1] > 0,
        "{seen:?}: no yes was said, or each"
    );
}

#[test]
fn a_yes_as_a_rule_says_what_it_has_proposed() {
    let mut scene = Scene::new();
    let _server = scene.up(&[]);
    scene.prepare();
    let (_, id) = scene.asks();
    let said = scene.owner(&["approval", "approve", &id, "--for", "rule"]);
    assert!(good(&said).starts_with(&id), "{}", all(&said));
    let said = all(&said);
    let at = said.find("proposed apv_").unwrap() + "proposed ".len();
    let proposed = &said[at..at + "apv_".len() + 32];
    assert_ne!(proposed, id);
    let shown = good(&scene.owner(&["approval", "show", proposed]));
    assert!(shown.contains("policy") && shown.contains(&id), "{shown}");
}

#[test]
fn the_list_says_what_is_to_be_judged_of_a_sandbox_and_the_record_what_refused_one() {
    let mut scene = Scene::new();
    let _server = scene.up(&[]);
    scene.prepare();
    let create = ["sandbox", "create", "--net", "unrestricted"];
    assert!(!scene.agent(&create).status.success());
    let listed = good(&scene.owner(&["approval", "ls"]));
    assert!(listed.contains(": network_unrestricted"), "{listed}");
    let forbids = RULES.replace("\"needs_approval\"", "\"forbidden\"");
    let set = ["policy", "set", "rules", "-"];
    good(&scene.place.run_with_input(&set, forbids.as_bytes()));
    assert!(!scene.agent(&create).status.success());
    let refused = || good(&scene.owner(&["audit", "ls", "--kind", "policy.refused"]));
    let expect = "sandbox.create approvals.network_unrestricted";
    assert!(until(|| refused().contains(expect)), "{}", refused());
}

/// What a start would refuse, whoever changes a configuration is told before.
#[test]
fn a_key_that_a_start_would_refuse_is_refused_by_config_check_and_named() {
    let place = Place::new();
    let key = place.work().join("key");
    let config = |part: &str| {
        let state = place.state();
        let text = format!("[server]\nstate = \"{}\"\n{part}", state.display());
        std::fs::write(place.work().join("server.toml"), text).unwrap();
        place.run(&["config", "check", "server.toml"])
    };
    let webhook = format!(
        "[server.approvals]\nwebhook = \"https://hooks.example/\"\nwebhook_secret_file = \"{}\"\n",
        key.display()
    );
    let issuer = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"https://id.example\"\naudience = \"cofferdam\"\n\
         algorithms = [\"HS256\"]\nsecret_file = \"{}\"\ntenant = \"default\"\nrole = \"member\"\n",
        key.display()
    );
    let long = "0123456789abcdef".repeat(4);
    // What is left of it when it is cut off would be a good one.
    let too_long = long.repeat(125);
    for (text, mode, is_good) in [
        (Some(&*long), 0o600, true),
        (Some(&*too_long), 0o600, false),
        (None, 0o600, false),
        (Some("short"), 0o600, false),
        (Some(&*long), 0o644, false),
    ] {
        drop(std::fs::remove_file(&key));
        if let Some(text) = text {
            std::fs::write(&key, text).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&key, mode).unwrap();
        }
        for (part, named) in [
            (&webhook, "server.approvals.webhook_secret_file"),
            (&issuer, "issuers.secret_file"),
        ] {
            let checked = config(part);
            if is_good {
                good(&checked);
                continue;
            }
            let said = all(&checked);
            assert_eq!(checked.status.code(), Some(125), "{said}");
            assert!(said.contains(named) && !said.contains(&long), "{said}");
        }
    }
}
