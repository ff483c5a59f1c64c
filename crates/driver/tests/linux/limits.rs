//! Memory, processes and processor time: held when asked for, or refused; never only believed in.

use crate::outside::{has_controller, times_throttled, without_controller};
use crate::probe;
use crate::world::{DEFAULTS, World, say, text, until};
use driver::conformance::{command, spec};
use driver::driver::Driver as _;
use driver::guest::message::ToGuest;
use driver::host::{Cgroups, Host};
use driver::linux::Linger;
use model::enforcement::Held;
use model::spec::AskedLimits;

const MIB: u64 = 1 << 20;

/// The plan's word for a limit: refused when it is asked for, and said not to be held when it is not.
fn is_refused_and_said(world: &World, clause: &str, asked: AskedLimits) {
    let refused = world.linux.plan(&spec(asked), &world.host).err();
    let clauses = refused.unwrap_or_default();
    let clauses: Vec<&str> = clauses.iter().map(|each| &*each.clause).collect();
    assert_eq!(clauses, [clause]);
    let plan = world
        .linux
        .plan(&spec(DEFAULTS), &world.host)
        .expect("a plan");
    let said = plan.enforced.iter().find(|each| each.clause == clause);
    let said = said.expect("a word about it");
    assert_eq!((said.state, said.asked), (Held::NotHeld, false), "{said:?}");
}

/// Attack: A memory bomb.
#[tokio::test]
async fn memory_beyond_the_limit_ends_the_command_and_is_told() {
    let world = world!();
    let limits = AskedLimits {
        memory_bytes: Some(48 * MIB),
        ..DEFAULTS
    };
    if !has_controller(&world.host, "memory") {
        return is_refused_and_said(&world, "memory", limits);
    }
    let mut prepared = world.sandbox(limits).await;
    // It keeps everything, as there is never an end of a line.
    let ran = prepared.run(command(&["tail", "/dev/zero"])).await.unwrap();
    assert_eq!(ran.exited.signal, Some(libc::SIGKILL), "{ran:?}");
    assert!(!ran.exited.timed_out);
    let counted = world.linux.counted(&prepared.plan.handle).await.unwrap();
    assert!(counted.out_of_memory, "{counted:?}");
    let peak = counted.memory_peak_bytes.unwrap();
    assert!(peak > 24 * MIB && peak <= 48 * MIB, "{counted:?}");
    world.destroy(&prepared).await;
}

/// Attack: Files in memory are filled, to take it from the programs beside them.
#[tokio::test]
async fn files_in_memory_count_as_memory() {
    let world = world!();
    let limits = AskedLimits {
        memory_bytes: Some(48 * MIB),
        disk_bytes: Some(16 * MIB),
        ..DEFAULTS
    };
    if !has_controller(&world.host, "memory") {
        return is_refused_and_said(&world, "memory", limits);
    }
    let mut prepared = world.sandbox(limits).await;
    // Both in full: the two are added up, and not shared.
    let script = "head -c 15M /dev/zero > /tmp/full && head -c 40M /dev/zero | tail -c 40M | wc -c";
    let ran = prepared.run(command(&["sh", "-c", script])).await.unwrap();
    assert_eq!(text(&ran.stdout), "41943040\n", "{ran:?}");
    world.destroy(&prepared).await;
}

/// Attack: More processes than there may be, where one of the two lines that hold them is missing.
///
/// Two lines hold this one: the control group, and the resource limit in the user namespace.
#[tokio::test]
async fn processes_beyond_the_limit_are_not_made_whichever_line_holds_it() {
    const LIMIT: u32 = 20;
    let world = world!();
    let host = world.host.clone();
    let mut lines = vec![("resource limit", without_controller(&host, "pids"), true)];
    if has_controller(&host, "pids") {
        lines.push(("control group", host, false));
    }
    let limits = AskedLimits {
        pids: Some(LIMIT),
        ..DEFAULTS
    };
    for (line, host, keep) in lines {
        let world = World::on(host, Linger::No).unwrap();
        let change = |confine: &mut driver::guest::message::Confine| {
            if !keep {
                let nproc = libc::RLIMIT_NPROC;
                confine.rlimits.retain(|(resource, _)| *resource != nproc);
            }
        };
        let mut prepared = world.start(&spec(limits), change).await;
        let answers = probe::ask_in(&world, &mut prepared, &["children", "60"]).await;
        let (made, errno) = answers[0].split_once(' ').unwrap();
        let made: u32 = made.parse().unwrap();
        assert_eq!(errno, libc::EAGAIN.to_string(), "{line}: {answers:?}");
        // The probe itself is one, and where there is one user the guest is one of his.
        assert!((LIMIT - 2..LIMIT).contains(&made), "{line}: {answers:?}");
        if !keep {
            let counted = world.linux.counted(&prepared.plan.handle).await.unwrap();
            assert!(counted.out_of_pids, "{counted:?}");
        }
        world.destroy(&prepared).await;
    }
}

#[tokio::test]
async fn two_busy_loops_get_half_a_processor_when_that_is_what_was_asked_for() {
    let world = world!();
    let limits = AskedLimits {
        cpu_millis: Some(500),
        ..DEFAULTS
    };
    if !has_controller(&world.host, "cpu") {
        return is_refused_and_said(&world, "cpu", limits);
    }
    let script = "(while :; do :; done) & (while :; do :; done) & echo ready; wait";
    let mut live = world.live(limits, script).await;
    // A busy machine may give it no more than its half anyway; the kernel counts when it wanted more.
    let id = live.prepared.plan.handle.id.clone();
    assert!(until(|| times_throttled(&world.host, &id) >= 5).await);
    say(&mut live.prepared, &ToGuest::Stop { grace_ms: 0 }).await;
    let (exited, _) = live.end().await;
    let (cpu, wall) = (exited.cpu_ms, exited.wall_ms);
    assert!(cpu * 100 <= wall * 70, "{cpu} ms of processor in {wall} ms");
    assert!(cpu > 0, "{exited:?}");
    world.destroy(&live.prepared).await;
}

#[tokio::test]
async fn a_limit_whose_controller_is_missing_is_refused_and_a_default_is_said_not_to_be_held() {
    let host = Host::probe();
    let asked = |clause: &str| AskedLimits {
        memory_bytes: (clause == "memory").then_some(64 * MIB),
        cpu_millis: (clause == "cpu").then_some(500),
        ..DEFAULTS
    };
    for clause in ["memory", "cpu"] {
        let world = match World::on(without_controller(&host, clause), Linger::No) {
            Ok(world) => world,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        };
        is_refused_and_said(&world, clause, asked(clause));
        // Nothing was asked for, so it runs all the same.
        assert_eq!(world.sh("echo ran").await, "ran\n");
    }
}

#[tokio::test]
async fn without_any_control_group_a_default_sandbox_still_runs() {
    let why = "none is delegated".to_owned();
    let host = Host {
        cgroups: Cgroups::None { why },
        ..Host::probe()
    };
    let world = match World::on(host, Linger::No) {
        Ok(world) => world,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let plan = world.linux.plan(&spec(DEFAULTS), &world.host).unwrap();
    let missing = plan
        .enforced
        .iter()
        .filter(|each| each.state == Held::NotHeld);
    let missing: Vec<&str> = missing.map(|each| &*each.clause).collect();
    assert!(missing.starts_with(&["memory", "cpu"]) || missing == ["files", "memory", "cpu"]);
    let script = "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; true";
    // Nor does the guest mistake its descriptors for those of groups.
    assert_eq!(world.sh(script).await, "0\n1\n2\n");
}
