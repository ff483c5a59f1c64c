//! Servers of one database: which there are, which of them holds the link of a node, and what all must share.
//!
//! A server says every few seconds that it is there. A row about a link is a hint where to ask: whoever it names
//! knows whether it is so. So a row may be late, and nothing is decided by one.

use crate::change::Note;
use crate::enroll::tell;
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::{NodeId, ServerId};
use model::limits;
use store::Tx;
use store::server::{self, LinkRow, ServerRow};

/// Servers that are listed, and links: all nodes that are listed have two.
const SERVERS_SHOWN: u32 = 100;
const LINKS_SHOWN: u32 = 2000;
/// Silent servers that are forgotten at a time.
const FORGET_MAX: u32 = 100;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello {
    /// Which it is, made anew at each start.
    pub id: ServerId,
    /// What people call it.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// Where other servers dial it, as `HOST:PORT`.
    pub address: Option<String>,
    /// The fingerprint of what it shows them.
    pub certificate: Option<String>,
    /// When it began.
    pub started_at_ms: u64,
}

/// A server as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSeen {
    /// What it said.
    pub row: ServerRow,
    /// Whether it was heard lately.
    pub is_heard: bool,
    /// The links that it holds.
    pub links: Vec<LinkRow>,
}

/// Who holds the link of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHeld {
    /// The server.
    pub server: ServerRow,
    /// Of the link.
    pub epoch: u64,
}

/// What all servers on a database must have alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The directory of blobs.
    Blobs,
    /// Who signs certificates of nodes and servers.
    NodeAuthority,
    /// The master key of secrets.
    SecretKey,
    /// The token of clients.
    Token,
}

impl Share {
    /// As it is written on a command line and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Share::Blobs => "blobs",
            Share::NodeAuthority => "node-authority",
            Share::SecretKey => "secret-key",
            Share::Token => "token",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Share::Blobs => {
                "the directory of blobs is not that of the other servers on this database"
            }
            Share::NodeAuthority => {
                "node-authority.json is not that of the other servers on this database"
            }
            Share::SecretKey => {
                "the master key of secrets is not that of the other servers on this database"
            }
            Share::Token => "the token is not that of the other servers on this database",
        }
    }
}

fn is_heard(row: &ServerRow, now_ms: u64) -> bool {
    now_ms.saturating_sub(row.heard_at_ms) < limits::SERVER_SILENT_MS
}

impl Service {
    /// Compares what stands for something that all servers share with what the first of them has written; writes it,
    /// if this is the first. What it is written for is never told by it.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `server_mismatch`.
    pub async fn server_shares(&self, what: Share, value: &str) -> Result<(), Error> {
        let own = value.to_owned();
        let found = self.unit(move |tx| Ok(server::mark(tx, what.as_str(), &own)?));
        if found.await? == value {
            return Ok(());
        }
        Err(Error::conflict_of("server_mismatch", what.message()))
    }

    /// Writes what stands for it anew, because the operator has changed it.
    ///
    /// # Errors
    /// [`Error::Conflict`] while another server is heard, which still has the one before.
    pub async fn server_adopt(&self, what: Share, value: &str) -> Result<(), Error> {
        let (value, now) = (value.to_owned(), self.now_ms());
        let note = Note::new(&Ctx::internal("server"), now);
        self.unit(move |tx| {
            let there = server::list(tx, SERVERS_SHOWN)?;
            if there.iter().any(|row| is_heard(row, now)) {
                let message = "another server on this database is there; stop it first";
                return Err(Error::conflict(message).into());
            }
            server::set_mark(tx, what.as_str(), &value)?;
            let none = serde_json::json!({});
            let of = ("fleet_mark", what.as_str());
            Ok(tell(tx, of, "fleet_mark.changed", &none, &note)?)
        })
        .await
    }

    /// Goes by the clock of the database from now on, if that is not in this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn follow_clock(&self) -> Result<(), Error> {
        let before = self.now_ms();
        let there = self.look(|tx| Ok(server::now_ms(tx)?)).await?;
        if let Some(there) = there {
            self.inner.clock.follow(there, (before, self.now_ms()));
        }
        Ok(())
    }

    /// A server says that it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn server_beat(&self, hello: &ServerHello) -> Result<(), Error> {
        self.follow_clock().await?;
        let row = ServerRow {
            id: hello.id.clone(),
            name: hello.name.clone(),
            version: hello.version.clone(),
            address: hello.address.clone(),
            certificate: hello.certificate.clone(),
            started_at_ms: hello.started_at_ms,
            heard_at_ms: self.now_ms(),
        };
        self.unit(move |tx| Ok(server::put(tx, &row)?)).await
    }

    /// A server says goodbye: it holds no links any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn server_gone(&self, id: &ServerId) -> Result<(), Error> {
        let id = id.clone();
        self.unit(move |tx| Ok(server::delete(tx, &id)?)).await
    }

    /// Servers, the newest first, with the links that they hold.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn server_list(&self, ctx: &Ctx) -> Result<Vec<ServerSeen>, Error> {
        ctx.may(Action::NodeRead)?;
        let now = self.now_ms();
        self.look(move |tx| {
            let links = server::links(tx, LINKS_SHOWN)?;
            let seen = |row: ServerRow| ServerSeen {
                is_heard: is_heard(&row, now),
                links: links
                    .iter()
                    .filter(|link| link.server.as_ref() == Some(&row.id))
                    .cloned()
                    .collect(),
                row,
            };
            let rows = server::list(tx, SERVERS_SHOWN)?;
            Ok(rows.into_iter().map(seen).collect())
        })
        .await
    }

    /// Which server shows this certificate.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `certificate_unknown`, also for one that was not heard lately.
    pub async fn server_of_certificate(&self, fingerprint: &str) -> Result<ServerId, Error> {
        let (fingerprint, now) = (fingerprint.to_owned(), self.now_ms());
        let row = self.look(move |tx| Ok(server::of_certificate(tx, &fingerprint)?));
        match row.await?.filter(|row| is_heard(row, now)) {
            Some(row) => Ok(row.id),
            None => Err(Error::conflict_of(
                "certificate_unknown",
                "the certificate is of no server that is there",
            )),
        }
    }

    /// A server holds the link of a node from now on. Gives the epoch of that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn link_opened(
        &self,
        (node, class): (&NodeId, &'static str),
        server: &ServerId,
    ) -> Result<u64, Error> {
        let (node, server, now) = (node.clone(), server.clone(), self.now_ms());
        self.unit(move |tx| Ok(server::link_open(tx, (&node, class), &server, now)?))
            .await
    }

    /// A server still holds the link of a node, though it may have been silent for so long that this was forgotten.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn link_goes_on(
        &self,
        (node, class): (&NodeId, &'static str),
        epoch: u64,
        server: &ServerId,
    ) -> Result<(), Error> {
        let (node, server) = (node.clone(), server.clone());
        self.unit(move |tx| Ok(server::link_again(tx, &server, (&node, class), epoch)?))
            .await
    }

    /// A link has ended, unless there is another by now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn link_closed(
        &self,
        (node, class): (&NodeId, &'static str),
        epoch: u64,
    ) -> Result<(), Error> {
        let node = node.clone();
        self.unit(move |tx| Ok(server::link_close(tx, (&node, class), epoch)?))
            .await
    }

    /// Who holds the link of a node, among the servers that are there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn link_holder(
        &self,
        (node, class): (&NodeId, &'static str),
    ) -> Result<Option<LinkHeld>, Error> {
        let (node, now) = (node.clone(), self.now_ms());
        let held = self.look(move |tx| Ok(server::link_holder(tx, (&node, class))?));
        let held = held.await?.filter(|(row, _)| is_heard(row, now));
        Ok(held.map(|(server, epoch)| LinkHeld { server, epoch }))
    }
}

/// Forgets servers that have been silent for long. What they held, nobody holds.
pub(crate) fn forget_silent(tx: &mut Tx<'_>, now_ms: u64) -> Result<(), Fail> {
    let before = now_ms.saturating_sub(limits::SERVER_FORGET_MS);
    for id in server::silent(tx, before, FORGET_MAX)? {
        server::delete(tx, &id)?;
    }
    Ok(())
}
