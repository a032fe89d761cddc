//! Where a campaign happens: two servers on one Redis, each with something between them that can break.
//! The first has a wire on which a chosen command can be its last, and a clock that can be stepped; the
//! second lives in a network of its own. Redis and the servers' anchor are on a small disk.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actors::Member;
use super::crew;
use super::disk::{Clock, Disk};
use super::history::{History, now_us};
use super::network::{Link, Network};
use super::place::Place;
use super::process::{AgentProcess, INHABITANTS};
use super::wire::Wire;
use crate::support::Random;
use crate::support::{Redis, Server, World, free_port};

const SENDERS: [&str; 3] = ["s0", "s1", "s2"];
const RECEIVERS: [&str; 2] = ["r0", "r1"];
/// Gets a message for each commit of a receiver.
const EFFECTS: &str = "e0";
/// How long messages wait for another instance than the one that had them.
pub const RECLAIM_IDLE: Duration = Duration::from_millis(300);
pub const SETTINGS: &str = "\
limits: {max_streams_per_connection: 1000}
delivery: {reclaim_idle_ms: 300, max_attempts: 20, retry_backoff_ms: [20, 100]}
";
pub const AGENTS: &str = "\
permissions:
  - {type: allow_broadcast, sender: s0, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s1, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s2, receivers: [r0, r1]}
  - {type: allow, sender: r0, targets: [e0]}
  - {type: allow, sender: r1, targets: [e0]}
agents:
  [{agent_id: s0}, {agent_id: s1}, {agent_id: s2}, {agent_id: r0}, {agent_id: r1}, {agent_id: e0}, {agent_id: vault}]
";
/// Handlers fail on purpose here; that is not what is tested. The anchor is on the small disk. Little of the trail stays in
/// Redis, so it is archived all the time.
pub const GATEWAY: &str = "rate_limit: {per_minute: 10000000, per_hour: 10000000}, \
                       features: {circuit_breaker: false}, \
                       audit: {anchor_path: redis/anchor.jsonl, max_records: 20000}";
/// How long the last messages may take to arrive.
const DRAIN: Duration = Duration::from_secs(60);

/// Fields are dropped in this order: first the processes that write, then the disk that is mounted in the
/// world's folder, which cannot be removed before.
pub struct Arena {
    pub agents: Option<AgentProcess>,
    pub servers: [Server; 2],
    pub disk: Option<Disk>,
    pub world: World,
    pub place: Place,
    pub random: Random,
    /// Of the run that is under way.
    pub history: Arc<History>,
    pub wire: Wire,
    /// Redis as each server sees it.
    urls: [String; 2],
    pub clock: Option<Clock>,
    pub network: Option<Network>,
    /// What cannot be broken here, and why.
    pub missing: Vec<String>,
}

impl Arena {
    pub fn new(seed: u64) -> Self {
        let mut world = World::with(AGENTS, SETTINGS);
        world.set_gateway(GATEWAY);
        let mut missing = Vec::new();
        let network = Network::make().map_err(|error| missing.push(error)).ok();
        let disk = Self::mount(&mut world).map_err(|error| missing.push(format!("tmpfs: {error}"))).ok();
        let clock = Clock::new(world.path());
        if clock.is_none() {
            missing.push("libfaketime is not installed".to_owned());
        }
        world.redis.fsync_always();
        let port = if let Some(network) = &network {
            let port = free_port();
            world.redis.restart_with(&[
                "--port",
                &port.to_string(),
                "--bind",
                &network.near(Link::Redis),
                "--protected-mode",
                "no",
            ]);
            let names = ["127.0.0.1".to_owned(), network.far(Link::Agents)];
            world.authority.issue_server(&names, 30).unwrap();
            port
        } else {
            0
        };
        let wire = Wire::start(&world.path().join("wire.sock"), &world.redis.socket());
        let urls = [
            wire.url(),
            network
                .as_ref()
                .map_or(world.redis.url(), |network| format!("redis://{}:{port}", network.near(Link::Redis))),
        ];
        write_configs(&world, &urls);
        let second = network
            .as_ref()
            .map_or("127.0.0.1:0".to_owned(), |network| format!("{}:50051", network.far(Link::Agents)));
        let servers = [
            start(&world, clock.as_ref(), network.as_ref(), 0, "127.0.0.1:0"),
            start(&world, clock.as_ref(), network.as_ref(), 1, &second),
        ];
        for agent in SENDERS.iter().chain(&RECEIVERS).chain([&EFFECTS]) {
            drop(world.certificate(agent));
        }
        let place = Place::new([&servers[0].addr, &servers[1].addr]);
        let random = Random(seed);
        Self {
            world,
            servers,
            place,
            random,
            agents: None,
            history: Arc::default(),
            wire,
            urls,
            clock,
            network,
            disk,
            missing,
        }
    }

    /// For servers that start from now on.
    pub fn rewrite_configs(&self) {
        write_configs(&self.world, &self.urls);
    }

    fn mount(world: &mut World) -> nix::Result<Disk> {
        world.redis.kill();
        let disk = Disk::mount(&world.path().join("redis"));
        world.redis.resume();
        disk
    }

    /// Starts what has ended.
    pub fn revive(&mut self) {
        let redis_had_ended = self.world.redis.revive();
        if redis_had_ended {
            println!("Redis had ended");
        }
        for n in 0..self.servers.len() {
            if self.servers[n].has_ended() {
                let addr = self.servers[n].addr.clone();
                let (clock, network) = (self.clock.as_ref(), self.network.as_ref());
                self.servers[n] = start(&self.world, clock, network, n, &addr);
            }
        }
    }

    /// Lets everybody work while `meanwhile` happens, then until nothing is left to deliver; what all saw.
    pub fn run(&mut self, meanwhile: impl FnOnce(&mut Self)) -> Arc<History> {
        let history = Arc::new(History::default());
        self.history = Arc::clone(&history);
        let senders = SENDERS.iter().map(|agent| (*agent, "i0"));
        let receivers = RECEIVERS.iter().flat_map(|agent| ["i0", "i1"].map(|instance| (*agent, instance)));
        let members: Vec<Member> = senders
            .chain(receivers)
            .chain([(EFFECTS, "i0")])
            .filter(|member| !INHABITANTS.contains(member))
            .enumerate()
            .map(|(n, (agent, instance))| {
                Member::new(&self.world.certs(), &self.place, agent, instance, n as u64)
            })
            .collect();
        self.agents = Some(AgentProcess::start(&self.world.certs(), &self.place, Arc::clone(&history)));
        crew::work(&members, &history, |crew| {
            meanwhile(self);
            crew.stop_sending();
            let mut agents = self.agents.take().unwrap();
            agents.stop_sending();
            let give_up = Instant::now() + DRAIN;
            while !drained(&self.world.redis) && Instant::now() < give_up {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            history.note(|seen| seen.ended_us = now_us());
            agents.end();
        });
        history
    }
}

pub const CONFIGS: [&str; 2] = ["first.yaml", "second.yaml"];

fn write_configs(world: &World, urls: &[String; 2]) {
    for (config, url) in CONFIGS.iter().zip(urls) {
        world.write_config_as(&world.path().join(config), &format!("url: '{url}', socket_timeout: 2"));
    }
}

/// Starts one of the two servers.
fn start(world: &World, clock: Option<&Clock>, network: Option<&Network>, n: usize, addr: &str) -> Server {
    let mut command = match (n, network) {
        (1, Some(network)) => network.command(World::SERVER),
        _ => Command::new(World::SERVER),
    };
    if let (0, Some(clock)) = (n, clock) {
        clock.give(&mut command);
    }
    world.server_by(command, addr, &world.path().join(CONFIGS[n]))
}

/// Whether nothing waits for delivery or acknowledgement.
pub fn drained(redis: &Redis) -> bool {
    let mut streams = redis.keys();
    streams.retain(|key| key.starts_with("agent.stream:"));
    streams.iter().all(|stream| redis.len(stream) == 0)
}
