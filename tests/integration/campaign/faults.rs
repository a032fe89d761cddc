//! What can go wrong on purpose.

use super::arena::Arena;
use super::network::{Link, Way};
use super::wire::{Point, When};

/// Long stops, in seconds: beyond a lease, and beyond every timeout.
const LONG_S: [u64; 2] = [10, 60];
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
    /// The first server starts with a clock that is hours ahead, and is corrected while it runs.
    ClockAheadAtStart,
    /// The agents of a process are killed with what they hold, and never return; others come.
    AgentsNeverReturn,
    /// A server is killed together with agents that are connected to it, and these never return.
    KillServerAndAgents(usize),
    /// Redis pauses for 10 to 60 ms again and again, while sessions end.
    RedisPauses,
    /// Receivers move between the servers and leave work behind, and handlers are slow.
    Moves,
    /// Credit and limits are lowered and raised again by reloads.
    Reload,
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
            Self::ClockAheadAtStart,
            Self::AgentsNeverReturn,
            Self::KillServerAndAgents(0),
            Self::KillServerAndAgents(1),
            Self::RedisPauses,
            Self::Moves,
            Self::Reload,
            Self::At(Point::Commit, When::Before, Victim::Connection),
            Self::At(Point::Commit, When::After, Victim::Connection),
        ];
        for point in Point::ALL {
            all.push(Self::At(point, When::Before, Victim::Server));
            all.push(Self::At(point, When::After, Victim::Server));
        }
        all
    }

    /// Whether everything that waits must be delivered afterwards, before the next fault.
    pub fn is_followed_by_quiet(self) -> bool {
        matches!(
            self,
            Self::ClockAheadAtStart
                | Self::AgentsNeverReturn
                | Self::KillServerAndAgents(_)
                | Self::RedisPauses
                | Self::Moves
                | Self::Reload
        )
    }

    pub fn name(self) -> String {
        match self {
            Self::Kill(who) => format!("kill {}", who.name()),
            Self::Stop(who) => format!("stop {}", who.name()),
            Self::StopLong(who, seconds) => format!("stop {} {seconds} s", who.name()),
            Self::At(point, when, victim) => format!("{when:?} {point:?}: {victim:?}"),
            Self::Partition(link, way) => format!("partition {link:?} {way:?}"),
            Self::KillServerAndAgents(_) => "kill server and agents".to_owned(),
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
            0..=14 => Fault::Kill(who),
            15..=21 => Fault::Stop(who),
            22 => Fault::StopLong(who, LONG_S[usize::from(self.random.below(4) == 0)]),
            23 => Fault::TakeOver,
            24..=52 => {
                let point = Point::ALL[self.random.below(Point::ALL.len() as u64) as usize];
                let when = [When::Before, When::After][self.random.below(2) as usize];
                let victims = [Victim::Server, Victim::Redis, Victim::Connection];
                Fault::At(point, when, victims[self.random.below(3) as usize])
            }
            53..=58 => Fault::CutConnections,
            59..=62 => Fault::LoseSessions,
            63..=70 => {
                let link = [Link::Redis, Link::Agents][self.random.below(2) as usize];
                Fault::Partition(link, [Way::Out, Way::In, Way::Both][self.random.below(3) as usize])
            }
            71..=73 => Fault::MemoryFull,
            74..=76 => Fault::DiskFull,
            77..=79 => Fault::ClockStep,
            80..=82 => Fault::ClockAheadAtStart,
            83..=86 => Fault::AgentsNeverReturn,
            87..=90 => Fault::KillServerAndAgents(self.random.below(2) as usize),
            91..=94 => Fault::RedisPauses,
            95..=97 => Fault::Moves,
            _ => Fault::Reload,
        }
    }
}
