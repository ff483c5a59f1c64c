//! The way out of a sandbox: what it asks to reach is decided here, dialled here, and recorded.
//!
//! Streams of bytes from sandboxes enter, each with the rules of its sandbox; connections to the outside
//! leave, and one record for each thing that was asked. Whoever sends those bytes is hostile, and so is
//! whoever answers: no length, count, order or time of theirs is believed, and nothing that they send
//! makes this room wait or grow without a bound.
//!
//! The decision is [`decide::decide`], a function of values. This room must never dial an address that it
//! has not been asked about, never resolve a name a second time between the two, never let a denial
//! end anything but the request that it is about, and never know what a sandbox is made of.

pub mod decide;
pub mod direct;
pub mod index;
pub mod inspect;
pub mod own;
pub mod proxy;
pub mod reason;
pub mod record;
pub mod resolve;
pub mod target;
pub mod under_way;
pub mod upstream;

pub use model::exception;

mod answer;
mod clean;
mod dial;
mod dns;
#[cfg(test)]
mod fuzz;
mod greeting;
mod http;
mod names;
mod outside;
mod pace;
mod socks;
mod total;
mod traffic;
mod tunnel;

/// Where the programs of a sandbox find the proxy, on the loopback inside: the port that Squid has made
/// the usual one.
pub const PORT: u16 = 3128;
