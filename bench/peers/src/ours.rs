//! The MAS server, measured by loadgen: stream path, everything on.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::AnyError;
use crate::args::Loop;
use crate::drive::{Load, Outcome};
use crate::folder::Folder;
use crate::process::{End, Process, Program};

/// How long loadgen may take beyond the seconds that it measures.
const LOADGEN_PATIENCE: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What loadgen is told beside the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) fsynced: bool,
    pub(crate) pairs: usize,
    pub(crate) threads: u16,
}

/// Runs loadgen once; also returns its setting.
pub(crate) async fn measure(
    loadgen: &Path,
    setup: Setup,
    load: Load,
    folder: &mut Folder,
) -> Result<(Outcome, Value), AnyError> {
    let dir = folder.part()?;
    let output = dir.join("loadgen.json");
    let mut command = Command::new(loadgen);
    command
        .args(["--path", "stream", "--pattern", "send", "--json"])
        .args(["--agents", &(2 * setup.pairs).to_string(), "--threads", &setup.threads.to_string()])
        .args(["--payload", &load.payload_bytes.to_string()])
        .args(["--seconds", &load.counted.as_secs().to_string()])
        .args(["--warm-up", &load.warm_up.as_secs().to_string()])
        .env("TMPDIR", &dir);
    match load.kind {
        Loop::Closed(in_flight) => command.args(["--in-flight", &in_flight.to_string()]),
        Loop::Open(rate) => command.args(["--rate", &rate.to_string()]),
    };
    if setup.fsynced {
        command.arg("--fsynced");
    }
    let program = Program {
        label: "loadgen",
        command: &mut command,
        dir: &dir,
        marker: loadgen,
        end: End::Ask,
        stdout: Some(File::create(&output)?),
    };
    let mut process = Process::start(program, folder)?;
    let give_up = Instant::now() + load.warm_up + load.counted + LOADGEN_PATIENCE;
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        if Instant::now() >= give_up {
            return Err(
                process.failure(&format!("is not done after {LOADGEN_PATIENCE:?} more than it measures"))
            );
        }
        sleep(LOOK_INTERVAL).await;
    };
    if !status.success() {
        return Err(process.failure(&format!("ended: {status}")));
    }
    let text = std::fs::read(&output)?;
    let mut answer: Value =
        serde_json::from_slice(&text).map_err(|error| format!("loadgen's output is no JSON: {error}"))?;
    let outcome = outcome(answer.pointer("/result").unwrap_or(&Value::Null))?;
    if answer.pointer("/setting/path").and_then(Value::as_str) != Some("stream") {
        return Err("loadgen did not measure the stream path".into());
    }
    Ok((outcome, answer.pointer_mut("/setting").map(Value::take).unwrap_or_default()))
}

fn outcome(result: &Value) -> Result<Outcome, AnyError> {
    let number = |pointer: &str| {
        result
            .pointer(pointer)
            .and_then(Value::as_f64)
            .ok_or_else(|| format!("loadgen's result has no number {pointer}: another version?"))
    };
    let undelivered = number("/undelivered")?;
    let mut failures = std::collections::BTreeMap::new();
    for (reason, count) in result.get("failures").and_then(Value::as_object).into_iter().flatten() {
        failures.insert(reason.clone(), count.as_u64().ok_or("a failure without a count")?);
    }
    Ok(Outcome {
        accepted_per_s: number("/accepted_per_s")?,
        delivered_per_s: number("/delivered_per_s")?,
        call_p50: number("/call_us/p50")?,
        call_p99: number("/call_us/p99")?,
        end_to_end_p50: number("/end_to_end_us/p50")?,
        end_to_end_p99: number("/end_to_end_us/p99")?,
        server_cpu_us: vec![
            ("mas-server", number("/server_cpu_us_per_message")?),
            ("redis-server", number("/redis_cpu_us_per_message")?),
        ],
        client_cpu_us: number("/client_cpu_us_per_message")?,
        backlog: number("/backlog")?.max(0.0) as u64,
        undelivered: undelivered.max(0.0) as u64,
        repeated: (-undelivered).max(0.0) as u64,
        left: None,
        failures,
    })
}
