//! One statement for many rows: what a transaction writes row by row, as PostgreSQL does it at once.
//!
//! To plan, begin and end a statement costs PostgreSQL four times what one row of it costs. So statements of the same
//! text are put together, with an array for each placeholder, if that means the same: see [`together`].

use crate::db::Value;
use bytes::BytesMut;
use postgres::types::{IsNull, ToSql, Type};

/// The table whose rows are locked before those of any other.
pub(super) const FIRST_LOCKED: &str = "queue";

/// The table that a statement writes to, and what it is called inside of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Together {
    /// Statements on one table stay in their order.
    pub(super) table: String,
    /// The statement for many rows.
    pub(super) sql: String,
}

/// The statement that does for many rows what `sql` does for one, whose placeholders are of these types; `None` where
/// that could mean something else, or the statement is of another form:
///
/// * `INSERT INTO table (columns) VALUES (…)` and nothing behind it: on a conflict, one of many could be another's;
/// * `UPDATE table SET … WHERE …`, if `is_counted`: it changes a row once, however many of the many mean it, and only
///   somebody who counts the rows sees that;
/// * `DELETE FROM table WHERE …`.
pub(super) fn together(sql: &str, types: &[Type], is_counted: bool) -> Option<Together> {
    let (verb, rest) = ["INSERT INTO ", "UPDATE ", "DELETE FROM "]
        .into_iter()
        .find_map(|verb| Some((verb, sql.strip_prefix(verb)?)))?;
    let table = rest.split(' ').next()?.to_owned();
    let is_plain = |word: &&str| !sql.contains(*word);
    if !["SELECT", " FROM ", "RETURNING", "USING", " ON ", "'"]
        .iter()
        .all(|word| {
            is_plain(word) || (*word == " FROM " && verb == "DELETE FROM " && !rest.contains(word))
        })
    {
        return None;
    }
    let rows = rows(types)?;
    let sql = match verb {
        "INSERT INTO " => {
            let (head, tuple) = rest.split_once(" VALUES (")?;
            let tuple = tuple
                .strip_suffix(')')
                .filter(|tuple| !tuple.contains(')'))?;
            format!("{verb}{head} SELECT {} FROM {rows}", named(tuple)?)
        }
        "UPDATE " if !is_counted => return None,
        _ => {
            let (head, which) = rest.split_once(" WHERE ")?;
            if which.contains(" WHERE ") {
                return None;
            }
            let from = if verb == "UPDATE " { "FROM" } else { "USING" };
            format!(
                "{verb}{} {from} {rows} WHERE {}",
                named(head)?,
                named(which)?
            )
        }
    };
    Some(Together { table, sql })
}

/// A table of as many rows as the arrays are long.
fn rows(types: &[Type]) -> Option<String> {
    let (mut arrays, mut names) = (Vec::new(), Vec::new());
    for (number, kind) in (1..).zip(types) {
        let array = match *kind {
            Type::TEXT => "text[]",
            Type::INT8 => "bigint[]",
            Type::BYTEA => "bytea[]",
            _ => return None,
        };
        arrays.push(format!("${number}::{array}"));
        names.push(format!("c{number}"));
    }
    let is_any = !names.is_empty();
    is_any.then(|| format!("unnest({}) AS m({})", arrays.join(", "), names.join(", ")))
}

/// A text whose placeholders are columns: `$7` is `m.c7`.
fn named(text: &str) -> Option<String> {
    let mut parts = text.split('$');
    let mut named = parts.next()?.to_owned();
    for part in parts {
        if !part.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        named.push_str("m.c");
        named.push_str(part);
    }
    Some(named)
}

/// What one placeholder has in all rows.
#[derive(Debug)]
pub(super) struct Column<'v>(Vec<&'v Value>);

/// The columns of rows that are all as long.
pub(super) fn columns(rows: &[Vec<Value>]) -> Vec<Column<'_>> {
    let width = rows.first().map_or(0, Vec::len);
    let column = |number| Column(rows.iter().filter_map(|row| row.get(number)).collect());
    (0..width).map(column).collect()
}

impl ToSql for Column<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::together;
    use postgres::types::Type;

    fn sql(one: &str, types: &[Type], is_counted: bool) -> Option<String> {
        Some(together(one, types, is_counted)?.sql)
    }

    #[test]
    fn what_is_written_row_by_row_is_one_statement_with_a_column_for_each_placeholder() {
        let kinds = [Type::TEXT, Type::INT8];
        let insert = sql("INSERT INTO a (x, y, z) VALUES ($1, 0, $2)", &kinds, false);
        let rows = "unnest($1::text[], $2::bigint[]) AS m(c1, c2)";
        assert_eq!(
            insert.unwrap(),
            format!("INSERT INTO a (x, y, z) SELECT m.c1, 0, m.c2 FROM {rows}")
        );
        let update = sql("UPDATE a SET x = $1 WHERE id = $2", &kinds, true);
        assert_eq!(
            update.unwrap(),
            format!("UPDATE a SET x = m.c1 FROM {rows} WHERE id = m.c2")
        );
        let delete = sql("DELETE FROM a WHERE x = $1 AND y = $2", &kinds, false);
        assert_eq!(
            delete.unwrap(),
            format!("DELETE FROM a USING {rows} WHERE x = m.c1 AND y = m.c2")
        );
        let table = together("UPDATE a SET x = $1 WHERE id = $2", &kinds, true);
        assert_eq!(table.unwrap().table, "a");
    }

    #[test]
    fn what_could_mean_something_else_for_many_rows_stays_one_by_one() {
        let text = [Type::TEXT];
        for (one, types, is_counted) in [
            // A number that is counted up twice for one row would be counted up once.
            ("UPDATE a SET n = n + 1 WHERE id = $1", &text[..], false),
            (
                "INSERT INTO a (x) VALUES ($1) ON CONFLICT DO NOTHING",
                &text,
                false,
            ),
            (
                "INSERT INTO a (x) SELECT y FROM b WHERE z = $1",
                &text,
                false,
            ),
            (
                "DELETE FROM a WHERE id IN (SELECT id FROM b WHERE x = $1)",
                &text,
                false,
            ),
            (
                "UPDATE a SET x = (SELECT MAX(x) FROM b) WHERE id = $1",
                &text,
                true,
            ),
            ("UPDATE a SET x = '$1' WHERE id = $1", &text, true),
            ("DELETE FROM a WHERE id = $1 RETURNING x", &text, false),
            ("DELETE FROM a", &[], false),
            ("SELECT x FROM a WHERE id = $1", &text, false),
            ("INSERT INTO a (x) VALUES ($1)", &[Type::TEXT_ARRAY], false),
        ] {
            assert_eq!(sql(one, types, is_counted), None, "{one}");
        }
    }
}
