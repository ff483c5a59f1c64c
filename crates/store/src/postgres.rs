//! PostgreSQL: a few workers, each with a connection, a transaction for each unit.

use crate::db::{Conn, Tx};
use crate::work::Work;
use crate::{StoreError, migrate};
use model::points::Points;
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Connections of one process.
const WORKERS: usize = 4;
/// How often a unit is run that lost a deadlock or a race.
const TRIES: u32 = 4;

type Units = mpsc::Receiver<Box<dyn Work>>;

/// Connects, brings the schema up to date, and starts the workers.
pub(crate) fn start(url: &str, points: Points, units: Units) -> Result<(), StoreError> {
    // On a thread of its own: this client drives a runtime of its own, which may not be started from
    // inside the caller's.
    let address = url.to_owned();
    let opened = std::thread::spawn(move || -> Result<(), StoreError> {
        migrate::postgres(&mut Client::connect(&address, NoTls)?)
    });
    opened.join().map_err(|_| StoreError::Closed)??;
    let units = Arc::new(Mutex::new(units));
    for _ in 0..WORKERS {
        let worker = Worker {
            url: url.to_owned(),
            client: None,
            points: points.clone(),
        };
        let units = units.clone();
        let thread = std::thread::Builder::new().name("store-worker".to_owned());
        let spawned = thread.spawn(move || worker.run(&units));
        spawned.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    }
    Ok(())
}

struct Worker {
    url: String,
    client: Option<Client>,
    points: Points,
}

impl Worker {
    fn run(mut self, units: &Mutex<Units>) {
        loop {
            let next = units
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .blocking_recv();
            let Some(mut unit) = next else { return };
            let outcome = self.unit(&mut *unit);
            unit.done(outcome);
        }
    }

    fn unit(&mut self, unit: &mut dyn Work) -> Result<(), StoreError> {
        for _ in 1..TRIES {
            match self.try_unit(unit) {
                Err(error) if lost_race(&error) => {}
                // A connection that was idle while the server restarted fails once.
                Err(StoreError::Unavailable(_)) => self.client = None,
                outcome => return outcome,
            }
        }
        self.try_unit(unit)
    }

    fn try_unit(&mut self, unit: &mut dyn Work) -> Result<(), StoreError> {
        let client = match &mut self.client {
            Some(client) if !client.is_closed() => client,
            _ => self.client.insert(Client::connect(&self.url, NoTls)?),
        };
        let mut tx = Tx {
            conn: Conn::Postgres(Box::new(client.transaction()?)),
        };
        unit.run(&mut tx)?;
        let Conn::Postgres(tx) = tx.conn else {
            return Err(StoreError::Closed);
        };
        self.points.at("store.before_commit");
        tx.commit()?;
        self.points.at("store.after_commit");
        Ok(())
    }
}

fn lost_race(error: &StoreError) -> bool {
    let StoreError::Database(source) = error else {
        return false;
    };
    let code = source
        .downcast_ref::<postgres::Error>()
        .and_then(postgres::Error::code);
    matches!(
        code,
        Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
    )
}
