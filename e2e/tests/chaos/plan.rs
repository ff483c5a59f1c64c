//! What is done to the fleet, and when: the same for the same seed. Pure.

use crate::world::{LEASE_S, NODES};
use std::time::Duration;

/// Numbers that look random and are the same again (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `below`, which is not 0.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(count as u64)).unwrap_or(0)
    }
}

/// Numbers are those of servers and nodes, milliseconds, and seconds of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillServer(usize),
    StopServer(usize),
    KillNode(usize),
    StopNode(usize),
    Cut(usize),
    Delay(usize, u64),
    KillDatabase,
    StopDatabase,
    RestartDatabase,
    FillDisk(usize),
    SkewServer(usize, i64),
    SkewNode(usize, i64),
}

/// What only one fault at a time is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Server(usize),
    Node(usize),
    Link(usize),
    Disk(usize),
    Database,
    ServerClock(usize),
    NodeClock(usize),
}

impl Fault {
    pub(crate) fn target(self) -> Target {
        match self {
            Fault::KillServer(one) | Fault::StopServer(one) => Target::Server(one),
            Fault::KillNode(one) | Fault::StopNode(one) => Target::Node(one),
            Fault::Cut(one) | Fault::Delay(one, _) => Target::Link(one),
            Fault::KillDatabase | Fault::StopDatabase | Fault::RestartDatabase => Target::Database,
            Fault::FillDisk(one) => Target::Disk(one),
            Fault::SkewServer(one, _) => Target::ServerClock(one),
            Fault::SkewNode(one, _) => Target::NodeClock(one),
        }
    }

    /// Its name in the books.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::KillServer(_) => "kill -9 of a server",
            Fault::StopServer(_) => "SIGSTOP and SIGCONT of a server",
            Fault::KillNode(_) => "kill -9 of a node",
            Fault::StopNode(_) => "SIGSTOP and SIGCONT of a node",
            Fault::Cut(_) => "a link cut",
            Fault::Delay(..) => "a link delayed by 20 to 400 ms each way",
            Fault::KillDatabase => "kill -9 of PostgreSQL",
            Fault::StopDatabase => "SIGSTOP and SIGCONT of PostgreSQL",
            Fault::RestartDatabase => "restart of PostgreSQL",
            Fault::FillDisk(_) => "the disk of a node filled",
            Fault::SkewServer(..) => "the clock of a server moved by up to 60 s",
            Fault::SkewNode(..) => "the clock of a node moved by up to 60 s",
        }
    }
}

/// The faults to come: every kind, shuffled, and again.
#[derive(Debug)]
pub(crate) struct Deck {
    dice: Dice,
    servers: usize,
    left: Vec<u64>,
}

const KINDS: u64 = 12;

impl Deck {
    /// For so many servers.
    pub(crate) fn new(seed: u64, servers: usize) -> Deck {
        Deck {
            dice: Dice::new(seed),
            servers,
            left: Vec::new(),
        }
    }

    /// The next fault, and for how long.
    pub(crate) fn draw(&mut self) -> (Fault, Duration) {
        if self.left.is_empty() {
            self.left.extend(0..KINDS);
        }
        let at = self.dice.one_of(self.left.len());
        let kind = self.left.swap_remove(at);
        let fault = self.fault(kind);
        // Some are over before anybody notices, some last longer than a lease.
        let most = LEASE_S * 2 * 1000;
        let ms = 200 + self.dice.roll(most);
        (fault, Duration::from_millis(ms))
    }

    fn fault(&mut self, kind: u64) -> Fault {
        let (server, node) = (self.dice.one_of(self.servers), self.dice.one_of(NODES));
        let (ms, seconds) = (
            20 + self.dice.roll(380),
            self.dice.roll(121).cast_signed() - 60,
        );
        match kind {
            0 => Fault::KillServer(server),
            1 => Fault::StopServer(server),
            2 => Fault::KillNode(node),
            3 => Fault::StopNode(node),
            4 => Fault::Cut(node),
            5 => Fault::Delay(node, ms),
            6 => Fault::KillDatabase,
            7 => Fault::StopDatabase,
            8 => Fault::RestartDatabase,
            9 => Fault::FillDisk(node),
            10 => Fault::SkewServer(server, seconds),
            _ => Fault::SkewNode(node, seconds),
        }
    }
}

#[test]
fn the_same_seed_does_the_same_and_each_kind_comes_once_in_a_round() {
    let draw = || {
        let mut deck = Deck::new(7, 2);
        std::iter::repeat_with(|| deck.draw().0)
            .take(12)
            .collect::<Vec<_>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    let names: std::collections::BTreeSet<_> = drawn.iter().map(|fault| fault.name()).collect();
    assert_eq!(names.len(), 12, "{drawn:?}");
}
