//! `loadgen idle`: many connected agents that do nothing. What they cost the server in memory and CPU, and
//! whether two active agents notice them.

use serde_json::json;

use crate::agents::Agents;
use crate::args::IdleArgs;
use crate::floors::check;
use crate::goal::{self, Bound, Goal};
use crate::latency::Latencies;
use crate::plan::Path;
use crate::process::{cpu_s, raise_open_files, rss_kib};
use crate::product::{Load, Product};
use crate::ratios::progress;
use crate::setting::{Place, line, setting, with};
use crate::world::Setup;
use crate::{AnyError, clock, usage};

/// Files that a process has open beside its connections.
const OTHER_FILES: u64 = 256;
/// Time in which what connecting cost comes to rest, in seconds.
const SETTLE_S: f64 = 3.0;
/// Warm-up of the active pair, in seconds.
const WARM_UP_S: f64 = 1.0;
/// Messages of the pair under way: the latency of one.
const IN_FLIGHT: usize = 1;

/// The command.
pub(crate) fn run(args: &IdleArgs) -> Result<(), AnyError> {
    let content = args.content.content().map_err(usage)?;
    let count = args.agents as usize;
    raise_open_files(u64::from(args.agents) + OTHER_FILES).map_err(usage)?;
    let (agents, idle) = Agents::pair_and_idle(count)?;
    progress(&format!("certificates for {count} agents"));
    let setup = Setup { threads: args.threads, fsynced: false, rules: 0 };
    let mut product = Product::start(agents, setup, content)?;
    let pid = product.world.server_pid();
    let counted_s = args.seconds as f64;
    let pair = |product: &mut Product| -> Result<Latencies, AnyError> {
        let load =
            Load { path: Path::Stream, in_flight: IN_FLIGHT, rate: None, warm_up_s: WARM_UP_S, counted_s };
        let outcome = product.measure(load)?;
        check(&outcome)?;
        Ok(outcome.end_to_end)
    };

    progress("two agents alone");
    let alone = pair(&mut product)?;
    let rss_before_kib = rss_kib(pid)?;
    let cpu_alone = cpu_percent(pid, counted_s)?;

    progress(&format!("connecting {count} agents"));
    let started_us = clock::now_us();
    let fleet = product.open(&idle, usize::from(args.processes))?;
    let connected_s = (clock::now_us() - started_us) as f64 / 1e6;
    rest()?;
    let rss_after_kib = rss_kib(pid)?;
    let cpu_idle = cpu_percent(pid, counted_s)?;
    let mut client_rss_kib = 0;
    for pid in fleet.pids() {
        client_rss_kib += rss_kib(pid)?;
    }
    progress("two agents among the idle ones");
    let among = pair(&mut product)?;
    drop(fleet);

    let per_agent_kib = rss_after_kib.saturating_sub(rss_before_kib) as f64 / count as f64;
    let goals = [
        Goal {
            what: "server memory per idle agent (RSS)",
            measured: vec![per_agent_kib],
            bound: Bound::AtMost(100.0),
            unit: "KiB",
        },
        Goal {
            what: "server CPU with idle agents, of one core",
            measured: vec![cpu_idle],
            bound: Bound::AtMost(2.0),
            unit: "%",
        },
        Goal {
            what: "p99 of an active pair among idle agents / alone",
            measured: vec![among.at(0.99) as f64 / alone.at(0.99) as f64],
            bound: Bound::AtMost(1.5),
            unit: "",
        },
    ];
    let place = Place {
        server_version: product.world.version.clone(),
        redis_version: product.world.redis.version,
        threads: Some(args.threads),
        fsynced: false,
    };
    let more = json!({
        "idle_agents": count, "client_processes": args.processes, "client_threads": Path::Stream.client_queues(), "seconds": args.seconds,
        "pair": "stream, 1 in flight", "payload_bytes": content.payload_bytes,
    });
    let setting = with(setting(&place), &more);
    if args.json {
        println!(
            "{}",
            json!({
                "setting": setting, "goals": goal::json(&goals),
                "server_rss_kib": {"without": rss_before_kib, "with": rss_after_kib},
                "server_cpu_percent": {"without": cpu_alone, "with": cpu_idle},
                "client_rss_kib_per_agent": client_rss_kib as f64 / count as f64,
                "connected_in_s": connected_s,
                "pair_end_to_end_us": {"alone": alone.json(), "among_idle": among.json()},
            })
        );
    } else {
        println!("{}\n", line(&setting));
        println!("connected in {connected_s:.1} s");
        println!("server RSS   {rss_before_kib} KiB without idle agents, {rss_after_kib} with");
        println!("server CPU   {cpu_alone:.2} % of a core without idle agents, {cpu_idle:.2} with");
        println!("client RSS   {:.1} KiB per idle agent", client_rss_kib as f64 / count as f64);
        println!("pair alone   {}", alone.line());
        println!("among idle   {}\n", among.line());
        goal::print(&goals);
    }
    goal::verdict(&goals, args.check)
}

fn rest() -> Result<(), AnyError> {
    clock::sleep_until(clock::now_us() + (SETTLE_S * 1e6) as u64)
}

/// CPU of a process over some seconds, in percent of a core.
fn cpu_percent(pid: u32, seconds: f64) -> Result<f64, AnyError> {
    rest()?;
    let (before, started_us) = (cpu_s(pid)?, clock::now_us());
    clock::sleep_until(started_us + (seconds * 1e6) as u64)?;
    let passed_s = (clock::now_us() - started_us) as f64 / 1e6;
    Ok((cpu_s(pid)? - before) / passed_s * 100.0)
}
