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
        given: None,
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
        no_volumes: None,
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
        volumes: Vec::new(),
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
fn a_memory_limit_that_was_named_is_not_made_larger_by_a_storage_that_was_not() {
    let memory = |memory_bytes: Option<u64>| {
        let limits = AskedLimits {
            memory_bytes,
            ..AskedLimits::default()
        };
        let spec = Spec {
            root: Some(given()),
            mode: Mode::Live { allow_root: true },
            ..spec(limits)
        };
        let plan = plan(&spec, &host(), Path::new("/state")).unwrap();
        let PlanBody::Linux(body) = plan.body else {
            panic!("linux")
        };
        (body.groups[0].writes[0].1.clone(), body.sandbox.data.bytes)
    };
    let (asked, default) = (64u64 << 20, defaults::MEMORY_DEFAULT_BYTES);
    assert_eq!(memory(Some(asked)), (asked.to_string(), asked / 2));
    let (group, storage) = memory(None);
    assert_eq!(group, (default + storage).to_string());
    assert!(storage > default / 2);
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

fn given() -> Root {
    Root {
        path: "/srv/bookworm".into(),
        is_host: false,
        given: Some(crate::root::Given {
            name: "debian:bookworm".parse().unwrap(),
            identity: "00ff".to_owned(),
            passwd: "root:x:0:0::/root:/bin/sh\n".to_owned(),
            group: "root:x:0:\n".to_owned(),
            shadow: String::new(),
            has_nsswitch: true,
            has_local_bin: true,
            has_root_home: true,
            no_overlay: None,
        }),
        ..host().root
    }
}

fn plan_on(root: Root, host: &Host, mode: Mode) -> (Enforced, LinuxPlan, Confine) {
    let spec = Spec {
        root: Some(root),
        mode,
        ..spec(AskedLimits::default())
    };
    let plan = plan(&spec, host, Path::new("/state")).unwrap();
    let PlanBody::Linux(body) = plan.body else {
        panic!("linux")
    };
    let clause = plan.enforced.into_iter().find(|one| one.clause == "root");
    (clause.unwrap(), *body, plan.confine)
}

#[test]
fn the_plan_of_a_root_that_was_given_is_as_reviewed() {
    let mode = Mode::Live { allow_root: true };
    let (clause, body, _) = plan_on(given(), &host(), mode);
    insta::assert_debug_snapshot!((clause, &body.tree.ops, &body.sandbox.root));
}

#[test]
fn all_sandboxes_on_a_root_that_was_given_share_a_launcher_where_it_can_be_below_an_overlay() {
    let modes = [
        Mode::Job,
        Mode::Live { allow_root: false },
        Mode::Live { allow_root: true },
    ];
    let plans = modes.map(|mode| plan_on(given(), &host(), mode));
    assert!(
        plans
            .iter()
            .all(|(_, body, _)| body.launcher == plans[0].1.launcher)
    );
    assert!(
        plans
            .iter()
            .all(|(_, body, _)| body.tree == plans[0].1.tree)
    );
    // Who cannot be root inside writes where nothing of the root is.
    let writes = plans.each_ref().map(|(_, _, confine)| {
        let landlock = confine.landlock.as_ref().unwrap();
        landlock.write.iter().any(|path| path == "/")
    });
    assert_eq!(writes, [false, false, true]);
    let mut other = given();
    other.given.as_mut().unwrap().identity = "01".to_owned();
    assert_ne!(
        plan_on(other, &host(), Mode::Job).1.launcher,
        plans[0].1.launcher
    );
    let mut bare = given();
    bare.given.as_mut().unwrap().no_overlay = Some("its file system".to_owned());
    let (clause, body, _) = plan_on(bare.clone(), &host(), Mode::Live { allow_root: true });
    assert!(body.sandbox.root.is_none());
    assert_eq!(
        clause.value.as_deref(),
        Some("debian:bookworm 00ff; cannot be written: its file system")
    );
    assert_eq!(plan_on(bare, &host(), Mode::Job).0.how, READ);
}

#[test]
fn the_resolver_of_a_sandbox_is_the_one_on_its_device() {
    let expect = format!("nameserver {}\n", guest::message::TUN_DNS);
    assert_eq!(crate::linux::tree::RESOLVER, expect);
}

#[test]
fn a_way_out_is_a_device_where_there_can_be_one_and_said_where_not() {
    let out = Spec {
        way_out: true,
        mode: Mode::Live { allow_root: false },
        ..spec(AskedLimits::default())
    };
    let mut host = host();
    let how = |plan: &Plan| {
        let mut clauses = plan.enforced.iter();
        let network = clauses.find(|one| one.clause == "network");
        network.unwrap().how.clone()
    };
    let tun = |plan: &Plan| match &plan.body {
        PlanBody::Linux(body) => body.sandbox.tun.clone(),
        PlanBody::Fake => None,
    };
    let with = plan(&out, &host, Path::new("/state")).unwrap();
    assert_eq!(how(&with), "network namespace, TUN device, DNS inside");
    assert_eq!(tun(&with).unwrap().address, TUN_ADDRESS);
    host.no_tun = Some("no driver".to_owned());
    let without = plan(&out, &host, Path::new("/state")).unwrap();
    let expect = "network namespace, only for programs that know a proxy (no driver)";
    assert_eq!((how(&without), tun(&without)), (expect.to_owned(), None));
}

#[test]
fn the_plan_of_a_sandbox_has_its_volumes_or_there_is_none() {
    let volume = |name: &str, target: &str, read_only: bool| Volume {
        image: format!("/state/volumes/{name}.ext4").into(),
        is_new: !read_only,
        size_bytes: 1 << 30,
        target: target.to_owned(),
        read_only,
    };
    let mut spec = spec(AskedLimits::default());
    spec.mode = Mode::Live { allow_root: true };
    spec.volumes = vec![
        volume("one", "/data", false),
        volume("two", "/mnt/read", true),
    ];
    let made = plan(&spec, &host(), Path::new("/state")).unwrap();
    let PlanBody::Linux(body) = &made.body else {
        panic!("linux")
    };
    assert_eq!(body.sandbox.volumes, ["/data", "/mnt/read"]);
    assert_eq!(body.volumes, spec.volumes);
    let held = made.enforced.iter().filter(|one| one.clause == "volume");
    let held: Vec<_> = held.map(|one| (one.asked, &*one.how)).collect();
    let expected = [
        (true, "a file system of its own"),
        (true, "a file system of its own, read-only"),
    ];
    assert_eq!(held, expected);
    // What cannot be held is refused, and nothing weaker is made.
    let refused = |spec: &Spec, host: &Host| {
        let refused = plan(spec, host, Path::new("/state")).err();
        let refused = refused.unwrap_or_default();
        refused
            .into_iter()
            .map(|one| format!("{}: {}", one.clause, one.why))
            .collect::<Vec<_>>()
    };
    let none = Host {
        no_volumes: Some("no loop devices".to_owned()),
        ..host()
    };
    assert_eq!(refused(&spec, &none), ["volumes: no loop devices"]);
    let read = Host {
        no_writable_root: Some("old".to_owned()),
        ..host()
    };
    assert_eq!(
        refused(&spec, &read),
        ["volumes: its root cannot be written: old"]
    );
    spec.mode = Mode::Live { allow_root: false };
    assert_eq!(refused(&spec, &host()).len(), 1);
}
