//! What is done to the fleet, and when: the same for the same seed, as long as the same is free. Pure.

use crate::world::{LEASE_S, NODES};
use std::collections::BTreeSet;
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
    /// One of [`KINDS`], of this server or node.
    fn of(kind: u64, (server, node): (usize, usize), (ms, seconds): (u64, i64)) -> Fault {
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

    /// Whether a clock is moved, which is not possible everywhere.
    fn is_of_clocks(self) -> bool {
        matches!(self.target(), Target::ServerClock(_) | Target::NodeClock(_))
    }

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

const KINDS: u64 = 12;

fn kinds(with_clocks: bool) -> impl Iterator<Item = u64> {
    let is_there =
        move |kind: &u64| with_clocks || !Fault::of(*kind, (0, 0), (0, 0)).is_of_clocks();
    (0..KINDS).filter(is_there)
}

/// The names of all kinds, those of clocks only where these can be moved.
pub(crate) fn names(with_clocks: bool) -> BTreeSet<&'static str> {
    let one = |kind| Fault::of(kind, (0, 0), (0, 0)).name();
    kinds(with_clocks).map(one).collect()
}

/// The faults to come: every kind, shuffled, and again.
#[derive(Debug)]
pub(crate) struct Deck {
    dice: Dice,
    servers: usize,
    with_clocks: bool,
    left: Vec<u64>,
}

impl Deck {
    /// For so many servers.
    pub(crate) fn new(seed: u64, servers: usize, with_clocks: bool) -> Deck {
        Deck {
            dice: Dice::new(seed),
            servers,
            with_clocks,
            left: Vec::new(),
        }
    }

    /// The next fault whose target is free, and for how long; nothing where none is of the kinds that are left in
    /// this round. What is not done stays in it, so that a round is never without a kind.
    pub(crate) fn draw(&mut self, is_free: impl Fn(Target) -> bool) -> Option<(Fault, Duration)> {
        if self.left.is_empty() {
            self.left.extend(kinds(self.with_clocks));
        }
        let (mut busy, mut drawn) = (Vec::new(), None);
        while drawn.is_none() && !self.left.is_empty() {
            let at = self.dice.one_of(self.left.len());
            let kind = self.left.swap_remove(at);
            let fault = self.fault(kind);
            match is_free(fault.target()) {
                true => drawn = Some(fault),
                false => busy.push(kind),
            }
        }
        self.left.extend(busy);
        // Some are over before anybody notices, some last longer than a lease.
        let ms = 200 + self.dice.roll(LEASE_S * 2 * 1000);
        // A restart is over when it has begun.
        let is_over = drawn == Some(Fault::RestartDatabase);
        let how_long = Duration::from_millis(if is_over { 0 } else { ms });
        drawn.map(|fault| (fault, how_long))
    }

    fn fault(&mut self, kind: u64) -> Fault {
        let (server, node) = (self.dice.one_of(self.servers), self.dice.one_of(NODES));
        let (ms, seconds) = (
            20 + self.dice.roll(380),
            self.dice.roll(121).cast_signed() - 60,
        );
        Fault::of(kind, (server, node), (ms, seconds))
    }
}

#[test]
fn the_same_seed_does_the_same_and_each_kind_comes_once_in_a_round() {
    let draw = || {
        let mut deck = Deck::new(7, 2, true);
        std::iter::repeat_with(|| deck.draw(|_| true).unwrap().0)
            .take(12)
            .collect::<Vec<_>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    let drawn: BTreeSet<_> = drawn.iter().map(|fault| fault.name()).collect();
    assert_eq!((drawn.len(), drawn), (12, names(true)));
    assert_eq!(names(false).len(), 10);
}

#[test]
fn a_fault_whose_target_is_busy_comes_later_and_is_not_left_out() {
    let mut deck = Deck::new(7, 2, false);
    let is_free = |target| target != Target::Database;
    let first = std::iter::from_fn(|| deck.draw(is_free)).collect::<Vec<_>>();
    assert_eq!(first.len(), 7, "{first:?}");
    let rest = [(); 3].map(|()| deck.draw(|_| true).unwrap());
    let drawn = first.iter().chain(&rest).map(|(fault, _)| fault.name());
    assert_eq!(drawn.collect::<BTreeSet<_>>(), names(false));
}

#[test]
fn the_short_form_comes_to_every_kind() {
    let mut deck = Deck::new(crate::SEED, crate::SERVERS, true);
    let (mut broken, mut seen, mut next): (Vec<(Target, Duration)>, _, _) =
        (Vec::new(), BTreeSet::new(), Duration::ZERO);
    let mut now = Duration::ZERO;
    while now < Duration::from_secs(crate::SECONDS) {
        broken.retain(|(_, until)| *until > now);
        let is_free = |target| broken.iter().all(|(other, _)| *other != target);
        if now >= next
            && let Some((fault, how_long)) = deck.draw(is_free)
        {
            broken.push((fault.target(), now + how_long));
            seen.insert(fault.name());
            next = now + crate::STEP;
        }
        now += crate::LOOK;
    }
    assert_eq!(seen, names(true));
}
