//! The proxy over real sockets of the loopback, which an exception opens.

mod direct;
mod dns;
mod fields;
mod hostile_clients;
mod hostile_outside;
mod index;
mod index_hostile;
mod inspect;
mod names;
mod passes;
mod rules;
mod sockets;
mod spoken;
mod upstream;
mod world;
