//! The thread that accepts and shakes hands: below the other threads' priority, so that handshakes, which cost their
//! sender nothing, take only what is left over.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::server::{Accepted, Acceptor};
use rustls::{ServerConfig, ServerConnection};

use super::budget::Bucket;
use super::conn::Shaken;
use super::core::Core;
use super::knock::Cause;
use super::peers::{Peers, TurnedAway};
use super::poll::{Bell, Interest, Poll, Ready};
use super::relay::{Line, Told};
use super::tls;
use crate::clock::Now;
use crate::identity::Identity;
use crate::refusal::Refusal;

/// How long a handshake may take.
const PATIENCE_US: u64 = 5_000_000;
/// Handshakes in progress, and their part of the process' descriptors; the oldest makes room for the newest.
const MAX_SHAKING: u64 = 1_024;
const SHAKING_PART: u64 = 8;
/// Handshakes of one source address, once their first message is there, which is when they begin to cost: at once, and
/// in a second.
const PER_SOURCE: Bucket = Bucket::new(2_000, 1_000);
/// Source addresses that are told apart; beyond them all others share.
const MAX_SOURCES: usize = 4_096;
/// Connections that are accepted before others have their turn.
const ACCEPTS: usize = 64;
/// How long a process without descriptors waits before it accepts again.
const BREATH_US: u64 = 100_000;
/// How long unacknowledged bytes keep a connection, in milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 30_000;
/// What one read of a handshake takes, in bytes: less than rustls keeps of what stands behind it.
const READ_BYTES: usize = 8 * 1024;
const LISTENER: u64 = u64::MAX - 1;

/// What is replaced by a reload.
pub(super) type Current = Mutex<Arc<ServerConfig>>;

/// A connection that shakes hands.
struct Shaking {
    tcp: TcpStream,
    phase: Phase,
    from: SocketAddr,
    writes: bool,
}

enum Phase {
    /// Its first message is not there yet.
    Hello(Box<Acceptor>),
    Shake(Box<ServerConnection>),
}

pub(super) struct Shaker {
    pub(super) poll: Poll,
    listener: TcpListener,
    listens: bool,
    /// It does not accept until then.
    pause_until_us: u64,
    shaking: HashMap<u64, Shaking>,
    /// Oldest first; some are over already.
    order: VecDeque<(u64, u64)>,
    next: u64,
    /// Relays take connections in turn.
    turn: usize,
    sources: HashMap<IpAddr, Bucket>,
    others: Bucket,
    current: Arc<Current>,
    peers: Arc<Peers>,
    core: Arc<dyn Core>,
    relays: Vec<Line>,
    over: Arc<AtomicBool>,
    buffer: Box<[u8]>,
}

/// How far a handshake has come.
enum Step {
    Goes {
        writes: bool,
    },
    /// Its first message is there.
    Said(Box<Accepted>),
    Done,
    Failed(Cause),
    /// Nobody is there any more.
    Over,
}

/// Whom the thread works for.
pub(super) struct Around {
    pub current: Arc<Current>,
    pub peers: Arc<Peers>,
    pub core: Arc<dyn Core>,
    pub relays: Vec<Line>,
    pub over: Arc<AtomicBool>,
}

impl Shaker {
    pub(super) fn new(listener: TcpListener, around: Around) -> Result<(Self, Bell), nix::errno::Errno> {
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, Interest::READ)?;
        let bell = poll.bell();
        let Around { current, peers, core, relays, over } = around;
        let shaker = Self {
            poll,
            listener,
            listens: true,
            pause_until_us: 0,
            shaking: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            turn: 0,
            sources: HashMap::new(),
            others: PER_SOURCE,
            current,
            peers,
            core,
            relays,
            over,
            buffer: vec![0; READ_BYTES].into(),
        };
        Ok((shaker, bell))
    }

    /// Accepts until the gate is closed.
    pub(super) fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        while !self.over.load(Ordering::Acquire) {
            self.poll.wait(self.sleep(), &mut ready);
            let now_us = Now::mono_us();
            for event in &ready {
                if event.number == LISTENER {
                    self.accept(now_us);
                } else {
                    self.progress(event.number, now_us);
                }
            }
            self.give_up(now_us);
            if !self.listens && now_us >= self.pause_until_us {
                self.listen(true);
            }
        }
    }

    fn sleep(&self) -> Option<Duration> {
        let oldest = self.order.front().map(|(until_us, _)| *until_us);
        let pause = (!self.listens).then_some(self.pause_until_us);
        let until_us = [oldest, pause].into_iter().flatten().min()?;
        Some(Duration::from_micros(until_us.saturating_sub(Now::mono_us())))
    }

    fn listen(&mut self, on: bool) {
        let interest = Interest { read: on, write: false };
        if self.poll.change(&self.listener, LISTENER, interest).is_ok() {
            self.listens = on;
        }
    }

    fn accept(&mut self, now_us: u64) {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((tcp, from)) => self.greet(tcp, from, now_us),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    self.peers.report().not_accepted(&error, now_us);
                    self.pause_until_us = now_us + BREATH_US;
                    self.listen(false);
                    return;
                }
            }
        }
    }

    /// Begins a handshake, where there is room for one; the connection is dropped otherwise.
    fn greet(&mut self, tcp: TcpStream, from: SocketAddr, now_us: u64) {
        if self.peers.is_closed_to_new() {
            // Whoever comes tries the next server.
            return;
        }
        if !self.peers.has_room() {
            return self.peers.report().refused(from, &Cause::NoRoom, now_us);
        }
        if prepare(&tcp).is_err() {
            return;
        }
        if self.shaking.len() >= self.peers.max_shaking() {
            self.drop_oldest(now_us);
        }
        let number = self.next;
        self.next += 1;
        if self.poll.add(&tcp, number, Interest::READ).is_err() {
            return;
        }
        let _ = self
            .shaking
            .insert(number, Shaking { tcp, phase: Phase::Hello(Box::default()), from, writes: false });
        self.order.push_back((now_us + PATIENCE_US, number));
    }

    /// Whether one more handshake may come from there.
    fn source(&mut self, source: IpAddr, now_us: u64) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| !bucket.is_full(now_us));
        }
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            return self.others.take(now_us).is_ok();
        }
        self.sources.entry(source).or_insert(PER_SOURCE).take(now_us).is_ok()
    }

    /// Makes room: of those that have said nothing yet the oldest goes, else the oldest of all.
    fn drop_oldest(&mut self, now_us: u64) {
        let silent = |number: &u64| {
            self.shaking.get(number).is_some_and(|shaking| matches!(shaking.phase, Phase::Hello(_)))
        };
        let silent = self.order.iter().position(|(_, number)| silent(number));
        let at =
            silent.or_else(|| self.order.iter().position(|(_, number)| self.shaking.contains_key(number)));
        let Some((_, number)) = at.and_then(|at| self.order.remove(at)) else { return };
        if let Some(shaking) = self.shaking.remove(&number) {
            self.peers.report().refused(shaking.from, &Cause::CrowdedOut, now_us);
        }
    }

    /// Gives up handshakes that take too long.
    fn give_up(&mut self, now_us: u64) {
        while self
            .order
            .front()
            .is_some_and(|(until_us, number)| *until_us <= now_us || !self.shaking.contains_key(number))
        {
            let Some((_, number)) = self.order.pop_front() else { return };
            if let Some(shaking) = self.shaking.remove(&number) {
                self.peers.report().refused(shaking.from, &Cause::TimedOut, now_us);
            }
        }
    }

    /// Goes on where the first message was within the bounds.
    fn begin(&mut self, number: u64, hello: Accepted, now_us: u64) {
        let Some(from) = self.shaking.get(&number).map(|shaking| shaking.from) else { return };
        let begun = if self.source(from.ip(), now_us) {
            let config = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            hello.into_connection(config).map_err(|(error, alert)| (Cause::Tls(error), Some(alert)))
        } else {
            Err((Cause::TooMany, None))
        };
        match begun {
            Ok(mut tls) => {
                // What waits to be sent is bounded by what one read brings.
                tls.set_buffer_limit(None);
                if let Some(shaking) = self.shaking.get_mut(&number) {
                    shaking.phase = Phase::Shake(Box::new(tls));
                }
                self.progress(number, now_us);
            }
            Err((cause, alert)) => {
                let Some(mut shaking) = self.shaking.remove(&number) else { return };
                if let Some(mut alert) = alert {
                    // As far as it goes.
                    let _ = alert.write(&mut shaking.tcp);
                }
                self.peers.report().refused(from, &cause, now_us);
            }
        }
    }

    fn progress(&mut self, number: u64, now_us: u64) {
        let Some(shaking) = self.shaking.get_mut(&number) else { return };
        match shaking.step(&mut self.buffer) {
            Step::Said(hello) => self.begin(number, *hello, now_us),
            Step::Goes { writes } => {
                if std::mem::replace(&mut shaking.writes, writes) != writes {
                    let interest = Interest { read: !writes, write: writes };
                    if self.poll.change(&shaking.tcp, number, interest).is_err() {
                        drop(self.shaking.remove(&number));
                    }
                }
            }
            Step::Done => {
                if let Some(shaking) = self.shaking.remove(&number)
                    && self.poll.remove(&shaking.tcp).is_ok()
                {
                    self.hand_over(shaking, now_us);
                }
            }
            Step::Failed(cause) => {
                if let Some(shaking) = self.shaking.remove(&number) {
                    self.peers.report().refused(shaking.from, &cause, now_us);
                }
            }
            Step::Over => drop(self.shaking.remove(&number)),
        }
    }

    /// Hands a connection to the C core and to the thread that relays.
    fn hand_over(&mut self, shaking: Shaking, now_us: u64) {
        let Shaking { tcp, phase: Phase::Shake(tls), from, .. } = shaking else { return };
        if tls.alpn_protocol() != Some(tls::ALPN) {
            return self.peers.report().refused(from, &Cause::NoHttp2, now_us);
        }
        let leaf = tls.peer_certificates().and_then(|chain| chain.first());
        let identity = leaf.ok_or(Refusal::INVALID_CERTIFICATE).and_then(|der| Identity::from_der(der));
        let identity = identity.map(Arc::new);
        let refusal = identity.as_ref().map_or_else(|refusal| Some(*refusal), |id| self.core.refusal(id));
        if let Some(refusal) = refusal {
            let known = identity.as_ref().ok().map(|identity| &**identity);
            self.peers.report().stranger(from, leaf.map_or(&[], |der| der), known, refusal, now_us);
        }
        let allowed = refusal.is_none();
        let agent = identity.as_ref().map_or(String::new(), |identity| identity.agent.to_string());
        let peer = match self.peers.admit(identity, allowed, now_us) {
            Ok(peer) => peer,
            Err(turned_away) => {
                let why = match turned_away {
                    TurnedAway::Punished => "connections of it were cut a short while ago",
                    TurnedAway::Full => "it has as many connections as it may",
                };
                return self.peers.report().turned_away(&agent, from, why, now_us);
            }
        };
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            Ok((ours, theirs))
        });
        match pair {
            Ok((pair, theirs)) => {
                let fd = theirs.as_raw_fd();
                self.peers.insert(fd, &peer);
                let is_allowed = |identity: &Arc<Identity>| self.core.refusal(identity).is_none();
                if allowed && !peer.identity.as_ref().is_ok_and(is_allowed) {
                    // It changed meanwhile, and whoever looks for that may have looked before.
                    peer.cut_at(now_us);
                }
                self.core.take(OwnedFd::from(theirs));
                self.turn = self.turn.wrapping_add(1);
                let relay = self.turn % self.relays.len().max(1);
                if let Some(line) = self.relays.get(relay) {
                    line.tell(Told::Take(Box::new(Shaken { tcp, from, tls: *tls, pair, peer, fd })));
                }
            }
            Err(error) => {
                self.peers.remove(-1, &peer, (0, 0));
                self.peers.report().refused(from, &Cause::System(error), now_us);
            }
        }
    }
}

impl Shaking {
    fn step(&mut self, buffer: &mut [u8]) -> Step {
        match &mut self.phase {
            Phase::Hello(acceptor) => hear(&mut self.tcp, acceptor),
            Phase::Shake(tls) => shake(&mut self.tcp, tls, buffer),
        }
    }
}

/// Waits for the first message.
fn hear(tcp: &mut TcpStream, acceptor: &mut Acceptor) -> Step {
    match acceptor.read_tls(tcp) {
        Ok(0) => return Step::Over,
        Ok(_) => {}
        Err(error) if is_block(&error) => return Step::Goes { writes: false },
        Err(_) => return Step::Over,
    }
    match acceptor.accept() {
        Ok(None) => Step::Goes { writes: false },
        Ok(Some(hello)) => Step::Said(Box::new(hello)),
        Err((error, mut alert)) => {
            // As far as it goes.
            let _ = alert.write(tcp);
            Step::Failed(Cause::Hello(error))
        }
    }
}

fn shake(tcp: &mut TcpStream, tls: &mut ServerConnection, buffer: &mut [u8]) -> Step {
    // What came with the first message, and is answered.
    if let Err(error) = tls.process_new_packets() {
        return Step::Failed(Cause::Tls(error));
    }
    // What was said goes out before more is read: a peer that does not read is not answered twice.
    match flush(tcp, tls) {
        Ok(true) => {}
        Ok(false) => return Step::Goes { writes: true },
        Err(()) => return Step::Over,
    }
    match tcp.read(buffer) {
        Ok(0) => return Step::Over,
        Ok(n) => {
            let mut bytes = buffer.get(..n).unwrap_or_default();
            while !bytes.is_empty() {
                match tls.read_tls(&mut bytes) {
                    // The client has closed its side of TLS, and says no more.
                    Ok(0) => return Step::Over,
                    Ok(_) => {}
                    Err(_) => return Step::Over,
                }
                if let Err(error) = tls.process_new_packets() {
                    // The alert, as far as it goes.
                    let _ = flush(tcp, tls);
                    return Step::Failed(Cause::Tls(error));
                }
            }
        }
        Err(error) if is_block(&error) => {}
        Err(_) => return Step::Over,
    }
    match flush(tcp, tls) {
        Ok(true) if !tls.is_handshaking() => Step::Done,
        Ok(sent) => Step::Goes { writes: !sent },
        Err(()) => Step::Over,
    }
}

/// Whether everything went out.
fn flush(tcp: &mut TcpStream, tls: &mut ServerConnection) -> Result<bool, ()> {
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(_) => {}
            Err(error) if is_block(&error) => return Ok(false),
            Err(_) => return Err(()),
        }
    }
    Ok(true)
}

fn is_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Handshakes that may be in progress, where a process may have so many descriptors.
pub(super) fn max_shaking(descriptors: u64) -> u64 {
    MAX_SHAKING.min(descriptors / SHAKING_PART).max(1)
}

fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nonblocking(true)?;
    tcp.set_nodelay(true)?;
    setsockopt(tcp, sockopt::TcpUserTimeout, &TCP_USER_TIMEOUT_MS)?;
    Ok(())
}

/// Errors of the connection that would have been accepted.
fn is_of_one_client(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
