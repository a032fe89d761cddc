//! All connections of an input go on by turns, on one thread.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::{TimeSpec, TimeValLike};

use super::check;
use super::life::PATIENCE;
use super::script::{Reads, Who};
use super::{Conn, Play};

impl Play<'_> {
    /// Lets all go on that can; whether anything did.
    pub(super) fn pump(&mut self) -> bool {
        for taken in self.stage.stand_in.taken() {
            let is_of = |conn: &&mut Conn| {
                conn.fingerprint == taken.fingerprint && (conn.agent.is_some() || conn.who == Who::Nameless)
            };
            let conn = self.conns.iter_mut().find(is_of).expect("a connection of this input");
            conn.behind.take(taken.pair);
        }
        let mut progress = false;
        for conn in &mut self.conns {
            progress |= conn.behind.pump(&conn.client.said);
            let nobody = conn.behind.deaf || conn.behind.has_left || conn.behind.gone;
            progress |= conn.client.pump(if nobody { usize::MAX } else { conn.behind.arrived });
        }
        progress
    }

    /// Goes on for a while; `settles`: or until all has arrived that was sent.
    pub(super) fn go_on(&mut self, span: Duration, settles: bool) {
        let begun = Instant::now();
        let until = begun + span.min(self.waits);
        let arrived = |conn: &Conn| {
            let (client, behind) = (&conn.client, &conn.behind);
            client.socket().is_none() || (client.is_done() && behind.arrived == client.said.len())
        };
        loop {
            let progress = self.pump();
            if Instant::now() >= until || (settles && self.conns.iter().all(arrived)) {
                self.waits = self.waits.saturating_sub(begun.elapsed());
                return;
            }
            if !progress {
                self.wait(until);
            }
        }
    }

    /// Waits until something can go on, or until then.
    fn wait(&mut self, until: Instant) {
        let mut until = until;
        for conn in &mut self.conns {
            if let Some(own) = conn.client.pieces.wait_until(conn.behind.arrived) {
                until = until.min(own);
            }
        }
        let mut set = vec![PollFd::new(self.stage.stand_in.bell.as_fd(), PollFlags::POLLIN)];
        let flags = |reads, writes| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reads);
            flags.set(PollFlags::POLLOUT, writes);
            flags
        };
        for conn in &self.conns {
            let client = flags(conn.client.wants_read(), conn.client.blocked);
            if let Some(socket) = conn.client.socket().filter(|_| !client.is_empty()) {
                set.push(PollFd::new(socket.as_fd(), client));
            }
            let behind = flags(conn.behind.wants_read(), conn.behind.blocked);
            if let Some(socket) = conn.behind.socket().filter(|_| !behind.is_empty() && !conn.behind.has_left)
            {
                set.push(PollFd::new(socket.as_fd(), behind));
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is an early end.
        let _ = ppoll(&mut set, Some(TimeSpec::nanoseconds(left.as_nanos() as i64)), None);
    }

    /// Goes on until that holds of all connections.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(usize, &mut Conn) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let progress = self.pump();
            let holds = self
                .conns
                .iter_mut()
                .enumerate()
                .map(|(at, conn)| holds(at, conn))
                .fold(true, |all, one| all & one);
            if holds && !progress {
                return;
            }
            assert!(Instant::now() < give_up, "{what} takes too long: {}", check::describe(&self.conns));
            if !progress {
                self.wait(Instant::now() + Duration::from_millis(20));
            }
        }
    }

    /// From now on everything goes as fast as it can.
    pub(super) fn hurry(&mut self) {
        for conn in &mut self.conns {
            conn.client.read(true);
            conn.behind.reads = Reads::All;
        }
    }
}
