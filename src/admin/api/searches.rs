//! Questions that search the trail or the dead letters: at most two at once, each with a connection that is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::problem::Problem;
use crate::admin::recent::PATIENCE;
use crate::admin::sources::Sources;
use crate::store::Connection;

/// Most at once: whoever comes then is told to try again.
pub(super) const MAX_AT_ONCE: usize = 2;

/// The places for them.
#[derive(Default)]
pub(super) struct Searches {
    running: AtomicUsize,
    idle: Mutex<Vec<Connection>>,
}

/// One place.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Searches {
    fn turn(&self) -> Result<Turn<'_>, Problem> {
        // Given back by what is returned, also where there are too many.
        let turn = Turn(&self.running);
        if self.running.fetch_add(1, Ordering::Relaxed) >= MAX_AT_ONCE {
            return Err(Problem::Busy);
        }
        Ok(turn)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one; a second time, where a connection that lay idle was broken.
    pub(super) fn run<T>(
        &self,
        sources: &Sources,
        search: impl Fn(&mut Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if let Some(why) = sources.away() {
            return Err(Problem::Away(why));
        }
        let _turn = self.turn()?;
        let kept = self.idle().pop();
        if let Some(mut connection) = kept {
            match search(&mut connection) {
                Err(Problem::Away(_)) => {}
                done => {
                    self.idle().push(connection);
                    return done;
                }
            }
        }
        let mut connection = sources.shards.shared().redis.within(PATIENCE).open()?;
        let done = search(&mut connection);
        if !matches!(done, Err(Problem::Away(_))) {
            self.idle().push(connection);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_one_is_told_to_come_again() {
        let searches = Searches::default();
        let (one, two) = (searches.turn().unwrap(), searches.turn().unwrap());
        assert!(matches!(searches.turn(), Err(Problem::Busy)));
        drop(one);
        let three = searches.turn().unwrap();
        assert!(matches!(searches.turn(), Err(Problem::Busy)));
        drop((two, three));
        assert_eq!(searches.running.load(Ordering::Relaxed), 0);
    }
}
