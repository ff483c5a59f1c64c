//! E2B's door over a real database, with a node and a guest that the tests play.

#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

mod control;
mod guest;
mod people;
mod proxy;
mod rest;
mod roots;
mod sdk;
mod snapshots;
mod templates;
mod tls;
mod world;
