//! `mas run` and `mas dev`: the whole system from one configuration, or from none.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::Exit;
use super::{demo, scaffold};
use crate::config::Config;
use crate::runner::{self, RunOptions, RunnerError};

/// Arguments of `mas run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration; else MAS_CONFIG_FILE, else the nearest mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Worker threads of the server, in place of the configured number.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Arguments of `mas dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Show what the server does with bundled agents, then exit.
    #[arg(long)]
    pub demo: bool,
    /// Where certificates, configuration and data go [default: .mas/dev, or .mas/demo]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `mas run`.
pub fn run(args: RunArgs) -> Exit {
    let config = match Config::locate_and_load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mas run: {error}");
            return Exit::Usage;
        }
    };
    serve(config, args.threads)
}

/// What stands guard over a runner, for the case that it is killed.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// The directory of its managed Redis.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Stands guard; started by the runner.
pub fn guard(args: &GuardArgs) -> Exit {
    runner::guard::run(args.data_dir.as_deref());
    Exit::Done
}

/// `mas dev`.
pub fn dev(args: DevArgs) -> Exit {
    // Apart from each other, and from what a mas.yaml beside them keeps in .mas.
    let dir = args.dir.unwrap_or_else(|| PathBuf::from(if args.demo { ".mas/demo" } else { ".mas/dev" }));
    if args.demo {
        return demo::run(&dir);
    }
    match dev_config(&dir) {
        Ok(config) => {
            eprintln!("configuration: {}", config.path.display());
            eprintln!("agents' certificates: {}", dir.join("certs/agents").display());
            serve(config, None)
        }
        Err(problem) => {
            eprintln!("mas dev: {problem}");
            Exit::Failed
        }
    }
}

fn serve(config: Config, threads: Option<usize>) -> Exit {
    let options = RunOptions::new(config).and_then(RunOptions::guarded);
    let options = options.map(|options| RunOptions { threads, ..options });
    match options.and_then(runner::run) {
        Ok(()) => Exit::Done,
        Err(error) => failed(&error),
    }
}

fn failed(error: &RunnerError) -> Exit {
    eprintln!("mas run: {error}");
    if error.is_configuration() { Exit::Usage } else { Exit::Failed }
}

/// The configuration in `dir`, made with its certificates when it is not there yet.
fn dev_config(dir: &Path) -> Result<Config, Box<dyn std::error::Error>> {
    let path = dir.join(crate::config::FILE_NAME);
    if !path.exists() {
        scaffold::prepare(dir, &path, DEV_CONFIG, &["alpha", "beta"])?;
    }
    Ok(Config::load(&path)?)
}

/// What `mas dev` starts with.
const DEV_CONFIG: &str = "\
# Made by `mas dev`; yours to change. The top-level mas.yaml of the project documents every key.
server_listen_addr: 127.0.0.1:50051
tls_ca_path: certs/ca.pem
tls_server_cert_path: certs/server.pem
tls_server_key_path: certs/server.key
gateway:
  redis: {url: managed, data_dir: redis}
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
agents:
  - {agent_id: alpha, tls_cert_path: certs/agents/alpha.pem, tls_key_path: certs/agents/alpha.key}
  - {agent_id: beta, tls_cert_path: certs/agents/beta.pem, tls_key_path: certs/agents/beta.key}
";
