//! A fleet of real processes under everything that happens to machines, and its books afterwards.
//!
//! It has two servers on one database, of which each connection of a node may find another. The short form runs with
//! the other tests; the long one is
//! `COFFERDAM_CHAOS_SECONDS=600 COFFERDAM_CHAOS_SEED=1 cargo test -p e2e --test chaos -- --nocapture`.

mod books;
mod clock;
mod load;
mod net;
mod plan;
mod world;

use books::{Books, sandboxes_on};
use e2e::{no_sandbox, until};
use load::Load;
use plan::{Deck, Fault, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use world::{NODES, World};

/// How long it goes on in the short form.
const SECONDS: u64 = 20;
/// From so many seconds on every kind of fault has to come.
const LONG: u64 = 300;
/// With which the short form comes to every kind, if nothing takes longer than it should.
const SEED: u64 = 1;
const SERVERS: usize = 2;
/// Between the beginnings of two faults.
const STEP: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(20);

fn number(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What was done, and what was seen meanwhile.
#[derive(Debug, Default)]
struct Story {
    faults: BTreeMap<&'static str, usize>,
    sandboxes: BTreeSet<String>,
    ended: Vec<String>,
    /// With their times, for whoever asks why.
    lines: Vec<String>,
}

/// Breaks things until the time is up, and heals all of them.
fn break_things(world: &mut World, mut deck: Deck, time: Duration) -> Story {
    let mut story = Story::default();
    let mut broken: Vec<(Fault, Instant)> = Vec::new();
    let begin = Instant::now();
    let mut next = begin;
    while begin.elapsed() < time || !broken.is_empty() {
        let now = Instant::now();
        let is_late = begin.elapsed() >= time;
        let (heal, rest) = broken
            .into_iter()
            .partition(|(_, until)| is_late || *until <= now);
        broken = rest;
        for (fault, _) in heal {
            story
                .lines
                .push(format!("{:7.1?} heal {fault:?}", begin.elapsed()));
            world.heal(fault);
        }
        if now >= next && !is_late {
            let is_free = |target: Target| broken.iter().all(|(other, _)| other.target() != target);
            // Where nothing that is left in this round is free, it is looked again soon.
            if let Some((fault, how_long)) = deck.draw(is_free) {
                next = now + STEP;
                story.lines.push(format!(
                    "{:7.1?} {fault:?} for {how_long:?}",
                    begin.elapsed()
                ));
                world.begin(fault);
                *story.faults.entry(fault.name()).or_default() += 1;
                broken.push((fault, now + how_long));
            }
        }
        let dead = broken.iter().any(|(fault, _)| is_death(*fault));
        if !dead {
            story.ended.extend(world.supervise());
        }
        story
            .sandboxes
            .extend(world.machines.iter().flat_map(sandboxes_on));
        std::thread::sleep(LOOK);
    }
    story
}

fn is_death(fault: Fault) -> bool {
    matches!(fault, Fault::KillServer(_) | Fault::KillNode(_))
}

/// What lives on ends when its owner says so.
fn remove_sandboxes(world: &World) {
    let all = || {
        let list = load::get(&world.socket(), "/v1/sandboxes?limit=500");
        let rows = list["sandboxes"].as_array().cloned().unwrap_or_default();
        rows.into_iter()
    };
    let stands = |row: &serde_json::Value| {
        !matches!(
            row["state"].as_str(),
            Some("destroyed" | "failed" | "expired")
        )
    };
    for row in all().filter(stands) {
        let id = row["id"].as_str().unwrap_or_default();
        drop(world.command(&["sandbox", "rm", id]).output());
    }
}

/// The kinds that did not come, of those that can.
fn missing(story: &Story, with_clocks: bool) -> Vec<&'static str> {
    let names = plan::names(with_clocks).into_iter();
    let missing = names.filter(|name| !story.faults.contains_key(name));
    missing.collect()
}

#[test]
fn the_books_are_balanced_whatever_is_killed_stopped_cut_off_or_full() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let seed = number("COFFERDAM_CHAOS_SEED", SEED);
    let seconds = number("COFFERDAM_CHAOS_SECONDS", SECONDS);
    let time = Duration::from_secs(seconds);
    let servers = number("COFFERDAM_CHAOS_SERVERS", SERVERS as u64);
    let servers = usize::try_from(servers.clamp(1, 2)).expect("one or two");
    let mut world = match World::start(servers) {
        Ok(world) => world,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let load = Load::default();
    let story = std::thread::scope(|scope| {
        load.begin(scope, &world);
        let deck = Deck::new(seed, servers, world.has_clocks);
        let story = break_things(&mut world, deck, time);
        load.end();
        story
    });
    let mut books = Books::default();
    let quiet = Instant::now();
    if !until(|| world.online() == NODES) {
        books.wrong.push("a node does not come back".to_owned());
    }
    books.jobs(&world, &load);
    remove_sandboxes(&world);
    books.machines(&world, &story.sandboxes);
    books.wrong.extend(
        story
            .ended
            .iter()
            .map(|what| format!("ended by itself: {what}")),
    );
    let wrong = load
        .wrong
        .lock()
        .expect("nobody panics under this lock")
        .clone();
    books.wrong.extend(wrong);
    println!(
        "seed {seed}, {time:?}, {servers} servers, balanced after {:.1?} of quiet",
        quiet.elapsed()
    );
    println!("faults: {:#?}", story.faults);
    let can = plan::names(world.has_clocks);
    for name in plan::names(true).difference(&can) {
        println!("left out, because no clock can be moved here without a C compiler: {name}");
    }
    let missing = missing(&story, world.has_clocks);
    println!("faults that did not come: {missing:?}");
    println!("answers that were no job: {:?}", load.refused);
    println!("streams: {:?}", load.streams);
    println!("books: {:#?}", books.sums);
    let (lines, logs) = (story.lines.join("\n"), world.logs());
    assert!(
        books.wrong.is_empty(),
        "{:#?}\n{lines}\n{logs}",
        books.wrong
    );
    assert!(seconds < LONG || missing.is_empty(), "{missing:?}");
}
