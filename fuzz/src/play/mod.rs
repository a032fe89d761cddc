//! The gate as a whole, played against: an input is a script of a few clients and of what is behind the gate.
//!
//! * [`script`]: what inputs say. [`words`]: what real clients say.
//! * [`stage`], [`life`], [`passport`]: certificates and the gate, once for a process.
//! * [`client`], [`pieces`], [`wire`]: a client. [`stand_in`], [`behind`]: what is behind the gate.
//! * [`turns`], [`finale`]: all of them go on, and end.
//! * [`model`]: what must pass. [`check`]: whether what happened is what may.

mod behind;
mod check;
mod client;
mod finale;
mod life;
mod model;
mod passport;
mod pieces;
pub mod script;
mod stage;
mod stand_in;
mod turns;
mod wire;
pub mod words;

use std::time::{Duration, Instant};

use crate::ids::AgentId;
use behind::Behind;
use client::{Client, Out};
use script::{MAX_CONNECTIONS, Script, Step, Who};
pub use stage::Stage;

/// Bytes that one side of a connection says, and that a stranger does: all strangers share what comes back slowly.
const MAX_SAID: usize = 300 * 1024;
const MAX_STRANGER_SAID: usize = 4 * 1024;
/// A step of a pause.
const PAUSE: Duration = Duration::from_micros(100);
/// How long a step waits for what was sent, and all steps of a script together.
const SETTLE: Duration = Duration::from_millis(20);
const WAITS: Duration = Duration::from_millis(60);
/// Rounds of all connections after each step.
const ROUNDS: usize = 8;

struct Conn {
    who: Who,
    agent: Option<AgentId>,
    fingerprint: Option<[u8; 32]>,
    client: Client,
    behind: Behind,
    opened: Instant,
    next_stream: u32,
    last: Vec<u8>,
    last_behind: Vec<u8>,
    /// It was there when its identity was forbidden or allowed, which ends it.
    overtaken: bool,
}

struct Play<'a> {
    stage: &'a mut Stage,
    addr: String,
    conns: Vec<Conn>,
    at: usize,
    agents: [Option<AgentId>; 2],
    /// Frames given up by way of repetition.
    resets: usize,
    forbidden: Option<AgentId>,
    /// How long its steps may still wait.
    waits: Duration,
}

/// Plays an input, and checks all that it can be held to.
pub fn play(stage: &mut Stage, input: &[u8]) {
    let Some(script) = Script::read(input) else { return };
    let addr = stage.open();
    let mut play = Play {
        stage,
        addr,
        conns: Vec::new(),
        at: 0,
        agents: [None, None],
        resets: 0,
        forbidden: None,
        waits: WAITS,
    };
    for step in script.steps {
        play.step(step);
        for _ in 0..ROUNDS {
            if !play.pump() {
                break;
            }
        }
    }
    play.end(script.finale);
}

impl Conn {
    fn room(&self) -> usize {
        let stranger = matches!(self.who, Who::Stranger | Who::Nameless);
        let most = if stranger { MAX_STRANGER_SAID } else { MAX_SAID };
        most.saturating_sub(self.client.said.len())
    }

    fn say(&mut self, bytes: Vec<u8>) {
        if bytes.len() <= self.room() {
            self.client.say(&bytes);
            self.last = bytes;
        }
    }

    fn say_behind(&mut self, bytes: &[u8], clean: bool) {
        if self.behind.said.len() + bytes.len() <= MAX_SAID {
            self.behind.is_clean &= clean;
            self.behind.say(bytes);
        }
    }
}

impl Play<'_> {
    /// The connection that steps are about.
    fn conn(&mut self) -> &mut Conn {
        if self.conns.is_empty() {
            self.open(Who::A, false, false, false);
        }
        &mut self.conns[self.at]
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open { who, tls12, early, narrow } => self.open(who, tls12, early, narrow),
            Step::Turn(at) => self.at = at % self.conns.len().max(1),
            Step::Greet => self.conn().say(words::greeting()),
            Step::Call(shape) => {
                let conn = self.conn();
                let stream = conn.next_stream;
                conn.next_stream += 2;
                conn.say(words::call(stream, shape));
            }
            Step::Say(bytes) => self.conn().say(bytes),
            Step::Again { times, on } => {
                let mut resets = self.resets;
                let conn = self.conn();
                let bytes = script::repeated(&conn.last, times, on, conn.room(), &mut resets);
                conn.client.say(&bytes);
                self.resets = resets;
            }
            Step::Pieces { records, writes, lockstep } => {
                self.conn().client.pieces.set(records, writes, lockstep);
            }
            Step::Pause(count) => self.go_on(PAUSE * count.into(), false),
            Step::Settle => self.go_on(SETTLE, true),
            Step::Leave(leave) => self.conn().client.push(Out::Leave(leave)),
            Step::Noise(bytes) => self.conn().client.push(Out::Noise(bytes)),
            Step::Rekey => self.conn().client.push(Out::Rekey),
            Step::Read(on) => self.conn().client.read(on),
            Step::SayBehind(bytes, clean) => {
                let conn = self.conn();
                conn.say_behind(&bytes, clean);
                conn.last_behind = bytes;
            }
            Step::AgainBehind(times) => {
                let mut resets = self.resets;
                let conn = self.conn();
                let room = MAX_SAID.saturating_sub(conn.behind.said.len());
                let bytes = script::repeated(&conn.last_behind, times, false, room, &mut resets);
                conn.say_behind(&bytes, true);
                self.resets = resets;
            }
            Step::ReadBehind(reads) => self.conn().behind.reads = reads,
            Step::LeaveBehind(how) => self.conn().behind.leave(how),
            Step::EndCalls => self.conn().behind.end_calls(),
            Step::Renew => self.stage.renew(),
            Step::Forbid => self.forbid(),
        }
    }

    fn open(&mut self, who: Who, tls12: bool, early: bool, narrow: bool) {
        if self.conns.len() == MAX_CONNECTIONS {
            return;
        }
        // Its stand-in's end is told apart by being the only one without a name.
        let second = who == Who::Nameless && self.conns.iter().any(|conn| conn.who == Who::Nameless);
        let who = if second { Who::Stranger } else { who };
        let agent = match who {
            Who::A | Who::B => {
                let place = usize::from(who == Who::B);
                if self.agents[place].is_none() {
                    self.agents[place] = Some(self.stage.agent(["a", "b"][place], true));
                }
                self.agents[place].clone()
            }
            Who::Stranger => Some(self.stage.agent("s", false)),
            _ => None,
        };
        let passport = match (who, &agent) {
            (_, Some(agent)) => self.stage.passport(agent),
            (Who::Nameless | Who::NoAlpn, _) => self.stage.nameless.clone(),
            (Who::OtherAuthority, _) => self.stage.foreign.clone(),
            (Who::Expired, _) => self.stage.expired.clone(),
            _ => self.stage.nobody.clone(),
        };
        let config = passport.config(tls12, who != Who::NoAlpn);
        let mut client = Client::dial(&self.addr, config, early, narrow);
        if who == Who::Silent {
            client.be_silent();
        }
        self.conns.push(Conn {
            who,
            fingerprint: agent.as_ref().and_then(|_| passport.fingerprint()),
            agent,
            client,
            behind: Behind::new(),
            opened: Instant::now(),
            next_stream: 1,
            last: Vec::new(),
            last_behind: Vec::new(),
            overtaken: false,
        });
        self.at = self.conns.len() - 1;
    }

    /// Once in a script: more often it would depend on when the gate looks.
    fn forbid(&mut self) {
        let Some(agent) = self.conn().agent.clone() else { return };
        if self.forbidden.is_some() {
            return;
        }
        let on_list = self.stage.stand_in.is_on_list(&agent);
        self.stage.stand_in.allow(&agent, !on_list);
        for conn in self.conns.iter_mut().filter(|conn| conn.agent.as_ref() == Some(&agent)) {
            conn.overtaken = conn.behind.is_taken;
        }
        self.forbidden = Some(agent);
    }
}
