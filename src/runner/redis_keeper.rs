//! Keeps a managed Redis running: a dead one would otherwise leave a server that accepts nothing.

use std::path::PathBuf;
use std::time::Instant;

use super::error::RunnerError;
use super::guard::{Guard, REDIS_LABEL};
use super::managed_redis::{Fsync, ManagedRedis};
use super::stop_signal::StopSignal;
use super::supervisor::Backoff;

/// A managed Redis that is started again after an unexpected end.
pub(super) struct RedisKeeper {
    data_dir: PathBuf,
    fsync: Fsync,
    redis: Option<ManagedRedis>,
    started: Instant,
    backoff: Backoff,
    restart_at: Option<Instant>,
    guard: Guard,
}

impl RedisKeeper {
    /// Starts it.
    pub(super) fn start(
        data_dir: PathBuf,
        fsync: Fsync,
        stop: &StopSignal,
        guard: Guard,
    ) -> Result<Self, RunnerError> {
        // An adopted one is this run's only once everything else runs.
        let spawned = |pid| guard.watch(REDIS_LABEL, pid);
        let redis = ManagedRedis::start_unless_stopped(&data_dir, fsync, stop, &spawned)?;
        Ok(Self {
            data_dir,
            fsync,
            redis: Some(redis),
            started: Instant::now(),
            backoff: Backoff::new(),
            restart_at: None,
            guard,
        })
    }

    /// The start has succeeded: Redis goes with the rest.
    pub(super) fn started(&self) {
        if let Some(pid) = self.redis.as_ref().and_then(ManagedRedis::pid) {
            self.guard.watch(REDIS_LABEL, pid);
        }
    }

    /// Starts it again if it has ended and its wait is over. To be called now and then.
    pub(super) fn check(&mut self, stop: &StopSignal) {
        if self.redis.as_mut().is_some_and(ManagedRedis::exited) {
            let wait = self.backoff.after(self.started.elapsed());
            log::error!(code = "redis_ended"; "redis has ended unexpectedly, starts again in {wait:?}");
            // Dropped, because it holds the lock of the directory.
            self.redis = None;
            self.restart_at = Some(Instant::now() + wait);
        }
        if self.restart_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.started = Instant::now();
        let spawned = |pid| self.guard.watch(REDIS_LABEL, pid);
        match ManagedRedis::start_unless_stopped(&self.data_dir, self.fsync, stop, &spawned) {
            Ok(redis) => {
                self.redis = Some(redis);
                self.restart_at = None;
            }
            Err(RunnerError::Stopped) => self.restart_at = None,
            Err(error) => {
                let wait = self.backoff.after(self.started.elapsed());
                log::error!(code = "process_not_started", process = "redis"; "{error}; next try in {wait:?}");
                self.restart_at = Some(Instant::now() + wait);
            }
        }
    }

    /// Lets one run on that an earlier run had started.
    pub(super) fn leave_adopted(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.leave_adopted();
        }
    }

    /// Ends it; killed when `stop` asks to kill.
    pub(super) fn stop(mut self, stop: &StopSignal) {
        if let Some(redis) = &mut self.redis {
            redis.stop_unless_killed(stop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_killed_redis_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopSignal::new();
        let mut keeper =
            RedisKeeper::start(folder.path().join("redis"), Fsync::EverySecond, &stop, Guard::default())
                .unwrap();
        let first = keeper.redis.as_ref().and_then(ManagedRedis::pid).unwrap();
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            keeper.check(&stop);
            match keeper.redis.as_ref().and_then(ManagedRedis::pid) {
                Some(pid) if pid != first => break,
                _ => assert!(Instant::now() < deadline, "not started again"),
            }
            std::thread::yield_now();
        }
        keeper.stop(&stop);
    }
}
