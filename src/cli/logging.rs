//! Logs go to stderr: as text, or as one JSON object a line. `RUST_LOG` sets the level (default: info).

use std::io::Write;

use clap::ValueEnum;

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
    if format == LogFormat::Json {
        let _ = builder.format(|out, record| {
            let line = serde_json::json!({
                "time": out.timestamp_micros().to_string(),
                "level": record.level().as_str(),
                "module": record.target(),
                "thread": std::thread::current().name(),
                "message": record.args().to_string(),
            });
            writeln!(out, "{line}")
        });
    }
    builder.init();
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
