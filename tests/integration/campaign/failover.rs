//! The same promises when the Redis that accepted is lost for good: a primary with two replicas behind a
//! Sentinel, `replicated` to both, and primaries that are killed under load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actors::Member;
use super::arena::{AGENTS, SETTINGS, drained};
use super::history::{History, now_us};
use super::inflict::wait;
use super::place::Place;
use super::{checker, crew};
use crate::endpoints::sentinel;
use crate::support::{Process, Redis, World, free_port, within};

/// Failovers in the suite; the long form makes one for each [`FAULTS_EACH`] faults.
const FAILOVERS: usize = 2;
const FAULTS_EACH: usize = 50;
/// Load before each of them.
const BETWEEN: Duration = Duration::from_millis(1500);
/// Silence after which the Sentinel fails over: longer than a busy machine makes a primary seem dead.
const DOWN_AFTER_MS: u32 = 1000;
const DRAIN: Duration = Duration::from_secs(30);
/// Longest for a failover.
const FAILED_OVER: Duration = Duration::from_secs(60);
/// A replica that is new gets its data at once.
const QUICK: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// A primary, which is the world's Redis, and its replicas, each with its port. The world, whose folder they
/// write to, is dropped last.
struct Trio {
    replicas: Vec<(Redis, u16)>,
    _sentinel: Process,
    sentinel_port: u16,
    primary: u16,
    world: World,
}

impl Trio {
    fn new() -> Self {
        let mut world = World::with(AGENTS, SETTINGS);
        let primary = free_port();
        world.redis.restart_with(&[&["--port", &primary.to_string()][..], &QUICK].concat());
        let replicas: Vec<(Redis, u16)> = ["one", "two"]
            .iter()
            .map(|name| {
                let port = free_port();
                let mut redis = Redis::start(&world.path().join(name));
                follow(&mut redis, port, primary);
                (redis, port)
            })
            .collect();
        let (sentinel, sentinel_port) = sentinel(&world, &primary.to_string(), DOWN_AFTER_MS);
        world.set_gateway(
            "rate_limit: {per_minute: 10000000, per_hour: 10000000}, features: {circuit_breaker: false}",
        );
        world.set_redis(&format!(
            "url: 'redis://unused', socket_timeout: 2, \
             durability: {{mode: replicated, replicas: 2, timeout_ms: 500}}, \
             sentinel: {{master: primary, addrs: ['127.0.0.1:{sentinel_port}']}}"
        ));
        let mut trio = Self { world, primary, replicas, sentinel_port, _sentinel: sentinel };
        // A Sentinel that was kept waiting for two seconds, as on a busy machine, would do nothing for thirty.
        let patient = ["debug", "tilt-trigger", "30000", "tilt-period", "1000"];
        within(FAILED_OVER, "the Sentinel is patient", || trio.ask::<redis::Value>(&patient).is_ok());
        trio.until_in_step();
        trio
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.sentinel_port))?;
        redis::cmd("SENTINEL").arg(words).query(&mut client.get_connection()?)
    }

    /// Makes the primary that the Sentinel names the world's Redis.
    fn knows_primary(&mut self) -> bool {
        let Ok((_, port)) = self.ask::<(String, u16)>(&["get-master-addr-by-name", "primary"]) else {
            return false;
        };
        if let Some((redis, own)) = self.replicas.iter_mut().find(|(_, own)| *own == port) {
            std::mem::swap(&mut self.world.redis, redis);
            std::mem::swap(&mut self.primary, own);
        }
        true
    }

    /// Waits until one of the three is the primary and both others follow it, whatever the Sentinel decides on
    /// a busy machine meanwhile. The primary is the world's Redis then.
    fn until_in_step(&mut self) {
        within(FAILED_OVER, "both replicas are in step, and the Sentinel knows them", || {
            if !self.knows_primary() {
                return false;
            }
            if !self.world.redis.is_running() || !info(&self.world.redis).contains("role:master") {
                return false;
            }
            for (redis, own) in &mut self.replicas {
                if !redis.is_running() {
                    follow(redis, *own, self.primary);
                } else if !info(redis).contains(&format!("master_port:{}\r", self.primary)) {
                    replicate(redis, self.primary);
                }
            }
            let known: Vec<redis::Value> = self.ask(&["replicas", "primary"]).unwrap_or_default();
            info(&self.world.redis).matches("state=online").count() == 2 && known.len() >= 2
        });
    }

    /// Whether both replicas follow the primary. After a failover the Sentinel may make them follow anew, or fail over
    /// once more by itself, and takes ten seconds to make a second primary a replica.
    fn is_in_step(&mut self) -> bool {
        self.knows_primary()
            && self.world.redis.is_running()
            && info(&self.world.redis).matches("state=online").count() == 2
    }

    /// Waits while `goes_on`. The time in which the replicas are out of step is no quiet time: nothing is as durable as
    /// configured then, and nothing is delivered.
    fn watch(&mut self, history: &History, mut goes_on: impl FnMut(&Redis) -> bool) {
        let mut since = None;
        while goes_on(&self.world.redis) {
            let before_us = now_us();
            match (self.is_in_step(), since) {
                (false, None) => since = Some(before_us),
                (true, Some(from_us)) => {
                    history.disturbed("out of step", from_us);
                    since = None;
                }
                (false, Some(_)) | (true, None) => {}
            }
            wait(Duration::from_millis(20));
        }
        if let Some(from_us) = since {
            history.disturbed("out of step", from_us);
        }
    }

    /// kill -9 of the primary; the Sentinel promotes a replica, and what was killed comes back as one.
    fn fail_over(&mut self) {
        self.until_in_step();
        let before = self.primary;
        self.world.redis.kill();
        let give_up = Instant::now() + FAILED_OVER;
        let primary = || self.ask::<(String, u16)>(&["get-master-addr-by-name", "primary"]);
        while !primary().is_ok_and(|(_, port)| port != before) {
            assert!(
                Instant::now() < give_up,
                "{:?} is the primary still:\n{}",
                primary(),
                self.sentinel_log()
            );
            wait(Duration::from_millis(20));
        }
        self.until_in_step();
    }

    fn sentinel_log(&self) -> String {
        std::fs::read_to_string(self.world.path().join("sentinel.log")).unwrap()
    }
}

/// What it says of its replication; nothing where it cuts its clients off just then, as with each change of its role.
fn info(redis: &Redis) -> String {
    let asked = || {
        redis::cmd("INFO").arg("replication").query(&mut redis::Client::open(redis.url())?.get_connection()?)
    };
    let answer: redis::RedisResult<String> = asked();
    answer.unwrap_or_default()
}

/// Makes it a replica; it is looked at again where it does not answer.
fn replicate(redis: &Redis, primary: u16) {
    let asked = || {
        let mut connection = redis::Client::open(redis.url())?.get_connection()?;
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary).query::<String>(&mut connection)
    };
    let _: redis::RedisResult<String> = asked();
}

/// Starts it, again or for the first time, as a replica.
fn follow(redis: &mut Redis, port: u16, primary: u16) {
    let (port, primary) = (port.to_string(), primary.to_string());
    redis.restart_with(&[&["--port", &port, "--replicaof", "127.0.0.1", &primary][..], &QUICK].concat());
}

#[test]
fn promises_hold_over_failovers() {
    let failovers = std::env::var("MAS_TEST_FAULTS")
        .map_or(FAILOVERS, |faults| faults.parse::<usize>().unwrap().div_ceil(FAULTS_EACH));
    let mut trio = Trio::new();
    let servers = [trio.world.server(), trio.world.server()];
    let place = Place::new([&servers[0].addr, &servers[1].addr]);
    let members: Vec<Member> =
        [("s0", "i0"), ("s1", "i0"), ("s2", "i0"), ("r0", "i0"), ("r0", "i1"), ("r1", "i0"), ("e0", "i0")]
            .iter()
            .enumerate()
            .map(|(n, (agent, instance))| {
                drop(trio.world.certificate(agent));
                Member::new(&trio.world.certs(), &place, agent, instance, n as u64)
            })
            .collect();
    let history = Arc::new(History::default());
    crew::work(&members, &history, |crew| {
        for _ in 0..failovers {
            let until = Instant::now() + BETWEEN;
            trio.watch(&history, |_| Instant::now() < until);
            let from_us = now_us();
            trio.fail_over();
            history.disturbed("failover", from_us);
        }
        let until = Instant::now() + BETWEEN;
        trio.watch(&history, |_| Instant::now() < until);
        crew.send_no_more();
        // As long as the replicas are out of step, outcomes stay unknown.
        trio.watch(&history, |_| crew.is_sending());
        crew.stop_sending();
        let give_up = Instant::now() + DRAIN;
        trio.watch(&history, |redis| !drained(redis) && Instant::now() < give_up);
        history.note(|seen| seen.ended_us = now_us());
    });
    println!("{failovers} failovers: {}", history.summary());
    println!("the servers:\n{}", trio.world.logged());
    println!("the Sentinel:\n{}", trio.sentinel_log());
    history.read(|seen| seen.disturbed.iter().for_each(|disturbed| println!("{disturbed:?}")));
    let violations = checker::check(&history, &trio.world);
    assert!(violations.is_empty(), "{} violations: {}", violations.len(), checker::texts(&violations));
    assert!(history.accepted_count() > 100, "hardly anything was sent");
}
