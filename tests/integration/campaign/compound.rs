//! Faults of several steps, and the quiet after them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::arena::{Arena, CONFIGS, GATEWAY, SETTINGS};
use super::history::{Disturbed, now_us};
use super::inflict::wait;
use super::waits::LONGEST_WAIT;

/// How long a step towards a fault may take before it counts as not reached.
const STEP_PATIENCE: Duration = Duration::from_secs(6);
/// How long a server works with a clock that is ahead.
const AHEAD: Duration = Duration::from_millis(800);
/// How long Redis pauses, how long it works in between, and for how long in all.
const PAUSE_MS: std::ops::Range<u64> = 10..60;
const BETWEEN_PAUSES_MS: std::ops::Range<u64> = 5..80;
const PAUSES: Duration = Duration::from_millis(2500);
/// How long receivers move.
const MOVES: Duration = Duration::from_secs(3);
/// Deliveries that a session may have under way while credit is low.
const LOW_CREDIT: &str = "max_in_flight: 2";
const LOW_LIMITS: &str = "rate_limit: {per_minute: 1, per_hour: 1}";
/// How long sessions stay that were opened while credit was low.
const AFTER_LOW_CREDIT: Duration = Duration::from_millis(2600);

impl Arena {
    /// Waits until something is so, for a while.
    fn reaches(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let give_up = Instant::now() + STEP_PATIENCE;
        while !holds(self) {
            if Instant::now() >= give_up {
                return false;
            }
            wait(Duration::from_millis(5));
        }
        true
    }

    /// Kills a process of agents while they hold deliveries, with the server that these agents are connected to,
    /// if one is named. Instances with other names come instead.
    pub fn replace_agents(&mut self, server: Option<usize>) -> bool {
        if let Some(n) = server {
            self.agents.as_mut().unwrap().set_home(Some(n));
            if !self.reaches(|arena| arena.agents_are_on(n)) {
                self.agents.as_mut().unwrap().set_home(None);
                return false;
            }
        }
        // What it is handed from now on is never settled.
        self.agents.as_ref().unwrap().signal(Signal::SIGSTOP);
        let reached = self.reaches(Self::agents_hold_deliveries);
        if let Some(n) = server {
            self.servers[n].kill();
        }
        self.agents.as_mut().unwrap().replace();
        reached
    }

    /// Whether the newest sessions of the process' receivers are on a server, and open.
    fn agents_are_on(&self, server: usize) -> bool {
        let agents = self.agents.as_ref().unwrap();
        let (pid, instances) = (agents.pid(), agents.instances("r1"));
        self.history.read(|seen| {
            instances.iter().all(|instance| {
                let of_it = |opened: &&super::history::Opened| {
                    opened.pid == pid && opened.agent == "r1" && opened.instance == *instance
                };
                let newest = seen.opened.iter().rev().find(of_it);
                newest.is_some_and(|opened| {
                    let closed = seen.closed.iter().rev().any(|(session, _)| *session == opened.session);
                    opened.server == server && !closed
                })
            })
        })
    }

    fn agents_hold_deliveries(&self) -> bool {
        self.agents.as_ref().unwrap().instances("r1").iter().any(|instance| {
            let consumer = format!("r1-{instance}");
            let mut command = redis::cmd("XPENDING");
            command.arg(&["agent.stream:r1", "agents", "-", "+", "1", &consumer]);
            // There may be no inbox yet.
            let pending = command.query::<Vec<redis::Value>>(&mut self.world.redis.connection());
            pending.is_ok_and(|pending| !pending.is_empty())
        })
    }

    pub fn start_with_a_clock_ahead(&mut self) -> bool {
        let steps = 1 + self.random.below(3);
        if self.clock.is_none() {
            return false;
        }
        self.servers[0].kill();
        self.set_clock(steps);
        self.revive();
        wait(AHEAD);
        self.set_clock(0);
        true
    }

    fn set_clock(&self, steps: u64) {
        if let Some(clock) = &self.clock {
            clock.set(steps);
        }
    }

    /// Redis pauses, sessions end, and receivers leave work to each other.
    pub fn pause_redis(&mut self) {
        self.place.set_moving(true);
        let over = Instant::now() + PAUSES;
        while Instant::now() < over {
            let (pause, between) = (self.random.span(&PAUSE_MS), self.random.span(&BETWEEN_PAUSES_MS));
            self.world.redis.signal(Signal::SIGSTOP);
            wait(pause);
            self.world.redis.signal(Signal::SIGCONT);
            wait(between);
        }
        self.place.set_moving(false);
    }

    pub fn move_receivers(&mut self) {
        self.place.set_moving(true);
        wait(MOVES);
        self.place.set_moving(false);
    }

    /// Lowers credit and limits and raises them again, with sessions that were opened in between.
    pub fn reload(&mut self) {
        self.revive();
        let from_us = now_us();
        let delivery = "delivery: {";
        self.world.set_settings(&SETTINGS.replace(delivery, &format!("{delivery}{LOW_CREDIT}, ")));
        let limits = &GATEWAY[..GATEWAY.find(", features").unwrap()];
        self.world.set_gateway(&GATEWAY.replace(limits, LOW_LIMITS));
        self.put_in_force();
        self.set_staying(true);
        self.place.set_batching(true);
        let before = self.history.read(|seen| seen.opened.len());
        self.place.lose_sessions();
        let _ = self.reaches(|arena| {
            let reopened = |instance: &str| {
                arena.history.read(|seen| {
                    seen.opened.iter().skip(before).any(|o| o.agent == "r0" && o.instance == instance)
                })
            };
            reopened("i0") && reopened("i1")
        });
        self.world.set_settings(SETTINGS);
        self.world.set_gateway(GATEWAY);
        self.put_in_force();
        let low = Disturbed { by: "reload".to_owned(), from_us, to_us: now_us() };
        self.history.note(|seen| seen.low_limits.push(low));
    }

    /// Has both servers read their configurations anew.
    fn put_in_force(&self) {
        let count = |arena: &Self| {
            let log = arena.world.logged();
            CONFIGS.map(|config| log.matches(&format!("{config}: in force")).count())
        };
        let before = count(self);
        self.rewrite_configs();
        for server in &self.servers {
            server.signal(Signal::SIGHUP);
        }
        let _ = self.reaches(|arena| count(arena).iter().zip(before).all(|(now, before)| *now > before));
    }

    /// Lets sessions from before the credit was raised acknowledge many deliveries at once, and lets them live on
    /// long enough that what they acknowledged is done with; then they end.
    pub fn acknowledge_many_at_once(&mut self) {
        wait(AFTER_LOW_CREDIT);
        self.place.set_batching(false);
        self.set_staying(false);
        self.place.lose_sessions();
    }

    /// Lets nobody end a session without a reason, or lets all do so again: a session that opens finds what is
    /// stuck.
    fn set_staying(&mut self, staying: bool) {
        self.place.set_staying(staying);
        self.agents.as_mut().unwrap().set_staying(staying);
    }

    /// Keeps everything quiet until what is in the inboxes now has left them, or has been there longer than it may.
    pub fn settle(&mut self) {
        self.set_staying(true);
        self.wait_for_inboxes();
        self.set_staying(false);
    }

    fn wait_for_inboxes(&self) {
        let inside = |arena: &Self| -> HashMap<String, HashSet<String>> {
            let streams = arena.world.redis.keys().into_iter().filter(|key| key.starts_with("agent.stream:"));
            streams
                .map(|stream| {
                    let ids: Vec<(String, redis::Value)> =
                        arena.world.redis.query(&["XRANGE", &stream, "-", "+"]);
                    (stream, ids.into_iter().map(|(id, _)| id).collect())
                })
                .collect()
        };
        let before = inside(self);
        let give_up = Instant::now() + LONGEST_WAIT + Duration::from_secs(2);
        while Instant::now() < give_up {
            let now = inside(self);
            let is_left = |stream: &String, ids: &HashSet<String>| {
                now.get(stream).is_some_and(|now| ids.iter().any(|id| now.contains(id)))
            };
            if !before.iter().any(|(stream, ids)| is_left(stream, ids)) {
                return;
            }
            wait(Duration::from_millis(20));
        }
    }
}
