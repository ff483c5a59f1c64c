//! The doors over a real database and no node but the one that the tests play.

#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

mod answers;
mod approval;
mod attach;
mod auth;
mod bad_input;
mod connections;
mod egress;
mod execs;
mod fleet;
mod jwt;
mod life;
mod mcp;
mod people;
mod policy;
mod profile;
mod quota;
mod rates;
mod sandbox;
mod secret;
mod sizes;
mod smuggling;
mod snapshot;
mod tools;
mod world;
