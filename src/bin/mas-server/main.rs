//! The server process.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use mas::cli::exit::Exit;
use mas::cli::logging::{self, LogFormat};
use mas::config::{Config, ConfigError, MAX_SPIN_US};
use mas::runner::{Fsync, ManagedRedis, RunnerError};
use mas::server::Server;
use mas::store::Endpoint;

/// An idle connection costs a quarter less than with `malloc`. The C core keeps `malloc`: to take its place breaks under
/// preloaded libraries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Routes, authorizes and records messages between agents.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// The configuration; else MAS_CONFIG_FILE, else the nearest mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Worker threads, with a completion queue for every two; default: as configured, else one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How long an idle worker looks for work before it sleeps, in microseconds; default: as configured, else 0.
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(0..=MAX_SPIN_US))]
    spin_us: Option<u64>,
    /// Address to serve on instead of the configured one; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Check the configuration and the certificate files, then exit.
    #[arg(long)]
    check_config: bool,
    /// Form of the log lines on stderr.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log_format);
    logging::abort_on_panic();
    run(&args).into()
}

fn run(args: &Args) -> Exit {
    let mut config = match Config::locate_and_load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(Exit::Usage, &error),
    };
    config.spin_us = args.spin_us.unwrap_or(config.spin_us);
    if let Err(error) = look_at_files(&mut config) {
        return fail(Exit::Usage, &error);
    }
    if args.check_config {
        for warning in &config.warnings {
            eprintln!("warning: {}: {warning}", config.path.display());
        }
        eprintln!("{}: valid, {} agents", config.path.display(), config.agents.len());
        return Exit::Done;
    }

    // Before the first thread starts, so that no signal is missed.
    let mut signals = match Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => return fail(Exit::Failed, &error),
    };
    // A managed Redis is the runner's child; a server that runs alone starts its own.
    let managed = match own_redis(&config) {
        Ok(managed) => managed,
        Err(error) => return fail(Exit::Failed, &error),
    };
    let threads = args.threads.map_or_else(|| config.worker_threads(), usize::from);
    let listen = args.listen.as_deref().unwrap_or(&config.listen_addr);
    let server = match Server::start(&config, listen, threads) {
        Ok(server) => server,
        Err(error) if error.is_configuration() => return fail(Exit::Usage, &error),
        Err(error) => return fail(Exit::Failed, &error),
    };
    if let Err(error) = server.announce() {
        log::warn!(code = "ready_line_unprinted"; "the ready line could not be printed: {error}");
    }
    for signal in signals.forever() {
        if signal == SIGHUP {
            reload(&server, &config.path);
            continue;
        }
        log::info!(code = "server_stopping"; "stopping");
        break;
    }
    server.stop();
    drop(managed);
    log::info!(code = "server_stopped"; "stopped");
    Exit::Done
}

/// The files that it names are checked, too; what an operator should look at is added to the warnings.
fn look_at_files(config: &mut Config) -> Result<(), ConfigError> {
    let warnings = mas::material::check(config)?;
    config.warnings.extend(warnings);
    Ok(())
}

/// A file that is not valid changes nothing.
fn reload(server: &Server, path: &std::path::Path) {
    let checked = Config::load(path).and_then(|mut config| look_at_files(&mut config).map(|()| config));
    let reloaded = checked
        .map_err(|error| error.to_string())
        .and_then(|config| server.reload(&config).map_err(|error| error.to_string()));
    match reloaded {
        Ok(()) => log::info!(code = "reload_taken", path:% = path.display(); "{}: in force", path.display()),
        Err(error) => {
            log::error!(
                code = "reload_refused", path:% = path.display();
                "reload refused, what is in force stays: {error}"
            );
            server.reload_refused();
        }
    }
}

fn own_redis(config: &Config) -> Result<Option<ManagedRedis>, RunnerError> {
    let Some(data_dir) = &config.redis.managed else {
        return Ok(None);
    };
    match Endpoint::new(&config.redis).open() {
        Ok(_) => Ok(None),
        Err(_) => ManagedRedis::start(data_dir, Fsync::of(config.redis.durability)).map(Some),
    }
}

fn fail(exit: Exit, error: &dyn std::error::Error) -> Exit {
    eprintln!("mas-server: {error}");
    exit
}
