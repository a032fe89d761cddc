//! What can go wrong on purpose.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::arena::Arena;
use super::network::{Link, Way};
use super::wire::{Blow, Point, When};

/// Longest of the short stops and shortages, in milliseconds.
const MAX_SHORT_MS: u64 = 1500;
/// Long stops, in seconds: beyond a lease, and beyond every timeout.
const LONG_S: [u64; 2] = [10, 60];
/// Beyond a server's lease and the three looks at it.
const LOSES_LEASE: Duration = Duration::from_secs(8);
/// How long a chosen point is waited for.
const POINT_PATIENCE: Duration = Duration::from_secs(6);
/// Room that Redis is given when its memory is full: less than it has in use.
const NO_MEMORY: &str = "1mb";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Server(usize),
    Redis,
    Agents,
}

/// Who is hit at a chosen point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Server,
    Redis,
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9.
    Kill(Who),
    /// SIGSTOP for a moment.
    Stop(Who),
    /// SIGSTOP for that many seconds.
    StopLong(Who, u64),
    /// A blow at a chosen command of the first server.
    At(Point, When, Victim),
    /// All connections to Redis are closed.
    CutConnections,
    /// All agents' streams end.
    LoseSessions,
    /// The first server loses its lease and its instances to the second, and these go back.
    TakeOver,
    /// The second server is cut off in a direction.
    Partition(Link, Way),
    /// Redis' memory is full.
    MemoryFull,
    /// The disk under Redis and the anchor is full.
    DiskFull,
    /// The first server's clock is stepped by hours, forwards or back.
    ClockStep,
}

impl Fault {
    /// One of each kind, for the suite.
    pub fn each() -> Vec<Self> {
        let mut all = vec![
            Self::Kill(Who::Server(0)),
            Self::Kill(Who::Server(1)),
            Self::Kill(Who::Redis),
            Self::Kill(Who::Agents),
            Self::Stop(Who::Server(0)),
            Self::Stop(Who::Redis),
            Self::Stop(Who::Agents),
            Self::ClockStep,
            Self::CutConnections,
            Self::LoseSessions,
            Self::MemoryFull,
            Self::DiskFull,
            Self::Partition(Link::Redis, Way::Out),
            Self::Partition(Link::Redis, Way::In),
            Self::Partition(Link::Agents, Way::Both),
        ];
        for point in Point::ALL {
            all.push(Self::At(point, When::Before, Victim::Server));
            all.push(Self::At(point, When::After, Victim::Server));
        }
        all
    }

    pub fn name(self) -> String {
        match self {
            Self::Kill(who) => format!("kill {}", who.name()),
            Self::Stop(who) => format!("stop {}", who.name()),
            Self::StopLong(who, seconds) => format!("stop {} {seconds} s", who.name()),
            Self::At(point, when, victim) => format!("{when:?} {point:?}: {victim:?}"),
            Self::Partition(link, way) => format!("partition {link:?} {way:?}"),
            other => format!("{other:?}"),
        }
    }
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::Redis => "Redis",
            Self::Agents => "agents",
        }
    }
}

impl Arena {
    pub fn next_fault(&mut self) -> Fault {
        let who = match self.random.below(5) {
            0 | 1 => Who::Server(self.random.below(2) as usize),
            2 => Who::Redis,
            _ => Who::Agents,
        };
        match self.random.below(100) {
            0..=19 => Fault::Kill(who),
            20..=29 => Fault::Stop(who),
            30 => Fault::StopLong(who, LONG_S[usize::from(self.random.below(4) == 0)]),
            31 => Fault::TakeOver,
            32..=64 => {
                let point = Point::ALL[self.random.below(5) as usize];
                let when = [When::Before, When::After][self.random.below(2) as usize];
                let victims = [Victim::Server, Victim::Redis, Victim::Connection];
                Fault::At(point, when, victims[self.random.below(3) as usize])
            }
            65..=72 => Fault::CutConnections,
            73..=78 => Fault::LoseSessions,
            79..=90 => {
                let link = [Link::Redis, Link::Agents][self.random.below(2) as usize];
                Fault::Partition(link, [Way::Out, Way::In, Way::Both][self.random.below(3) as usize])
            }
            91..=93 => Fault::MemoryFull,
            94..=96 => Fault::DiskFull,
            _ => Fault::ClockStep,
        }
    }

    /// Inflicts it and heals it; `false` where it did not come about.
    pub fn inflict(&mut self, fault: Fault) -> bool {
        let happened = self.do_inflict(fault);
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
