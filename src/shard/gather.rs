//! What a round must know before it decides: read in one round trip, watched, and true until the round commits.

use std::collections::BTreeSet;

use super::decide::{Facts, PendingRequest, StateFact};
use super::inbox::{DeadLetter, EntryKey};
use super::job::Job;
use super::notes::Note;
use super::posts::Remembered;
use super::presence;
use super::worker::{Scan, Worker};
use crate::clock::Now;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::policy::Circuit;
use crate::store::answers::{self, StreamEntry};
use crate::store::{StoreError, Value, keys};

/// Lines of a pending entries list read in one round, per scan.
const SCAN_PAGE: usize = 256;
/// Scans made in one round.
const MAX_SCANS: usize = 64;
/// Dead letters written in one round.
const MAX_LETTERS: usize = 64;
/// Gone instances cleared in one round.
const MAX_CLEARS: usize = 16;
/// How long a thing that one server has taken on is left to it, in milliseconds.
const ONCE_MS: u64 = 60_000;
/// Unread replies of a gone instance that go to the dead letters in one round.
const CLEAR_PAGE: usize = 64;

/// What the first round trip found.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) facts: Facts,
    pub(super) letters: Vec<Letter>,
    pub(super) clears: Vec<Clear>,
    pub(super) watching: bool,
}

/// A dead letter with its payload.
pub(super) struct Letter {
    pub(super) agent: AgentId,
    pub(super) stream: String,
    pub(super) letter: DeadLetter,
    pub(super) envelope: Option<String>,
}

/// A gone instance, and what is left of it.
pub(super) struct Clear {
    pub(super) agent: AgentId,
    pub(super) instance: InstanceId,
    /// Its own inbox holds replies: they go first, the rest follows later.
    pub(super) unread: bool,
    /// Nobody else clears it, and no server has it.
    pub(super) ours: bool,
    /// Nothing of it is pending in the shared inbox.
    pub(super) consumer_free: bool,
}

impl Worker {
    pub(super) fn gather(
        &mut self,
        jobs: &[Job],
        notes: usize,
        now: Now,
        stalled: bool,
    ) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        self.batch.clear();
        let scans: Vec<Scan> = self.scans.drain(..self.scans.len().min(MAX_SCANS)).collect();
        let letters = if stalled { Vec::new() } else { self.take_letters() };
        let clears = if stalled { Vec::new() } else { self.take_clears(jobs) };
        let has_peers = self.shared.has_peers();

        let answered: Vec<CorrelationId> = jobs.iter().flat_map(Job::answered).collect();
        let states: Vec<&AgentId> = jobs.iter().filter_map(Job::changed_state).collect();
        let keyed = keyed(jobs);
        let elsewhere = self.homes_elsewhere(jobs);
        let present = self.present(jobs, notes, &clears);
        gathered.watching =
            !answered.is_empty() || !states.is_empty() || !present.is_empty() || !keyed.is_empty();
        if gathered.watching {
            let _ = self.batch.command("WATCH");
            for id in &answered {
                let _ = self.batch.arg(keys::pending_request(id));
            }
            for agent in &states {
                let _ = self.batch.arg(keys::state(agent)).arg(keys::state_version(agent));
            }
            for (sender, key) in &keyed {
                let _ = self.batch.arg(keys::idempotency(sender, key));
            }
            for agent in &present {
                let _ = self.batch.arg(keys::instances(agent));
            }
        }
        for id in &answered {
            for command in ["GET", "PTTL"] {
                let _ = self.batch.command(command);
                let _ = self.batch.arg(keys::pending_request(id));
            }
        }
        for agent in &states {
            let _ = self.batch.command("HGETALL");
            let _ = self.batch.arg(keys::state(agent));
            let _ = self.batch.command("GET");
            let _ = self.batch.arg(keys::state_version(agent));
        }
        for (sender, key) in &keyed {
            let _ = self.batch.command("GET");
            let _ = self.batch.arg(keys::idempotency(sender, key));
        }
        for agent in &elsewhere {
            let _ = self.batch.command("XLEN");
            let _ = self.batch.arg(keys::inbox(agent));
        }
        for agent in &present {
            let _ = self.batch.command("HGETALL");
            let _ = self.batch.arg(keys::instances(agent));
        }
        if !present.is_empty() {
            let _ = self.batch.command("HKEYS");
            let _ = self.batch.arg(keys::SERVERS);
        }
        for scan in &scans {
            self.add_scan(scan);
        }
        for (_, stream, letter) in &letters {
            let _ = self.batch.command("XRANGE");
            let _ = self.batch.arg(stream).arg(letter.key.entry).arg(letter.key.entry);
            if has_peers {
                self.take_on(&format!("{stream}:{}", letter.key.entry));
            }
        }
        for (agent, instance) in &clears {
            let _ = self.batch.command("XPENDING");
            let _ = self.batch.arg(keys::inbox(agent)).arg(keys::GROUP).arg("-").arg("+").arg(1);
            let _ = self.batch.arg(keys::consumer(agent, instance));
            let _ = self.batch.command("XRANGE");
            let _ = self.batch.arg(keys::instance_inbox(agent, instance)).arg("-").arg("+");
            let _ = self.batch.arg("COUNT").arg(CLEAR_PAGE);
            if has_peers {
                self.take_on(&keys::instance_inbox(agent, instance));
            }
        }
        let trials = if has_peers { self.trials(jobs, now) } else { Vec::new() };
        for agent in &trials {
            self.take_on(&keys::circuit(agent));
        }
        if self.batch.is_empty() {
            return Ok(gathered);
        }

        let found = match self.run_batch() {
            Ok(answers) => answers,
            Err(error) => {
                self.scans.extend(scans);
                self.clears.extend(clears);
                return Err(error);
            }
        };
        let mut found = found.into_iter();
        if gathered.watching {
            drop(found.next());
        }
        for id in &answered {
            let (pending, ttl) = (found.next(), found.next());
            let pending = pending.as_ref().and_then(parse_pending);
            let ttl_ms = ttl.as_ref().and_then(answers::int).unwrap_or(0);
            let fact = pending.map(|pending| (pending, ttl_ms));
            let _ = gathered.facts.pending.insert(*id, fact);
        }
        for agent in &states {
            let fields = found.next().and_then(answers::pairs).unwrap_or_default();
            let sizes = fields.into_iter().map(|(field, value)| (field, value.len())).collect();
            let version = found.next().as_ref().and_then(answers::int).unwrap_or(0);
            let _ = gathered.facts.states.insert((*agent).clone(), StateFact { sizes, version });
        }
        for key in keyed {
            let stored = found.next();
            let remembered = stored.as_ref().and_then(answers::text).and_then(Remembered::parse);
            let _ = gathered.facts.remembered.insert(key, remembered);
        }
        for agent in elsewhere {
            let length = found.next().as_ref().and_then(answers::int).unwrap_or(0);
            let _ = gathered.facts.lengths.insert(agent, length);
        }
        for agent in &present {
            let known = found.next().as_ref().map(presence::instances).unwrap_or_default();
            let _ = gathered.facts.presence.instances.insert(agent.clone(), known);
        }
        if !present.is_empty()
            && let Some(Value::Array(ids)) = found.next()
        {
            let ids = ids.iter().filter_map(answers::text).filter_map(ServerId::parse);
            gathered.facts.presence.servers = ids.collect();
        }
        for scan in scans {
            if let Some(value) = found.next() {
                self.scanned(scan, &value, now);
            }
        }
        for (agent, stream, letter) in letters {
            let entry =
                found.next().and_then(answers::entries).and_then(|entries| entries.into_iter().next());
            let ours = !has_peers || self.taken_on(&mut found);
            if ours {
                let envelope = entry.and_then(|entry| entry.envelope);
                gathered.letters.push(Letter { agent, stream, letter, envelope });
            } else if let Some(inbox) = self.inboxes.get_mut(&agent) {
                // Another server buries it.
                inbox.dead.retain(|other| other.key != letter.key);
                inbox.removed(&letter.key);
            }
        }
        for (agent, instance) in clears {
            let (pending, own) = (found.next(), found.next());
            let free = !has_peers || self.taken_on(&mut found);
            let ours = free && !gathered.facts.presence.elsewhere(&agent, &instance, &self.shared.server);
            self.found_remains(&mut gathered, agent, instance, ours, pending, own);
        }
        for agent in trials {
            if !self.taken_on(&mut found) {
                let _ = gathered.facts.trials_elsewhere.insert(agent);
            }
        }
        Ok(gathered)
    }

    /// Targets of this round's commits whose inboxes are another worker's.
    pub(super) fn homes_elsewhere(&self, jobs: &[Job]) -> Vec<AgentId> {
        let commits = jobs.iter().filter(|job| matches!(job, Job::Commit(_)));
        let targets: BTreeSet<&str> = commits.flat_map(Job::posts).map(|post| post.target.as_str()).collect();
        let foreign = targets.into_iter().filter(|target| !self.inboxes.contains_key(*target));
        let policy = &self.settings.policy;
        foreign.filter_map(|target| policy.agent(target)).map(|card| card.id.clone()).collect()
    }

    /// Agents whose instances matter in this round: sessions open, end, or are cleared away.
    pub(super) fn present(
        &self,
        jobs: &[Job],
        notes: usize,
        clears: &[(AgentId, InstanceId)],
    ) -> BTreeSet<AgentId> {
        let opening = jobs.iter().filter_map(Job::as_open).map(|session| &session.identity.agent);
        let ending = self.notes.iter().take(notes).filter_map(Note::left);
        let cleared = clears.iter().map(|(agent, _)| agent);
        opening.chain(ending).chain(cleared).cloned().collect()
    }

    /// Targets whose half-open circuits may let one message of this round through.
    pub(super) fn trials(&self, jobs: &[Job], now: Now) -> Vec<AgentId> {
        let Some(config) = self.settings.policy.breaker() else {
            return Vec::new();
        };
        let targets =
            jobs.iter().flat_map(Job::posts).filter_map(|post| self.inboxes.get(post.target.as_str()));
        let mut trials: Vec<AgentId> = targets
            .filter(|inbox| inbox.breaker.circuit(config, now.mono_ms) == Circuit::HalfOpen)
            .map(|inbox| inbox.agent.clone())
            .collect();
        trials.sort();
        trials.dedup();
        trials
    }

    /// Adds the commands by which one of several servers takes a thing on.
    pub(super) fn take_on(&mut self, thing: &str) {
        let key = keys::once(thing);
        let own = self.shared.server.as_str();
        let _ = self.batch.command("SET");
        let _ = self.batch.arg(&key).arg(own).arg("NX").arg("PX").arg(ONCE_MS);
        let _ = self.batch.command("GET");
        let _ = self.batch.arg(&key);
    }

    /// Whether it was this one.
    pub(super) fn taken_on(&self, found: &mut impl Iterator<Item = Value>) -> bool {
        drop(found.next());
        found.next().as_ref().and_then(answers::text) == Some(self.shared.server.as_str())
    }

    pub(super) fn add_scan(&mut self, scan: &Scan) {
        let stream = match &scan.owner {
            Some(instance) => keys::instance_inbox(&scan.agent, instance),
            None => keys::inbox(&scan.agent),
        };
        let from = scan.after.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let _ = self.batch.command("XPENDING");
        let _ = self.batch.arg(stream).arg(keys::GROUP).arg(from).arg("+").arg(SCAN_PAGE);
    }

    pub(super) fn scanned(&mut self, scan: Scan, value: &Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&scan.agent) else {
            return;
        };
        if answers::error_code(value) == Some("NOGROUP") {
            inbox.forget(scan.owner.as_ref());
            let _ = self.regroup.insert(scan.agent);
            return;
        }
        let Some(lines) = answers::pending(value) else {
            log::error!("{}: XPENDING answered {value:?}", inbox.stream);
            return;
        };
        let directory = &self.shared.directory;
        for line in &lines {
            // What a session on another server holds is that server's.
            if inbox.holder_of(line).is_some_and(|holder| directory.is_elsewhere(&scan.agent, &holder)) {
                continue;
            }
            inbox.adopt(scan.owner.as_ref(), line, now.mono_ms, &self.settings.delivery);
        }
        self.ready.insert(scan.agent.clone());
        // The sweep goes on where a scan stops at the bound.
        if lines.len() == SCAN_PAGE && inbox.tracked() < super::inbox::MAX_TRACKED_ENTRIES {
            let after = lines.last().map(|line| line.id);
            self.scans.push_back(Scan { after, ..scan });
        }
    }

    pub(super) fn take_letters(&mut self) -> Vec<(AgentId, String, DeadLetter)> {
        let mut letters = Vec::new();
        for agent in &self.dying {
            let Some(inbox) = self.inboxes.get(agent) else {
                continue;
            };
            for letter in &inbox.dead {
                if letters.len() == MAX_LETTERS {
                    return letters;
                }
                letters.push((agent.clone(), inbox.stream_of(&letter.key), letter.clone()));
            }
        }
        letters
    }

    /// The next gone instances to clear, but for those that are back or about to be.
    pub(super) fn take_clears(&mut self, jobs: &[Job]) -> Vec<(AgentId, InstanceId)> {
        let count = self.clears.len().min(MAX_CLEARS);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((agent, instance)) = self.clears.pop_front() else {
                break;
            };
            let opening = jobs.iter().any(
                |job| matches!(job, Job::Open(s) if s.identity.agent == agent && s.instance == instance),
            );
            let connected = self.inboxes.get(&agent).is_some_and(|inbox| inbox.slot(&instance).is_some());
            if opening {
                self.clears.push_back((agent, instance));
            } else if !connected {
                taken.push((agent, instance));
            }
        }
        taken
    }

    pub(super) fn found_remains(
        &mut self,
        gathered: &mut Gathered,
        agent: AgentId,
        instance: InstanceId,
        ours: bool,
        pending: Option<Value>,
        own: Option<Value>,
    ) {
        let consumer_free = match &pending {
            Some(Value::Array(lines)) => lines.is_empty(),
            // No stream or no group: nothing is pending.
            Some(value) => answers::error_code(value) == Some("NOGROUP"),
            None => false,
        };
        let unread = own.and_then(answers::entries).unwrap_or_default();
        gathered.clears.push(Clear {
            agent: agent.clone(),
            instance: instance.clone(),
            unread: !unread.is_empty(),
            ours,
            consumer_free,
        });
        if !ours {
            return;
        }
        let stream = keys::instance_inbox(&agent, &instance);
        for StreamEntry { id, envelope, .. } in unread {
            let letter = DeadLetter {
                key: EntryKey { owner: Some(instance.clone()), entry: id },
                holder: instance.clone(),
                attempts: 0,
                reason: "instance_gone".to_owned(),
                history: Vec::new(),
            };
            gathered.letters.push(Letter { agent: agent.clone(), stream: stream.clone(), letter, envelope });
        }
    }
}

/// Senders and keys of messages that may be repetitions.
fn keyed(jobs: &[Job]) -> Vec<(AgentId, String)> {
    let keys_of = |job: &Job| -> Vec<(AgentId, String)> {
        let Some(sender) = job.sender() else {
            return Vec::new();
        };
        job.posts().filter_map(|post| Some((sender.clone(), post.idempotency_key.clone()?))).collect()
    };
    jobs.iter().flat_map(keys_of).collect()
}

fn parse_pending(value: &Value) -> Option<PendingRequest> {
    serde_json::from_str(answers::text(value)?).ok()
}
