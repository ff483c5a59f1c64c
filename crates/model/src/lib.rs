//! What things are: ids, states and the one function that moves each, what a job asks for, limits,
//! events. Everybody may read this room; it reads nobody.
//!
//! What enters is a value and what leaves is a value: a state and an event become the next state, a
//! request becomes a list of what is wrong with it. So every decision of the product can be printed,
//! tested as a table, and read without knowing where it runs.
//!
//! This room must never read a clock, a file, the environment or randomness, never wait, and never know
//! how something is stored or sent. Its types are encoded by the store for rows of its own, and by
//! nobody else: the wire has types of its own in `api`.

pub mod access;
pub mod address;
pub mod approval;
pub mod block;
pub mod breaker;
pub mod build;
pub mod dependency;
pub mod enforcement;
pub mod event;
pub mod exception;
pub mod host;
pub mod id;
pub mod job;
pub mod lease;
pub mod limits;
pub mod network;
pub mod node;
pub mod place;
pub mod points;
pub mod policy;
pub mod principal;
pub mod profile;
pub mod quota;
pub mod rate;
pub mod refusal;
pub mod root;
pub mod sandbox;
pub mod sandbox_spec;
pub mod secret;
pub mod snapshot;
pub mod spec;
pub mod usage;
pub mod volume;
