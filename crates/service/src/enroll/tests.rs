use super::*;

const NOW: u64 = 1_750_000_000_000;

fn token() -> EnrollTokenRow {
    EnrollTokenRow {
        id: EnrollTokenId::from_parts(NOW, [1; 10]),
        tenant: TenantId::local(),
        principal: "uid:1000".parse().unwrap(),
        digest: digest("x"),
        labels: BTreeMap::new(),
        created_at_ms: NOW,
        expires_at_ms: NOW + TOKEN_LIFE_MS,
        used: None,
        revoked_at_ms: None,
    }
}

#[test]
fn a_token_is_good_for_one_machine_within_its_hour() {
    let node = NodeId::from_parts(NOW, [2; 10]);
    let used = EnrollTokenRow {
        used: Some((NOW + 1, node.clone(), "key".to_owned())),
        ..token()
    };
    let revoked = EnrollTokenRow {
        revoked_at_ms: Some(NOW),
        ..token()
    };
    let last = NOW + TOKEN_LIFE_MS - 1;
    let check = |row: &EnrollTokenRow, key: &str, now, expect: Result<Option<NodeId>, &str>| {
        let got = judge(row, key, now);
        assert_eq!(
            got.as_ref().map_err(Error::code),
            expect.as_ref().map_err(|code| *code)
        );
    };
    check(&token(), "key", last, Ok(None));
    check(&token(), "key", last + 1, Err("enroll_token_expired"));
    check(&used, "key", last, Ok(Some(node)));
    check(&used, "other", last, Err("enroll_token_used"));
    check(&used, "key", last + 1, Err("enroll_token_used"));
    check(&revoked, "key", NOW, Err("enroll_token_revoked"));
}

#[test]
fn refusals_are_written_so_often_in_an_hour_and_no_more() {
    let mut refusals = Refusals::default();
    let written = |refusals: &mut Refusals, now| {
        (0..REFUSALS_PER_HOUR * 2)
            .filter(|_| refusals.one_more("a", now))
            .count()
    };
    assert_eq!(written(&mut refusals, NOW), REFUSALS_PER_HOUR as usize);
    assert_eq!(written(&mut refusals, NOW), 0);
    assert!(
        refusals.one_more("b", NOW),
        "one kind does not hide another"
    );
    let later = NOW + HOUR_MS;
    assert_eq!(written(&mut refusals, later), REFUSALS_PER_HOUR as usize);
}

#[test]
fn labels_and_names_have_bounds() {
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    assert!(check_labels(&labels("zone", "eu-1")).is_ok());
    assert!(check_labels(&labels("zone", "")).is_ok());
    for (key, value) in [("", "x"), ("a b", "x"), ("a", "\n"), ("a", &"x".repeat(64))] {
        assert!(check_labels(&labels(key, value)).is_err(), "{key} {value}");
    }
    let many = (0..=LABELS_MAX).map(|number| (number.to_string(), String::new()));
    assert!(check_labels(&many.collect()).is_err());
    assert!(check_given(&labels("kinds", "x")).is_ok());
    for own in ["kind", "driver"] {
        assert!(check_given(&labels(own, "x")).is_err(), "{own}");
    }
    assert!(check_name("build-1").is_ok());
    for name in ["", "a\u{1b}[2J", &"x".repeat(256)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}
