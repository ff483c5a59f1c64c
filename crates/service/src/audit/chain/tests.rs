use super::*;
use model::event::Event;
use proptest::prelude::*;

fn event(number: u64) -> Marked {
    Marked {
        tenant: "ten_a".parse().unwrap(),
        mark: number,
        event: Event {
            position: number,
            resource: "thing".to_owned(),
            resource_id: number.to_string(),
            version: 1,
            kind: "thing.done".to_owned(),
            data: "{}".to_owned(),
            principal: "uid:1000".to_owned(),
            at_ms: number,
        },
    }
}

/// Seals over so many events each.
fn chain(counts: &[u64]) -> Vec<(Seal, Vec<Marked>)> {
    let mut all: Vec<(Seal, Vec<Marked>)> = Vec::new();
    let mut mark = FIRST_MARK;
    for count in counts {
        let events: Vec<Marked> = (mark..mark + count).map(event).collect();
        mark += count;
        let borrowed: Vec<&Marked> = events.iter().collect();
        let before = all.last().map(|(seal, _)| seal);
        let seal = seal(before, mark, &borrowed, mark).unwrap();
        all.push((seal, events));
    }
    all
}

fn found(chain: &[(Seal, Vec<Marked>)]) -> Vec<(u64, Flaw)> {
    let mut before = None;
    let mut found = Vec::new();
    for (seal, events) in chain {
        let flaws = flaws(before, seal, events);
        found.extend(flaws.into_iter().map(|flaw| (seal.number, flaw)));
        before = Some(seal);
    }
    found
}

/// Changes a thing of one event, another for each number.
fn changed(one: &mut Marked, what: u64) {
    let event = &mut one.event;
    match what % 9 {
        0 => event.position += 1,
        1 => event.version += 1,
        2 => event.at_ms += 1,
        3 => one.mark += 1,
        4 => event.resource.push('x'),
        5 => event.resource_id.push('x'),
        6 => event.kind.push('x'),
        7 => event.data.push('x'),
        _ => event.principal.push('x'),
    }
}

#[test]
fn the_seal_over_the_same_events_is_always_the_same() {
    let seals = chain(&[2, 1]);
    let said: Vec<String> = seals
        .iter()
        .map(|(seal, _)| {
            format!(
                "{} {}..{} {} {}",
                seal.number, seal.from_mark, seal.to_mark, seal.total, seal.digest
            )
        })
        .collect();
    insta::assert_debug_snapshot!(said);
}

#[test]
fn nothing_is_sealed_where_nothing_happened() {
    assert_eq!(seal(None, 5, &[], 1), None);
}

#[test]
fn what_moves_from_one_part_of_an_event_to_the_next_is_a_change() {
    let mut all = chain(&[1]);
    let event = &mut all[0].1[0].event;
    (event.resource, event.resource_id) = ("thin".to_owned(), "g1".to_owned());
    assert_eq!(found(&all), [(1, Flaw::Changed)]);
}

#[test]
fn the_first_seal_that_is_left_may_be_one_whose_events_are_gone_and_no_other_one() {
    let mut all = chain(&[2, 2, 2]);
    all.remove(0);
    assert_eq!(found(&all), [(2, Flaw::Gap)]);
    all[0].0.retired = true;
    all[0].1.clear();
    assert_eq!(found(&all), []);
    all[1].0.retired = true;
    assert_eq!(found(&all), [(3, Flaw::Order)]);
    // What it says of itself is checked all the same.
    all.truncate(1);
    all[0].0.sealed_at_ms += 1;
    assert_eq!(found(&all), [(2, Flaw::Changed)]);
}

#[test]
fn events_go_by_age_or_because_there_are_many_and_not_before() {
    let mut seal = chain(&[2]).remove(0).0;
    let late = seal.sealed_at_ms + limits::RETAIN_AUDIT_MS;
    let many = seal.total + limits::RETAIN_AUDIT_EVENTS;
    assert!(!is_early(&seal, 3, 5));
    seal.retired = true;
    assert!(is_early(&seal, 3, late - 1) && !is_early(&seal, 3, late));
    assert!(is_early(&seal, many - 1, 5) && !is_early(&seal, many, 5));
}

proptest! {
    #[test]
    fn a_chain_that_nobody_touched_is_well_and_any_change_is_found(
        counts in proptest::collection::vec(1_u64..5, 1..6),
        at in any::<prop::sample::Index>(),
        of in any::<prop::sample::Index>(),
        what in 0_u64..17,
    ) {
        let mut all = chain(&counts);
        prop_assert_eq!(found(&all), []);
        let at = at.index(all.len());
        let (seal, events) = &mut all[at];
        let of = of.index(events.len());
        match what {
            0..9 => changed(&mut events[of], what),
            9 => drop(events.remove(of)),
            10 => events.push(event(1000)),
            11 => seal.digest = "f".repeat(64),
            12 => seal.to_mark += 1,
            13 => seal.sealed_at_ms += 1,
            14 => seal.total += 1,
            15 => seal.content = "f".repeat(64),
            _ => seal.events += 1,
        }
        prop_assert!(!found(&all).is_empty());
    }

    #[test]
    fn a_seal_that_is_missing_or_made_anew_is_found_by_the_next(
        counts in proptest::collection::vec(1_u64..4, 2..6),
        at in any::<prop::sample::Index>(),
        is_gone in any::<bool>(),
    ) {
        let mut all = chain(&counts);
        let at = at.index(all.len() - 1);
        if is_gone {
            all.remove(at);
        } else {
            // Somebody who can write to the database makes it fit what he changed.
            let before = at.checked_sub(1).map(|at| all[at].0.clone());
            let (seal, events) = &mut all[at];
            changed(&mut events[0], 7);
            let borrowed: Vec<&Marked> = events.iter().collect();
            *seal = super::seal(before.as_ref(), seal.to_mark, &borrowed, seal.sealed_at_ms).unwrap();
        }
        prop_assert!(!found(&all).is_empty());
    }
}
