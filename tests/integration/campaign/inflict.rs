//! Faults of one step: inflicted, and healed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::arena::Arena;
use super::faults::{Fault, Victim, Who};
use super::history::now_us;
use super::wire::{Blow, Point, When};

/// Longest of the short stops and shortages, in milliseconds.
const MAX_SHORT_MS: u64 = 1500;
/// Beyond a server's lease and the three looks at it.
const LOSES_LEASE: Duration = Duration::from_secs(8);
/// How long a chosen point is waited for.
const POINT_PATIENCE: Duration = Duration::from_secs(6);
/// Room that Redis is given when its memory is full: less than it has in use.
const NO_MEMORY: &str = "1mb";

impl Arena {
    /// Inflicts it and heals it; `false` where it did not come about.
    pub fn inflict(&mut self, fault: Fault) -> bool {
        let from_us = now_us();
        let happened = self.do_inflict(fault);
        // A server that was killed together with its agents stays away while others take over.
        if !matches!(fault, Fault::KillServerAndAgents(_)) {
            self.revive();
        }
        self.history.disturbed(&fault.name(), from_us);
        if happened && fault.is_followed_by_quiet() {
            if fault == Fault::Reload {
                self.acknowledge_many_at_once();
            }
            self.settle();
        }
        self.revive();
        happened
    }

    fn do_inflict(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Kill(Who::Server(n)) => self.servers[n].kill(),
            Fault::Kill(Who::Redis) => self.world.redis.kill(),
            Fault::Kill(Who::Agents) => self.agents.as_mut().unwrap().kill(),
            Fault::Stop(who) => {
                let moment = self.moment();
                self.stop(who, moment);
            }
            Fault::StopLong(who, seconds) => self.stop(who, Duration::from_secs(seconds)),
            Fault::At(point, when, victim) => return self.strike(point, when, victim),
            Fault::CutConnections => {
                let _: i64 = self.world.redis.query(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
            Fault::LoseSessions => self.place.lose_sessions(),
            Fault::TakeOver => {
                for n in [0, 1] {
                    self.servers[n].signal(Signal::SIGSTOP);
                    self.place.lose_sessions();
                    wait(LOSES_LEASE);
                    self.servers[n].signal(Signal::SIGCONT);
                    self.revive();
                }
            }
            Fault::Partition(link, way) => {
                let moment = self.moment();
                let Some(network) = &self.network else { return false };
                network.silence(link, way);
                wait(moment);
                network.heal(link, way);
            }
            Fault::MemoryFull => {
                let _: String = self.world.redis.query(&["CONFIG", "SET", "maxmemory", NO_MEMORY]);
                let moment = self.moment();
                wait(moment);
                let _: String = self.world.redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Fault::DiskFull => {
                let moment = self.moment();
                let Some(disk) = &self.disk else { return false };
                disk.fill();
                wait(moment);
                disk.free();
            }
            Fault::ClockStep => {
                let steps = self.random.below(4);
                let Some(clock) = &self.clock else { return false };
                clock.set(steps);
            }
            Fault::ClockAheadAtStart => return self.start_with_a_clock_ahead(),
            Fault::AgentsNeverReturn => return self.replace_agents(None),
            Fault::KillServerAndAgents(n) => return self.replace_agents(Some(n)),
            Fault::RedisPauses => self.pause_redis(),
            Fault::Moves => self.move_receivers(),
            Fault::Reload => self.reload(),
        }
        true
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.random.below(MAX_SHORT_MS))
    }

    fn stop(&mut self, who: Who, span: Duration) {
        let signal = |arena: &Self, signal| match who {
            Who::Server(n) => arena.servers[n].signal(signal),
            Who::Redis => arena.world.redis.signal(signal),
            Who::Agents => arena.agents.as_ref().unwrap().signal(signal),
        };
        signal(self, Signal::SIGSTOP);
        wait(span);
        signal(self, Signal::SIGCONT);
    }

    fn strike(&mut self, point: Point, when: When, victim: Victim) -> bool {
        let blow = match victim {
            Victim::Server => Blow::Kill(self.servers[0].pid()),
            Victim::Redis => Blow::Kill(self.world.redis.pid()),
            Victim::Connection => Blow::Cut,
        };
        let struck = self.wire.strike(point, when, blow, POINT_PATIENCE);
        if struck && victim == Victim::Server {
            self.servers[0].wait_killed();
        }
        if struck && victim == Victim::Redis {
            self.world.redis.kill();
        }
        struck
    }
}

pub fn wait(span: Duration) {
    let over = Instant::now() + span;
    while Instant::now() < over {
        std::thread::park_timeout(Duration::from_millis(5).min(span));
    }
}
