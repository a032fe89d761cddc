//! `mas dev --demo`: two bundled agents, each with its own certificate, go through what the server does.
//!
//! The planner runs in this process; the worker is two processes that the runner starts, so that one can
//! be killed. Every scene checks what it shows: the demo fails when the server does not do it.

mod scenes;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::certs;
use crate::cli::exit::Exit;
use crate::cli::scaffold::prepare;
use crate::config::Config;
use crate::ids::AgentId;
use crate::runner::{LineSink, RunOptions, Runner};
use crate::store::Endpoint;
use mas_agent::Credentials;

use scenes::AnyError;
pub use worker::run as run_worker;

/// Agents of the demo: the two that talk, and one that nobody may talk to.
const AGENTS: [&str; 3] = ["planner", "worker", "vault"];
/// What one run keeps: Redis' data, keys, the trail outside of Redis.
const RUN_DIR: &str = "demo-run";
/// Output of the children, kept for when something goes wrong.
const LOG_FILE: &str = "demo.log";

/// Runs the demo with its files in `dir`.
pub fn run(dir: &Path) -> Exit {
    match play(dir) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Failed,
        Err(error) => {
            eprintln!("mas dev: {error}");
            eprintln!("what the processes wrote is in {}", dir.join(LOG_FILE).display());
            Exit::Failed
        }
    }
}

fn play(dir: &Path) -> Result<bool, AnyError> {
    let started = Instant::now();
    // A demo begins with nothing: what an earlier one has sent would count against its limits.
    match std::fs::remove_dir_all(dir.join(RUN_DIR)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let config_path = dir.join("demo.yaml");
    let program = std::env::current_exe()?;
    prepare(dir, &config_path, &config_text(&program), &AGENTS)?;
    let config = Config::load(&config_path)?;
    let endpoint = Endpoint::new(&config.redis);
    let certs = dir.join("certs");
    let planner_files = certs::agent_files(&certs, &AgentId::parse("planner").ok_or("planner")?);
    let credentials =
        Credentials::from_files(certs::ca_file(&certs), &planner_files.cert, &planner_files.key)?;

    let options = RunOptions { sink: log_to(&dir.join(LOG_FILE))?, ..RunOptions::new(config)?.guarded()? };
    let stop = options.stop.clone();
    stop.listen_to_signals()?;
    println!("\n  MAS server: two agents, two certificates, one server between them\n");
    let runner = Runner::start(options)?;
    let ready = started.elapsed();
    println!(
        "  Redis, server and the worker's two processes are up after {} ms, on {}\n",
        ready.as_millis(),
        runner.server_addr()
    );
    let passed = scenes::play(&runner, credentials, &endpoint, &config_path);
    runner.stop();
    let (shown, failed) = passed?;
    println!();
    if failed == 0 {
        println!("  {shown} scenes, all as promised, in {:.1} s.", started.elapsed().as_secs_f64());
        let (mas, config) = (program.display(), config_path.display());
        println!("  Look further: {mas} run --config {config} &");
        println!("                {mas} audit tail --config {config}\n");
    } else {
        println!(
            "  {failed} of {shown} scenes did not go as promised; see {}\n",
            dir.join(LOG_FILE).display()
        );
    }
    Ok(failed == 0)
}

fn log_to(path: &Path) -> Result<LineSink, AnyError> {
    let file = Mutex::new(std::fs::File::create(path)?);
    Ok(Arc::new(move |_, line: &[u8]| {
        use std::io::Write;
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the demo; the log is an aid.
        let _ = file.write_all(line);
        if !line.ends_with(b"\n") {
            let _ = file.write_all(b"\n");
        }
    }))
}

/// The demo's rules: planner and worker may talk; the vault is there, and off limits.
fn config_text(program: &Path) -> String {
    let program = serde_json::Value::from(program.display().to_string());
    format!(
        "\
# Made by `mas dev --demo`.
server_listen_addr: 127.0.0.1:0
tls_ca_path: certs/ca.pem
tls_server_cert_path: certs/server.pem
tls_server_key_path: certs/server.key
delivery:
  # Short, so that the killed worker's message moves while you watch.
  reclaim_idle_ms: 1000
gateway:
  redis: {{url: managed, data_dir: {RUN_DIR}/redis}}
  audit:
    signing_key_path: {RUN_DIR}/audit.ed25519
    store_key_path: {RUN_DIR}/store.key
    anchor_path: {RUN_DIR}/audit-anchor.jsonl
    archive_dir: {RUN_DIR}/audit-archive
  rate_limit: {{per_minute: 10000, per_hour: 100000}}
  # Short, so that you see it close again.
  circuit_breaker: {{failure_threshold: 5, success_threshold: 1, timeout_seconds: 1}}
permissions:
  - {{type: allow_bidirectional, agents: [planner, worker]}}
agents:
  - {{agent_id: planner, capabilities: [planning]}}
  - agent_id: worker
    command: [{program}, demo-worker]
    instances: 2
    capabilities: [arithmetic]
    metadata: {{model: none}}
    rate_limit: {{per_minute: 300, per_hour: 100000}}
    tls_cert_path: certs/agents/worker.pem
    tls_key_path: certs/agents/worker.key
  - {{agent_id: vault, capabilities: [secrets]}}
"
    )
}
