use super::{Strategy, *};
use proptest::prelude::*;
use proptest::strategy::Strategy as Strategy2;

const GIB: u64 = 1 << 30;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn node(pairs: &[(&str, &str)], memory: u64, used: u32) -> Candidate {
    Candidate {
        labels: labels(pairs),
        capacity: Capacity {
            cpu_millis: Some(4000),
            memory_bytes: Some(memory),
            disk_bytes: Some(100 * GIB),
        },
        gets_work: true,
        healthy: true,
        slots: (used, 4),
        ..Candidate::default()
    }
}

fn on(pairs: &[(&str, &str)]) -> Wish {
    let placement = Placement {
        on: labels(pairs),
        ..Placement::default()
    };
    Wish {
        placement,
        ..Wish::default()
    }
}

fn memory(bytes: u64) -> Wish {
    Wish {
        memory_bytes: Some(bytes),
        ..Wish::default()
    }
}

#[test]
fn a_node_gets_only_what_it_can_have() {
    let plain = node(&[("zone", "a")], 16 * GIB, 0);
    let closed = Candidate {
        gets_work: false,
        ..plain.clone()
    };
    let sick = Candidate {
        healthy: false,
        ..plain.clone()
    };
    let taken = Candidate {
        reserved: Reserved {
            memory_bytes: 60 * GIB,
            disk_bytes: 0,
        },
        ..plain.clone()
    };
    let full = node(&[("zone", "a")], 16 * GIB, 4);
    let any = Wish::default();
    let label = |key: &str, value: &str| Some(Unfit::Label(key.to_owned(), value.to_owned()));
    for (wish, candidate, expect) in [
        (&any, &plain, None),
        (&on(&[("zone", "a")]), &plain, None),
        (&on(&[("zone", "b")]), &plain, label("zone", "b")),
        (
            &on(&[("gpu", "1"), ("zone", "a")]),
            &plain,
            label("gpu", "1"),
        ),
        (&memory(64 * GIB), &plain, Some(Unfit::Small("memory"))),
        (&memory(16 * GIB), &plain, None),
        (&memory(4 * GIB), &taken, None),
        (&memory(5 * GIB), &taken, Some(Unfit::Taken("memory"))),
        (&any, &closed, Some(Unfit::Closed)),
        (&any, &sick, Some(Unfit::Unhealthy)),
        (&any, &full, Some(Unfit::Full)),
    ] {
        assert_eq!(unfit(wish, candidate), expect, "{wish:?} on {candidate:?}");
    }
}

#[test]
fn a_location_holds_all_that_is_below_it_and_nothing_beside_it() {
    for (place, wanted, expect) in [
        ("eu/berlin/r7", "eu", true),
        ("eu/berlin/r7", "eu/berlin", true),
        ("eu/berlin", "eu/berlin/", true),
        ("eu/berlin", "eu/ber", false),
        ("eu", "eu/berlin", false),
        ("us/eu", "eu", false),
    ] {
        assert_eq!(is_in(place, wanted), expect, "{place} in {wanted}");
    }
}

#[test]
fn who_is_asked_first_follows_from_preference_then_failures_then_fullness() {
    let mut failing = node(&[("zone", "b")], GIB, 0);
    failing.trouble = 3;
    let nodes = [
        node(&[("zone", "a")], GIB, 1),
        failing,
        node(&[("zone", "b")], GIB, 3),
        node(&[("zone", "a")], GIB, 2),
    ];
    let mut wish = Wish::default();
    assert_eq!(order(&wish, Strategy::Spread, &nodes), [0, 3, 2, 1]);
    assert_eq!(order(&wish, Strategy::Pack, &nodes), [2, 3, 0, 1]);
    wish.placement.prefer = labels(&[("zone", "b")]);
    assert_eq!(order(&wish, Strategy::Spread, &nodes), [2, 1, 0, 3]);
}

#[test]
fn a_node_that_is_not_preferred_waits_for_those_that_are_and_not_for_ever() {
    let mut wish = Wish::default();
    wish.placement.prefer = labels(&[("zone", "b")]);
    let (here, there) = (
        node(&[("zone", "a")], GIB, 0),
        node(&[("zone", "b")], GIB, 0),
    );
    let gone = Candidate {
        gets_work: false,
        ..there.clone()
    };
    assert!(leaves_it(&wish, &here, std::slice::from_ref(&there), 0));
    assert!(!leaves_it(&wish, &here, &[gone], 0));
    assert!(!leaves_it(
        &wish,
        &here,
        std::slice::from_ref(&there),
        limits::PREFER_MS
    ));
    assert!(!leaves_it(&wish, &there, &[here], 0));
}

#[test]
fn who_waits_is_told_of_the_node_that_is_closest() {
    let said = |wish: &Wish, nodes: &[Candidate]| why_not(wish, nodes).map(|why| why.to_string());
    let nodes = [node(&[], GIB, 0), node(&[("zone", "a")], GIB, 4)];
    assert_eq!(said(&Wish::default(), &nodes), None);
    for (wish, expect) in [
        (on(&[("zone", "b")]), "no node has the label zone=b"),
        (on(&[("zone", "")]), "no node has the tag zone"),
        (
            on(&[("zone", "a")]),
            "the nodes that could take it are full",
        ),
        (memory(2 * GIB), "no node has so much memory"),
    ] {
        assert_eq!(said(&wish, &nodes).as_deref(), Some(expect));
    }
}

#[test]
fn failures_are_forgotten_and_take_slots_away_until_then() {
    let half = limits::TROUBLE_HALF_MS;
    let mut trouble = Trouble::default();
    for _ in 0..4 {
        trouble = trouble.failed(1000);
    }
    let counts: Vec<u32> = (0..4).map(|n| trouble.count(1000 + n * half)).collect();
    assert_eq!(counts, [4, 2, 1, 0]);
    let shares: Vec<u32> = (0..7).map(|failures| share(16, failures)).collect();
    assert_eq!(shares, [16, 16, 16, 8, 4, 2, 1]);
    assert_eq!((share(0, 9), share(16, 99)), (0, 1));
}

#[test]
fn what_asks_for_nothing_wishes_nothing() {
    let none = AskedLimits::default();
    assert_eq!(Wish::of(&Placement::default(), &none, false), None);
    let disk = AskedLimits {
        disk_bytes: Some(10 * GIB),
        memory_bytes: Some(GIB),
        ..none
    };
    let of = |on_disk| Wish::of(&Placement::default(), &disk, on_disk).unwrap();
    assert_eq!(
        (of(false).memory_bytes, of(false).disk_bytes),
        (Some(11 * GIB), None)
    );
    assert_eq!(
        (of(true).memory_bytes, of(true).disk_bytes),
        (Some(GIB), Some(10 * GIB))
    );
}

fn any_labels() -> impl Strategy2<Value = Labels> {
    proptest::collection::btree_map("[ab]", "[xy]", 0..2)
}

fn any_node() -> impl Strategy2<Value = Candidate> {
    let flags = (any::<bool>(), any::<bool>(), 0..5_u32, 0..5_u32);
    (any_labels(), 0..3_u64, 0..9_u64, flags).prop_map(
        |(labels, memory, reserved, (gets_work, healthy, trouble, used))| Candidate {
            labels,
            capacity: Capacity {
                memory_bytes: Some(memory),
                ..Capacity::default()
            },
            reserved: Reserved {
                memory_bytes: reserved,
                disk_bytes: 0,
            },
            gets_work,
            healthy,
            trouble,
            slots: (used, 4),
        },
    )
}

fn any_wish() -> impl Strategy2<Value = Wish> {
    (any_labels(), any_labels(), proptest::option::of(0..4_u64)).prop_map(|(on, prefer, memory)| {
        let location = None;
        Wish {
            placement: Placement {
                on,
                prefer,
                location,
            },
            memory_bytes: memory,
            ..Wish::default()
        }
    })
}

proptest! {
    #[test]
    fn everybody_who_can_have_it_is_in_the_order_once_and_nobody_else(
        wish in any_wish(), nodes in proptest::collection::vec(any_node(), 0..8), pack: bool
    ) {
        let strategy = if pack { Strategy::Pack } else { Strategy::Spread };
        let ordered = order(&wish, strategy, &nodes);
        let mut sorted = ordered.clone();
        sorted.sort_unstable();
        let fit: Vec<usize> = (0..nodes.len())
            .filter(|at| unfit(&wish, &nodes[*at]).is_none())
            .collect();
        prop_assert_eq!(sorted, fit);
        prop_assert_eq!(why_not(&wish, &nodes).is_none(), !ordered.is_empty());
        // Nobody who is preferred stands behind one who is not.
        let preferred = ordered.iter().map(|at| preferred(&wish, &nodes[*at]));
        prop_assert!(preferred.is_sorted_by(|one, next| one >= next));
    }

    #[test]
    fn as_long_as_one_can_have_it_not_all_leave_it_to_others(
        wish in any_wish(), nodes in proptest::collection::vec(any_node(), 1..8), waited in 0..10_000_u64
    ) {
        let can: Vec<&Candidate> = nodes.iter().filter(|one| unfit(&wish, one).is_none()).collect();
        let all_leave = can.iter().all(|one| leaves_it(&wish, one, &nodes, waited));
        prop_assert!(can.is_empty() || !all_leave);
    }

    #[test]
    fn what_can_never_be_had_cannot_be_had_now(wish in any_wish(), one in any_node()) {
        if let Some(why) = never(&wish, &one) {
            // None of what waiting changes.
            let passes = matches!(
                why,
                Unfit::Closed | Unfit::Unhealthy | Unfit::Taken(_) | Unfit::Full
            );
            prop_assert!(!passes, "{why}");
            prop_assert_eq!(unfit(&wish, &one), Some(why));
        }
    }

    #[test]
    fn a_wish_is_read_back_as_it_was_written(wish in any_wish()) {
        let text = serde_json::to_string(&wish).unwrap();
        prop_assert_eq!(serde_json::from_str::<Wish>(&text).unwrap(), wish);
    }

    #[test]
    fn trouble_never_grows_by_waiting(times in proptest::collection::vec(0..100_000_u64, 1..20)) {
        let (mut trouble, mut now) = (Trouble::default(), 0);
        for step in times {
            prop_assert!(trouble.count(now + step) <= trouble.count(now));
            now += step;
            trouble = trouble.failed(now);
            prop_assert!(trouble.score <= limits::TROUBLE_MAX);
        }
    }
}

#[test]
fn a_tag_is_a_label_without_a_value_and_is_asked_for_by_its_name_alone() {
    let [tagged, valued] = [[("gpu", "")], [("gpu", "a100")]].map(|own| node(&own, GIB, 0));
    let wish = on(&[("gpu", "")]);
    assert_eq!(never(&wish, &tagged), None);
    // Who gave it a value meant that value.
    let missing = Unfit::Label("gpu".to_owned(), String::new());
    assert_eq!(never(&wish, &valued), Some(missing));
    let all = labels(&[("big", ""), ("zone", "a"), ("gpu", "")]);
    assert_eq!(tags(&all).collect::<Vec<_>>(), ["big", "gpu"]);
}

#[test]
fn a_node_that_says_no_kind_is_a_server() {
    let kind = |own: &[(&str, &str)]| with_kind(labels(own)).remove(KIND);
    let none: &[(&str, &str)] = &[];
    for own in [none, &[("kind", "")], &[("kind", "big")]] {
        assert_eq!(kind(own).as_deref(), Some("server"), "{own:?}");
    }
    assert_eq!(kind(&[("kind", "mobile")]).as_deref(), Some("mobile"));
}
