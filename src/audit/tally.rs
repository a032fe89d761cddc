//! What a worker has put on record, counted as its commits are confirmed: by kind, by agent, and by who asked for whom. One
//! thread counts; any thread reads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use serde::Deserialize;

use super::record::{Action, Decision, Fields, LATER_RULE};
use crate::refusal::Refusal;

/// Kinds of decisions, by their codes from 0.
const DECISIONS: usize = 16;
/// Kinds of actions, by their codes from 0.
const ACTIONS: usize = 64;
/// What may become of a delivery.
pub const OUTCOMES: [&str; 6] = ["delivered", "redelivered", "ack", "nack", "later", "dead"];
/// Pairs of sender and target that are counted one by one; the others are counted together.
const MAX_EDGES: usize = 20_000;
/// Pairs of a finding's type and action that are counted one by one; the others are counted together.
const MAX_FOUND: usize = 200;
/// The type and the action of findings that are counted together.
const OTHER: &str = "other";

/// A count of one thread.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// No other thread adds to it.
    fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by decision.
#[derive(Debug, Default)]
pub struct ByDecision([Count; DECISIONS]);

impl ByDecision {
    fn add(&self, decision: Decision) {
        if let Some(count) = self.0.get(usize::from(decision.code())) {
            count.add(1);
        }
    }

    /// Records with this decision.
    pub fn of(&self, decision: Decision) -> u64 {
        self.0.get(usize::from(decision.code())).map_or(0, Count::get)
    }
}

/// What is counted of one agent.
#[derive(Debug, Default)]
pub struct OfAgent {
    /// Messages that it asked to have sent.
    pub messages: ByDecision,
    delivered: Count,
    redelivered: Count,
    acked: Count,
    nacked: Count,
    put_off: Count,
    dead: Count,
}

impl OfAgent {
    /// What became of deliveries to it, by name.
    pub fn deliveries(&self) -> [(&'static str, u64); OUTCOMES.len()] {
        let counts =
            [&self.delivered, &self.redelivered, &self.acked, &self.nacked, &self.put_off, &self.dead];
        let mut named = OUTCOMES.map(|outcome| (outcome, 0));
        for ((_, count), own) in named.iter_mut().zip(counts) {
            *count = own.get();
        }
        named
    }
}

/// Who asked for a message to whom.
#[derive(Debug)]
pub struct Edge {
    /// The sender; empty: the edges that are counted together.
    pub sender: Box<str>,
    /// The target.
    pub target: Box<str>,
    /// Its messages.
    pub messages: ByDecision,
}

/// Findings of data-loss prevention of one type, by what was done about them.
#[derive(Debug)]
pub struct Found {
    /// The type.
    pub kind: Box<str>,
    /// The action.
    pub action: Box<str>,
    count: Count,
}

impl Found {
    /// How many.
    pub fn count(&self) -> u64 {
        self.count.get()
    }
}

/// A finding, as a record describes it.
#[derive(Debug, Deserialize)]
struct Described<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    /// So many more are not described.
    #[serde(default)]
    further: u64,
}

/// The counts of one worker, for all threads to read.
#[derive(Debug)]
pub struct Counters {
    records: [ByDecision; ACTIONS],
    refusals: [Count; Refusal::ALL.len()],
    found: RwLock<Vec<Arc<Found>>>,
    agents: RwLock<HashMap<Arc<str>, Arc<OfAgent>>>,
    edges: RwLock<Vec<Arc<Edge>>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            records: std::array::from_fn(|_| ByDecision::default()),
            refusals: std::array::from_fn(|_| Count::default()),
            found: RwLock::default(),
            agents: RwLock::default(),
            edges: RwLock::default(),
        }
    }
}

impl Counters {
    /// Records of this kind.
    pub fn records(&self, action: Action, decision: Decision) -> u64 {
        self.records.get(usize::from(action.code())).map_or(0, |records| records.of(decision))
    }

    /// What was refused, by the detail that callers are told.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.iter().zip(&self.refusals).map(|(refusal, count)| (refusal.detail, count.get()))
    }

    /// Findings of data-loss prevention.
    pub fn found(&self) -> Vec<Arc<Found>> {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands out what is counted of each agent.
    pub fn each_agent(&self, mut on: impl FnMut(&Arc<str>, &OfAgent)) {
        // Whoever counts waits for this lock when it meets a new name.
        let agents: Vec<(Arc<str>, Arc<OfAgent>)> = {
            let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
            agents.iter().map(|(name, counts)| (name.clone(), counts.clone())).collect()
        };
        agents.iter().for_each(|(name, counts)| on(name, counts));
    }

    /// Hands out the edges.
    pub fn each_edge(&self, mut on: impl FnMut(&Edge)) {
        let edges = self.edges.read().unwrap_or_else(PoisonError::into_inner).clone();
        edges.iter().for_each(|edge| on(edge));
    }
}

/// Tells which names are agents' of the configuration: others are not counted by name.
pub type Known = dyn Fn(&str) -> bool + Send + Sync;

/// One record that waits for its confirmation.
#[derive(Debug, Clone, Copy)]
struct Noted {
    action: Action,
    decision: Decision,
    /// Messages that a custody record is about.
    messages: u32,
    /// Those of them that were delivered before.
    repeated: u32,
    /// A refused delivery that is no failure.
    put_off: bool,
    agent: Option<u32>,
    edge: Option<u32>,
    /// Its place among all refusals.
    refusal: Option<u16>,
}

/// Counts one worker's records. Hot path.
pub struct Tally {
    counters: Arc<Counters>,
    known: Arc<Known>,
    names: HashMap<Box<str>, u32, RandomState>,
    agents: Vec<Arc<OfAgent>>,
    edge_of: HashMap<(u32, u32), u32, RandomState>,
    edges: Vec<Arc<Edge>>,
    refusals: HashMap<&'static str, u16, RandomState>,
    found: Vec<Arc<Found>>,
    waiting: Vec<Noted>,
    /// Findings that wait, by their places in `found`, and how many.
    waiting_found: Vec<(u16, u64)>,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Tally {
    /// Counts into `counters`.
    pub fn new(counters: Arc<Counters>, known: Arc<Known>) -> Self {
        Self {
            counters,
            known,
            names: HashMap::default(),
            agents: Vec::new(),
            edge_of: HashMap::default(),
            edges: Vec::new(),
            refusals: Refusal::ALL.iter().map(|refusal| refusal.detail).zip(0..).collect(),
            found: Vec::new(),
            waiting: Vec::new(),
            waiting_found: Vec::new(),
        }
    }

    /// Another configuration is in force.
    pub fn knows(&mut self, known: Arc<Known>) {
        self.known = known;
    }

    fn name(&mut self, name: &str) -> Option<u32> {
        if let Some(known) = self.names.get(name) {
            return Some(*known);
        }
        if name.is_empty() || !(self.known)(name) {
            return None;
        }
        let number = u32::try_from(self.agents.len()).ok()?;
        let counts = Arc::<OfAgent>::default();
        let mut shared = self.counters.agents.write().unwrap_or_else(PoisonError::into_inner);
        let _ = shared.insert(name.into(), counts.clone());
        self.agents.push(counts);
        let _ = self.names.insert(name.into(), number);
        Some(number)
    }

    fn edge(&mut self, sender: u32, sender_name: &str, target_name: &str) -> Option<u32> {
        let target = self.name(target_name)?;
        if let Some(known) = self.edge_of.get(&(sender, target)) {
            return Some(*known);
        }
        let number = u32::try_from(self.edges.len()).ok()?;
        let is_last = self.edges.len() >= MAX_EDGES;
        if self.edges.len() > MAX_EDGES {
            // The one that all further ones share.
            return Some(number - 1);
        }
        let (sender_name, target_name) = if is_last { ("", "") } else { (sender_name, target_name) };
        let edge =
            Edge { sender: sender_name.into(), target: target_name.into(), messages: ByDecision::default() };
        let edge = Arc::new(edge);
        self.counters.edges.write().unwrap_or_else(PoisonError::into_inner).push(edge.clone());
        self.edges.push(edge);
        if !is_last {
            let _ = self.edge_of.insert((sender, target), number);
        }
        Some(number)
    }

    /// The place of what is counted of such findings.
    fn kind(&mut self, kind: &str, action: &str) -> u16 {
        let is = |kind: &str, action: &str| {
            self.found.iter().position(|one| *one.kind == *kind && *one.action == *action)
        };
        let known = is(kind, action).or_else(|| is(OTHER, OTHER).filter(|_| self.found.len() >= MAX_FOUND));
        if let Some(at) = known {
            return at as u16;
        }
        let (kind, action) = if self.found.len() < MAX_FOUND { (kind, action) } else { (OTHER, OTHER) };
        let found = Arc::new(Found { kind: kind.into(), action: action.into(), count: Count::default() });
        self.counters.found.write().unwrap_or_else(PoisonError::into_inner).push(found.clone());
        self.found.push(found);
        (self.found.len() - 1) as u16
    }

    fn note_found(&mut self, findings: &str) {
        // What does not parse is not what a server describes.
        let described: Vec<Described<'_>> = serde_json::from_str(findings).unwrap_or_default();
        for one in described {
            let noted = match one.further {
                0 => (self.kind(&one.kind, &one.action), 1),
                further => (self.kind(OTHER, OTHER), further),
            };
            self.waiting_found.push(noted);
        }
    }

    /// A record waits.
    pub(super) fn note(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) {
        let agent = self.name(fields.agent);
        let edge = match (action, agent) {
            (Action::Send | Action::Request | Action::Reply, Some(agent)) => {
                self.edge(agent, fields.agent, fields.target)
            }
            _ => None,
        };
        // Reasons of events are what clients say.
        let refusal = match decision {
            Decision::Event => None,
            _ if fields.reason.is_empty() => None,
            _ => self.refusals.get(fields.reason).copied(),
        };
        if !fields.findings.is_empty() {
            self.note_found(fields.findings);
        }
        let repeated = fields.messages.iter().filter(|(_, attempt)| *attempt > 1).count();
        self.waiting.push(Noted {
            action,
            decision,
            messages: fields.messages.len() as u32,
            repeated: repeated as u32,
            put_off: fields.rule == LATER_RULE,
            agent,
            edge,
            refusal,
        });
    }

    /// What waits is on record.
    pub(super) fn confirm(&mut self) {
        let Self { counters, agents, edges, waiting, found, waiting_found, .. } = self;
        for (at, count) in waiting_found.drain(..) {
            if let Some(found) = found.get(usize::from(at)) {
                found.count.add(count);
            }
        }
        for noted in waiting.drain(..) {
            if let Some(records) = counters.records.get(usize::from(noted.action.code())) {
                records.add(noted.decision);
            }
            if let Some(refused) = noted.refusal.and_then(|at| counters.refusals.get(usize::from(at))) {
                refused.add(1);
            }
            if let Some(edge) = noted.edge.and_then(|edge| edges.get(edge as usize)) {
                edge.messages.add(noted.decision);
            }
            if let Some(agent) = noted.agent.and_then(|agent| agents.get(agent as usize)) {
                agent.count(noted);
            }
        }
    }

    /// What waits will not be on record.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
        self.waiting_found.clear();
    }
}

impl OfAgent {
    fn count(&self, noted: Noted) {
        let messages = u64::from(noted.messages.max(1));
        match noted.action {
            Action::Send | Action::Request | Action::Reply => self.messages.add(noted.decision),
            Action::Delivered => {
                self.delivered.add(messages - u64::from(noted.repeated));
                self.redelivered.add(u64::from(noted.repeated));
            }
            Action::Acked => self.acked.add(messages),
            Action::Nack if noted.put_off => self.put_off.add(messages),
            Action::Nack => self.nacked.add(messages),
            Action::DeadLetter => self.dead.add(messages),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn tally(known: &'static [&'static str]) -> (Tally, Arc<Counters>) {
        let counters = Arc::<Counters>::default();
        (Tally::new(counters.clone(), Arc::new(move |name: &str| known.contains(&name))), counters)
    }

    fn edges(counters: &Counters) -> Vec<(String, String, u64)> {
        let mut found = Vec::new();
        counters.each_edge(|edge| {
            let all = Decision::ALL.iter().map(|decision| edge.messages.of(*decision)).sum();
            found.push((edge.sender.to_string(), edge.target.to_string(), all));
        });
        found
    }

    #[test]
    fn every_code_has_a_place() {
        assert!(Action::ALL.iter().all(|action| usize::from(action.code()) < ACTIONS));
        assert!(Decision::ALL.iter().all(|decision| usize::from(decision.code()) < DECISIONS));
    }

    #[test]
    fn what_is_confirmed_is_counted_and_what_is_discarded_is_not() {
        let (mut tally, counters) = tally(&["a", "b"]);
        let fields = Fields { agent: "a", target: "b", ..Fields::default() };
        tally.note(Action::Send, Decision::Allowed, &fields);
        assert_eq!(counters.records(Action::Send, Decision::Allowed), 0);
        tally.discard();
        tally.note(Action::Send, Decision::Allowed, &fields);
        tally.note(Action::Send, Decision::AuthzDenied, &fields);
        tally.confirm();
        tally.confirm();
        assert_eq!(counters.records(Action::Send, Decision::Allowed), 1);
        assert_eq!(counters.records(Action::Send, Decision::AuthzDenied), 1);
        assert_eq!(edges(&counters), [("a".to_owned(), "b".to_owned(), 2)]);
        let messages = [(Uuid::nil(), 1), (Uuid::nil(), 2), (Uuid::nil(), 1)];
        let custody = Fields { agent: "b", messages: &messages, ..Fields::default() };
        tally.note(Action::Delivered, Decision::Event, &custody);
        tally.note(Action::Acked, Decision::Event, &custody);
        tally.note(Action::Nack, Decision::Event, &Fields { agent: "b", ..Fields::default() });
        tally.note(
            Action::Nack,
            Decision::Event,
            &Fields { agent: "b", rule: LATER_RULE, ..Fields::default() },
        );
        tally.confirm();
        counters.each_agent(|name, counts| {
            let expected = if **name == *"b" { [2, 1, 3, 1, 1, 0] } else { [0; 6] };
            assert_eq!(counts.deliveries().map(|(_, count)| count), expected, "{name}");
            assert_eq!(counts.messages.of(Decision::Allowed), u64::from(**name == *"a"));
        });
    }

    #[test]
    fn refusals_and_findings_are_counted_by_their_kind() {
        let (mut tally, counters) = tally(&["a"]);
        let refused = |reason| Fields { agent: "a", reason, ..Fields::default() };
        tally.note(Action::Send, Decision::RateLimited, &refused(Refusal::RATE_LIMITED.detail));
        tally.note(Action::Send, Decision::AuthzDenied, &refused("of nobody"));
        tally.note(Action::Nack, Decision::Event, &refused(Refusal::QUEUE_FULL.detail));
        let findings = r#"[{"type":"email","rule":"r","action":"block"},{"type":"email","action":"block"},{"further":7}]"#;
        tally.note(
            Action::Send,
            Decision::DlpBlocked,
            &Fields { findings, ..refused(Refusal::DLP_BLOCKED.detail) },
        );
        assert!(counters.refusals().all(|(_, count)| count == 0));
        tally.confirm();
        let refusals: Vec<_> = counters.refusals().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refusals, [("rate_limited", 1), ("dlp_blocked", 1)]);
        let found = |counters: &Counters| -> Vec<(String, u64)> {
            counters.found().iter().map(|one| (format!("{} {}", one.kind, one.action), one.count())).collect()
        };
        assert_eq!(found(&counters), [("email block".to_owned(), 2), ("other other".to_owned(), 7)]);
        for n in 0..2 * MAX_FOUND {
            let findings = format!(r#"[{{"type":"t{n}","action":"log"}}]"#);
            tally.note(Action::Send, Decision::Allowed, &Fields { findings: &findings, ..Fields::default() });
        }
        tally.confirm();
        assert_eq!(found(&counters).len(), MAX_FOUND);
        assert_eq!(found(&counters).iter().map(|(_, count)| count).sum::<u64>(), 9 + 2 * MAX_FOUND as u64);
    }

    #[test]
    fn names_of_nobody_and_edges_beyond_the_bound_take_no_room() {
        let (mut tally, counters) = tally(&["a"]);
        for n in 0..100 {
            let name = format!("x{n}");
            tally.note(
                Action::Send,
                Decision::AuthzDenied,
                &Fields { agent: &name, target: "a", ..Fields::default() },
            );
            tally.note(
                Action::Send,
                Decision::AuthzDenied,
                &Fields { agent: "a", target: &name, ..Fields::default() },
            );
        }
        tally.confirm();
        assert_eq!(edges(&counters), []);
        assert_eq!(counters.records(Action::Send, Decision::AuthzDenied), 200);
        tally.knows(Arc::new(|_| true));
        for n in 0..MAX_EDGES + 10 {
            let name = format!("y{n}");
            tally.note(
                Action::Send,
                Decision::Allowed,
                &Fields { agent: "a", target: &name, ..Fields::default() },
            );
        }
        tally.confirm();
        let found = edges(&counters);
        assert_eq!(found.len(), MAX_EDGES + 1);
        assert_eq!(found.last(), Some(&(String::new(), String::new(), 10)));
    }
}
