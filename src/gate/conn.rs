//! One connection: TLS towards the client, a socket pair towards the C core, and between them at most what one of the
//! two does not take just then.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use rustls::ServerConnection;

use super::budget::Own;
use super::calls::Answers;
use super::frames::{Charge, Frames};
use super::peers::{Peer, Peers};
use super::poll::{Interest, Poll, Ready};

/// What one read takes, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;
/// Reads of one side before others have their turn.
const TURNS: usize = 4;
/// How long a client has for its preface and settings.
const GREETING_US: u64 = 5_000_000;
/// How long a connection is held back without anything passing.
const STUCK_US: u64 = 10_000_000;
/// How long nothing may come of a call's first message.
const CALL_US: u64 = 30_000_000;
/// The same where many calls of the identity wait.
const CROWDED_CALL_US: u64 = 5_000_000;
/// How long what the C core said last may take to reach the client.
const FLUSH_US: u64 = 5_000_000;
/// How long an end of the connection that was told to the client is waited for.
const LINGER_US: u64 = 1_000_000;

/// Room that one thread's connections share.
pub(super) struct Buffers {
    cipher: Box<[u8]>,
    plain: Box<[u8]>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { cipher: vec![0; CHUNK].into(), plain: vec![0; CHUNK].into() }
    }
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    /// It is over.
    Over,
    /// It did what no client may.
    Cut(&'static str),
}

/// How far a connection has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client has said its last; what it said is passed on until then.
    ClientGone(u64),
    /// The C core has said its last; it is passed on until then.
    CoreGone(u64),
    /// The client has been told of the end; its answer is waited for until then.
    Lingering(u64),
}

/// What a handshake hands over.
pub(super) struct Shaken {
    pub tcp: TcpStream,
    /// Whose end the other one is.
    pub from: SocketAddr,
    pub tls: ServerConnection,
    pub pair: UnixStream,
    pub peer: Arc<Peer>,
    /// The C core's end of the pair.
    pub fd: RawFd,
}

pub(super) struct Conn {
    with: Shaken,
    frames: Frames,
    answers: Answers,
    own: Own,
    /// What the client said and the C core has not taken.
    pending: Vec<u8>,
    /// So much of it may be passed on.
    passed: usize,
    /// Until then the rest is held back; 0: it is not.
    held_until_us: u64,
    /// Since then nothing of it has passed; 0: it does.
    stuck_since_us: u64,
    greeting_until_us: u64,
    phase: Phase,
    /// As the set has them; `None`: not in it any more.
    tcp_interest: Option<Interest>,
    pair_interest: Option<Interest>,
}

impl Conn {
    pub(super) fn new(with: Shaken, now_us: u64) -> Self {
        Self {
            with,
            frames: Frames::default(),
            answers: Answers::default(),
            own: Own::default(),
            pending: Vec::new(),
            passed: 0,
            held_until_us: 0,
            stuck_since_us: 0,
            greeting_until_us: now_us + GREETING_US,
            phase: Phase::Open,
            tcp_interest: None,
            pair_interest: None,
        }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.with.peer
    }

    pub(super) fn from(&self) -> SocketAddr {
        self.with.from
    }

    pub(super) fn fd(&self) -> RawFd {
        self.with.fd
    }

    /// Calls whose message has not come, and calls that are not over.
    pub(super) fn calls(&self) -> (usize, usize) {
        (self.frames.calls.waiting(), self.frames.calls.open())
    }

    fn settle_calls(&mut self, peers: &Peers) {
        let calls = &mut self.frames.calls;
        peers.calls_settled(&self.with.peer, calls.take_settled(), calls.take_closed());
    }

    /// Until when the client's frames are held back; 0: they are not.
    pub(super) fn held_until_us(&self) -> u64 {
        self.held_until_us
    }

    /// Puts both sides into the set, under two numbers.
    pub(super) fn enter(&mut self, poll: &Poll, number: u64) -> Result<(), Errno> {
        poll.add(&self.with.tcp, number, Interest::READ)?;
        self.tcp_interest = Some(Interest::READ);
        poll.add(&self.with.pair, number | 1, Interest::READ)?;
        self.pair_interest = Some(Interest::READ);
        Ok(())
    }

    /// Whether time has ended it. `many_wait`: many calls of its identity wait for their messages.
    pub(super) fn look(&self, now_us: u64, unix_s: i64, many_wait: bool) -> Fate {
        if now_us >= self.with.peer.cut_at_us() {
            return Fate::Over;
        }
        let is_idle = self.frames.calls.open() == 0 && !self.with.tls.wants_write();
        if is_idle && now_us >= self.with.peer.part_at_us() {
            return Fate::Over;
        }
        if self.with.peer.identity.as_ref().is_ok_and(|identity| unix_s > identity.not_after_s + 1) {
            return Fate::Over;
        }
        if !self.frames.is_greeted() && now_us >= self.greeting_until_us {
            return Fate::Over;
        }
        if let Phase::CoreGone(until) | Phase::Lingering(until) = self.phase {
            // Nothing of the client is read any more, nor can it be blamed for what does not come.
            return if now_us >= until { Fate::Over } else { Fate::Keep };
        }
        // What may pass and waits for the C core is not stuck because of the client.
        if self.passed == 0 && self.stuck_since_us > 0 && now_us >= self.stuck_since_us + STUCK_US {
            return Fate::Cut("calls that do not end");
        }
        let patience_us = if many_wait { CROWDED_CALL_US } else { CALL_US };
        if self.frames.calls.any_since_before(now_us.saturating_sub(patience_us)) {
            return Fate::Cut("a call whose message does not come");
        }
        match self.phase {
            Phase::ClientGone(until) if now_us >= until => Fate::Over,
            _ => Fate::Keep,
        }
    }

    /// Something happened to one of its sides.
    pub(super) fn turn(
        &mut self,
        ready: Ready,
        buffers: &mut Buffers,
        peers: &Peers,
        poll: &Poll,
        now_us: u64,
    ) -> Fate {
        let of_pair = ready.number & 1 == 1;
        let fate = if of_pair {
            if ready.gone && self.with.tls.wants_write() {
                // It would be told again and again, and cannot be read yet.
                self.leave_pair(poll);
                Fate::Keep
            } else {
                let written = if ready.write { self.write_pair(peers, now_us) } else { Fate::Keep };
                if written == Fate::Keep && (ready.read || ready.gone) {
                    self.read_pair(buffers, peers, now_us)
                } else {
                    written
                }
            }
        } else if ready.gone {
            Fate::Over
        } else {
            let written = if ready.write { self.write_tcp(buffers, peers, now_us) } else { Fate::Keep };
            if written == Fate::Keep && ready.read { self.read_tcp(buffers, peers, now_us) } else { written }
        };
        self.after(fate, poll, number_of(ready.number), now_us)
    }

    /// The first look, and one when frames that were held back may go on.
    pub(super) fn go_on(
        &mut self,
        buffers: &mut Buffers,
        peers: &Peers,
        poll: &Poll,
        number: u64,
        now_us: u64,
    ) -> Fate {
        let gone = matches!(self.phase, Phase::ClientGone(_));
        let mut fate = if gone { Fate::Keep } else { self.take(&mut [], buffers, peers, now_us) };
        if fate == Fate::Keep {
            fate = self.write_pair(peers, now_us);
        }
        self.after(fate, poll, number, now_us)
    }

    /// Asks for what it waits for now.
    fn after(&mut self, fate: Fate, poll: &Poll, number: u64, now_us: u64) -> Fate {
        if fate != Fate::Keep {
            return fate;
        }
        let blocked = self.with.tls.wants_write();
        match self.phase {
            Phase::ClientGone(_) if self.pending.is_empty() => return Fate::Over,
            Phase::CoreGone(_) if !blocked => {
                // Told, and no more to say.
                if self.with.tcp.shutdown(Shutdown::Write).is_err() {
                    return Fate::Over;
                }
                self.phase = Phase::Lingering(now_us + LINGER_US);
            }
            _ => {}
        }
        let tcp = Interest {
            read: match self.phase {
                Phase::Open => self.pending.is_empty() && self.held_until_us <= now_us,
                Phase::Lingering(_) => true,
                Phase::ClientGone(_) | Phase::CoreGone(_) => false,
            },
            write: blocked,
        };
        let pair = Interest { read: !blocked, write: self.passed > 0 };
        let gone = matches!(self.phase, Phase::CoreGone(_) | Phase::Lingering(_));
        if gone {
            self.leave_pair(poll);
        } else if self.watch_pair(poll, number, pair).is_err() {
            return Fate::Over;
        }
        if matches!(self.phase, Phase::ClientGone(_)) && !blocked {
            // Its end of file would be told again and again.
            if self.tcp_interest.take().is_some() && poll.remove(&self.with.tcp).is_err() {
                return Fate::Over;
            }
        } else if self.tcp_interest.is_some_and(|own| own != tcp) {
            if poll.change(&self.with.tcp, number, tcp).is_err() {
                return Fate::Over;
            }
            self.tcp_interest = Some(tcp);
        }
        Fate::Keep
    }

    fn watch_pair(&mut self, poll: &Poll, number: u64, pair: Interest) -> Result<(), Errno> {
        match self.pair_interest {
            Some(own) if own != pair => poll.change(&self.with.pair, number | 1, pair)?,
            // It left while the client took nothing: there is more to read, or its end.
            None if pair.read => poll.add(&self.with.pair, number | 1, pair)?,
            _ => return Ok(()),
        }
        self.pair_interest = Some(pair);
        Ok(())
    }

    fn leave_pair(&mut self, poll: &Poll) {
        if self.pair_interest.take().is_some() {
            // It is in the set: that cannot fail.
            let _ = poll.remove(&self.with.pair);
        }
    }

    /// From the client to the C core.
    fn read_tcp(&mut self, buffers: &mut Buffers, peers: &Peers, now_us: u64) -> Fate {
        for _ in 0..TURNS {
            if !self.pending.is_empty() || (self.held_until_us > now_us && self.phase == Phase::Open) {
                break;
            }
            let mut cipher = std::mem::take(&mut buffers.cipher);
            let read = (&self.with.tcp).read(&mut cipher);
            let (fate, more) = match read {
                Ok(0) => (self.client_gone(now_us), false),
                Ok(n) => {
                    let fate = match cipher.get_mut(..n) {
                        _ if matches!(self.phase, Phase::Lingering(_)) => Fate::Keep,
                        Some(bytes) => self.take(bytes, buffers, peers, now_us),
                        None => Fate::Over,
                    };
                    (fate, n == cipher.len())
                }
                Err(error) if is_block(&error) => (Fate::Keep, false),
                Err(_) => (Fate::Over, false),
            };
            buffers.cipher = cipher;
            if fate != Fate::Keep || !more {
                return fate;
            }
        }
        Fate::Keep
    }

    fn client_gone(&mut self, now_us: u64) -> Fate {
        match self.phase {
            Phase::Open if !self.pending.is_empty() => {
                self.phase = Phase::ClientGone(now_us + FLUSH_US);
                Fate::Keep
            }
            _ => Fate::Over,
        }
    }

    /// Takes what the client sent out of its TLS, and passes it on.
    fn take(&mut self, cipher: &mut [u8], buffers: &mut Buffers, peers: &Peers, now_us: u64) -> Fate {
        let mut cipher: &[u8] = cipher;
        loop {
            if !cipher.is_empty() {
                match self.with.tls.read_tls(&mut cipher) {
                    // The client has closed its side of TLS: what stands behind that is nothing.
                    Ok(0) => cipher = &[],
                    Ok(_) => {}
                    Err(_) => return Fate::Over,
                }
            }
            if self.with.tls.process_new_packets().is_err() {
                // The alert goes out, if it can.
                let _ = self.flush_tls();
                return Fate::Over;
            }
            loop {
                let plain = std::mem::take(&mut buffers.plain);
                let mut plain = plain;
                let read = self.with.tls.reader().read(&mut plain);
                let fate = match read {
                    // The client has closed its side of TLS.
                    Ok(0) => {
                        buffers.plain = plain;
                        return self.client_gone(now_us);
                    }
                    Ok(n) => plain.get(..n).map_or(Fate::Over, |bytes| self.pass(bytes, peers, now_us)),
                    Err(error) if is_block(&error) => {
                        buffers.plain = plain;
                        break;
                    }
                    Err(_) => Fate::Over,
                };
                buffers.plain = plain;
                if fate != Fate::Keep {
                    return fate;
                }
            }
            if cipher.is_empty() {
                break;
            }
        }
        if self.with.tls.wants_write() && self.flush_tls().is_err() {
            return Fate::Over;
        }
        Fate::Keep
    }

    /// Asks what may be passed on of further bytes, and passes it on.
    fn pass(&mut self, plain: &[u8], peers: &Peers, now_us: u64) -> Fate {
        if !self.pending.is_empty() || self.held_until_us > now_us {
            self.pending.extend_from_slice(plain);
            return Fate::Keep;
        }
        let (passes, then) = self.scan(plain, peers, now_us);
        let written = plain.get(..passes).map_or(0, |bytes| write_some(&self.with.pair, bytes));
        self.pending.extend_from_slice(plain.get(written..).unwrap_or_default());
        self.passed = passes - written;
        self.cut_or_keep(then)
    }

    fn cut_or_keep(&self, then: Charge) -> Fate {
        match then {
            Charge::Cut(reason) => Fate::Cut(reason),
            Charge::Pass | Charge::Hold(_) => Fate::Keep,
        }
    }

    fn scan(&mut self, bytes: &[u8], peers: &Peers, now_us: u64) -> (usize, Charge) {
        let (frames, own) = (&mut self.frames, &mut self.own);
        let scanned = peers.charge(&self.with.peer, now_us, |charge| {
            // Its own last: what is held back is asked for again, and must not count twice.
            frames.scan(bytes, now_us, &mut |unit| match charge(unit) {
                Charge::Pass => own.charge(unit, now_us),
                other => other,
            })
        });
        self.settle_calls(peers);
        if let Charge::Hold(until_us) = scanned.then {
            self.held_until_us = self.held_until_us.max(until_us);
            if scanned.pass > 0 || self.stuck_since_us == 0 {
                self.stuck_since_us = now_us;
            }
        } else {
            self.stuck_since_us = 0;
        }
        (scanned.pass, scanned.then)
    }

    /// Passes on what waited for the C core, or for its time.
    fn write_pair(&mut self, peers: &Peers, now_us: u64) -> Fate {
        loop {
            if now_us >= self.held_until_us {
                self.held_until_us = 0;
            }
            if self.passed == 0 && !self.pending.is_empty() && self.held_until_us == 0 {
                let pending = std::mem::take(&mut self.pending);
                let (passes, then) = self.scan(&pending, peers, now_us);
                self.pending = pending;
                self.passed = passes;
                if let Charge::Cut(reason) = then {
                    return Fate::Cut(reason);
                }
            }
            if self.passed == 0 {
                if self.pending.is_empty() {
                    // An idle connection holds nothing.
                    self.pending = Vec::new();
                }
                return Fate::Keep;
            }
            let Some(bytes) = self.pending.get(..self.passed) else { return Fate::Over };
            let written = write_some(&self.with.pair, bytes);
            if written == 0 {
                return Fate::Keep;
            }
            let _ = self.pending.drain(..written);
            self.passed -= written;
            if self.stuck_since_us > 0 {
                self.stuck_since_us = now_us;
            }
        }
    }

    /// From the C core to the client.
    fn read_pair(&mut self, buffers: &mut Buffers, peers: &Peers, now_us: u64) -> Fate {
        for _ in 0..TURNS {
            if self.with.tls.wants_write() {
                return Fate::Keep;
            }
            match (&self.with.pair).read(&mut buffers.plain) {
                Ok(0) => return self.core_gone(now_us),
                // It went with something unread, which is told after all that it said.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return self.core_gone(now_us);
                }
                Ok(n) => {
                    let Some(bytes) = buffers.plain.get(..n) else { return Fate::Over };
                    self.answers.scan(bytes, &mut self.frames.calls);
                    let fate = self.answered(peers, now_us);
                    if fate != Fate::Keep {
                        return fate;
                    }
                    if self.with.tls.writer().write_all(bytes).is_err() || self.flush_tls().is_err() {
                        return Fate::Over;
                    }
                    if n < CHUNK {
                        return Fate::Keep;
                    }
                }
                Err(error) if is_block(&error) => return Fate::Keep,
                Err(_) => return Fate::Over,
            }
        }
        Fate::Keep
    }

    /// What the C core said ends calls, and streams that it gives up count as given up by the client: it was the
    /// client's frames that made it.
    fn answered(&mut self, peers: &Peers, now_us: u64) -> Fate {
        self.settle_calls(peers);
        if let Charge::Cut(reason) = peers.owe(&self.with.peer, self.answers.take_resets(), now_us) {
            return Fate::Cut(reason);
        }
        Fate::Keep
    }

    /// The C core has said its last: the client is told.
    fn core_gone(&mut self, now_us: u64) -> Fate {
        self.phase = Phase::CoreGone(now_us + FLUSH_US);
        (self.pending, self.passed, self.held_until_us) = (Vec::new(), 0, 0);
        self.with.tls.send_close_notify();
        if self.flush_tls().is_err() { Fate::Over } else { Fate::Keep }
    }

    /// The client takes more.
    fn write_tcp(&mut self, buffers: &mut Buffers, peers: &Peers, now_us: u64) -> Fate {
        if self.flush_tls().is_err() {
            return Fate::Over;
        }
        if self.with.tls.wants_write() || matches!(self.phase, Phase::CoreGone(_) | Phase::Lingering(_)) {
            return Fate::Keep;
        }
        self.read_pair(buffers, peers, now_us)
    }

    /// Sends what TLS has for the client, as far as it takes it.
    fn flush_tls(&mut self) -> Result<(), ()> {
        while self.with.tls.wants_write() {
            match self.with.tls.write_tls(&mut self.with.tcp) {
                Ok(_) => {}
                Err(error) if is_block(&error) => return Ok(()),
                Err(_) => return Err(()),
            }
        }
        Ok(())
    }
}

/// The number without its side.
pub(super) fn number_of(number: u64) -> u64 {
    number & !1
}

fn is_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Writes as much as is taken: how much. All of it where nobody is there any more: it is for nobody, and what the client
/// says behind it is still read in its order.
fn write_some(mut to: &UnixStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(n) => written += n,
            Err(error) if is_block(&error) => break,
            Err(_) => return bytes.len(),
        }
    }
    written
}

#[cfg(test)]
mod tests;
