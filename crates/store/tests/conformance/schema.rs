//! Both folders of migrations say the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What comes after this in a step is about something that the other database has no need of.
const ONLY_HERE: &str = "-- Only in this database:";

/// The steps of one database by the name of their file, without comments, as far as both have to say the same.
fn steps(database: &str) -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("migrations")
        .join(database);
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let shared = text.split(ONLY_HERE).next().unwrap();
        let lines = shared.lines().map(|line| line.split("--").next().unwrap());
        let name = entry.file_name().into_string().unwrap();
        (name, lines.collect::<Vec<_>>().join("\n"))
    };
    fs::read_dir(dir).unwrap().map(read).collect()
}

/// One statement in words that both databases share.
fn shared(statement: &str) -> String {
    let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut words = words
        .replace(" STRICT, WITHOUT ROWID", "")
        .replace(" STRICT", "")
        .replace(" COLLATE \"C\"", "")
        .replace("GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "COUNTED")
        .replace("PRIMARY KEY AUTOINCREMENT", "COUNTED");
    for (one, both) in [("INTEGER", "NUMBER"), ("BIGINT", "NUMBER")] {
        words = words.replace(&format!(" {one}"), &format!(" {both}"));
    }
    for (one, both) in [("BLOB", "BYTES"), ("BYTEA", "BYTES")] {
        words = words.replace(&format!(" {one}"), &format!(" {both}"));
    }
    words
}

fn statements(text: &str) -> Vec<String> {
    let all = text.split(';').map(shared);
    all.filter(|statement| !statement.is_empty()).collect()
}

#[test]
fn both_databases_have_the_same_tables_columns_and_indexes() {
    let (sqlite, postgres) = (steps("sqlite"), steps("postgres"));
    assert_eq!(
        sqlite.keys().collect::<Vec<_>>(),
        postgres.keys().collect::<Vec<_>>()
    );
    for (name, text) in &sqlite {
        assert_eq!(statements(text), statements(&postgres[name]), "{name}");
        // The first step makes all tables of the beginning; a later one makes something.
        let least = if name.starts_with("0001") { 8 } else { 1 };
        assert!(statements(text).len() >= least, "{name}");
    }
}

#[test]
fn every_text_of_postgresql_is_sorted_by_its_bytes() {
    for (name, text) in steps("postgres") {
        let columns = text.matches(" TEXT").count();
        assert_eq!(
            text.matches(" TEXT COLLATE \"C\"").count(),
            columns,
            "{name}"
        );
    }
}

#[test]
fn every_table_of_sqlite_is_strict() {
    for (name, text) in steps("sqlite") {
        let tables = text.matches("CREATE TABLE").count();
        assert_eq!(text.matches(") STRICT").count(), tables, "{name}");
    }
}
