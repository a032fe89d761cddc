//! Who is connected: what each connection's certificate says, found by the descriptor that the C core names a call's
//! connection by, and what each identity may have.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use super::budget::{Budget, Common};
use super::conduct::{Conduct, Credit};
use super::frames::{Charge, Unit};
use super::report::Report;
use crate::identity::Identity;
use crate::ids::AgentId;
use crate::refusal::Refusal;

/// No time at all.
const NEVER: u64 = u64::MAX;

/// A certificate that ends within so many seconds may have to be renewed: 14 days.
const ENDS_SOON_S: i64 = 14 * 86_400;

/// How long a connection stays whose session has moved.
const PARTING_US: u64 = 250_000;

/// How long a call is held back while others of its identity wait for their messages.
const CALL_HOLD_US: u64 = 10_000;

/// One connection's other end.
#[derive(Debug)]
pub struct Peer {
    /// What its certificate says.
    pub identity: Result<Arc<Identity>, Refusal>,
    account: Arc<Account>,
    /// When it is cut, whatever it does, in the gate's microseconds.
    cut_at_us: AtomicU64,
    /// From when on it ends once nothing is under way.
    part_at_us: AtomicU64,
}

impl Peer {
    /// When its connection ends.
    pub(super) fn cut_at_us(&self) -> u64 {
        self.cut_at_us.load(Ordering::Relaxed)
    }

    /// Its session has moved to another server: the connection ends, once no call is open and its last words are out, and the
    /// client makes another one.
    pub fn part(&self, now_us: u64) {
        let _ = self.part_at_us.fetch_min(now_us + PARTING_US, Ordering::Relaxed);
    }

    /// From when on its connection ends as soon as nothing is under way.
    pub(super) fn part_at_us(&self) -> u64 {
        self.part_at_us.load(Ordering::Relaxed)
    }

    pub(super) fn cut_at(&self, at_us: u64) {
        let _ = self.cut_at_us.fetch_min(at_us, Ordering::Relaxed);
    }

    /// Its name for logs and records.
    pub(super) fn agent(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| identity.agent.as_str())
    }
}

/// What all connections of an identity share. Those whose identity is not allowed share one.
#[derive(Debug)]
struct Account {
    connections: AtomicUsize,
    /// Calls whose message has not come.
    waiting_calls: AtomicUsize,
    /// Calls that are not over.
    open_calls: AtomicUsize,
    budget: Mutex<Budget>,
    conduct: Arc<Conduct>,
}

impl Account {
    fn new(conduct: Conduct, budget: Budget) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            waiting_calls: AtomicUsize::new(0),
            open_calls: AtomicUsize::new(0),
            budget: Mutex::new(budget),
            conduct: Arc::new(conduct),
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds on what is open at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections.
    pub total: usize,
    /// Handshakes in progress.
    pub shaking: usize,
    /// Of one identity.
    pub each: usize,
    /// Of all who are not allowed.
    pub strangers: usize,
    /// Calls of one identity whose message has not come.
    pub waiting_calls: usize,
    /// Of all who are not allowed.
    pub strangers_calls: usize,
    /// Calls of one identity that are not over.
    pub open_calls: usize,
    /// Of all who are not allowed.
    pub strangers_open: usize,
    /// Sessions that one identity may open in a second.
    pub session_opens_per_s: u32,
    /// Refusals of one identity in a second that are looked at.
    pub refusals_per_s: u32,
}

/// From when to when a certificate is good, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub begin_s: i64,
    /// Until then.
    pub end_s: i64,
}

impl Validity {
    /// Whether it should have been renewed: less than a fifth of its time is left, and less than 14 days.
    pub fn ends_soon(self, now_s: i64) -> bool {
        let left_s = self.end_s.saturating_sub(now_s);
        left_s < ENDS_SOON_S && left_s < self.end_s.saturating_sub(self.begin_s).max(0) / 5 || left_s <= 0
    }
}

/// Why a connection is turned away after its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    Punished,
    Full,
}

/// Everybody who is connected.
#[derive(Debug)]
pub struct Peers {
    by_fd: RwLock<Vec<Option<Arc<Peer>>>>,
    accounts: Mutex<HashMap<AgentId, Arc<Account>>>,
    strangers: Arc<Account>,
    report: Arc<Report>,
    common: Mutex<Common>,
    total: AtomicUsize,
    /// Nobody new is let in: the server's sessions move to others.
    is_closed: AtomicBool,
    bounds: Bounds,
}

impl Peers {
    pub(super) fn new(bounds: Bounds, report: Arc<Report>) -> Self {
        Self {
            by_fd: RwLock::default(),
            accounts: Mutex::default(),
            strangers: Arc::new(Account::new(Conduct::of_strangers(), Budget::of_strangers())),
            report,
            common: Mutex::default(),
            total: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            bounds,
        }
    }

    /// Who is behind a connection, as the C core names it (`fd:12`).
    pub fn named(&self, name: &str) -> Option<Arc<Peer>> {
        let fd: usize = name.strip_prefix("fd:")?.parse().ok()?;
        self.by_fd.read().unwrap_or_else(PoisonError::into_inner).get(fd)?.clone()
    }

    fn by_fd_mut(&self) -> RwLockWriteGuard<'_, Vec<Option<Arc<Peer>>>> {
        self.by_fd.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handshakes that may be in progress.
    pub(super) fn max_shaking(&self) -> usize {
        self.bounds.shaking
    }

    /// Lets in nobody new, or again everybody: who is connected stays.
    pub fn close_to_new(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::Relaxed);
    }

    /// Whether nobody new is let in.
    pub(super) fn is_closed_to_new(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// For each agent the first of the certificates to end that it is connected with, or has tried to connect with; without those
    /// who are not allowed.
    pub fn certificates(
        &self,
        is_allowed: impl Fn(&str) -> bool,
        now_us: u64,
    ) -> BTreeMap<AgentId, Validity> {
        let mut all: BTreeMap<AgentId, Validity> = BTreeMap::new();
        let by_fd = self.by_fd.read().unwrap_or_else(PoisonError::into_inner);
        let known = by_fd.iter().flatten().filter(|peer| !Arc::ptr_eq(&peer.account, &self.strangers));
        for identity in known.filter_map(|peer| peer.identity.as_ref().ok()) {
            let validity = Validity { begin_s: identity.not_before_s, end_s: identity.not_after_s };
            match all.get_mut(&identity.agent) {
                Some(first) if first.end_s <= validity.end_s => {}
                Some(first) => *first = validity,
                None => drop(all.insert(identity.agent.clone(), validity)),
            }
        }
        drop(by_fd);
        // Whoever shows an old certificate may be somebody else: what an agent is connected with counts.
        let ended = self.report.all_ended(now_us).into_iter().filter(|(agent, _)| is_allowed(agent));
        for (agent, end_s) in ended.filter_map(|(agent, end_s)| Some((AgentId::parse(&agent)?, end_s))) {
            let _ = all.entry(agent).or_insert(Validity { begin_s: end_s, end_s });
        }
        all
    }

    /// Of all together: connections, those that are known by their descriptor, those that accounts have, calls that wait
    /// for their message, and calls that are not over. For tests: each is 0 when nobody is connected.
    pub fn counts(&self) -> [usize; 5] {
        let known = self.by_fd.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().count();
        let mut counts = [self.total.load(Ordering::Relaxed), known, 0, 0, 0];
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for account in accounts.values().chain([&self.strangers]) {
            let own = [&account.connections, &account.waiting_calls, &account.open_calls];
            for (sum, count) in counts.iter_mut().skip(2).zip(own) {
                // Wraps like what it adds: one that has gone below 0 is found.
                *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
            }
        }
        counts
    }

    /// Whether there is room for one more connection at all.
    pub(super) fn has_room(&self) -> bool {
        self.total.load(Ordering::Relaxed) < self.bounds.total
    }

    /// What was turned away, cut and refused unseen.
    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// Credit for `count` refusals, which a call may turn out to be. `None`: it has to be refused now, and is counted
    /// as that.
    pub fn credit(&self, peer: &Peer, count: usize, now_us: u64) -> Option<Credit> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let credit = peer.account.conduct.credit(count, now_us);
        if credit.is_none() {
            self.report.unseen(peer.agent(), "too many refusals", now_us);
        }
        credit
    }

    /// Whether one more session may be opened; where not, it is counted as refused.
    pub fn may_open(&self, peer: &Peer, now_us: u64) -> bool {
        let may = peer.account.budget().open(now_us);
        if !may {
            self.report.unseen(peer.agent(), "too many sessions opened", now_us);
        }
        may
    }

    /// Whether one more discovery may be made; where not, it is counted as refused.
    pub fn may_discover(&self, peer: &Peer, now_us: u64) -> bool {
        let may = peer.account.budget().discover(now_us);
        if !may {
            self.report.unseen(peer.agent(), "too many discoveries", now_us);
        }
        may
    }

    /// Whether one more call of somebody who is not allowed may be looked at and put on record; where not, it is
    /// counted.
    pub fn may_record_stranger(&self, now_us: u64) -> bool {
        match self.strangers.conduct.credit(1, now_us) {
            Some(credit) => {
                credit.spend();
                true
            }
            None => {
                self.report.unseen("", "calls of strangers", now_us);
                false
            }
        }
    }

    /// Counts a connection in, where it may be. `allowed`: it has an account of its own.
    pub(super) fn admit(
        &self,
        identity: Result<Arc<Identity>, Refusal>,
        allowed: bool,
        now_us: u64,
    ) -> Result<Arc<Peer>, TurnedAway> {
        let (account, most) = match &identity {
            Ok(identity) if allowed => (self.account(&identity.agent), self.bounds.each),
            _ => (self.strangers.clone(), self.bounds.strangers),
        };
        if account.budget().is_punished(now_us) {
            return Err(TurnedAway::Punished);
        }
        if !self.has_room() || account.connections.load(Ordering::Relaxed) >= most {
            return Err(TurnedAway::Full);
        }
        if let (Ok(identity), true) = (&identity, allowed) {
            self.report.is_renewed(identity.agent.as_str());
        }
        // Only the thread that shakes hands counts in.
        let _ = account.connections.fetch_add(1, Ordering::Relaxed);
        let _ = self.total.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Peer {
            identity,
            account,
            cut_at_us: AtomicU64::new(NEVER),
            part_at_us: AtomicU64::new(NEVER),
        }))
    }

    fn account(&self, agent: &AgentId) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = || {
            let conduct = Conduct::of_agent(self.bounds.refusals_per_s);
            Arc::new(Account::new(conduct, Budget::new(self.bounds.session_opens_per_s)))
        };
        accounts.entry(agent.clone()).or_insert_with(account).clone()
    }

    /// Makes a connection known by its descriptor, before the C core hears of it.
    pub(super) fn insert(&self, fd: RawFd, peer: &Arc<Peer>) {
        let Ok(at) = usize::try_from(fd) else { return };
        let mut by_fd = self.by_fd_mut();
        if by_fd.len() <= at {
            by_fd.resize(at + 1, None);
        }
        if let Some(place) = by_fd.get_mut(at) {
            *place = Some(peer.clone());
        }
    }

    /// Forgets a connection; not a later one with the same descriptor.
    pub(super) fn remove(&self, fd: RawFd, peer: &Arc<Peer>, (waiting, open): (usize, usize)) {
        self.calls_settled(peer, waiting, open);
        let mut by_fd = self.by_fd_mut();
        let place = usize::try_from(fd).ok().and_then(|at| by_fd.get_mut(at));
        if let Some(place) = place.filter(|place| place.as_ref().is_some_and(|own| Arc::ptr_eq(own, peer))) {
            *place = None;
        }
        drop(by_fd);
        let _ = peer.account.connections.fetch_sub(1, Ordering::Relaxed);
        let _ = self.total.fetch_sub(1, Ordering::Relaxed);
    }

    /// Asks for the frames of one connection, while `ask` reads them.
    pub(super) fn charge<T>(
        &self,
        peer: &Peer,
        now_us: u64,
        ask: impl FnOnce(&mut dyn FnMut(Unit) -> Charge) -> T,
    ) -> T {
        let account = &peer.account;
        let mut budget = account.budget();
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        let strangers = Arc::ptr_eq(account, &self.strangers);
        let most = if strangers { self.bounds.strangers_calls } else { self.bounds.waiting_calls };
        let most_open = if strangers { self.bounds.strangers_open } else { self.bounds.open_calls };
        ask(&mut |unit| {
            let (begins, waits) = (matches!(unit, Unit::Call | Unit::EmptyCall), unit == Unit::Call);
            if (waits && account.waiting_calls.load(Ordering::Relaxed) >= most)
                || (begins && account.open_calls.load(Ordering::Relaxed) >= most_open)
            {
                return Charge::Hold(now_us + CALL_HOLD_US);
            }
            let charge = budget.charge(unit, &mut common, now_us);
            if charge == Charge::Pass {
                let _ = account.waiting_calls.fetch_add(usize::from(waits), Ordering::Relaxed);
                let _ = account.open_calls.fetch_add(usize::from(begins), Ordering::Relaxed);
            }
            charge
        })
    }

    /// The server was made to give up so many streams of that connection.
    pub(super) fn owe(&self, peer: &Peer, count: usize, now_us: u64) -> Charge {
        if count == 0 { Charge::Pass } else { peer.account.budget().owe(count, now_us) }
    }

    /// Whether many calls of that identity wait for their messages.
    pub(super) fn many_wait(&self, peer: &Peer) -> bool {
        let strangers = Arc::ptr_eq(&peer.account, &self.strangers);
        let most = if strangers { self.bounds.strangers_calls } else { self.bounds.waiting_calls };
        peer.account.waiting_calls.load(Ordering::Relaxed) > most / 4
    }

    /// So many calls do not wait for their message any more, and so many are over.
    pub(super) fn calls_settled(&self, peer: &Peer, settled: usize, closed: usize) {
        if settled > 0 {
            let _ = peer.account.waiting_calls.fetch_sub(settled, Ordering::Relaxed);
        }
        if closed > 0 {
            let _ = peer.account.open_calls.fetch_sub(closed, Ordering::Relaxed);
        }
    }

    /// A connection was cut for what it did.
    pub(super) fn punish(&self, peer: &Peer, now_us: u64) {
        peer.account.budget().punish(now_us);
    }

    /// Marks the connections of those who are not allowed any more, to be cut at that time; and those of strangers who are
    /// allowed now: their next connection has an account of its own.
    pub(super) fn cut(&self, is_allowed: impl Fn(&Identity) -> bool, at_us: u64) {
        let by_fd = self.by_fd.read().unwrap_or_else(PoisonError::into_inner);
        for peer in by_fd.iter().flatten() {
            let stranger = Arc::ptr_eq(&peer.account, &self.strangers);
            if peer.identity.as_ref().is_ok_and(|identity| is_allowed(identity) == stranger) {
                peer.cut_at(at_us);
            }
        }
    }

    /// Forgets identities that have no connection and did nothing.
    pub(super) fn tidy(&self, now_us: u64) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, account| Arc::strong_count(account) > 1 || !account.budget().is_fresh(now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_soon_by_its_own_measure() {
        let of = |begin_s, end_s| Validity { begin_s, end_s };
        // One of an hour is renewed within it.
        assert!(!of(0, 3600).ends_soon(1800) && of(0, 3600).ends_soon(3000) && of(0, 3600).ends_soon(4000));
        // One of a year: two weeks before its end.
        let year_s = 365 * 86_400;
        assert!(
            !of(0, year_s).ends_soon(year_s - 20 * 86_400) && of(0, year_s).ends_soon(year_s - 10 * 86_400)
        );
        assert!(of(5, 5).ends_soon(5));
    }
}
