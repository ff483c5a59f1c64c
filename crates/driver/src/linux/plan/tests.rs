use super::*;
use model::spec::AskedLimits;
use std::collections::BTreeMap;
use std::time::Duration;

fn host() -> Host {
    use crate::host::Entry;
    let root = Root {
        path: "/".into(),
        is_host: true,
        top: BTreeMap::from([
            ("bin".to_owned(), Entry::Link("usr/bin".to_owned())),
            ("usr".to_owned(), Entry::Directory),
        ]),
        etc: BTreeMap::from([("ssl".to_owned(), Entry::Directory)]),
        etc_more: BTreeMap::from([("shells".to_owned(), Entry::File)]),
        var: vec!["lib/dpkg".to_owned()],
        users: vec!["man:x:6:12:man:/var/cache/man:/usr/sbin/nologin".to_owned()],
        groups: vec!["man:x:12:".to_owned(), "sudo:x:27:".to_owned()],
        is_one_file_system: true,
        lacks_python: false,
    };
    let dir = |name: &str| {
        (
            name.to_owned(),
            PathBuf::from(format!("/cg/{name}/cofferdam")),
        )
    };
    Host {
        uid: 0,
        gid: 0,
        ids: Ids::Root,
        cgroups: Cgroups::V1 {
            controllers: [dir("memory"), dir("pids"), dir("cpu")].into(),
        },
        landlock_abi: 6,
        no_user_namespaces: None,
        no_writable_root: None,
        no_tun: None,
        memory_bytes: 8 << 30,
        cpus: 2,
        open_files_max: 20_000,
        root,
        devices: vec!["null".to_owned()],
    }
}

fn spec(limits: AskedLimits) -> Spec {
    let id = SandboxId::from_parts(0, [0; 10]);
    Spec {
        id,
        root: None,
        limits,
        life: Duration::from_secs(60),
        mode: Mode::Job,
        way_out: false,
        layers: Vec::new(),
    }
}

fn clauses(host: &Host, limits: AskedLimits) -> Vec<String> {
    let refused = plan(&spec(limits), host, Path::new("/state"))
        .err()
        .unwrap_or_default();
    refused.into_iter().map(|each| each.clause).collect()
}

#[test]
fn the_plan_of_a_default_sandbox_is_as_reviewed() {
    let mut plan = plan(&spec(AskedLimits::default()), &host(), Path::new("/state")).unwrap();
    plan.confine.seccomp.clear(); // Tested where it is compiled.
    insta::assert_debug_snapshot!(plan);
}

#[test]
fn a_limit_that_was_asked_for_and_cannot_be_held_is_refused_with_all_others() {
    let none = Host {
        cgroups: Cgroups::None {
            why: "none".to_owned(),
        },
        ..host()
    };
    let asked = AskedLimits {
        cpu_millis: Some(500),
        memory_bytes: Some(1 << 20),
        pids: Some(5),
        disk_bytes: Some(1 << 20),
    };
    assert_eq!(clauses(&none, asked), ["memory", "cpu"]);
    assert!(clauses(&none, AskedLimits::default()).is_empty());
    assert!(clauses(&host(), asked).is_empty());
}

#[test]
fn what_was_not_asked_for_and_is_not_held_is_said() {
    let none = Host {
        cgroups: Cgroups::None {
            why: "none".to_owned(),
        },
        ..host()
    };
    let plan = plan(&spec(AskedLimits::default()), &none, Path::new("/state")).unwrap();
    let not_held: Vec<_> = plan
        .enforced
        .iter()
        .filter(|e| e.state == Held::NotHeld)
        .map(|e| &*e.clause)
        .collect();
    assert_eq!(not_held, ["memory", "cpu"]);
}

#[test]
fn a_limit_beyond_the_machine_is_refused() {
    let limits = |memory: u64, disk: u64, cpu: u32| AskedLimits {
        memory_bytes: (memory > 0).then_some(memory),
        disk_bytes: (disk > 0).then_some(disk),
        cpu_millis: (cpu > 0).then_some(cpu),
        pids: None,
    };
    assert_eq!(clauses(&host(), limits(9 << 30, 0, 0)), ["memory"]);
    assert_eq!(clauses(&host(), limits(0, 9 << 30, 0)), ["disk"]);
    assert_eq!(clauses(&host(), limits(0, 0, 3000)), ["cpu"]);
}

#[test]
fn without_user_namespaces_there_is_no_plan() {
    let closed = Host {
        no_user_namespaces: Some("closed".to_owned()),
        ..host()
    };
    assert_eq!(clauses(&closed, AskedLimits::default()), ["namespaces"]);
}

#[test]
fn memory_and_disk_are_added_up_when_both_were_asked_for_and_shared_when_not() {
    let memory = |limits: AskedLimits| {
        let plan = plan(&spec(limits), &host(), Path::new("/state")).unwrap();
        let PlanBody::Linux(body) = plan.body else {
            panic!("linux")
        };
        (body.groups[0].writes[0].1.clone(), body.sandbox.data.bytes)
    };
    let mut asked = AskedLimits {
        memory_bytes: Some(64 << 20),
        ..AskedLimits::default()
    };
    assert_eq!(memory(asked), ((64u64 << 20).to_string(), 32 << 20));
    asked.disk_bytes = Some(100 << 20);
    assert_eq!(memory(asked), ((164u64 << 20).to_string(), 100 << 20));
}

#[test]
fn launchers_are_shared_by_root() {
    let other = Root {
        path: "/srv/image".into(),
        is_host: false,
        ..host().root
    };
    assert_eq!(launcher_name(&host().root, Kind::Job), "launcher-host.sock");
    assert_ne!(
        launcher_name(&other, Kind::Job),
        launcher_name(&host().root, Kind::Job)
    );
    assert_eq!(
        launcher_name(&other, Kind::Job),
        launcher_name(&other.clone(), Kind::Job)
    );
}
