//! The walls of the Linux driver, each seen from inside a real sandbox on the kernel of this machine.
//!
//! What enters is a sandbox that was made through the driver's own interface; what is looked at is the
//! kernel's own account of it, from inside and from outside. There is a test for each line of the
//! enforcement, and where two lines hold the same wall, one of them is taken away so that the other
//! stands alone. The whole set runs again as an ordinary user, see [`ordinary`].
//!
//! These tests must never pretend to be the kernel, and never wait a fixed time for something to
//! happen: they look until it has, or until patience ends.

#[macro_use]
mod world;

mod attacks;
mod egress;
mod files;
mod given;
mod guest;
mod ids;
mod landlock;
mod life;
mod limits;
mod live;
mod live_client;
mod live_context;
mod live_context_clients;
mod live_context_hostile;
mod live_disk;
mod live_facts;
mod live_files;
mod live_hostile;
mod live_power;
mod live_root;
mod live_save;
mod live_scrub;
mod live_starter;
mod live_sudo;
mod live_terminal;
mod live_volume;
mod live_watch;
mod namespaces;
mod network;
mod ordinary;
mod outside;
mod pause;
mod privileges;
mod probe;
mod storage;
mod syscalls;
mod time;
mod tree;
mod tun;
mod tun_hostile;
mod tun_later;
mod tun_six;
