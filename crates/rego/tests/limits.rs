//! Modules that decide, and modules that do harm.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use model::network::{NetworkAsked, NetworkRules};
use model::policy::{
    Bound, CommandsClause, Decision, Layer, LayerRef, NetworkClause, Permit, Policy,
};
use model::profile::Says;
use model::spec::{AskedLimits, JobSpec, Retry};
use rego::{Checked, Evaluator, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn evaluator() -> Evaluator {
    Evaluator::new(env!("CARGO_BIN_EXE_rego").into(), None)
}

fn deny(why: &str) -> Verdict {
    Verdict::Deny(why.to_owned())
}

async fn says(module: &str, input: Value) -> Verdict {
    evaluator().evaluate("ten_a", module, input).await
}

const SMALL: &str = "package policy\n\ndefault allow := false\n\nallow if input.argv[0] == \"ls\"\n\nreason := \"only ls\" if not allow\n";

/// Attack: A module says yes with something that is not `true`.
#[tokio::test]
async fn only_a_plain_true_is_a_yes() {
    let asks = evaluator();
    let says = async |module: &str| {
        asks.evaluate("ten_a", module, json!({"argv": ["ls"]}))
            .await
    };
    assert_eq!(says(SMALL).await, Verdict::Allow);
    assert_eq!(
        asks.evaluate("ten_a", SMALL, json!({"argv": ["rm"]})).await,
        deny("only ls")
    );
    assert_eq!(
        says("package policy\nallow if input.x").await,
        deny("no decision")
    );
    assert_eq!(says("package policy\nallow := false").await, deny("denied"));
    let other = deny("its `allow` is neither true nor false");
    assert_eq!(says("package policy\nallow := \"true\"").await, other);
    assert_eq!(
        says("package policy\nallow := {\"allow\": true}").await,
        other
    );
}

#[tokio::test]
async fn a_module_that_cannot_be_read_is_refused_with_its_place() {
    let asks = evaluator();
    assert_eq!(asks.check("ten_a", SMALL).await, Checked::Good);
    let wrong = async |module: &str| match asks.check("ten_a", module).await {
        Checked::Bad(why) => why,
        other @ (Checked::Good | Checked::Busy) => panic!("{other:?}"),
    };
    let why = wrong("package policy\n\nallow if {\n").await;
    assert!(
        why.contains("module:4") || why.contains("module:3"),
        "{why}"
    );
    let why = wrong("package other\nallow := true").await;
    assert_eq!(why, "the package is `policy` and not `other`");
    wrong("package policy\nother := true").await;
    let why = wrong("package policy\nallow if http.send({})").await;
    assert!(why.contains("http.send"), "{why}");
    let deep = format!(
        "package policy\nallow := {}1{}",
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    wrong(&deep).await;
}

/// Attack: a module that never ends holds up every create.
#[tokio::test]
async fn a_module_that_loops_is_stopped_and_counts_as_a_deny() {
    let slow = "package policy\nallow if {\n  some a in numbers.range(1, 3000)\n  some b in numbers.range(1, 3000)\n  \
                some c in numbers.range(1, 3000)\n  a + b + c == 0\n}\n";
    let asks = evaluator();
    let begun = Instant::now();
    assert_eq!(
        asks.evaluate("ten_a", slow, json!({})).await,
        Verdict::Stopped
    );
    // Not asked again for a while, and others are not held up.
    assert_eq!(
        asks.evaluate("ten_a", slow, json!({})).await,
        Verdict::Rests
    );
    assert_eq!(
        asks.evaluate("ten_a", SMALL, json!({"argv": ["ls"]})).await,
        Verdict::Allow
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Attack: a module that asks for more memory than the server has ends the server.
#[tokio::test]
async fn a_module_that_eats_memory_is_stopped_and_ends_nobody_else() {
    let one_call = "package policy\nallow if count(numbers.range(1, 1000000000)) == 0";
    assert_eq!(says(one_call, json!({})).await, Verdict::Stopped);
    let twice = |n: u32| format!("x{n} := array.concat(x{0}, x{0})\n", n - 1);
    let lines: String = (1..40).map(twice).collect();
    let doubling = format!(
        "package policy\nx0 := [1, 2, 3, 4, 5, 6, 7, 8]\n{lines}allow if count(x39) == 0\n"
    );
    let asks = evaluator();
    assert_eq!(
        asks.evaluate("ten_a", &doubling, json!({})).await,
        Verdict::Stopped
    );
    assert_eq!(
        asks.evaluate("ten_a", SMALL, json!({"argv": ["ls"]})).await,
        Verdict::Allow
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_denies() {
    let asks = Evaluator::new("/nonexistent/rego".into(), None);
    assert_eq!(
        asks.evaluate("ten_a", SMALL, json!({})).await,
        Verdict::Stopped
    );
    assert!(matches!(asks.check("ten_a", SMALL).await, Checked::Bad(_)));
}

/// A module that takes as long as it may each time, and is another one than all others.
fn slow(number: usize) -> String {
    format!("package policy\n# {number}\nallow if count(numbers.range(1, 1000000000)) == {number}")
}

/// Attack: one tenant's modules, each of which ends the child, hold up the decisions of all others.
#[tokio::test]
async fn the_questions_of_one_tenant_hold_up_no_other() {
    let asks = Arc::new(evaluator());
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..1100 {
        let asks = Arc::clone(&asks);
        flood.spawn(async move { asks.evaluate("ten_a", &slow(number), json!({})).await });
    }
    // All of them have asked: those that may not wait have their answer.
    let mut busy = 0;
    while busy < 60 {
        assert_eq!(flood.join_next().await.unwrap().unwrap(), Verdict::Busy);
        busy += 1;
    }
    let begun = Instant::now();
    let theirs = asks.evaluate("ten_b", SMALL, json!({"argv": ["ls"]}));
    assert_eq!(theirs.await, Verdict::Allow);
    // Behind one question, and not behind all.
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    flood.join_all().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "nobody waits for ever"
    );
}

/// Attack: writing a module that cannot be read in its time, again and again, is a process each time.
#[tokio::test]
async fn a_module_that_is_stopped_while_it_is_checked_rests_too() {
    let asks = Evaluator::new("/nonexistent/rego".into(), None);
    assert!(matches!(asks.check("ten_a", SMALL).await, Checked::Bad(_)));
    assert!(matches!(asks.check("ten_a", SMALL).await, Checked::Bad(_)));
    let verdict = asks.evaluate("ten_a", SMALL, json!({})).await;
    assert_eq!(verdict, Verdict::Rests);
}

/// A module that takes as long as the request is long, squared.
const QUADRATIC: &str = "package policy\n\ndefault allow := false\n\n\
                         allow if count([1 | some a in input.argv; some b in input.argv; a == b]) > 0\n";

/// An evaluator of which [`QUADRATIC`] was stopped by a long question of `ten_a`.
async fn stopped() -> Evaluator {
    let asks = evaluator();
    let long: Vec<String> = (0..5000).map(|n| format!("word-{n}")).collect();
    let long = json!({"argv": long});
    let said = asks.evaluate("ten_a", QUADRATIC, long).await;
    assert_eq!(said, Verdict::Stopped);
    asks
}

/// Attack: a long request that is legal stops a module for everybody, and so ends what others wait for.
#[tokio::test]
async fn a_question_that_stops_a_module_does_so_for_its_own_tenant_alone() {
    let asks = stopped().await;
    let short = json!({"argv": ["ls"]});
    assert_eq!(
        asks.evaluate("ten_b", QUADRATIC, short.clone()).await,
        Verdict::Allow
    );
    // It says so, because this question was never asked.
    assert_eq!(
        asks.evaluate("ten_a", QUADRATIC, short).await,
        Verdict::Rests
    );
}

/// Whoever looks for what is wrong with it writes it again, and to be told that it cannot be read would be false.
#[tokio::test]
async fn a_module_that_was_stopped_by_a_question_can_be_read_while_it_rests() {
    let asks = stopped().await;
    let short = json!({"argv": ["ls"]});
    assert!(asks.rests("ten_a", QUADRATIC));
    assert!(!asks.rests("ten_b", QUADRATIC));
    assert_eq!(asks.check("ten_a", QUADRATIC).await, Checked::Good);
    // That it was read ends no rest.
    assert_eq!(
        asks.evaluate("ten_a", QUADRATIC, short).await,
        Verdict::Rests
    );
}

#[tokio::test]
async fn a_burst_of_questions_that_take_a_moment_is_answered() {
    let asks = Arc::new(evaluator());
    let mut burst = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let asks = Arc::clone(&asks);
        burst.spawn(async move { asks.evaluate("ten_a", SMALL, json!({"argv": ["ls"]})).await });
    }
    let said = burst.join_all().await;
    assert!(said.iter().all(|said| *said == Verdict::Allow), "{said:?}");
}

/// What a whole decision costs: twenty layers that were put together before, and one module.
#[tokio::test]
async fn a_decision_by_twenty_layers_and_a_module_takes_little_time() {
    let asks = evaluator();
    let layers: Vec<(LayerRef, Policy)> = (0..20).map(layer).collect();
    let permit = Permit::merge(&layers);
    let mut took = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        let Decision::Allowed(made) = permit.job(job(), SAYS) else {
            panic!("refused")
        };
        let network: Vec<String> = made.network.allow.iter().map(ToString::to_string).collect();
        let input =
            json!({"operation": "job.create", "request": {"argv": made.argv, "allow": network}});
        let module = SMALL.replace("input.argv", "input.request.argv");
        assert_eq!(asks.evaluate("ten_a", &module, input).await, Verdict::Allow);
        took.push(begun.elapsed());
    }
    took.sort();
    println!(
        "20 layers and a module: p50 {:?}, p99 {:?}",
        took[150], took[297]
    );
    // Measured: some milliseconds in a test build. A machine that is busy with others takes longer, and never so long.
    assert!(took[150] < Duration::from_millis(500), "{:?}", took[150]);
}

const SAYS: Says = Says {
    network: true,
    timeout: true,
};

fn layer(number: u16) -> (LayerRef, Policy) {
    let named = LayerRef {
        layer: Layer::Tenant,
        priority: number,
        name: format!("layer-{number}"),
        version: 1,
    };
    let allow = ["*.a.test:443", "x.a.test", "b.test:443", "*.c.test"];
    let policy = Policy {
        network: Some(NetworkClause {
            allow: Some(allow.map(|one| one.parse().unwrap()).to_vec()),
            ..NetworkClause::default()
        }),
        commands: Some(CommandsClause {
            forbid: ["sudo", "mkfs*", "rm -rf /*"].map(str::to_owned).to_vec(),
            ..CommandsClause::default()
        }),
        resources: [(Bound::MemoryBytes, (2 << 30) + u64::from(number))].into(),
        ..Policy::new(Layer::Tenant)
    };
    (named, policy)
}

fn job() -> JobSpec {
    let network = NetworkRules::read(&NetworkAsked {
        allow: vec!["x.a.test:443".to_owned(), "b.test:443".to_owned()],
        ..NetworkAsked::default()
    });
    JobSpec {
        profile: "default".to_owned(),
        argv: ["ls", "-l", "/tmp"].map(str::to_owned).to_vec(),
        env: std::collections::BTreeMap::new(),
        cwd: None,
        root: None,
        timeout_ms: 1000,
        limits: AskedLimits::default(),
        files: Vec::new(),
        outputs: Vec::new(),
        attach: false,
        retry: Retry { max_attempts: 1 },
        queue_timeout_ms: None,
        node: None,
        placement: model::place::Placement::default(),
        secrets: Vec::new(),
        scrub_patterns: false,
        network: network.unwrap(),
        made_by: None,
        permit: None,
    }
}
