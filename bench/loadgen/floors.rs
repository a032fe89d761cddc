//! `loadgen floor`: what Redis alone and gRPC alone do on this machine, with the work that a message gives them.

use std::time::Duration;

use mas::runner::Fsync;
use serde_json::{Value, json};

use crate::AnyError;
use crate::agents::{Agents, Names};
use crate::echo::EchoServer;
use crate::fleet::{Fleet, Outcome, Watched};
use crate::latency::Latencies;
use crate::plan::{ClientPlan, Content, Generation, Path, Pattern, Schedule};
use crate::redis_floor::{RedisLoad, RedisOutcome, measure};
use crate::world::{Folder, Redis, make_certs};

/// Messages in flight under load.
pub(crate) const LOADED: usize = 256;
/// Sending agents, each with a connection: as many as in the product's measurement.
pub(crate) const SENDERS: usize = 2;

/// How the floors are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloorPlan {
    pub(crate) threads: u16,
    pub(crate) warm_up_s: f64,
    pub(crate) counted_s: f64,
    pub(crate) content: Content,
}

/// A Redis and an echo server; ended when dropped.
pub(crate) struct Floors {
    plan: FloorPlan,
    echo: EchoServer,
    pub(crate) redis: Redis,
    agents: Agents,
    folder: Folder,
}

/// One floor's figures.
pub(crate) struct Floor {
    pub(crate) name: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) per_s: f64,
    pub(crate) latency: Latencies,
    /// Of the process that is the floor: Redis, or the echo server.
    pub(crate) cpu_us: f64,
}

impl Floors {
    /// Starts both.
    pub(crate) fn start(plan: FloorPlan) -> Result<Self, AnyError> {
        let mut folder = Folder::new()?;
        let agents = Agents::new(Pattern::Echo, SENDERS, &Names::default())?;
        let certs = folder.path().join("certs");
        make_certs(&certs, &agents.names)?;
        let redis = Redis::start(&mut folder, Fsync::EverySecond)?;
        let echo = EchoServer::start(&certs, plan.threads)?;
        Ok(Self { plan, echo, redis, agents, folder })
    }

    /// Redis alone.
    pub(crate) fn redis(&self, in_flight: usize) -> Result<Floor, AnyError> {
        let load = RedisLoad {
            connections: usize::from(self.plan.threads).min(in_flight),
            in_flight,
            payload_bytes: self.plan.content.payload_bytes,
            warm_up: Duration::from_secs_f64(self.plan.warm_up_s),
            counted: Duration::from_secs_f64(self.plan.counted_s),
        };
        let RedisOutcome { per_s, latency, cpu_us_per_message } =
            measure(&self.redis.url(), self.redis.pid()?, load)?;
        Ok(Floor { name: "Redis alone", in_flight, per_s, latency, cpu_us: cpu_us_per_message })
    }

    /// gRPC alone.
    pub(crate) fn echo(&self, path: Path, in_flight: usize) -> Result<Floor, AnyError> {
        let sessions = self.agents.sessions(1, 1, 0, 0).into_iter().next().unwrap_or_default();
        let plan = ClientPlan {
            addr: self.echo.addr.clone(),
            certs: self.folder.path().join("certs"),
            server_name: None,
            generation: Generation::default(),
            pattern: Pattern::Echo,
            path,
            sessions,
            alone: true,
            in_flight,
            rate: None,
            content: self.plan.content,
        };
        let fleet = Fleet::start(&[plan])?;
        let watched = Watched { server: Some(self.echo.pid()), redis: None };
        let outcome = fleet.run(Schedule::soon(self.plan.warm_up_s, self.plan.counted_s), watched)?;
        check(&outcome)?;
        let cpu_us = outcome.per_message_us(outcome.server_cpu_s.unwrap_or_default());
        let name = match path {
            Path::Unary => "unary echo",
            Path::Stream => "stream echo",
        };
        Ok(Floor { name, in_flight, per_s: outcome.accepted_per_s(), latency: outcome.end_to_end, cpu_us })
    }
}

/// A measurement in which messages failed measures something else.
pub(crate) fn check(outcome: &Outcome) -> Result<(), AnyError> {
    if outcome.failed() > 0 {
        return Err(format!("messages failed: {:?}", outcome.failures).into());
    }
    if outcome.undelivered > 0 {
        return Err(format!("{} accepted messages were not delivered", outcome.undelivered).into());
    }
    Ok(())
}

/// All six, in the order of the table.
pub(crate) fn all(floors: &Floors) -> Result<Vec<Floor>, AnyError> {
    Ok(vec![
        floors.redis(LOADED)?,
        floors.redis(1)?,
        floors.echo(Path::Unary, LOADED)?,
        floors.echo(Path::Unary, 1)?,
        floors.echo(Path::Stream, LOADED)?,
        floors.echo(Path::Stream, 1)?,
    ])
}

/// What the figures are figures of.
pub(crate) const EXPLANATION: &str = "\
Redis alone: MULTI, N XADD, HINCRBY, EXPIRE, XADD of N audit records, EXEC, XDEL, XACK, XREADGROUP, WATCH, GET in one
pipeline per connection; one connection per worker thread, in flight / connections = N; append-only file, everysec,
unix socket; latency is the round trip of a pipeline, CPU that of redis-server. At 1 in flight N = 1, one connection.
Echo: same gRPC library, certificates and messages in a process of its own, a pinned completion queue per thread.
Unary: the payload comes back in the response. Stream: submissions that wait go out in one event, what waits comes back
as deliveries in one event (at most 256), one write. CPU is the echo server's.";

/// As a table.
pub(crate) fn print(floors: &[Floor]) {
    println!("{EXPLANATION}\n");
    println!(
        "{:<14} {:>9} {:>12} {:>10} {:>10} {:>16}",
        "floor", "in flight", "messages/s", "p50 ms", "p99 ms", "CPU µs/message"
    );
    for floor in floors {
        println!(
            "{:<14} {:>9} {:>12.0} {:>10.3} {:>10.3} {:>16.1}",
            floor.name,
            floor.in_flight,
            floor.per_s,
            floor.latency.at(0.5) as f64 / 1000.0,
            floor.latency.at(0.99) as f64 / 1000.0,
            floor.cpu_us
        );
    }
}

/// As JSON.
pub(crate) fn json(floors: &[&Floor]) -> Value {
    floors
        .iter()
        .map(|floor| {
            json!({
                "floor": floor.name, "in_flight": floor.in_flight, "messages_per_s": floor.per_s,
                "latency_us": floor.latency.json(), "cpu_us_per_message": floor.cpu_us,
            })
        })
        .collect()
}
