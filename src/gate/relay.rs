//! The thread that relays: what connections say goes to the C core and back, on one core, without ever waiting for one
//! of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::conn::{Buffers, Conn, Fate, Shaken, number_of};
use super::core::Core;
use super::peers::Peers;
use super::poll::{Bell, Poll, Ready};
use crate::clock::Now;

/// How often everything is looked at that only time changes, in microseconds.
const LOOK_US: u64 = 250_000;
/// How long who is not allowed any more may still hear of it.
const GRACE_US: u64 = 500_000;

/// What the thread is told.
pub(super) enum Told {
    /// A connection to relay.
    Take(Box<Shaken>),
    /// Relay until no connection is left, but no longer than this.
    End(Duration),
}

/// How the thread is told.
#[derive(Clone)]
pub(super) struct Line {
    told: Sender<Told>,
    bell: Bell,
}

impl Line {
    /// Tells it; nobody listens any more where the server stops.
    pub(super) fn tell(&self, told: Told) {
        let _ = self.told.send(told);
        self.bell.ring();
    }
}

/// A place for a connection. Its numbers carry the generation, so that what is told of an earlier connection is not
/// taken for the present one's.
struct Place {
    generation: u32,
    conn: Option<Box<Conn>>,
}

pub(super) struct Relay {
    poll: Poll,
    // As many as connections are let in.
    told: Receiver<Told>,
    places: Vec<Place>,
    free: Vec<usize>,
    /// When frames that are held back may go on, and whose they are.
    holds: BinaryHeap<Reverse<(u64, u64)>>,
    buffers: Buffers,
    peers: Arc<Peers>,
    /// Whom to ask whether anybody is not allowed any more.
    core: Option<Arc<dyn Core>>,
    look_at_us: u64,
    end_at_us: Option<u64>,
}

/// Two sides of one place: an even number and the odd one behind it.
fn number(at: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | (at as u64) << 1
}

fn place_of(number: u64) -> (usize, u32) {
    (((number & 0xffff_ffff) >> 1) as usize, (number >> 32) as u32)
}

impl Relay {
    pub(super) fn new(
        peers: Arc<Peers>,
        core: Option<Arc<dyn Core>>,
    ) -> Result<(Self, Line), nix::errno::Errno> {
        let poll = Poll::new()?;
        let (sender, told) = unbounded();
        let line = Line { told: sender, bell: poll.bell() };
        let relay = Self {
            poll,
            told,
            places: Vec::new(),
            free: Vec::new(),
            holds: BinaryHeap::new(),
            buffers: Buffers::new(),
            peers,
            core,
            look_at_us: 0,
            end_at_us: None,
        };
        Ok((relay, line))
    }

    /// Relays until it is told to end.
    pub(super) fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        while !self.is_over() {
            self.poll.wait(self.sleep(), &mut ready);
            let now_us = Now::mono_us();
            for event in &ready {
                self.turn(*event, now_us);
            }
            while let Ok(told) = self.told.try_recv() {
                self.hear(told, now_us);
            }
            self.release(now_us);
            if now_us >= self.look_at_us {
                self.look(now_us);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.end_at_us.is_some_and(|end| self.free.len() == self.places.len() || Now::mono_us() >= end)
    }

    /// How long there is nothing to do by itself.
    fn sleep(&self) -> Option<Duration> {
        let held = self.holds.peek().map(|Reverse((until_us, _))| *until_us);
        // One of them also looks for all, and when there is nobody.
        let anybody = self.free.len() < self.places.len() || self.core.is_some();
        let look = anybody.then_some(self.look_at_us);
        let until_us = [held, look, self.end_at_us].into_iter().flatten().min()?;
        Some(Duration::from_micros(until_us.saturating_sub(Now::mono_us())))
    }

    fn hear(&mut self, told: Told, now_us: u64) {
        match told {
            Told::Take(shaken) => self.take(*shaken, now_us),
            Told::End(patience) => self.end_at_us = Some(now_us + patience.as_micros() as u64),
        }
    }

    fn take(&mut self, shaken: Shaken, now_us: u64) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, conn: None });
            self.places.len() - 1
        });
        let Some(place) = self.places.get_mut(at) else { return };
        let number = number(at, place.generation);
        let conn = place.conn.insert(Box::new(Conn::new(shaken, now_us)));
        let fate = match conn.enter(&self.poll, number) {
            // It may have said something behind its handshake.
            Ok(()) => conn.go_on(&mut self.buffers, &self.peers, &self.poll, number, now_us),
            Err(error) => {
                log::warn!(code = "connection_unwatched"; "a connection could not be watched: {error}");
                Fate::Over
            }
        };
        self.settle(number, fate, now_us);
    }

    fn turn(&mut self, event: Ready, now_us: u64) {
        let (at, generation) = place_of(event.number);
        let place = self.places.get_mut(at).filter(|place| place.generation == generation);
        let Some(conn) = place.and_then(|place| place.conn.as_mut()) else { return };
        let fate = conn.turn(event, &mut self.buffers, &self.peers, &self.poll, now_us);
        self.settle(number_of(event.number), fate, now_us);
    }

    /// Does with a connection what has to be done.
    fn settle(&mut self, number: u64, fate: Fate, now_us: u64) {
        let (at, _) = place_of(number);
        let Some(place) = self.places.get_mut(at) else { return };
        match fate {
            Fate::Keep => {
                let held = place.conn.as_ref().map_or(0, |conn| conn.held_until_us());
                if held > now_us {
                    self.holds.push(Reverse((held, number)));
                }
                return;
            }
            Fate::Over => {}
            Fate::Cut(reason) => {
                if let Some(conn) = &place.conn {
                    self.peers.punish(conn.peer(), now_us);
                    self.peers.report().cut(conn.peer().agent(), conn.from(), reason, now_us);
                }
            }
        }
        if let Some(conn) = place.conn.take() {
            self.peers.remove(conn.fd(), conn.peer(), conn.calls());
            place.generation = place.generation.wrapping_add(1);
            self.free.push(at);
        }
    }

    /// Lets go on what was held back.
    fn release(&mut self, now_us: u64) {
        while self.holds.peek().is_some_and(|Reverse((until_us, _))| *until_us <= now_us) {
            let Some(Reverse((_, number))) = self.holds.pop() else { return };
            let (at, generation) = place_of(number);
            let place = self.places.get_mut(at).filter(|place| place.generation == generation);
            let Some(conn) = place.and_then(|place| place.conn.as_mut()) else { continue };
            if conn.held_until_us() == 0 || conn.held_until_us() > now_us {
                continue;
            }
            let fate = conn.go_on(&mut self.buffers, &self.peers, &self.poll, number, now_us);
            self.settle(number, fate, now_us);
        }
    }

    /// Looks at everything that only time changes.
    fn look(&mut self, now_us: u64) {
        self.look_at_us = now_us + LOOK_US;
        if let Some(core) = self.core.as_ref().filter(|core| core.has_changed()) {
            self.peers.cut(|identity| core.refusal(identity).is_none(), now_us + GRACE_US);
            self.peers.tidy(now_us);
        }
        let unix_s = i64::try_from(Now::read().unix_s()).unwrap_or(i64::MAX);
        for at in 0..self.places.len() {
            let Some(Place { generation, conn: Some(conn) }) = self.places.get(at) else { continue };
            let fate = conn.look(now_us, unix_s, self.peers.many_wait(conn.peer()));
            if fate != Fate::Keep {
                let number = number(at, *generation);
                self.settle(number, fate, now_us);
            }
        }
        if let Some(core) = &self.core {
            core.record_counts();
        }
    }
}
