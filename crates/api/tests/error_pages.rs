//! Every stable code has its page, and every page its code.

use std::collections::BTreeSet;
use std::path::PathBuf;

use api::Code;

fn pages() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors")
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
    let pages: BTreeSet<String> = std::fs::read_dir(pages())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let missing: Vec<_> = codes.difference(&pages).collect();
    let stray: Vec<_> = pages.difference(&codes).collect();
    assert!(
        missing.is_empty(),
        "write docs/errors/ pages for {missing:?}"
    );
    assert!(stray.is_empty(), "no code has the pages {stray:?}");
}

#[test]
fn a_page_says_what_happened_and_what_to_do_in_few_lines() {
    for code in Code::ALL {
        let path = pages().join(format!("{code}.md"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let row = code.row();
        assert!(
            text.starts_with(&format!("# {code}\n")),
            "{code}: the title is the code"
        );
        for part in ["**What happened.**", "**What to do.**"] {
            assert!(text.contains(part), "{code}: the page has no {part}");
        }
        let facts = format!(
            "HTTP {}, {}, exit code {}.",
            row.http_status,
            if row.retryable {
                "retryable"
            } else {
                "not retryable"
            },
            row.exit_code
        );
        assert!(text.contains(&facts), "{code}: the page must say `{facts}`");
        let lines = text.lines().count();
        assert!((5..=15).contains(&lines), "{code}: {lines} lines");
    }
}
