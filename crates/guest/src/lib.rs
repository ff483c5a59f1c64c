//! The guest's side of the wire, shared with the driver that speaks to it.
//!
//! The guest is the small static agent inside every sandbox; the binary of this crate is that agent
//! and this library is only what the two ends must agree on: frames, messages, and the bounds on
//! both. What enters is a command with its confinement; what leaves is its output and how it ended. A
//! guest that lives on leaves these frames for HTTP, which needs no library of ours.
//!
//! This room must never import another room but `scrub`, start a thread, or trust what the workload writes: the
//! process that it runs is hostile to it. It must never touch a path on the host; it only ever sees
//! the sandbox's own tree. The wire must never carry a frame larger than [`wire::FRAME_MAX`].

pub mod direct;
pub mod message;
pub mod ring;
pub mod sudo;
pub mod wire;
