//! Bringing a database to the schema that this program knows, one numbered step after the other.

use crate::StoreError;

/// The steps of each database, in order; step N makes version N. Steps that were released are never
/// changed, only followed by others.
const SQLITE: &[&str] = &[
    include_str!("../migrations/sqlite/0001_init.sql"),
    include_str!("../migrations/sqlite/0002_sandbox.sql"),
    include_str!("../migrations/sqlite/0003_snapshot.sql"),
    include_str!("../migrations/sqlite/0004_exec.sql"),
    include_str!("../migrations/sqlite/0005_usage.sql"),
    include_str!("../migrations/sqlite/0006_secret.sql"),
    include_str!("../migrations/sqlite/0007_profile.sql"),
    include_str!("../migrations/sqlite/0008_volume.sql"),
    include_str!("../migrations/sqlite/0009_network.sql"),
    include_str!("../migrations/sqlite/0010_secret_source.sql"),
    include_str!("../migrations/sqlite/0011_profile_version.sql"),
    include_str!("../migrations/sqlite/0013_place.sql"),
    include_str!("../migrations/sqlite/0014_enrollment.sql"),
    include_str!("../migrations/sqlite/0015_server.sql"),
    include_str!("../migrations/sqlite/0017_network_refused.sql"),
    include_str!("../migrations/sqlite/0018_placement.sql"),
    include_str!("../migrations/sqlite/0020_job_state.sql"),
    include_str!("../migrations/sqlite/0021_audit.sql"),
    include_str!("../migrations/sqlite/0027_audit_content.sql"),
    include_str!("../migrations/sqlite/0023_lease_token.sql"),
    include_str!("../migrations/sqlite/0022_leaving.sql"),
    include_str!("../migrations/sqlite/0024_people.sql"),
    include_str!("../migrations/sqlite/0026_policy.sql"),
    include_str!("../migrations/sqlite/0034_policy_stamp.sql"),
    include_str!("../migrations/sqlite/0029_quota.sql"),
    include_str!("../migrations/sqlite/0032_pinned.sql"),
    include_str!("../migrations/sqlite/0030_identity.sql"),
    include_str!("../migrations/sqlite/0028_approval.sql"),
    include_str!("../migrations/sqlite/0033_secret_given.sql"),
    include_str!("../migrations/sqlite/0035_stopping.sql"),
    include_str!("../migrations/sqlite/0036_few.sql"),
    include_str!("../migrations/sqlite/0037_egress_find.sql"),
];
const POSTGRES: &[&str] = &[
    include_str!("../migrations/postgres/0001_init.sql"),
    include_str!("../migrations/postgres/0002_sandbox.sql"),
    include_str!("../migrations/postgres/0003_snapshot.sql"),
    include_str!("../migrations/postgres/0004_exec.sql"),
    include_str!("../migrations/postgres/0005_usage.sql"),
    include_str!("../migrations/postgres/0006_secret.sql"),
    include_str!("../migrations/postgres/0007_profile.sql"),
    include_str!("../migrations/postgres/0008_volume.sql"),
    include_str!("../migrations/postgres/0009_network.sql"),
    include_str!("../migrations/postgres/0010_secret_source.sql"),
    include_str!("../migrations/postgres/0011_profile_version.sql"),
    include_str!("../migrations/postgres/0013_place.sql"),
    include_str!("../migrations/postgres/0014_enrollment.sql"),
    include_str!("../migrations/postgres/0015_server.sql"),
    include_str!("../migrations/postgres/0017_network_refused.sql"),
    include_str!("../migrations/postgres/0018_placement.sql"),
    include_str!("../migrations/postgres/0020_job_state.sql"),
    include_str!("../migrations/postgres/0021_audit.sql"),
    include_str!("../migrations/postgres/0027_audit_content.sql"),
    include_str!("../migrations/postgres/0023_lease_token.sql"),
    include_str!("../migrations/postgres/0022_leaving.sql"),
    include_str!("../migrations/postgres/0024_people.sql"),
    include_str!("../migrations/postgres/0026_policy.sql"),
    include_str!("../migrations/postgres/0034_policy_stamp.sql"),
    include_str!("../migrations/postgres/0029_quota.sql"),
    include_str!("../migrations/postgres/0032_pinned.sql"),
    include_str!("../migrations/postgres/0030_identity.sql"),
    include_str!("../migrations/postgres/0028_approval.sql"),
    include_str!("../migrations/postgres/0033_secret_given.sql"),
    include_str!("../migrations/postgres/0035_stopping.sql"),
    include_str!("../migrations/postgres/0036_few.sql"),
    include_str!("../migrations/postgres/0037_egress_find.sql"),
];

/// The version that this program knows.
fn known(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

fn missing<'s>(steps: &'s [&'s str], found: i64) -> Result<&'s [&'s str], StoreError> {
    let known = known(steps);
    let done = usize::try_from(found).unwrap_or(0);
    steps
        .get(done..)
        .ok_or(StoreError::NewerSchema { found, known })
}

/// Brings a SQLite database up to date. One query when it is already.
pub(crate) fn sqlite(conn: &rusqlite::Connection) -> Result<(), StoreError> {
    let version = || conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    if missing(SQLITE, version()?)?.is_empty() {
        return Ok(());
    }
    conn.execute_batch("BEGIN IMMEDIATE")?;
    // Another process may have done it while this one waited for the lock.
    let result = version().map_err(StoreError::from).and_then(|found| {
        for step in missing(SQLITE, found)? {
            conn.execute_batch(step)?;
        }
        conn.pragma_update(None, "user_version", known(SQLITE))?;
        Ok(())
    });
    if result.is_ok() {
        return Ok(conn.execute_batch("COMMIT")?);
    }
    // A full disk has undone it already, and then there is nothing to undo; the reason is what counts.
    drop(conn.execute_batch("ROLLBACK"));
    result
}

/// Any number that no other program on the same database uses for the same thing.
const POSTGRES_LOCK: i64 = 0x0c0f_fe7d_a000_0001;

/// Brings a PostgreSQL database up to date. Replicas that start together do it one after the other.
pub(crate) fn postgres(client: &mut postgres::Client) -> Result<(), StoreError> {
    let mut tx = client.transaction()?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&POSTGRES_LOCK])?;
    tx.batch_execute("CREATE TABLE IF NOT EXISTS schema_migration (version BIGINT PRIMARY KEY)")?;
    let row = tx.query_one(
        "SELECT COALESCE(MAX(version), 0) AS version FROM schema_migration",
        &[],
    )?;
    let found: i64 = row.get("version");
    for (version, step) in (found + 1..).zip(missing(POSTGRES, found)?) {
        tx.batch_execute(step)?;
        tx.execute(
            "INSERT INTO schema_migration (version) VALUES ($1)",
            &[&version],
        )?;
    }
    tx.batch_execute("SELECT event_marks_go_on()")?;
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_failed_before_there_were_quotas_counts_as_it_was_asked_for() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let quota = SQLITE
            .iter()
            .position(|step| step.contains("CREATE TABLE quota"));
        let (before, after) = SQLITE.split_at(quota.unwrap());
        for step in before {
            conn.execute_batch(step).unwrap();
        }
        let insert = "INSERT INTO sandbox (id, tenant, principal, state, state_json, version, epoch, spec, metadata, \
                      access_token, ttl_ms, created_at_ms) VALUES (?1, 'a', 'user:a', ?1, '{}', 1, 0, \
                      '{\"limits\":{\"memory_bytes\":7,\"cpu_millis\":5}}', '{}', 't', 1, 1)";
        for state in ["failed", "ready", "destroyed"] {
            conn.execute(insert, [state]).unwrap();
        }
        for step in after {
            conn.execute_batch(step).unwrap();
        }
        let counted = |state: &str| {
            let sql = "SELECT cpu_millis, memory_bytes, disk_bytes FROM sandbox WHERE state = ?1";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let counted: (i64, i64, i64) = conn.query_row(sql, [state], read).unwrap();
            counted
        };
        // It can be made anew, which inserts no row.
        assert_eq!(counted("failed"), (5, 7, 1 << 30));
        assert_eq!(counted("ready"), (5, 7, 1 << 30));
        assert_eq!(counted("destroyed"), (1000, 512 << 20, 1 << 30));
    }
}
