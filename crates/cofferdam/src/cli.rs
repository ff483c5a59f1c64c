//! The command line over the API.

pub(crate) mod answer;
pub(crate) mod args;
pub(crate) mod audit;
pub(crate) mod egress;
pub(crate) mod failure;
pub(crate) mod fetch;
pub(crate) mod fleet;
pub(crate) mod input;
pub(crate) mod inside;
pub(crate) mod job;
pub(crate) mod mcp;
pub(crate) mod net;
pub(crate) mod people;
pub(crate) mod policy;
pub(crate) mod profile;
mod quota;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod snapshot;
pub(crate) mod streams;
pub(crate) mod table;
pub(crate) mod units;
pub(crate) mod upload;
pub(crate) mod usage;
pub(crate) mod volume;
pub(crate) mod words;
