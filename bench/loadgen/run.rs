//! One measurement, or a ramp of them: against a world of its own or a running server.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::agents::Agents;
use crate::args::RunArgs;
use crate::fleet::{Fleet, Outcome, Watched};
use crate::plan::{ClientPlan, Path, Schedule};
use crate::setting::{Place, line, setting, with};
use crate::world::{Setup, World};
use crate::{AnyError, client, report, usage};

/// What is measured: ended when dropped, where it is one's own.
pub(crate) struct Site {
    world: Option<World>,
    addr: String,
    certs: PathBuf,
    server_name: Option<String>,
    watched: Watched,
    pub(crate) place: Place,
}

/// A site, and what is done there again and again.
pub(crate) struct Bench<'a> {
    args: &'a RunArgs,
    agents: Agents,
    pub(crate) site: Site,
    runs: usize,
}

/// The default command.
pub(crate) fn run(args: &RunArgs) -> Result<(), AnyError> {
    let mut bench = Bench::start(args)?;
    if let Some(first) = args.ramp {
        return crate::ramp::run(&mut bench, f64::from(first));
    }
    let outcome = bench.measure(args.rate.map(f64::from))?;
    let setting = bench.setting(&outcome);
    if let Some(path) = &args.plot {
        crate::plot::write(path, &outcome, &line(&setting))?;
    }
    if args.json {
        println!("{}", json!({"setting": setting, "result": report::json(&outcome)}));
    } else {
        println!("{}\n", line(&setting));
        report::print(&outcome);
    }
    Ok(())
}

impl<'a> Bench<'a> {
    /// Checks what was asked for and starts what it needs.
    pub(crate) fn start(args: &'a RunArgs) -> Result<Self, AnyError> {
        let agents = Agents::new(args.pattern, args.agents as usize, &args.target.names()).map_err(usage)?;
        let _ = args.content.content().map_err(usage)?;
        let sessions = agents.senders() * usize::from(args.connections);
        let most = sessions * client::MAX_UNDER_WAY;
        let closed = args.rate.is_none() && args.ramp.is_none();
        if args.path == Path::Stream && closed && args.in_flight as usize > most {
            let why = format!(
                "--in-flight: {sessions} sending sessions take {most} on their streams; give more --agents or --connections"
            );
            return Err(usage(why));
        }
        let site = Site::start(args, &agents)?;
        Ok(Self { args, agents, site, runs: 0 })
    }

    /// One run, with sessions of its own.
    pub(crate) fn measure(&mut self, rate: Option<f64>) -> Result<Outcome, AnyError> {
        let args = self.args;
        self.runs += 1;
        let parts = self.agents.sessions(
            usize::from(args.processes),
            usize::from(args.connections),
            usize::from(args.instances),
            self.runs,
        );
        let sending = parts.iter().filter(|part| part.iter().any(|session| session.sends)).count().max(1);
        let content = args.content.content().map_err(usage)?;
        let alone = parts.len() == 1;
        let mut nth_sender = 0;
        let mut plans = Vec::with_capacity(parts.len());
        for sessions in parts {
            let mut in_flight = 0;
            if sessions.iter().any(|session| session.sends) {
                // The remainder goes to the first ones.
                let all = args.in_flight as usize;
                in_flight = all / sending + usize::from(nth_sender < all % sending);
                nth_sender += 1;
            }
            plans.push(ClientPlan {
                addr: self.site.addr.clone(),
                certs: self.site.certs.clone(),
                server_name: self.site.server_name.clone(),
                generation: args.target.generation,
                pattern: args.pattern,
                path: args.path,
                sessions,
                alone,
                in_flight,
                rate: rate.map(|rate| rate / sending as f64),
                content,
            });
        }
        let fleet = Fleet::start(&plans)?;
        if fleet.path != args.path && self.runs == 1 {
            eprintln!(
                "loadgen: this server takes no submissions on the stream (its Welcome does not say so): unary calls instead"
            );
        }
        let schedule = Schedule::soon(args.warm_up as f64, args.seconds as f64);
        let outcome = fleet.run(schedule, self.site.watched)?;
        if let Some(world) = &mut self.site.world {
            world.check()?;
        }
        Ok(outcome)
    }

    /// What the result is a result of.
    pub(crate) fn setting(&self, outcome: &Outcome) -> serde_json::Map<String, Value> {
        let args = self.args;
        let closed = args.rate.is_none() && args.ramp.is_none();
        let more = json!({
            "target": self.site.world.is_none().then_some(&self.site.addr),
            "pattern": args.pattern, "path": outcome.path,
            "stream_refused": (outcome.path != args.path).then_some(true),
            "agents": args.agents, "instances": args.instances, "connections": args.connections,
            "client_processes": args.processes, "client_threads": args.path.client_queues(), "rules": args.rules,
            "in_flight": closed.then_some(args.in_flight), "rate": args.rate,
            "payload_bytes": args.content.payload, "findings": args.content.mix, "seed": args.content.seed,
            "warm_up_s": args.warm_up, "seconds": args.seconds,
        });
        with(setting(&self.site.place), &more)
    }

    pub(crate) fn args(&self) -> &'a RunArgs {
        self.args
    }
}

impl Site {
    fn start(args: &RunArgs, agents: &Agents) -> Result<Self, AnyError> {
        let target = &args.target;
        if let (Some(addr), Some(certs)) = (&target.target, &target.certs) {
            return Ok(Self {
                world: None,
                addr: addr.clone(),
                certs: certs.clone(),
                server_name: target.server_name.clone(),
                watched: Watched { server: target.server_pid, redis: None },
                place: Place {
                    server_version: "unknown".to_owned(),
                    redis_version: "unknown".to_owned(),
                    threads: None,
                    fsynced: false,
                },
            });
        }
        let server = &args.server;
        let setup = Setup { threads: server.threads, fsynced: server.fsynced, rules: args.rules as usize };
        let world = World::start(agents, setup)?;
        Ok(Self {
            addr: world.addr.clone(),
            certs: world.certs(),
            server_name: None,
            watched: world.watched()?,
            place: Place {
                server_version: world.version.clone(),
                redis_version: world.redis.version.clone(),
                threads: Some(server.threads),
                fsynced: server.fsynced,
            },
            world: Some(world),
        })
    }
}
