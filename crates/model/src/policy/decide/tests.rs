use super::super::{CommandsClause, DependenciesClause, FilesClause, Layer, NetworkClause, Policy};
use super::*;
use crate::host::Host;
use crate::network::{How, NetworkAsked, Order, RequestAsked};
use crate::profile::{SecretRule, SecretWay};
use crate::secret::SecretHow;
use crate::spec::InputFile;
use proptest::prelude::*;

fn layer(name: &str) -> LayerRef {
    layer_of(Layer::Tenant, name)
}

fn layer_of(layer: Layer, name: &str) -> LayerRef {
    LayerRef {
        layer,
        priority: 0,
        name: name.to_owned(),
        version: 1,
    }
}

fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::new(Layer::Tenant);
    change(&mut policy);
    policy
}

fn permit(change: impl FnOnce(&mut Policy)) -> Permit {
    Permit::of(&layer("a"), &policy(change))
}

fn texts<T: FromIterator<String>>(all: &[&str]) -> T {
    all.iter().map(ToString::to_string).collect()
}

fn rules(allow: &[&str]) -> NetworkRules {
    let allow = texts(allow);
    let asked = NetworkAsked {
        allow,
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).unwrap()
}

fn network(mode: Option<NetworkMode>, allow: Option<&[&str]>) -> NetworkClause {
    let read = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
    NetworkClause {
        mode,
        allow: allow.map(read),
        deny: Vec::new(),
    }
}

const ALL: Says = Says {
    network: true,
    timeout: true,
};
const NOTHING: Says = Says {
    network: false,
    timeout: false,
};

#[test]
fn a_refusal_names_the_layers_that_have_it_and_nothing_where_there_is_none() {
    let mut refusal = Refusal {
        kind: Kind::Refused,
        clause: "resources.pids".to_owned(),
        by: vec![layer("a"), layer("b")],
        why: "at most 5 is allowed".to_owned(),
    };
    let message = refusal.invalid().message;
    assert_eq!(message, "at most 5 is allowed (tenant/0/a@1, tenant/0/b@1)");
    refusal.by.clear();
    assert_eq!(refusal.invalid().message, "at most 5 is allowed");
}

fn told<T>(decision: Decision<T>) -> String {
    let list = |all: Vec<Refusal>| -> String {
        let all = all.iter();
        all.map(|one| format!("{} {}", one.kind.code(), one.clause))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match decision {
        Decision::Allowed(_) => "allowed".to_owned(),
        Decision::Refused(all) | Decision::NeedsApproval(_, all) => list(all),
    }
}

fn job(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = crate::spec::tests::spec();
    change(&mut spec);
    spec
}

fn sandbox(change: impl FnOnce(&mut SandboxSpec)) -> (SandboxSpec, u64) {
    let mut spec = crate::sandbox_spec::tests::spec();
    change(&mut spec);
    (spec, 1000)
}

#[test]
fn a_permit_that_says_nothing_changes_nothing() {
    let spec = job(|s| s.network = NetworkRules::all_or_nothing(true));
    let none = Permit::default();
    assert_eq!(none.job(spec.clone(), ALL), Decision::Allowed(spec));
    let spec = sandbox(|s| s.allow_root = true);
    assert_eq!(none.sandbox(spec.clone(), ALL), Decision::Allowed(spec));
}

#[test]
fn what_asks_for_more_is_refused_with_the_clause_and_what_says_nothing_gets_what_may_be() {
    let rule = permit(|p| {
        p.network = Some(network(None, Some(&["*.a.test:443"])));
        p.resources = [
            (Bound::MemoryBytes, 1 << 20),
            (Bound::Pids, 1000),
            (Bound::TimeoutMs, 500),
        ]
        .into();
    });
    let Decision::Allowed(made) = rule.job(
        job(|s| s.network = NetworkRules::all_or_nothing(true)),
        NOTHING,
    ) else {
        panic!("refused")
    };
    assert_eq!(made.network, rules(&["*.a.test:443"]));
    assert_eq!(made.limits.memory_bytes, Some(1 << 20));
    assert_eq!(made.limits.pids, Some(limits::PIDS_DEFAULT));
    assert_eq!((made.limits.cpu_millis, made.timeout_ms), (None, 500));
    for (change, expect) in [
        (job(|s| s.network = rules(&["x.a.test:443"])), "allowed"),
        (
            job(|s| s.network = rules(&["a.test"])),
            "policy_refused network.allow[0]",
        ),
        (
            job(|s| s.network = NetworkRules::all_or_nothing(true)),
            "policy_refused network.mode",
        ),
        (
            job(|s| s.limits.memory_bytes = Some(1 << 30)),
            "policy_refused resources.memory_bytes",
        ),
    ] {
        assert_eq!(told(rule.job(change, ALL)), expect);
    }
    let refused = rule.job(job(|s| s.network = rules(&["a.test"])), ALL);
    let Decision::Refused(all) = refused else {
        panic!()
    };
    let message = "the policy does not allow `a.test` (tenant/0/a@1)";
    assert_eq!(all[0].invalid().message, message);
}

/// One of each clause that can be looked at in a request.
fn all_clauses() -> Permit {
    permit(|p| {
        p.files = Some(FilesClause {
            put: Some(texts(&["/home/user/in"])),
            take: Some(texts(&["/tmp"])),
            unchecked_in_sandboxes: false,
        });
        p.commands = Some(CommandsClause {
            forbid: texts(&["sudo"]),
            approve: texts(&["git push"]),
            ..CommandsClause::default()
        });
        p.secrets = Some(vec![SecretRule {
            name: "KEY".to_owned(),
            ways: vec![SecretWay::File],
            hosts: Vec::new(),
        }]);
        p.profiles.allow = Some(texts(&["py*"]));
        p.profiles.roots = Some(texts(&["ubuntu"]));
        p.profiles.allow_root = Some(false);
        p.drivers = Some(texts(&["linux"]));
    })
}

/// Attack: Files, commands, profiles and roots are asked for beyond a policy, by `..` among others.
#[test]
fn files_commands_profiles_and_roots_are_held() {
    let file = |path: &str| InputFile {
        path: path.to_owned(),
        digest: "0".repeat(64),
        size_bytes: 1,
        mode: 0o644,
    };
    let rule = all_clauses();
    let py = |change: &dyn Fn(&mut JobSpec)| {
        let spec = job(|s| {
            s.profile = "py".to_owned();
            change(s);
        });
        told(rule.job(spec, ALL))
    };
    assert_eq!(py(&|_| {}), "allowed");
    assert_eq!(
        py(&|s| s.profile = "default".to_owned()),
        "policy_refused profiles.allow"
    );
    assert_eq!(
        py(&|s| s.root = Some("/".to_owned())),
        "policy_refused profiles.roots"
    );
    assert_eq!(py(&|s| s.files = vec![file("in/a")]), "allowed");
    assert_eq!(
        py(&|s| s.files = vec![file("inx/a")]),
        "policy_refused files.put"
    );
    assert_eq!(
        py(&|s| s.files = vec![file("in/../a")]),
        "policy_refused files.put"
    );
    assert_eq!(
        py(&|s| s.outputs = texts(&["out"])),
        "policy_refused files.take"
    );
    assert_eq!(
        py(&|s| s.argv = texts(&["sudo", "ls"])),
        "policy_refused commands"
    );
    assert_eq!(
        py(&|s| s.argv = texts(&["git", "push"])),
        "approval_needed commands"
    );
}

#[test]
fn secrets_drivers_and_what_nobody_checks_in_a_sandbox_are_held() {
    let rule = all_clauses();
    let py = |change: &dyn Fn(&mut JobSpec)| {
        let spec = job(|s| {
            s.profile = "py".to_owned();
            change(s);
        });
        told(rule.job(spec, ALL))
    };
    let secret = |name: &str| SecretUse {
        name: name.to_owned(),
        id: None,
        version: 0,
        how: SecretHow::File,
    };
    assert_eq!(py(&|s| s.secrets = vec![secret("KEY")]), "allowed");
    assert_eq!(
        py(&|s| s.secrets = vec![secret("OTHER")]),
        "policy_refused secrets[0]"
    );
    let on = |s: &mut JobSpec| drop(s.placement.on.insert(DRIVER.to_owned(), "fake".to_owned()));
    assert_eq!(py(&on), "policy_refused drivers");
    let live = sandbox(|s| {
        s.profile = "py".to_owned();
        s.allow_root = true;
    });
    assert_eq!(
        told(rule.sandbox(live, ALL)),
        "policy_refused profiles.allow_root"
    );
    let live = sandbox(|s| s.profile = "py".to_owned());
    let expect = "policy_unenforceable commands, policy_unenforceable files";
    assert_eq!(told(rule.sandbox(live, ALL)), expect);
}

#[test]
fn a_rule_that_nothing_holds_refuses_and_a_matter_waits_for_a_person() {
    let rule = permit(|p| {
        p.dependencies = Some(pip(&["a==1"]));
        p.approvals = [
            (Matter::NetworkUnrestricted, Answer::NeedsApproval),
            (Matter::AllowRoot, Answer::Forbidden),
        ]
        .into();
    });
    let open = || NetworkRules::all_or_nothing(true);
    assert_eq!(told(rule.job(job(|_| {}), ALL)), "allowed");
    let expect = "policy_unenforceable dependencies.pip";
    assert_eq!(told(rule.job(job(|s| s.network = open()), ALL)), expect);
    assert_eq!(told(rule.network((&open(), &[]))), expect);
    let rule =
        permit(|p| p.approvals = rule.approvals.iter().map(|(m, a)| (*m, a.value)).collect());
    let expect = "approval_needed approvals.network_unrestricted";
    assert_eq!(told(rule.job(job(|s| s.network = open()), ALL)), expect);
    let expect = "policy_refused approvals.allow_root";
    assert_eq!(
        told(rule.sandbox(sandbox(|s| s.allow_root = true), ALL)),
        expect
    );
}

#[test]
fn a_list_that_names_everything_is_no_less_than_the_mode() {
    let rule = permit(|p| {
        p.approvals = [(Matter::NetworkUnrestricted, Answer::Forbidden)].into();
    });
    let asks = |network: NetworkRules| told(rule.job(job(|s| s.network = network.clone()), ALL));
    let expect = "policy_refused approvals.network_unrestricted";
    for all in [
        &["*"][..],
        &["a.test", "*:443"],
        &["0.0.0.0/0"],
        &["::/0"],
        &["0.0.0.0/1:80", "128.0.0.0/1"],
    ] {
        assert_eq!(asks(rules(all)), expect, "{all:?}");
        let first = NetworkRules {
            order: Order::AllowFirst,
            ..rules(all)
        };
        assert_eq!(asks(first), expect, "{all:?}");
    }
    for some in [
        &["*.test"][..],
        &["9.0.0.0/8"],
        &["2001:db8::/32", "9.9.0.0/16"],
    ] {
        assert_eq!(asks(rules(some)), "allowed", "{some:?}");
    }
}

#[test]
fn rules_of_a_profile_about_requests_stay_below_a_policy() {
    let rule = permit(|p| p.network = Some(network(None, Some(&["*.a.test"]))));
    let ruled = ruled();
    assert!(!ruled.profile_requests.is_empty());
    let Decision::Allowed(made) = rule.job(job(|s| s.network = ruled.clone()), ALL) else {
        panic!("refused")
    };
    assert_eq!(made.network, ruled);
}

/// What is narrowed by a profile that has rules about requests.
fn ruled() -> NetworkRules {
    let about = |methods: &[&str]| RequestAsked {
        host: "x.a.test".to_owned(),
        methods: texts(methods),
        ..RequestAsked::default()
    };
    let asked = NetworkAsked {
        allow: texts(&["x.a.test:443", "x.a.test:80"]),
        requests: vec![about(&["GET"])],
        profile_requests: vec![about(&["GET", "POST"])],
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).unwrap()
}

#[test]
fn a_person_is_shown_every_pattern_that_is_met_and_where_a_secret_goes() {
    let rule = permit(|p| {
        p.commands = Some(CommandsClause {
            approve: vec!["git push".to_owned(), "npm publish".to_owned()],
            ..CommandsClause::default()
        });
        p.approvals = [
            (Matter::Secrets, Answer::NeedsApproval),
            (Matter::PolicyChange, Answer::NeedsApproval),
        ]
        .into();
    });
    let shown = |spec: JobSpec| match rule.job(spec, ALL) {
        Decision::NeedsApproval(_, all) => all.iter().map(Refusal::reason).collect(),
        Decision::Allowed(_) => Vec::new(),
        Decision::Refused(all) => panic!("{all:?}"),
    };
    assert_eq!(shown(job(|_| {})), Vec::<String>::new());
    let both = job(|s| {
        s.argv = ["sh", "-c", "git push; npm publish"]
            .map(str::to_owned)
            .into()
    });
    assert_eq!(
        shown(both),
        ["commands: a person has to say yes to `git push` and `npm publish`"]
    );
    let one = |var: &str| SecretUse {
        name: "T".to_owned(),
        id: None,
        version: 0,
        how: SecretHow::Env {
            var: var.to_owned(),
        },
    };
    let uses = job(|s| s.secrets = vec![one("A"), one("B")]);
    assert_eq!(
        shown(uses),
        [
            "approvals.secrets: a person has to say yes to the secret `T` as the variable `A`",
            "approvals.secrets: a person has to say yes to the secret `T` as the variable `B`"
        ]
    );
}

fn pip(all: &[&str]) -> DependenciesClause {
    DependenciesClause {
        pip: Some(texts(all)),
        ..DependenciesClause::default()
    }
}

/// Attack: what a list of packages closes is asked for by an address, by everything, or below another layer's list.
#[test]
fn a_list_of_packages_is_in_the_rules_of_whatever_has_a_way_out_or_it_is_refused() {
    let one = permit(|p| p.dependencies = Some(pip(&["Six==1.16.0", "idna==3"])));
    let other = permit(|p| p.dependencies = Some(pip(&["six==1.16", "attrs==1"])));
    let both = one.clone().and(other);
    let made = |permit: &Permit, network: NetworkRules| {
        let decision = permit.job(job(|s| s.network = network), ALL);
        allowed(decision).map(|made| serde_json::to_string(&made.network.dependencies).unwrap())
    };
    let lists = rules(&["pypi.org:443"]);
    assert_eq!(
        made(&one, lists.clone()).as_deref(),
        Some(r#"{"pip":["idna==3","six==1.16"]}"#)
    );
    assert_eq!(
        made(&both, lists.clone()).as_deref(),
        Some(r#"{"pip":["six==1.16"]}"#)
    );
    // Who asks for a list of their own is held to both.
    let mut own = lists;
    own.dependencies = one.dependencies().and(&pip_list("pytest==8"));
    assert_eq!(made(&one, own).as_deref(), Some(r#"{"pip":[]}"#));
    // Without a way out there is nothing to hold.
    assert_eq!(made(&one, NetworkRules::default()).as_deref(), Some("{}"));
    for open in [
        &["*"][..],
        &["*:443"],
        &["a.test", "151.101.0.223"],
        &["10.0.0.0/8:443"],
    ] {
        let expect = "policy_unenforceable dependencies.pip";
        assert_eq!(told(one.job(job(|s| s.network = rules(open)), ALL)), expect);
        assert_eq!(told(one.network((&rules(open), &[]))), expect, "{open:?}");
    }
    // Only where all layers with a list say so.
    let known = permit(|p| {
        p.dependencies = Some(DependenciesClause {
            only_known_indexes: true,
            ..pip(&["six==1.16.0"])
        });
    });
    let all = || NetworkRules::all_or_nothing(true);
    assert_eq!(
        made(&known, all()).as_deref(),
        Some(r#"{"pip":["six==1.16"]}"#)
    );
    assert_eq!(made(&known.and(one), all()), None);
}

fn pip_list(one: &str) -> crate::dependency::Dependencies {
    permit(|p| p.dependencies = Some(pip(&[one]))).dependencies()
}

type Texts = Option<std::collections::BTreeSet<String>>;

/// Some of a few names, so that layers meet.
fn some(all: &'static [&'static str]) -> impl Strategy<Value = Texts> {
    let one = prop::sample::select(all.to_vec()).prop_map(str::to_owned);
    prop::option::of(prop::collection::btree_set(one, 0..3))
}

fn any_network() -> impl Strategy<Value = NetworkClause> {
    let mode = prop::option::of(prop::sample::select(NetworkMode::ALL.to_vec()));
    const ENTRIES: [&str; 7] = [
        "*",
        "*:443",
        "*.a.test",
        "x.a.test",
        "x.a.test:443",
        "b.test",
        "*.b.test:80",
    ];
    let read = |set: std::collections::BTreeSet<String>| -> Vec<_> {
        set.iter().map(|one| one.parse().unwrap()).collect()
    };
    let lists = (some(&ENTRIES), some(&["x.a.test", "9.0.0.0/8"]));
    (mode, lists).prop_map(move |(mode, (allow, deny))| NetworkClause {
        // No document has that mode without a list.
        mode: mode.filter(|mode| *mode != NetworkMode::Allowlist || allow.is_some()),
        allow: allow.map(read),
        deny: deny.map(read).unwrap_or_default(),
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let bound = prop::sample::select(Bound::ALL.to_vec());
    let bounds = prop::collection::btree_map(bound, 1_u64..4, 0..3);
    let matter = prop::sample::select(Matter::ALL.to_vec());
    let answer = prop::sample::select(vec![Answer::Skip, Answer::NeedsApproval, Answer::Forbidden]);
    let approvals = prop::collection::btree_map(matter, answer, 0..2);
    let names = (
        some(&["default", "d*", "py", "p*"]),
        some(&["ubuntu", "*"]),
        any::<Option<bool>>(),
    );
    let paths = (
        some(&["/", "/tmp", "/tmp/a", "/home/user"]),
        some(&["/tmp", "/home/user/out"]),
    );
    let others = (
        some(&["linux", "microvm"]),
        some(&["a==1", "a==2"]),
        some(&["ls", "sudo", "git push"]),
        any::<bool>(),
    );
    (any_network(), (bounds, approvals), names, paths, others).prop_map(
        |(network, (bounds, approvals), names, paths, others)| {
            policy(|p| {
                p.network = Some(network);
                (p.resources, p.approvals) = (bounds, approvals);
                (p.profiles.allow, p.profiles.roots, p.profiles.allow_root) = names;
                p.files = Some(FilesClause {
                    put: paths.0,
                    take: paths.1,
                    unchecked_in_sandboxes: others.3,
                });
                p.drivers = others.0;
                p.dependencies = others.1.map(|set| DependenciesClause {
                    pip: Some(set),
                    ..DependenciesClause::default()
                });
                p.commands = others.2.map(|set| CommandsClause {
                    forbid: set.into_iter().collect(),
                    unchecked_in_sandboxes: others.3,
                    ..CommandsClause::default()
                });
            })
        },
    )
}

fn any_job() -> impl Strategy<Value = JobSpec> {
    let network = prop::sample::select(vec![
        NetworkRules::default(),
        NetworkRules::all_or_nothing(true),
        rules(&["x.a.test:443"]),
        rules(&["*.a.test"]),
        rules(&["b.test", "*.b.test:80"]),
        rules(&["*"]),
        rules(&["b.test", "*:443"]),
        ruled(),
    ]);
    let argv = prop::sample::select(vec!["ls", "sudo ls", "git push", "sh"]);
    let path = prop::option::of(prop::sample::select(vec![
        "a", "/tmp/a/b", "/tmp/c", "out/x",
    ]));
    let profile = prop::sample::select(vec!["default", "py"]);
    (network, argv, path, profile, prop::option::of(1_u64..5)).prop_map(
        |(network, argv, path, profile, memory)| {
            job(|s| {
                s.network = network;
                s.argv = argv.split(' ').map(str::to_owned).collect();
                s.outputs = path.into_iter().map(str::to_owned).collect();
                s.profile = profile.to_owned();
                s.limits.memory_bytes = memory;
                s.root = (memory == Some(1)).then(|| "ubuntu".to_owned());
            })
        },
    )
}

/// One that says something of a sandbox, or of all that lets sandboxes through.
fn any_of_sandboxes() -> impl Strategy<Value = Policy> {
    prop_oneof![
        2 => Just(policy(|_| {})),
        1 => any_policy(),
        1 => (any_network(), 1_u64..5, some(&["linux", "microvm"])).prop_map(|(network, most, drivers)| {
            policy(|p| {
                p.network = Some(network);
                p.resources = [(Bound::MemoryBytes, most), (Bound::TimeoutMs, most)].into();
                p.drivers = drivers;
            })
        }),
    ]
}

fn any_sandbox() -> impl Strategy<Value = (SandboxSpec, u64)> {
    (any_job(), any::<bool>(), 1_u64..9).prop_map(|(like, allow_root, ttl_ms)| {
        let (spec, _) = sandbox(|s| {
            s.network = like.network;
            s.profile = like.profile;
            s.limits = like.limits;
            s.allow_root = allow_root;
        });
        (spec, ttl_ms)
    })
}

fn allowed<T>(decision: Decision<T>) -> Option<T> {
    match decision {
        Decision::Allowed(made) => Some(made),
        Decision::Refused(_) | Decision::NeedsApproval(..) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Attack: A layer is put before another, or is there twice, to mean more.
    #[test]
    fn layers_in_any_order_and_as_often_as_one_likes_are_one_permit(
        policies in prop::collection::vec(any_policy(), 4),
        order in Just(vec![0_usize, 1, 2, 3, 3, 0]).prop_shuffle(),
    ) {
        let all: Vec<(LayerRef, Policy)> = Layer::ALL.into_iter()
            .zip(policies)
            .map(|(of, one)| (layer_of(of, "a"), one))
            .collect();
        let each: Vec<Permit> = all.iter().map(|(of, one)| Permit::of(of, one)).collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(|at: usize| each[at].clone());
        let and = |one: &Permit, other: &Permit| one.clone().and(other.clone());
        prop_assert_eq!(and(&a, &b), and(&b, &a));
        prop_assert_eq!(and(&and(&a, &b), &c), and(&a, &and(&b, &c)));
        prop_assert_eq!(and(&and(&a, &b), &and(&c, &d)), Permit::merge(&all));
        let others: Vec<&(LayerRef, Policy)> = order.iter().map(|at| &all[*at]).collect();
        prop_assert_eq!(Permit::merge(others), Permit::merge(&all));
        prop_assert_eq!(&and(&a, &a), &a);
        prop_assert_eq!(&and(&a, &Permit::default()), &a);
        let text = serde_json::to_string(&and(&a, &b)).unwrap();
        prop_assert_eq!(serde_json::from_str::<Permit>(&text).unwrap(), and(&a, &b));
    }

    /// Attack: A second volume, or a layer above that of a volume, lets a sandbox through that this one would not.
    #[test]
    fn of_four_layers_none_lets_a_sandbox_through_that_another_would_not(
        policies in prop::collection::vec(any_of_sandboxes(), 5), asked in any_sandbox(), said in any::<bool>(),
    ) {
        let says = Says { network: said, timeout: true };
        let of_two = Layer::ALL.into_iter().zip(["a"; 4]).chain([(Layer::Volume, "b")]);
        let all: Vec<(LayerRef, Policy)> =
            of_two.zip(policies).map(|((of, name), one)| (layer_of(of, name), one)).collect();
        let Some(made) = allowed(Permit::merge(&all).sandbox(asked.clone(), says)) else {
            return Ok(());
        };
        for (of, one) in &all {
            let alone = Permit::of(of, one);
            prop_assert_eq!(allowed(alone.sandbox(made.clone(), ALL)), Some(made.clone()), "{}", of);
        }
        prop_assert!(made.1 <= asked.1);
        prop_assert!(!said || asked.0.network.has_way_out() || !made.0.network.has_way_out());
    }

    /// Attack: One layer widens, by each of its clauses, what another allows.
    #[test]
    fn nothing_is_allowed_by_two_that_one_of_them_would_not(
        one in any_policy(), other in any_policy(), spec in any_job(), said in any::<bool>(),
    ) {
        let says = Says { network: said, timeout: true };
        let (a, b) = (Permit::of(&layer("a"), &one), Permit::of(&layer("b"), &other));
        let Some(made) = allowed(a.clone().and(b.clone()).job(spec.clone(), says)) else {
            return Ok(());
        };
        for alone in [&a, &b] {
            // What was made is within each of them, and stays as it is where it is decided once more.
            prop_assert_eq!(allowed(alone.job(made.clone(), ALL)), Some(made.clone()));
        }
        let both = a.and(b);
        prop_assert_eq!(allowed(both.job(made.clone(), ALL)), Some(made.clone()));
        if said {
            let lesser = |made: Option<u64>, asked: Option<u64>| {
                asked.is_none_or(|asked| made.is_some_and(|made| made <= asked))
            };
            prop_assert!(lesser(made.limits.memory_bytes, spec.limits.memory_bytes));
            prop_assert!(spec.network.has_way_out() || !made.network.has_way_out());
        }
        prop_assert!(made.timeout_ms <= spec.timeout_ms);
        let says = [&one, &other].into_iter().filter_map(|policy| {
            policy.approvals.get(&Matter::NetworkUnrestricted)
        });
        if says.into_iter().any(|answer| *answer != Answer::Skip) {
            // By what leaves, and not by how it is written: a host that nobody has named is not reached.
            let host = Host::Name("nobody-named-this.example".to_owned());
            for port in [80, 443, 9999] {
                prop_assert!(!made.network.before(How::Tunnel, &host, port).is_allowed());
            }
        }
    }
}
