//! Servers of one database: which there are, which of them holds the link of a node, and what all must share.

use crate::{Row, StoreError, Tx};
use model::id::{NodeId, ServerId};

/// A process that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// Which; another one after each start.
    pub id: ServerId,
    /// What people call it.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// Where other servers dial it, as `HOST:PORT`; `None` for one that nobody dials.
    pub address: Option<String>,
    /// SHA-256 of the certificate that it shows other servers, in hexadecimal digits.
    pub certificate: Option<String>,
    /// When it began.
    pub started_at_ms: u64,
    /// When it was heard last.
    pub heard_at_ms: u64,
}

/// A link of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Whose.
    pub node: NodeId,
    /// `interactive` or `bulk`.
    pub class: String,
    /// Rises with each link of this node and class.
    pub epoch: u64,
    /// Who holds it; `None` when it has ended.
    pub server: Option<ServerId>,
    /// Since when.
    pub since_ms: u64,
}

macro_rules! server_columns {
    () => {
        "id, name, version, address, certificate, started_at_ms, heard_at_ms"
    };
}

fn server_from(row: &Row) -> Result<ServerRow, StoreError> {
    Ok(ServerRow {
        id: row.parsed("id")?,
        name: row.text("name")?,
        version: row.text("version")?,
        address: row.text_or_null("address")?,
        certificate: row.text_or_null("certificate")?,
        started_at_ms: row.number("started_at_ms")?,
        heard_at_ms: row.number("heard_at_ms")?,
    })
}

/// Writes that a server is there.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn put(tx: &mut Tx<'_>, row: &ServerRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO server (id, name, version, address, certificate, started_at_ms, heard_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET \
         address = excluded.address, certificate = excluded.certificate, \
         heard_at_ms = excluded.heard_at_ms",
        &[
            row.id.as_str().into(),
            (*row.name).into(),
            (*row.version).into(),
            row.address.clone().into(),
            row.certificate.clone().into(),
            row.started_at_ms.into(),
            row.heard_at_ms.into(),
        ],
    )
    .map(drop)
}

/// Servers, the newest first, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<ServerRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        server_columns!(),
        " FROM server ORDER BY id DESC LIMIT $1"
    );
    let rows = tx.query(sql, &[limit.into()])?;
    rows.iter().map(server_from).collect()
}

/// The server that shows this certificate.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn of_certificate(tx: &mut Tx<'_>, fingerprint: &str) -> Result<Option<ServerRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        server_columns!(),
        " FROM server WHERE certificate = $1"
    );
    let row = tx.query_one(sql, &[fingerprint.into()])?;
    row.as_ref().map(server_from).transpose()
}

/// Forgets a server, and that it held links.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, id: &ServerId) -> Result<(), StoreError> {
    let sql = "UPDATE node_link SET server = NULL WHERE server = $1";
    tx.execute(sql, &[id.as_str().into()])?;
    let sql = "DELETE FROM server WHERE id = $1";
    tx.execute(sql, &[id.as_str().into()]).map(drop)
}

/// Servers that were heard last before then, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn silent(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<Vec<ServerId>, StoreError> {
    let sql = "SELECT id FROM server WHERE heard_at_ms < $1 ORDER BY id LIMIT $2";
    let rows = tx.query(sql, &[before_ms.into(), limit.into()])?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Writes that a server holds the link of a node from now on, whoever held it before. Gives its epoch.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn link_open(
    tx: &mut Tx<'_>,
    (node, class): (&NodeId, &str),
    server: &ServerId,
    at_ms: u64,
) -> Result<u64, StoreError> {
    let rows = tx.query(
        "INSERT INTO node_link (node, class, epoch, server, since_ms) VALUES ($1, $2, 1, $3, $4) \
         ON CONFLICT (node, class) DO UPDATE SET epoch = node_link.epoch + 1, \
         server = excluded.server, since_ms = excluded.since_ms RETURNING epoch",
        &[
            node.as_str().into(),
            class.into(),
            server.as_str().into(),
            at_ms.into(),
        ],
    )?;
    rows.first().map_or(Ok(0), |row| row.number("epoch"))
}

/// Writes that a link has ended, unless there is another by now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn link_close(
    tx: &mut Tx<'_>,
    (node, class): (&NodeId, &str),
    epoch: u64,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE node_link SET server = NULL WHERE node = $1 AND class = $2 AND epoch = $3",
        &[node.as_str().into(), class.into(), epoch.into()],
    )
    .map(drop)
}

/// Writes who holds a link where that was forgotten, because this server was silent for long, and nobody else has one by
/// now.
///
/// # Errors
/// [`StoreError`] of the database; also while the server itself is forgotten.
pub fn link_again(
    tx: &mut Tx<'_>,
    server: &ServerId,
    (node, class): (&NodeId, &str),
    epoch: u64,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE node_link SET server = $1 \
         WHERE node = $2 AND class = $3 AND epoch = $4 AND server IS NULL",
        &[
            server.as_str().into(),
            node.as_str().into(),
            class.into(),
            epoch.into(),
        ],
    )
    .map(drop)
}

/// The server that holds the link of a node, and the epoch of that.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn link_holder(
    tx: &mut Tx<'_>,
    (node, class): (&NodeId, &str),
) -> Result<Option<(ServerRow, u64)>, StoreError> {
    let row = tx.query_one(
        "SELECT server.id AS id, server.name AS name, server.version AS version, \
         server.address AS address, server.certificate AS certificate, \
         server.started_at_ms AS started_at_ms, server.heard_at_ms AS heard_at_ms, \
         node_link.epoch AS epoch FROM node_link JOIN server ON server.id = node_link.server \
         WHERE node_link.node = $1 AND node_link.class = $2",
        &[node.as_str().into(), class.into()],
    )?;
    let one = |row: Row| Ok((server_from(&row)?, row.number("epoch")?));
    row.map(one).transpose()
}

/// Links that somebody holds, by node and class, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn links(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<LinkRow>, StoreError> {
    let rows = tx.query(
        "SELECT node, class, epoch, server, since_ms FROM node_link WHERE server IS NOT NULL \
         ORDER BY node, class LIMIT $1",
        &[limit.into()],
    )?;
    let one = |row: &Row| {
        Ok(LinkRow {
            node: row.parsed("node")?,
            class: row.text("class")?,
            epoch: row.number("epoch")?,
            server: Some(row.parsed("server")?),
            since_ms: row.number("since_ms")?,
        })
    };
    rows.iter().map(one).collect()
}

/// Forgets the links of a node that is not one any more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn forget_links(tx: &mut Tx<'_>, node: &NodeId) -> Result<(), StoreError> {
    let sql = "DELETE FROM node_link WHERE node = $1";
    tx.execute(sql, &[node.as_str().into()]).map(drop)
}

/// What stands for something that all servers share: as it is written, or, where nothing is, this.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn mark(tx: &mut Tx<'_>, name: &str, value: &str) -> Result<String, StoreError> {
    let sql = "INSERT INTO fleet_mark (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    tx.execute(sql, &[name.into(), value.into()])?;
    // Somebody may have taken it away in this moment.
    Ok(known_mark(tx, name)?.unwrap_or_else(|| value.to_owned()))
}

/// The same, if something is written.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn known_mark(tx: &mut Tx<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM fleet_mark WHERE name = $1";
    let row = tx.query_one(sql, &[name.into()])?;
    row.map(|row| row.text("value")).transpose()
}

/// Writes another in its place.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn set_mark(tx: &mut Tx<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO fleet_mark (name, value) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute(sql, &[name.into(), value.into()]).map(drop)
}

/// What time it is at the database, for all who use it from other machines, in milliseconds since 1970. `None` for
/// a database that is in this process, and has no other clock.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn now_ms(tx: &mut Tx<'_>) -> Result<Option<u64>, StoreError> {
    if !tx.has_row_locks() {
        return Ok(None);
    }
    let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms";
    let row = tx.query_one(sql, &[])?;
    row.map(|row| row.number("now_ms")).transpose()
}
