use super::pip::Version;
use super::*;
use proptest::prelude::*;

fn same(one: &str, other: &str) -> bool {
    one.parse::<Version>().unwrap() == other.parse::<Version>().unwrap()
}

/// Attack: a name that looks like another one, or is written in another way.
#[test]
fn a_name_of_pip_has_one_form_and_a_confusing_one_is_another_package() {
    for (text, expect) in [
        ("requests", Some("requests")),
        ("Req_uests", Some("req-uests")),
        ("req-uests", Some("req-uests")),
        ("req.-_uests", Some("req-uests")),
        ("A", Some("a")),
        ("-a", None),
        ("a-", None),
        ("", None),
        ("re quests", None),
        ("reque\u{455}ts", None),
        ("a/b", None),
        ("a\0", None),
        ("..", None),
    ] {
        assert_eq!(pip::name(text).as_deref(), expect, "{text:?}");
    }
    assert!(pip::name(&"a".repeat(limits::PACKAGE_BYTES_MAX + 1)).is_none());
}

/// Attack: a version that another program takes for one of the list.
#[test]
fn versions_of_pip_are_equal_where_pep_440_says_so_and_nowhere_else() {
    for (one, other) in [
        ("1.0", "1.0.0"),
        ("1", "v1.0"),
        ("01.00", "1.0"),
        ("0", "0.0"),
        ("0!1.0", "1.0"),
        ("1.0a1", "1.0-ALPHA.1"),
        ("1.0c", "1.0rc0"),
        ("1.0preview2", "1.0.pre-2"),
        ("1.0-1", "1.0.post1"),
        ("1.0r3", "1.0_rev_3"),
        ("1.0dev", "1.0.dev0"),
        ("1.0+Ubuntu-01", "1.0+ubuntu.1"),
    ] {
        assert!(same(one, other), "{one} {other}");
    }
    for (one, other) in [
        ("1.0", "1.0+local"),
        ("1.0", "1!1.0"),
        ("1.0", "1.0.post0"),
        ("1.0", "1.0.dev0"),
        ("1.0", "1.0rc1"),
        ("1.0", "1.0.1"),
        ("1.0", "10"),
        ("1.0a1", "1.0b1"),
        ("1.0+a", "1.0+b"),
    ] {
        assert!(!same(one, other), "{one} {other}");
    }
    for bad in [
        "",
        "1.",
        ".1",
        "1..0",
        "1.0 ",
        " 1.0",
        "1.0-",
        "1.0+",
        "1.0+a..b",
        "1.0+é",
        "a",
        "1.x",
        "*",
        "1.*",
        "1!",
        "!1",
        "-1",
        "+1",
        "1.0.post-1x",
        "99999999999999999999",
        "1.0\n",
        "vv1",
    ] {
        assert!(bad.parse::<Version>().is_err(), "{bad:?}");
    }
}

/// Attack: a file whose name says one version to us and another one to pip.
#[test]
fn a_file_of_pip_is_of_one_version_of_its_own_package_or_is_not_served() {
    let found = |package: &str, file: &str| {
        let version = pip::version_of_file(package, file);
        version.map_or_else(|| "none".to_owned(), |version| version.to_string())
    };
    for (package, file, expect) in [
        ("six", "six-1.16.0-py2.py3-none-any.whl", "1.16"),
        ("six", "six-1.16.0-1-py2.py3-none-any.whl", "1.16"),
        ("six", "six-1.16.0-x-py2.py3-none-any.whl", "none"),
        ("six", "six-1.16.0.tar.gz", "1.16"),
        ("six", "SIX-1.16.0.zip", "1.16"),
        ("six", "sixx-1.16.0.tar.gz", "none"),
        ("six", "six-extra-1.16.0.tar.gz", "none"),
        ("six-extra", "six-extra-1.16.0.tar.gz", "1.16"),
        ("six-extra", "six_extra-1.16.0-py3-none-any.whl", "1.16"),
        ("six", "six-1.16.0.exe", "none"),
        ("six", "six-1.16.0.tar.bz2", "none"),
        ("six", "six-1.16.0.egg", "none"),
        ("six", "six-1.16.0.tar.gz.whl", "none"),
        ("six", "six-1.0+local-py3-none-any.whl", "1+local"),
        ("six", "six-1!1.0-py3-none-any.whl", "1!1"),
        ("six", "six-.tar.gz", "none"),
        ("six", "six.tar.gz", "none"),
        ("six", "../six-1.0.tar.gz", "none"),
        ("six", "six-1.0%2e.tar.gz", "none"),
        ("six", "six-1.0.tar.gz\n", "none"),
    ] {
        assert_eq!(found(package, file), expect, "{package} {file}");
    }
}

#[test]
fn names_versions_and_files_of_npm_are_compared_as_they_are_written() {
    for good in ["lodash", "@types/node", "JSONStream", "a.b", "~a"] {
        assert_eq!(npm::name(good).as_deref(), Some(good));
    }
    for bad in [
        "",
        "@",
        "@a",
        "@/b",
        "@a/",
        "a/b",
        "@a/b/c",
        ".a",
        "_a",
        "-a",
        "@.a/b",
        "a%2fb",
        "a b",
        "..",
        "@a/..",
        "node_modules\0",
    ] {
        assert!(npm::name(bad).is_none(), "{bad:?}");
    }
    for good in [
        "1.2.3",
        "0.0.0",
        "1.2.3-beta.1",
        "1.2.3-x-y",
        "1.2.3+b.01",
        "1.2.3-0.a+b",
    ] {
        assert_eq!(npm::version(good).as_deref(), Some(good));
    }
    for bad in [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "v1.2.3",
        "=1.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+",
        "1.2.x",
        "^1.2.3",
        "latest",
        "1.2.3 ",
        "1.2.3-a..b",
    ] {
        assert!(npm::version(bad).is_none(), "{bad:?}");
    }
    for (package, file, expect) in [
        ("lodash", "lodash-4.17.21.tgz", Some("4.17.21")),
        ("@types/node", "node-20.0.0.tgz", Some("20.0.0")),
        ("@types/node", "types-node-20.0.0.tgz", None),
        ("lodash", "lodash-4.17.21.tar.gz", None),
        ("lodash", "lodash-es-4.17.21.tgz", None),
        ("lodash", "lodash-.tgz", None),
    ] {
        assert_eq!(
            npm::version_of_file(package, file).as_deref(),
            expect,
            "{file}"
        );
    }
}

fn read(pip: &[&str], npm: Option<&[&str]>) -> Dependencies {
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect();
    let mut asked = BTreeMap::from([("pip".to_owned(), texts(pip))]);
    if let Some(npm) = npm {
        asked.insert("npm".to_owned(), texts(npm));
    }
    let mut found = Findings::default();
    let read = Dependencies::read("dependencies", "policy_invalid", &asked, &mut found);
    found.verdict().unwrap();
    read
}

#[test]
fn a_list_closes_who_serves_its_packages_and_opens_its_index() {
    let mut pip = read(&["Six==1.16.0"], None);
    let host = |text: &str| Host::parse(text).unwrap();
    for (name, expect) in [
        ("pypi.org", Some(Ecosystem::Pip)),
        ("PyPI.org.", Some(Ecosystem::Pip)),
        ("test.pypi.org", Some(Ecosystem::Pip)),
        ("files.pythonhosted.org", Some(Ecosystem::Pip)),
        ("registry.npmjs.org", None),
        ("notpypi.org", None),
        ("mirror.test", None),
    ] {
        assert_eq!(pip.closing(&host(name)), expect, "{name}");
    }
    pip.set_sources([
        (Ecosystem::Pip, host("mirror.test")),
        (Ecosystem::Npm, host("n.test")),
    ]);
    assert_eq!(pip.closing(&host("mirror.test")), Some(Ecosystem::Pip));
    assert_eq!(pip.closing(&host("n.test")), None);
    let index = host("pypi.cofferdam.internal");
    assert_eq!(pip.index(&index, 80), Some(Ecosystem::Pip));
    assert_eq!(pip.index(&index, 443), None);
    assert_eq!(pip.index(&host("npm.cofferdam.internal"), 80), None);
    assert!(pip.lets(Ecosystem::Pip, "six", "1.16"));
    assert!(!pip.lets(Ecosystem::Pip, "six", "1.16.0+local"));
    assert_eq!(
        pip.versions(Ecosystem::Pip, "six").collect::<Vec<_>>(),
        ["1.16"]
    );
    assert_eq!(pip.versions(Ecosystem::Pip, "si").count(), 0);
    let text = serde_json::to_string(&pip).unwrap();
    assert_eq!(text, r#"{"pip":["six==1.16"]}"#);
}

#[test]
fn every_host_that_is_closed_is_an_entry_of_names() {
    for ecosystem in Ecosystem::ALL {
        for text in ecosystem.hosts() {
            let entry: Entry = text.parse().unwrap();
            assert!(entry.is_name() && !text.contains(':'), "{text}");
        }
        assert!(Host::parse(ecosystem.index()).is_ok());
    }
}

fn lists() -> impl Strategy<Value = Dependencies> {
    let list = || proptest::option::of(proptest::collection::btree_set("[ab]==[12]", 0..4));
    (list(), list()).prop_map(|(pip, npm)| {
        let all = [(Ecosystem::Pip, pip), (Ecosystem::Npm, npm)].into_iter();
        let all = all.filter_map(|(ecosystem, list)| Some((ecosystem, list?)));
        all.collect::<Lists>().into()
    })
}

proptest! {
    #[test]
    fn lists_meet_in_any_order_and_never_widen(a in lists(), b in lists(), c in lists()) {
        prop_assert_eq!(a.and(&b), b.and(&a));
        prop_assert_eq!(a.and(&b).and(&c), a.and(&b.and(&c)));
        prop_assert_eq!(a.and(&a), a.clone());
        for ecosystem in Ecosystem::ALL {
            let both = a.and(&b);
            prop_assert_eq!(both.of(ecosystem).is_some(), a.of(ecosystem).is_some() || b.of(ecosystem).is_some());
            for one in both.of(ecosystem).into_iter().flatten() {
                prop_assert!(a.of(ecosystem).is_none_or(|list| list.contains(one)));
                prop_assert!(b.of(ecosystem).is_none_or(|list| list.contains(one)));
            }
        }
    }

    #[test]
    fn a_form_is_its_own_form(text in "[A-Za-z0-9._-]{1,12}", version in "[0-9]{1,2}(\\.[0-9]{1,2}){0,3}((a|b|rc|-|\\.post|\\.dev)[0-9])?(\\+[a-z0-9.]{1,4})?") {
        if let Some(name) = pip::name(&text) {
            prop_assert_eq!(pip::name(&name), Some(name.clone()));
            prop_assert!(!name.contains("--"));
        }
        if let Ok(version) = version.parse::<Version>() {
            let again: Version = version.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), version.to_string());
            prop_assert_eq!(again, version);
        }
    }

    #[test]
    fn any_text_is_read_without_harm(text in "\\PC{0,40}", package in "[a-z-]{1,6}") {
        drop((pip::name(&text), text.parse::<Version>(), pip::version_of_file(&package, &text)));
        drop((npm::name(&text), npm::version(&text), npm::version_of_file(&package, &text)));
        drop((Ecosystem::Pip.read(&text), Ecosystem::Npm.read(&text)));
    }
}
