//! What the outside sees: the wire types of every route, the table of stable error codes, the
//! framing of an attached job, the typed client, and a client for the guest of a sandbox.
//!
//! Enters: JSON that a stranger wrote. Leaves: typed values, or an error with a stable code.
//! Everybody who speaks to a server reads this room and nothing else: the command line, the node
//! agent and the tests all go through [`Client`], so that there is no private door.
//!
//! Inputs refuse unknown fields: a misspelt limit must not become "no limit".
//! Answers are read leniently, so that an old client can talk to a newer server;
//! the one exception is a lease, because a node that ignores a clause it does not know
//! would run something weaker than what was asked.
//!
//! This room must never know the database, the state machines or the kernel. It imports no other
//! room. It never blocks, and it never reads more from a peer than a named constant allows.
//!
//! Reading order: [`routes`], [`job`], [`sandbox`], [`snapshot`], [`volume`], [`secret`], [`profile`], [`policy`], [`approval`], [`log`], [`artifact`], [`blob`],
//! [`event`], [`exec`], [`node`], [`health`], [`error`], [`attach`], [`guest`], then [`client`].

pub mod approval;
pub mod artifact;
pub mod attach;
pub mod audit;
pub mod blob;
pub mod client;
pub mod dropped;
pub mod egress;
pub mod encoding;
#[cfg(test)]
#[path = "../../../fuzz/engine.rs"]
mod engine;
pub mod error;
pub mod event;
pub mod exec;
pub mod fleet;
pub mod guest;
pub mod health;
pub mod job;
pub mod link;
pub mod log;
pub mod network;
pub mod node;
pub mod people;
pub mod place;
pub mod policy;
pub mod profile;
pub mod quota;
pub mod routes;
pub mod sandbox;
pub mod secret;
pub mod snapshot;
pub mod volume;

pub use client::{Client, ClientError, Endpoint};
pub use error::{Code, ErrorBody};
