//! Between the words of the wire and the words of the house. Nothing is decided here.

pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod egress;
pub(crate) mod exec;
pub(crate) mod fleet;
pub(crate) mod from_wire;
pub(crate) mod network;
pub(crate) mod people;
pub(crate) mod place;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod quota;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod snapshot;
pub(crate) mod to_wire;
pub(crate) mod usage;
pub(crate) mod volume;

// A heartbeat carries as many reports that were given up as are taken note of, or the rest would be told for ever.
const _: () = assert!(api::dropped::DROPPED_MAX == service::DROPPED_MAX);
