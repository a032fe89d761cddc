//! All rows in turn, round after round, so that what else the machine does meets all of them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::args::{Loop, RunArgs};
use crate::drive::{Load, Outcome};
use crate::folder::Folder;
use crate::rows::Row;
use crate::{AnyError, nats, ours, process, raw_redis, report};

/// How long one measurement may take beyond the seconds that it measures: more than all waits in it.
const MARGIN: Duration = Duration::from_secs(180);

/// All rounds of one row with one loop.
pub(crate) struct Series {
    pub(crate) row: Row,
    pub(crate) kind: Loop,
    pub(crate) outcomes: Vec<Outcome>,
}

/// The whole run.
pub(crate) async fn run(args: &RunArgs) -> Result<(), AnyError> {
    let mut setting = setting(args).await?;
    let mut folder = Folder::new()?;
    let mut all: Vec<Series> = Vec::new();
    for kind in args.loops() {
        all.extend(args.rows.iter().map(|row| Series { row: *row, kind, outcomes: Vec::new() }));
    }
    for round in 1..=args.rounds {
        for series in &mut all {
            let load = Load {
                kind: series.kind,
                payload_bytes: args.payload as usize,
                warm_up: Duration::from_secs(args.warm_up),
                counted: Duration::from_secs(args.seconds),
            };
            let name = series.row.traits().name;
            let measured = measure(args, series.row, load, &mut folder, &mut setting);
            let outcome = timeout(load.warm_up + load.counted + MARGIN, measured)
                .await
                .map_err(|_| format!("{name}: the measurement does not end"))?
                .map_err(|error| format!("{name}: {error}"))?;
            eprintln!(
                "round {round}/{}: {name}, {}: {:.0} messages/s",
                args.rounds,
                report::loop_text(series.kind),
                outcome.delivered_per_s
            );
            series.outcomes.push(outcome);
            folder.clear()?;
        }
    }
    let _ = setting.insert("load_average".to_owned(), load_average());
    if args.json {
        println!("{}", report::json(&setting, &all));
    } else {
        report::print(&setting, &all);
    }
    Ok(())
}

async fn measure(
    args: &RunArgs,
    row: Row,
    load: Load,
    folder: &mut Folder,
    setting: &mut Map<String, Value>,
) -> Result<Outcome, AnyError> {
    let pairs = usize::from(args.pairs);
    if let Some(interval) = row.sync_interval() {
        return nats::measure(&args.nats_server, interval, pairs, load, folder).await;
    }
    if let Some(appendfsync) = row.appendfsync() {
        let setup = raw_redis::Setup { appendfsync, pairs, read_count: args.read_count };
        return raw_redis::measure(&args.redis_server, setup, load, folder).await;
    }
    let loadgen = args.loadgen.as_deref().ok_or("no loadgen")?;
    let fsynced = row.fsynced_by_loadgen().ok_or("a row that nobody measures")?;
    let setup = ours::Setup { fsynced, pairs, threads: args.server_threads };
    let (outcome, said) = ours::measure(loadgen, setup, load, folder).await?;
    for key in ["server", "redis", "features"] {
        if let Some(value) = said.get(key) {
            let _ = setting.insert(format!("mas_{key}"), value.clone());
        }
    }
    Ok(outcome)
}

/// What the result is a result of.
async fn setting(args: &RunArgs) -> Result<Map<String, Value>, AnyError> {
    let any = |is: fn(&Row) -> bool| args.rows.iter().any(is);
    let nats = version(any(|row| row.sync_interval().is_some()), &args.nats_server).await?;
    let redis = version(any(|row| row.appendfsync().is_some()), &args.redis_server).await?;
    let setting = json!({
        "nats_server": nats, "redis_server": redis,
        "cores": std::thread::available_parallelism()?.get(),
        "file_system": file_system(&std::env::temp_dir())?,
        "pairs": args.pairs, "payload_bytes": args.payload, "rounds": args.rounds,
        "seconds": args.seconds, "warm_up_s": args.warm_up,
        "mas_server_threads": args.server_threads, "client_threads": args.client_threads,
        "redis_read_count": args.read_count,
    });
    match setting {
        Value::Object(setting) => Ok(setting),
        _ => Err("the setting is no object".into()),
    }
}

async fn version(wanted: bool, program: &Path) -> Result<Value, AnyError> {
    if wanted { process::first_line(program, "--version").await.map(Value::from) } else { Ok(Value::Null) }
}

/// Type of the file system that `dir` is on: an fsync in memory costs nothing.
fn file_system(dir: &Path) -> Result<Value, AnyError> {
    let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let mounts = std::fs::read_to_string("/proc/mounts").map_err(|error| format!("/proc/mounts: {error}"))?;
    let mut longest = ("", "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (fields.next(), fields.next())
            && dir.starts_with(point)
            && point.len() >= longest.0.len()
        {
            longest = (point, kind);
        }
    }
    Ok(longest.1.into())
}

/// One minute's load of the machine when all was over: high with little load of one's own, others were at work.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").ok();
    let first = text.as_deref().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    first.map_or(Value::Null, Value::from)
}
