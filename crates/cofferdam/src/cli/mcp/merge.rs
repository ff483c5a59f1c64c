//! A configuration with us in it, or without: pure. All else in it stays as it was written.

use super::clients::{Config, Format, NAME, Start};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use toml_edit::{DocumentMut, Item, Table, TableLike};

/// What is to be written in the place of a configuration; none where it says it already.
pub(crate) type Merged = Option<String>;

/// Why a configuration cannot be changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

/// A configuration with us in it.
pub(crate) fn with(text: &str, config: &Config, start: &Start) -> Result<Merged, Unreadable> {
    if text.trim().is_empty() {
        return Ok(Some(config.whole(start)));
    }
    match config.format {
        Format::Json => json(text, config, Some(start)),
        Format::Toml => toml(text, config, Some(start)),
    }
}

/// A configuration without us.
pub(crate) fn without(text: &str, config: &Config) -> Result<Merged, Unreadable> {
    // Where our name is not at all, it does not matter whether it can be read.
    if !text.contains(NAME) {
        return Ok(None);
    }
    match config.format {
        Format::Json => json(text, config, None),
        Format::Toml => toml(text, config, None),
    }
}

/// An object whose values are as they were written, in the order in which they were.
#[derive(Debug, Default)]
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                while let Some(entry) = map.next_entry()? {
                    object.0.push(entry);
                }
                Ok(object)
            }
        }
        from.deserialize_map(Reader)
    }
}

impl Object {
    fn get(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_ref())
    }

    fn put(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Its text, where what is inside stands so deep.
    fn text(&self, indent: usize) -> String {
        if self.0.is_empty() {
            return "{}".to_owned();
        }
        let (inner, outer) = (" ".repeat(indent + 2), " ".repeat(indent));
        let line = |(name, value): &(String, Box<RawValue>)| {
            let name = serde_json::Value::from(name.as_str());
            format!("{inner}{name}: {}", value.get())
        };
        let lines: Vec<String> = self.0.iter().map(line).collect();
        format!("{{\n{}\n{outer}}}", lines.join(",\n"))
    }
}

fn raw(text: String) -> Result<Box<RawValue>, Unreadable> {
    RawValue::from_string(text).map_err(|error| Unreadable(error.to_string()))
}

fn json(text: &str, config: &Config, start: Option<&Start>) -> Result<Merged, Unreadable> {
    let read = |text: &str| {
        let object: Result<Object, _> = serde_json::from_str(text);
        object.map_err(|error| Unreadable(error.to_string()))
    };
    // Some write a mark of the order of bytes in front, which is no part of JSON.
    let mut whole = read(text.trim_start_matches('\u{feff}'))?;
    let servers = whole.get(config.key).map(|servers| read(servers.get()));
    let mut servers = servers.transpose()?.unwrap_or_default();
    match start {
        Some(start) => {
            let entry = config.entry(start);
            let there = servers
                .get(NAME)
                .map(|there| serde_json::from_str(there.get()));
            if there.is_some_and(|there| there.is_ok_and(|there: serde_json::Value| there == entry))
            {
                return Ok(None);
            }
            let entry = serde_json::to_string_pretty(&entry).unwrap_or_default();
            servers.put(NAME, raw(entry.replace('\n', "\n    "))?);
        }
        None if servers.get(NAME).is_none() => return Ok(None),
        None => servers.0.retain(|(name, _)| name != NAME),
    }
    whole.put(config.key, raw(servers.text(2))?);
    Ok(Some(whole.text(0) + "\n"))
}

fn toml(text: &str, config: &Config, start: Option<&Start>) -> Result<Merged, Unreadable> {
    let bad = |error: toml_edit::TomlError| Unreadable(error.message().to_owned());
    let mut whole: DocumentMut = text.parse().map_err(bad)?;
    let no_table = || Unreadable(format!("`{}` is not a table", config.key));
    if start.is_none() && !whole.contains_key(config.key) {
        return Ok(None);
    }
    let servers = whole.entry(config.key).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let servers = servers.as_table_like_mut().ok_or_else(no_table)?;
    let Some(start) = start else {
        let had = servers.remove(NAME).is_some();
        return Ok(had.then(|| whole.to_string()));
    };
    let there = servers.get_mut(NAME).and_then(Item::as_table_like_mut);
    let changed = match there {
        Some(there) => fill(there, start),
        None => {
            let mut table = Table::new();
            fill(&mut table, start);
            servers.insert(NAME, Item::Table(table));
            true
        }
    };
    Ok(changed.then(|| whole.to_string()))
}

/// Says what starts us, beside what else a person has said there. Whether that was another.
fn fill(table: &mut dyn TableLike, start: &Start) -> bool {
    let arguments: toml_edit::Array = start.arguments.iter().map(String::as_str).collect();
    let is_same = table.get("command").and_then(Item::as_str) == Some(&start.program)
        && table
            .get("args")
            .and_then(Item::as_array)
            .is_some_and(|there| {
                there
                    .iter()
                    .map(|value| value.as_str())
                    .eq(start.arguments.iter().map(|one| Some(one.as_str())))
            });
    if !is_same {
        table.insert("command", toml_edit::value(start.program.as_str()));
        table.insert("args", toml_edit::value(arguments));
    }
    !is_same
}

#[cfg(test)]
mod tests {
    use super::super::clients::config;
    use super::*;
    use crate::cli::args::McpClient;

    fn start() -> Start {
        Start {
            program: "/bin/cofferdam".to_owned(),
            arguments: vec!["mcp".to_owned()],
        }
    }

    #[test]
    fn what_is_there_stays_as_it_was_written() {
        let text = r#"{
  "z": 1.10, "big": 123456789012345678901234567890,
  "mcpServers": {
    "other": { "command": "x",   "env": {"A": "\u00e4"} }
  },
  "a": [1,
    2]
}"#;
        let config = config(McpClient::Cursor);
        let merged = with(text, &config, &start()).unwrap().unwrap();
        let expect = r#"{
  "z": 1.10,
  "big": 123456789012345678901234567890,
  "mcpServers": {
    "other": { "command": "x",   "env": {"A": "\u00e4"} },
    "cofferdam": {
      "args": [
        "mcp"
      ],
      "command": "/bin/cofferdam"
    }
  },
  "a": [1,
    2]
}
"#;
        assert_eq!(merged, expect);
        assert_eq!(with(&merged, &config, &start()), Ok(None));
        let gone = without(&merged, &config).unwrap().unwrap();
        assert!(!gone.contains("cofferdam") && gone.contains("\\u00e4"));
        assert_eq!(without(&gone, &config), Ok(None));
    }

    #[test]
    fn another_start_replaces_ours_and_nothing_else() {
        let config = config(McpClient::ClaudeCode);
        let first = with("{}", &config, &start()).unwrap().unwrap();
        let other = Start {
            program: "/new".to_owned(),
            ..start()
        };
        let second = with(&first, &config, &other).unwrap().unwrap();
        assert!(second.contains("/new") && !second.contains("/bin/cofferdam"));
    }

    #[test]
    fn toml_keeps_its_comments_and_its_order() {
        let text =
            "# mine\nmodel = \"x\" # why\n\n[mcp_servers.other]\ncommand = \"y\"\n\n[z]\na = 1\n";
        let config = config(McpClient::Codex);
        let merged = with(text, &config, &start()).unwrap().unwrap();
        assert!(
            merged.starts_with("# mine\nmodel = \"x\" # why\n"),
            "{merged}"
        );
        assert!(
            merged.contains(
                "[mcp_servers.cofferdam]\ncommand = \"/bin/cofferdam\"\nargs = [\"mcp\"]"
            ),
            "{merged}"
        );
        assert!(merged.contains("[z]\na = 1\n"));
        assert_eq!(with(&merged, &config, &start()), Ok(None));
        assert_eq!(without(&merged, &config).unwrap().unwrap(), text);
        let empty = with("", &config, &start()).unwrap().unwrap();
        assert_eq!(with(&empty, &config, &start()), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_left() {
        let json = config(McpClient::Zed);
        for text in [
            "{ // a comment\n}",
            "[]",
            "{\"context_servers\": []}",
            "{\"context_servers\": null}",
            "{",
            "{} {}",
        ] {
            assert!(with(text, &json, &start()).is_err(), "{text}");
            assert_eq!(without(text, &json), Ok(None), "{text}");
        }
        let toml = config(McpClient::Codex);
        for text in ["a = ", "mcp_servers = 1", "[a"] {
            assert!(with(text, &toml, &start()).is_err(), "{text}");
        }
    }
}
