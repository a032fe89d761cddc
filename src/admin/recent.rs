//! What Redis is asked now and then: one asks, on a connection that is kept, and the others are told what is known.

use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::shard::Shards;
use crate::store::{Connection, StoreError};

/// Longest that Redis may take for one round trip.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// An answer of Redis, and when it came.
pub(super) struct Recent<T> {
    asker: Mutex<Asker>,
    known: RwLock<Known<T>>,
    /// It is asked again after so long, in milliseconds.
    every_ms: u64,
}

#[derive(Default)]
struct Asker {
    connection: Option<Connection>,
    /// When it was asked last, monotonic milliseconds; 0: never.
    at_ms: u64,
}

struct Known<T> {
    answer: Option<Arc<T>>,
    /// Why there is no newer one.
    failed: Option<String>,
}

impl<T> Recent<T> {
    pub(super) fn new(every_ms: u64) -> Self {
        let known = Known { answer: None, failed: None };
        Self { asker: Mutex::default(), known: RwLock::new(known), every_ms }
    }

    /// What is known, asked anew where that is old; the error is why Redis does not say.
    pub(super) fn read(
        &self,
        shards: &Shards,
        ask: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<Arc<T>, String> {
        let mut asker = match self.asker.try_lock() {
            Ok(asker) => Some(asker),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if asker.is_none() && self.known().is_none() {
            // Nobody knows anything yet: the first answer is waited for.
            asker = Some(self.asker.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if let Some(mut asker) = asker {
            let age_ms = Now::read().mono_ms.saturating_sub(asker.at_ms);
            if asker.at_ms == 0 || age_ms >= self.every_ms {
                let (lay_idle, asked_at) = (asker.connection.is_some(), Instant::now());
                let mut asked = asker.ask(shards, &ask);
                // A connection that lay idle may be broken; a Redis that hangs is not waited for a second time.
                if asked.is_err() && lay_idle && asked_at.elapsed() < PATIENCE / 2 {
                    asked = asker.ask(shards, &ask);
                }
                asker.at_ms = Now::read().mono_ms.max(1);
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                match asked {
                    Ok(answer) => *known = Known { answer: Some(Arc::new(answer)), failed: None },
                    Err(error) => known.failed = Some(error.to_string()),
                }
            }
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match (&known.failed, &known.answer) {
            (None, Some(answer)) => Ok(answer.clone()),
            (why, _) => Err(why.clone().unwrap_or_else(|| "Redis was not asked yet".to_owned())),
        }
    }

    /// What Redis said last, whenever that was.
    pub(super) fn known(&self) -> Option<Arc<T>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).answer.clone()
    }
}

impl Asker {
    fn ask<T>(
        &mut self,
        shards: &Shards,
        ask: &impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => shards.shared().redis.within(PATIENCE).open()?,
        };
        let answer = ask(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}
