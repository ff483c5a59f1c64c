//! Ways to isolate, behind one contract.
//!
//! A driver plans (pure: what is asked and what the machine is, in; everything that will be done, out),
//! starts, finds again after a crash, and destroys. It places the guest inside the isolation and hands
//! back a connection to it; what runs inside, its streams and its files go through that connection and
//! are the same for every driver. One conformance suite runs over all of them, the fake one included.
//!
//! This room must never decide a policy, know the control plane, or be weaker than its plan says: a
//! clause that it cannot hold is refused before anything is made. It must never touch the file system
//! of a sandbox from outside, and what a guest sends is hostile until it was bounded here.

pub mod cgroup;
pub mod conformance;
pub mod driver;
pub mod fake;
pub mod guest;
pub mod host;
pub mod linux;
pub mod orphan;
pub mod programs;
pub mod root;
mod sys;
