//! Logs go to stderr: events with stable codes, as text or as one JSON object a line. `RUST_LOG` sets the level
//! (default: info), also for a module alone.
//!
//! What gRPC's C core says goes the same way, and only some of it each second: it has a line for every handshake that
//! fails, and anybody who reaches the port can make those.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use log::kv::{Source, Value};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_line::{self, CODE};

/// The module under which grpcio hands on the lines of the C core.
const CORE_MODULE: &str = "grpcio::log_util";
/// What ends TLS: it warns of what clients say in their handshakes.
const TLS_MODULE: &str = "rustls";
/// The name that these lines have here.
const CORE_TARGET: &str = "grpc";
/// Lines of the C core in a second.
const CORE_LINES: u32 = 5;
const SECOND: Duration = Duration::from_secs(1);

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// Sets logging up for the whole process; once.
pub fn start(format: LogFormat) {
    start_with(format, "info");
}

/// The same with another level where `RUST_LOG` gives none.
pub fn start_with(format: LogFormat, level: &str) {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    let _ = builder.target(env_logger::Target::Stderr);
    let _ = match format {
        LogFormat::Text => builder.format(log_line::text),
        LogFormat::Json => builder.format(log_line::json),
    };
    let inner = builder.build();
    let level = inner.filter();
    let logger = Logger { inner, core: Mutex::new(Sample::new(Instant::now())) };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Our own lines, and a sample of the C core's.
struct Logger {
    inner: env_logger::Logger,
    core: Mutex<Sample>,
}

impl Logger {
    fn note(&self, level: Level, fields: &dyn Source, args: std::fmt::Arguments<'_>) {
        let mut record = Record::builder();
        self.inner.log(&record.level(level).target(CORE_TARGET).key_values(fields).args(args).build());
    }

    fn sample(&self) -> std::sync::MutexGuard<'_, Sample> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // Clients decide how many of these there are; the gate says which handshakes failed.
        if record.target().starts_with(TLS_MODULE) && self.inner.filter() < LevelFilter::Debug {
            return;
        }
        let now = Instant::now();
        let is_core = record.module_path() == Some(CORE_MODULE);
        let (left_out, passes) = {
            let mut sample = self.sample();
            (sample.left_out(now), !is_core || sample.take())
        };
        if left_out > 0 {
            let fields = [(CODE, Value::from("grpc_core_left_out")), ("count", Value::from(left_out))];
            self.note(
                Level::Warn,
                &fields,
                format_args!("{left_out} more lines of the C core were left out"),
            );
        }
        if is_core && passes {
            // Its errors are what peers do, as a rule.
            self.note(record.level().max(Level::Warn), &[(CODE, "grpc_core")], *record.args());
        } else if !is_core {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// How much of one second has been logged.
#[derive(Debug)]
struct Sample {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl Sample {
    fn new(now: Instant) -> Self {
        Self { since: now, logged: 0, left_out: 0 }
    }

    /// Begins another second when it is time; how many lines were left out in the one before.
    fn left_out(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.since) < SECOND {
            return 0;
        }
        std::mem::replace(self, Self::new(now)).left_out
    }

    /// Whether one more line is logged in this second.
    fn take(&mut self) -> bool {
        if self.logged < CORE_LINES {
            self.logged += 1;
            return true;
        }
        self.left_out += 1;
        false
    }
}

/// A panic anywhere ends the process at once: a worker or completion queue that is gone while the rest
/// lives on would leave callers waiting for ever.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_room_for_some_lines_and_says_how_many_there_were() {
        let start = Instant::now();
        let mut sample = Sample::new(start);
        assert_eq!((0..1000).filter(|_| sample.take()).count(), CORE_LINES as usize);
        assert_eq!(sample.left_out(start + SECOND / 2), 0, "not yet over");
        assert_eq!(sample.left_out(start + SECOND), 1000 - u64::from(CORE_LINES));
        assert!(sample.take());
        assert_eq!(sample.left_out(start + SECOND * 2), 0);
    }
}
