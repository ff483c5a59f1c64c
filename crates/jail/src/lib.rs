//! What the launcher is asked to do: a flat plan of operations, and the messages that carry it.
//!
//! The binary of this crate is the only privileged code of the product. A driver makes a plan (pure
//! data, tested as such), sends it over a socket, and the launcher carries it out in the order it is
//! written: first once, to build the tree that every sandbox will see and to leave the host's; then
//! for each sandbox, in namespaces of its own. It exits into the guest. Asked to save a sandbox, it forks a
//! process that copies what was written there.
//!
//! This room must never import another room, start a thread, read a configuration, decide a policy,
//! or follow a path that a workload controls: it acts before there is a workload, or on descriptors.
//! It must never carry out part of a plan and go on: the first operation that fails ends the sandbox.

pub mod message;
pub mod plan;
pub mod socket;
