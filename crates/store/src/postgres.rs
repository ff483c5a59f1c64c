//! PostgreSQL: a few workers, each with a connection, a transaction for each unit.
//!
//! Units that come by the hundred share one with those that wait beside them, as all do on SQLite, because a commit
//! costs more than what most of them write. Each of them may be carried out as if the others were on connections of
//! their own and not committed yet; what has to see more asks for it, and then sees all of them. None has a savepoint,
//! which would cost as much as is spared: where one fails, all of it is undone and each is carried out by itself. And
//! none waits long for a lock, because those of a group are taken in no order, so that two groups could wait in a circle.

pub(crate) mod address;
pub(crate) mod others;
mod rows;
pub(crate) mod session;
mod tls;

use self::address::Address;
use self::others::Others;
use self::session::{CommitError, Session};
use crate::db::{Conn, Tx};
use crate::work::{Kind, Work};
use crate::{StoreError, job, migrate};
use model::points::Points;
use postgres::Client;
use postgres::error::SqlState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Connections of one process.
const WORKERS: u32 = 4;
/// How often a unit is run that lost a deadlock, a race or its connection.
const TRIES: u32 = 4;
/// How long the first worker waits before its second try; the others wait longer, each by as much again.
/// Two units that met in a deadlock would otherwise meet there again.
const PAUSE: Duration = Duration::from_millis(10);
/// Units in one transaction: past this the wait of the first grows and the cost of each hardly shrinks.
const SHARED_MAX: usize = 64;
type Units = mpsc::Receiver<Box<dyn Work>>;

/// Units that wait.
struct Waiting {
    units: Units,
    /// What came behind a group and shares nothing.
    left: Option<Box<dyn Work>>,
}

/// What a worker does next.
enum Taken {
    One(Box<dyn Work>),
    Group(Vec<Box<dyn Work>>),
}

/// Connects, brings the schema up to date, and starts the workers.
pub(crate) fn start(url: &str, points: Points, units: Units) -> Result<Others, StoreError> {
    let config = Address::of(url).map_err(|error| StoreError::Database(Box::new(error)))?;
    // On a thread of its own: this client drives a runtime of its own, which may not be started from
    // inside the caller's. Without the bounds: a step of the schema takes as long as it takes.
    let address = config.clone();
    let opened = std::thread::spawn(move || -> Result<(), StoreError> {
        migrate::postgres(&mut connect(&address)?)
    });
    opened.join().map_err(|_| StoreError::Closed)??;
    let waiting = Arc::new(Mutex::new(Waiting { units, left: None }));
    for number in 1..=WORKERS {
        let worker = Worker {
            number,
            config: config.clone(),
            session: None,
            points: points.clone(),
        };
        let waiting = waiting.clone();
        let thread = std::thread::Builder::new().name("store-worker".to_owned());
        let spawned = thread.spawn(move || worker.run(&waiting));
        spawned.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    }
    let others = Others::start(&config);
    others.map_err(|error| StoreError::Unavailable(Box::new(error)))
}

/// A connection, by TLS where the address says so.
fn connect(address: &Address) -> Result<Client, postgres::Error> {
    let config = postgres::Config::from(address.config.clone());
    match &address.tls {
        None => config.connect(postgres::NoTls),
        Some(tls) => config.connect(tls.clone()),
    }
}

struct Worker {
    number: u32,
    config: Address,
    session: Option<Session>,
    points: Points,
}

/// Why a try did not succeed.
struct Failure {
    error: StoreError,
    /// It may have happened all the same.
    at_commit: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure {
            error,
            at_commit: false,
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Failure {
        match error {
            CommitError::Undone(error) => error.into(),
            CommitError::Unknown(error) => Failure {
                error,
                at_commit: true,
            },
        }
    }
}

impl Worker {
    fn run(mut self, waiting: &Mutex<Waiting>) {
        while let Some(taken) = take(waiting) {
            match taken {
                Taken::One(unit) => self.one(unit),
                Taken::Group(group) => self.group(group),
            }
        }
    }

    fn one(&mut self, mut unit: Box<dyn Work>) {
        let outcome = self.unit(&mut *unit);
        unit.done(outcome);
    }

    /// Carries out what may share a transaction in one. Where that does not succeed, it was nothing of most of them,
    /// and each is carried out by itself.
    fn group(&mut self, mut group: Vec<Box<dyn Work>>) {
        if group.len() > 1 {
            match self.try_units(&mut group) {
                Ok(()) => return group.into_iter().for_each(|unit| unit.done(Ok(()))),
                // Each of them may have happened, and a second run could make it happen twice.
                Err(failure) if failure.at_commit => {
                    let error = failure.error;
                    let reason = || StoreError::Unavailable(format!("the group: {error}").into());
                    return group.into_iter().for_each(|unit| unit.done(Err(reason())));
                }
                Err(failure) => {
                    tracing::debug!(error = %failure.error, units = group.len(), "one by one");
                    if lost_connection(&failure.error) {
                        self.session = None;
                    }
                }
            }
        }
        group.into_iter().for_each(|unit| self.one(unit));
    }

    fn unit(&mut self, unit: &mut dyn Work) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            let Err(failure) = self.try_unit(unit) else {
                return Ok(());
            };
            let race = lost_race(&failure.error);
            let lost = lost_connection(&failure.error);
            if lost {
                self.session = None;
            }
            // A connection that was idle while the server restarted fails once. But where it broke
            // while the commit was under way, a second run could make it happen twice.
            let again = race || lost && (!failure.at_commit || unit.kind() == Kind::Read);
            if again && tries < TRIES {
                if race {
                    std::thread::sleep(PAUSE * self.number * tries);
                }
                tries += 1;
            } else if race {
                return Err(StoreError::Unavailable(Box::new(failure.error)));
            } else {
                return Err(failure.error);
            }
        }
    }

    fn try_unit(&mut self, unit: &mut dyn Work) -> Result<(), Failure> {
        let kind = match unit.kind() {
            Kind::Read => Kind::Read,
            Kind::Write | Kind::Shared => Kind::Write,
        };
        self.transaction(kind, |session| {
            unit.run(&mut Tx::new(Conn::Postgres(session)))
        })
    }

    fn try_units(&mut self, units: &mut [Box<dyn Work>]) -> Result<(), Failure> {
        self.transaction(Kind::Shared, |session| {
            let about: Vec<_> = units
                .iter()
                .filter_map(|unit| unit.about().cloned())
                .collect();
            if !about.is_empty() {
                job::foresee(&mut Tx::new(Conn::Postgres(session)), &about)?;
            }
            units.iter_mut().try_for_each(|unit| {
                session.next_unit();
                unit.run(&mut Tx::new(Conn::Postgres(session)))
            })
        })
    }

    fn transaction(
        &mut self,
        kind: Kind,
        run: impl FnOnce(&mut Session) -> Result<(), StoreError>,
    ) -> Result<(), Failure> {
        let session = match &mut self.session {
            Some(session) if !session.is_closed() => session,
            _ => self.session.insert(Session::connect(&self.config)?),
        };
        let ran = session.begin(kind);
        let ran = ran.and_then(|()| run(session));
        let ended = match ran {
            Ok(()) => {
                self.points.at("store.before_commit");
                let committed = session.commit();
                self.points.at("store.after_commit");
                committed.map_err(Failure::from)
            }
            Err(error) => Err(error.into()),
        };
        // Whatever is left of it must not become a part of the next one.
        if ended.is_err() && session.roll_back().is_err() {
            self.session = None;
        }
        ended
    }
}

/// What waits, up to the first that shares nothing. Nobody waits for company, and no group for what came behind it, which
/// may wait for a lock: that is for the next worker.
fn take(waiting: &Mutex<Waiting>) -> Option<Taken> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = match waiting.left.take() {
        Some(unit) => Some(unit),
        None => Some(waiting.units.blocking_recv()?),
    };
    let mut group = Vec::new();
    while let Some(unit) = next.take_if(|unit| unit.kind() == Kind::Shared) {
        group.push(unit);
        if group.len() < SHARED_MAX {
            next = waiting.units.try_recv().ok();
        }
    }
    match next {
        Some(unit) if group.is_empty() => Some(Taken::One(unit)),
        left => {
            waiting.left = left;
            Some(Taken::Group(group))
        }
    }
}

/// What the database said, if this is an error of it.
fn said(error: &StoreError) -> Option<&postgres::Error> {
    match error {
        StoreError::Database(source) | StoreError::Unavailable(source) => source.downcast_ref(),
        StoreError::Stale { .. }
        | StoreError::Conflict { .. }
        | StoreError::Hole { .. }
        | StoreError::Full
        | StoreError::NewerSchema { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Closed => None,
    }
}

fn lost_race(error: &StoreError) -> bool {
    let code = said(error).and_then(postgres::Error::code);
    matches!(
        code,
        Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
    )
}

/// Whether the connection is gone: the server was stopped or the way to it broke. Not when it only says
/// that something takes too long, for that would take as long again.
fn lost_connection(error: &StoreError) -> bool {
    let is_unavailable = matches!(error, StoreError::Unavailable(_));
    is_unavailable
        && said(error).is_some_and(|error| match error.code() {
            Some(code) => code.code().starts_with("08") || code.code().starts_with("57P"),
            None => true,
        })
}
