//! Who is connected: a bounded number of places, a share of them per source address. A connection that keeps the
//! server waiting gives its place to a newcomer when all are taken, so that peers who connect and say nothing do not
//! lock others out. Its lock is held for moments only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::counters::{Counters, add, subtract};
use super::limits::Limits;
use super::socket::{Remote, Stream};

/// How long a connection may keep the server waiting before it has to give way.
const GRACE: Duration = Duration::from_secs(1);
/// How long a newcomer waits for the place of a connection that was told to go.
const HANDOVER: Duration = Duration::from_millis(20);

/// All places.
pub(super) struct Places {
    taken: Mutex<Taken>,
    /// A place was given back, or the server stops.
    changed: Condvar,
    bounds: Bounds,
    counters: Arc<Counters>,
}

struct Bounds {
    connections: Bound,
    streams: Bound,
}

struct Bound {
    total: usize,
    per_source: usize,
}

#[derive(Default)]
struct Taken {
    stops: bool,
    next: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    socket: Arc<Stream>,
    source: Source,
    is_stream: bool,
    state: State,
}

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is being served.
    Served,
    /// It owes the rest of a handshake or request, since then.
    Owes(Instant),
    /// Nothing of a request is there, since then.
    Idle(Instant),
    /// It was told to go.
    Told,
}

/// Whom connections are counted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Whoever is on this machine: not told apart.
    Loopback,
    V4(Ipv4Addr),
    /// A /64 network: one machine has as many addresses of it as it likes.
    V6(u64),
    /// A user of this machine, at the unix socket.
    User(u32),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    Stops,
    Full,
    SourceFull,
}

/// A place that is taken; given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Places {
    pub(super) fn new(limits: &Limits, counters: Arc<Counters>) -> Arc<Self> {
        let bounds = Bounds {
            connections: Bound { total: limits.connections, per_source: limits.connections_per_source },
            streams: Bound { total: limits.streams, per_source: limits.streams_per_source },
        };
        Arc::new(Self { taken: Mutex::default(), changed: Condvar::new(), bounds, counters })
    }

    /// Takes a place for a connection from there, which then owes its first request or handshake.
    pub(super) fn take(self: &Arc<Self>, socket: &Arc<Stream>, from: Remote) -> Result<Place, NoPlace> {
        let source = Source::of(from);
        let bound = &self.bounds.connections;
        let mut taken = self.lock();
        let shortage = taken.shortage(bound, source, false);
        if shortage.is_some_and(|shortage| taken.make_room(shortage, source)) {
            add(&self.counters.gave_way);
            let lacks = |taken: &mut Taken| taken.shortage(bound, source, false).is_some();
            let waited = self.changed.wait_timeout_while(taken, HANDOVER, lacks);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(shortage) = taken.shortage(bound, source, false) {
            return Err(shortage);
        }
        let id = taken.next;
        taken.next += 1;
        let state = State::Owes(Instant::now());
        let _ = taken.entries.insert(id, Entry { socket: socket.clone(), source, is_stream: false, state });
        add(&self.counters.connections);
        Ok(Place { places: self.clone(), id })
    }

    /// From now on nobody gets a place, and connections end when nothing of a request is there.
    pub(super) fn stop(&self) {
        let mut taken = self.lock();
        taken.stops = true;
        let is_idle = |entry: &&mut Entry| matches!(entry.state, State::Idle(_));
        taken.entries.values_mut().filter(is_idle).for_each(Entry::tell);
        self.changed.notify_all();
    }

    /// Ends all connections, whatever they do.
    pub(super) fn cut(&self) {
        self.lock().entries.values_mut().for_each(Entry::tell);
    }

    /// Waits until all places were given back, at most until then. Returns whether they were.
    pub(super) fn wait_empty(&self, until: Instant) -> bool {
        let wait = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |taken| !taken.entries.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.entries.is_empty()
    }

    /// Sleeps, unless the server stops.
    pub(super) fn pause(&self, pause: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), pause, |taken| !taken.stops));
    }

    pub(super) fn stops(&self) -> bool {
        self.lock().stops
    }

    /// Whether that place was not given back yet.
    pub(super) fn has(&self, id: u64) -> bool {
        self.lock().entries.contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn shortage(&self, bound: &Bound, source: Source, is_stream: bool) -> Option<NoPlace> {
        let of_kind = || self.entries.values().filter(|entry| entry.is_stream == is_stream);
        let has_share = || of_kind().filter(|entry| entry.source == source).count() >= bound.per_source;
        if self.stops {
            Some(NoPlace::Stops)
        } else if of_kind().count() >= bound.total {
            Some(NoPlace::Full)
        } else if source != Source::Loopback && has_share() {
            Some(NoPlace::SourceFull)
        } else {
            None
        }
    }

    /// Tells the connection to go that has kept the server waiting for the longest time, if one has for too long.
    fn make_room(&mut self, shortage: NoPlace, source: Source) -> bool {
        let may_go = |entry: &&mut Entry| match shortage {
            NoPlace::Stops => false,
            NoPlace::Full => !entry.is_stream,
            NoPlace::SourceFull => !entry.is_stream && entry.source == source,
        };
        let waits = self.entries.values_mut().filter(may_go);
        let longest =
            waits.filter_map(|entry| Some((entry.waits_since()?, entry))).min_by_key(|(since, _)| *since);
        match longest {
            Some((since, entry)) if since.elapsed() >= GRACE => {
                entry.tell();
                true
            }
            _ => false,
        }
    }
}

impl Entry {
    fn waits_since(&self) -> Option<Instant> {
        match self.state {
            State::Owes(since) | State::Idle(since) => Some(since),
            State::Served | State::Told => None,
        }
    }

    /// Wakes its thread, which finds that nothing can be read or written any more.
    fn tell(&mut self) {
        self.state = State::Told;
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Source {
    fn of(remote: Remote) -> Self {
        let address = match remote {
            // Root and the server's own user are not kept out by others.
            Remote::User(uid) if uid.is_root() || uid == Uid::effective() => return Self::Loopback,
            Remote::User(uid) => return Self::User(uid.as_raw()),
            Remote::Addr(addr) => addr.ip(),
        };
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

impl Place {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The connection owes the rest of a request.
    pub(super) fn owes(&self) {
        self.set(State::Owes(Instant::now()));
    }

    /// Nothing of a request is there. Returns false where the connection has to end instead.
    pub(super) fn idle(&self) -> bool {
        self.set(State::Idle(Instant::now()))
    }

    /// The connection has a whole request.
    pub(super) fn served(&self) {
        self.set(State::Served);
    }

    /// Moves it to the event streams, if there is room.
    pub(super) fn stream(&self) -> Result<(), NoPlace> {
        let mut taken = self.places.lock();
        let Some(source) = taken.entries.get(&self.id).map(|entry| entry.source) else {
            return Err(NoPlace::Stops);
        };
        if let Some(shortage) = taken.shortage(&self.places.bounds.streams, source, true) {
            return Err(shortage);
        }
        if let Some(entry) = taken.entries.get_mut(&self.id) {
            entry.is_stream = true;
        }
        subtract(&self.places.counters.connections);
        add(&self.places.counters.streams);
        self.places.changed.notify_all();
        Ok(())
    }

    /// Whether the server stops.
    pub(super) fn stops(&self) -> bool {
        self.places.stops()
    }

    fn set(&self, state: State) -> bool {
        let mut taken = self.places.lock();
        let stops = taken.stops;
        if let Some(entry) = taken.entries.get_mut(&self.id) {
            entry.state = state;
        }
        !stops
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let counters = &self.places.counters;
        match taken.entries.remove(&self.id) {
            Some(Entry { is_stream: true, .. }) => subtract(&counters.streams),
            Some(_) => subtract(&counters.connections),
            None => {}
        }
        self.places.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
