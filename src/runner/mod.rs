//! Runs a whole system from one configuration: a managed Redis, the server, the agents.
//!
//! Each is a child process in its own process group. They are started in that order and stopped in the
//! opposite one, so that agents can finish with a server and the server with a store. The server and
//! the agents are restarted with growing waits; the others stay up meanwhile and reconnect.

mod child;
mod data_dir;
mod error;
mod forward;
pub mod guard;
mod lock;
mod managed_redis;
mod memory;
mod options;
mod plan;
mod processes;
mod redis_keeper;
mod stop_signal;
mod supervisor;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::Config;

pub use child::{Child, ChildSpec, ReadyLine};
pub use error::RunnerError;
pub use forward::{LineSink, Stream, std_sink};
pub use guard::Guard;
pub use managed_redis::{Fsync, ManagedRedis};
pub use options::{RunOptions, SERVER_BINARY_VARIABLE, server_binary};
pub use plan::{DEFAULT_PYTHON, PYTHON_VARIABLE};
pub use stop_signal::StopSignal;
pub use supervisor::{Backoff, SlotId, Supervisor};

use lock::lock;
use redis_keeper::RedisKeeper;

/// How long the server may take until it accepts connections.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request to stop is looked for while the server starts.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a managed Redis is looked at.
const REDIS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long agents may take to finish.
const AGENT_GRACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to drain.
const SERVER_GRACE_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether every agent's entry can be run, without running anything.
///
/// # Errors
/// The first entry that cannot.
pub fn check(config: &Config) -> Result<(), RunnerError> {
    plan::agents(config).map(drop)
}

/// Runs everything until SIGINT or SIGTERM: the body of `mas run`. A second signal kills.
pub fn run(options: RunOptions) -> Result<(), RunnerError> {
    let stop = options.stop.clone();
    stop.listen_to_signals()?;
    let runner = match Runner::start(options) {
        Ok(runner) => runner,
        // What had been started is stopped again; that was what the operator wanted.
        Err(RunnerError::Stopped) => return Ok(()),
        Err(error) => return Err(error),
    };
    runner.wait_until_stopped(&stop);
    runner.stop();
    Ok(())
}

/// A running system. Dropping it stops it in order.
pub struct Runner {
    redis: Mutex<Option<RedisKeeper>>,
    server: Supervisor,
    server_slot: Option<SlotId>,
    server_addr: String,
    agents: Supervisor,
    stop: StopSignal,
}

impl Runner {
    /// Starts everything, in order. Returns when the server is ready and the agents are started; after
    /// an error nothing is left running that was not running before.
    pub fn start(options: RunOptions) -> Result<Self, RunnerError> {
        // Mistakes in the configuration are found before anything runs.
        let agents = plan::agents(&options.config)?;
        let mut runner = Self {
            redis: Mutex::new(None),
            server: Supervisor::start("server", options.sink.clone(), options.guard.clone())?,
            server_slot: None,
            server_addr: String::new(),
            agents: Supervisor::start("agents", options.sink.clone(), options.guard.clone())?,
            stop: options.stop.clone(),
        };
        options.stop.on_kill(runner.agents.killer());
        options.stop.on_kill(runner.server.killer());
        match runner.start_all(&options, agents) {
            Ok(()) => Ok(runner),
            Err(error) => {
                if let Some(redis) = lock(&runner.redis).as_mut() {
                    redis.leave_adopted();
                }
                Err(error)
            }
        }
    }

    fn start_all(&mut self, options: &RunOptions, agents: Vec<ChildSpec>) -> Result<(), RunnerError> {
        if let Some(data_dir) = options.config.redis.managed.clone() {
            guard::wait_for_earlier(&data_dir)?;
            let keeper = RedisKeeper::start(
                data_dir,
                Fsync::of(options.config.redis.durability),
                &options.stop,
                options.guard.clone(),
            )?;
            *lock(&self.redis) = Some(keeper);
        }
        self.start_server(options)?;
        let count = agents.len();
        for spec in agents {
            if options.stop.is_stopping() {
                return Err(RunnerError::Stopped);
            }
            let spec = plan::with_server_addr(spec, &self.server_addr);
            self.agents.supervise(spec)?;
        }
        log::info!(
            code = "agents_started", addr:% = self.server_addr, count;
            "serving on {}, {count} agent processes started", self.server_addr
        );
        if let Some(redis) = lock(&self.redis).as_ref() {
            redis.started();
        }
        Ok(())
    }

    /// The `host:port` at which agents on this host reach the server.
    pub fn server_addr(&self) -> &str {
        &self.server_addr
    }

    /// The process id of the server; `None` while it is down.
    pub fn server_pid(&self) -> Option<u32> {
        let child = self.server.child(self.server_slot?)?;
        Some(child.pid())
    }

    /// Agents' processes that run or will be started again.
    pub fn active_agents(&self) -> usize {
        self.agents.active()
    }

    /// Returns when `stop` is asked for; a managed Redis is kept running until then. The server stays
    /// up even when all agents have ended.
    pub fn wait_until_stopped(&self, stop: &StopSignal) {
        while !stop.wait(REDIS_CHECK_INTERVAL) {
            if let Some(redis) = lock(&self.redis).as_mut() {
                redis.check(stop);
            }
        }
    }

    /// Stops the agents, then the server, then Redis. Returns when all have ended, or, after a request
    /// to kill, soon. What still starts is given up: the runner's own [`StopSignal`] is raised.
    pub fn stop(&self) {
        self.stop.stop();
        self.agents.stop(AGENT_GRACE_TIMEOUT);
        self.server.stop(SERVER_GRACE_TIMEOUT);
        if let Some(redis) = lock(&self.redis).take() {
            redis.stop(&self.stop);
        }
    }

    fn start_server(&mut self, options: &RunOptions) -> Result<(), RunnerError> {
        let slot = self.server.supervise(plan::server(options))?;
        self.server_slot = Some(slot);
        let ready = self.wait_for_server(slot)?;
        self.server.set_spec(slot, plan::server_again(options, &ready.listen_addr));
        self.server_addr = plan::reachable(&ready.listen_addr);
        Ok(())
    }

    fn wait_for_server(&self, slot: SlotId) -> Result<ReadyLine, RunnerError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let ready = self.server.wait_ready(slot, STOP_CHECK_INTERVAL);
            if self.stop.is_stopping() {
                return Err(RunnerError::Stopped);
            }
            match ready {
                Err(RunnerError::NotReady { .. }) if Instant::now() < deadline => {}
                Err(RunnerError::NotReady { label, .. }) => {
                    return Err(RunnerError::NotReady { label, timeout: READY_TIMEOUT });
                }
                ready => return ready,
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_support;
