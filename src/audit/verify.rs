//! Reads a trail back and says whether it is what was written, and if not, where and how it differs.
//!
//! A [`Verifier`] is fed a trail's lanes, blocks and checkpoints ([`Item`]) from wherever they are kept, in one
//! pass, and the anchor beside it. What it keeps does not grow with the number of records: per lane the
//! tree's frontier and its last roots, per server run its last checkpoint, and the messages that wait.
//!
//! What no code can show without signed checkpoints outside the store: a tail cut off the newest lane, a
//! trail rewritten as a whole, or rolled back, by someone who can write to the store. The report says what
//! was not shown.

mod anchor;
mod custody;
mod damage;
mod lane;
mod seals;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use uuid::Uuid;

use super::keys::KeyHistory;
use super::lane::LaneId;
use super::merkle::{Frontier, Hash};
use super::record::{Decision, View};
use super::segment::Item;

pub use anchor::{AnchorLine, AnchorReader};
pub use custody::Standing;
pub use damage::{Damage, DamageKind, Damages, MAX_DAMAGES, Place, Plain, Stream};

use custody::Custody;
use lane::LaneState;
use seals::{Opened, Seals};

/// Checkpoints of the anchor that the trail has not shown yet; more than this are missing for sure.
const MAX_UNMATCHED: usize = 100_000;

/// What is asked of a verification beside the trail itself.
#[derive(Debug, Default)]
pub struct Questions<'a> {
    /// Which key signed when; without it no signature is checked.
    pub keys: Option<&'a KeyHistory>,
    /// The checkpoints outside the store.
    pub anchor: Option<AnchorReader<'a>>,
    /// The trail may begin in the middle: earlier parts were archived, or not asked for.
    pub partial: bool,
    /// Hand out decisions only: the join with what was delivered is left out.
    pub without_custody: bool,
}

/// On a live store: how old the newest checkpoint may be.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// The time, Unix milliseconds.
    pub now_ms: u64,
    /// The bound, in milliseconds.
    pub max_age_ms: u64,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records whose chain is intact.
    pub records: u64,
    /// Lanes looked at.
    pub lanes: usize,
    /// What is wrong, in the order in which it showed; empty: intact.
    pub damages: Vec<Damage>,
    /// Findings beyond those listed.
    pub further_damages: u64,
    /// Records by decision.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Checkpoints in the trail.
    pub checkpoints: u64,
    /// Checkpoints in the anchor.
    pub anchored: u64,
    /// Checkpoints that are in the anchor only, and newer than those in Redis.
    pub only_anchored: u64,
    /// When the newest checkpoint was signed, Unix milliseconds; 0: there is none.
    pub newest_checkpoint_ms: u64,
    /// Records that no checkpoint covers (yet).
    pub unsealed: u64,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages that are done: acknowledged, dropped or expired.
    pub done: u64,
    /// Messages that are accepted and not done.
    pub waiting: u64,
    /// Messages of before the trail, or of an older server: in Redis, or on record as handed on.
    pub older: u64,
    /// What was not shown, for want of what.
    pub not_shown: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.damages.is_empty()
    }
}

/// A lane's head in a checkpoint, to be met when the lane gets there.
#[derive(Debug)]
struct Expected {
    size: u64,
    root: Hash,
    by: Stream,
}

#[derive(Debug)]
struct Lane {
    state: LaneState,
    expected: VecDeque<Expected>,
}

/// Verifies one trail.
#[derive(Debug)]
pub struct Verifier<'a> {
    questions: Questions<'a>,
    lanes: BTreeMap<LaneId, usize>,
    states: Vec<Lane>,
    /// The lane of the last block: mostly also of the next.
    last: Option<usize>,
    trail: Seals,
    anchor: Seals,
    /// The anchor's next checkpoint, not yet looked at against the lanes.
    ahead: Option<Opened>,
    /// Checkpoints of the anchor that the trail has not shown: counter and text hash.
    unmatched: HashMap<(Uuid, u64), Hash>,
    /// Sum of what the checkpoints say that a run's lanes hold.
    sums: HashMap<Uuid, u64>,
    custody: Custody,
    damages: Damages,
    records: u64,
    decisions: [u64; DECISIONS],
    anchor_unfinished: bool,
    older: u64,
}

/// Codes of decisions are below this.
const DECISIONS: usize = 16;

impl<'a> Verifier<'a> {
    /// Before the first item.
    pub fn new(questions: Questions<'a>) -> Self {
        Self {
            questions,
            lanes: BTreeMap::new(),
            states: Vec::new(),
            last: None,
            trail: Seals::new(Stream::Trail),
            anchor: Seals::new(Stream::Anchor),
            ahead: None,
            unmatched: HashMap::new(),
            sums: HashMap::new(),
            custody: Custody::default(),
            damages: Damages::default(),
            records: 0,
            decisions: [0; DECISIONS],
            anchor_unfinished: false,
            older: 0,
        }
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What is wrong so far.
    pub fn damages(&self) -> &[Damage] {
        self.damages.listed()
    }

    /// Where a lane stands; `None` where it was not seen.
    pub fn lane(&self, lane: &LaneId) -> Option<&Frontier> {
        let at = self.lanes.get(lane)?;
        self.states.get(*at).map(|lane| lane.state.tree())
    }

    /// The next part of the trail; `each` is handed its records. Fails only where the anchor cannot be read.
    pub fn item(&mut self, item: &Item<'_>, each: &mut dyn FnMut(&LaneId, &View<'_>)) -> io::Result<()> {
        match item {
            Item::Lane { lane, registered, before } => {
                self.begin_lane(lane, registered.is_some(), before);
                Ok(())
            }
            Item::Block { lane, first, bytes, root } => self.block(lane, *first, bytes, root, each),
            Item::Checkpoint { note } => self.checkpoint(note),
        }
    }

    fn begin_lane(&mut self, id: &str, registered: bool, before: &Frontier) {
        let Some(at) = self.lanes.get(id).copied() else {
            let _ = self.add_lane(id, registered, before.clone());
            return;
        };
        // A second file, or the live store behind archives, goes on where the first one stopped.
        let Some(lane) = self.states.get_mut(at) else {
            return;
        };
        lane.state.registered |= registered;
        if before != lane.state.tree() && !lane.state.broken && before.size() > 0 {
            lane.state.broken = true;
            let place = Place::Record { lane: lane.state.id.clone(), seq: before.size() };
            self.damages.add(place, DamageKind::WrongStart);
        }
    }

    fn add_lane(&mut self, id: &str, registered: bool, before: Frontier) -> usize {
        let id = LaneId::from_stored(id);
        let at = self.states.len();
        let state = LaneState::new(id.clone(), registered, before);
        self.states.push(Lane { state, expected: VecDeque::new() });
        let _ = self.lanes.insert(id, at);
        at
    }

    fn index(&mut self, id: &str) -> usize {
        let is_it = |at: &usize| self.states.get(*at).is_some_and(|lane| lane.state.id.as_str() == id);
        if let Some(at) = self.last.filter(is_it) {
            return at;
        }
        let at = match self.lanes.get(id) {
            Some(at) => *at,
            None => self.add_lane(id, false, Frontier::default()),
        };
        self.last = Some(at);
        at
    }

    fn block(
        &mut self,
        id: &str,
        first: u64,
        bytes: &[u8],
        root: &[u8],
        each: &mut dyn FnMut(&LaneId, &View<'_>),
    ) -> io::Result<()> {
        let at = self.index(id);
        // What was signed before this block was made must be known before it is read.
        if let Some(time_us) = super::lane::first_record(bytes).and_then(View::time_of) {
            self.read_anchor(|ahead| ahead.time_ms.saturating_mul(1000) <= time_us)?;
        }
        let Some(lane) = self.states.get_mut(at) else {
            return Ok(());
        };
        if lane.state.broken {
            return Ok(());
        }
        let (custody, decisions, records) = (&mut self.custody, &mut self.decisions, &mut self.records);
        let joined = !self.questions.without_custody;
        let id = lane.state.id.clone();
        let checked = lane.state.block(first, bytes, root, &mut |record| {
            *records += 1;
            if let Some(count) = decisions.get_mut(usize::from(record.decision.code())) {
                *count += 1;
            }
            if joined {
                custody.record(&id, record);
            }
            each(&id, record);
        });
        if let Err((seq, kind)) = checked {
            lane.state.broken = true;
            lane.expected.clear();
            self.damages.add(Place::Record { lane: id, seq }, kind);
            return Ok(());
        }
        self.meet(at);
        Ok(())
    }

    /// Compares what checkpoints say of a lane with what it has reached.
    fn meet(&mut self, at: usize) {
        let Some(lane) = self.states.get_mut(at) else {
            return;
        };
        while let Some(expected) = lane.expected.front()
            && expected.size <= lane.state.size()
        {
            let Some(Expected { size, root, by }) = lane.expected.pop_front() else {
                return;
            };
            if lane.state.root_at(size) == Some(root) {
                lane.state.sealed = lane.state.sealed.max(size);
            } else {
                lane.state.broken = true;
                lane.expected.clear();
                let place = Place::Record { lane: lane.state.id.clone(), seq: size };
                self.damages.add(place, DamageKind::Rewritten { sealed: size, by });
            }
        }
    }

    fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        let Some(opened) = self.trail.open(note, self.questions.keys, &mut self.damages) else {
            return Ok(());
        };
        let (boot, counter) = (opened.checkpoint.boot, opened.checkpoint.counter);
        let time_ms = opened.checkpoint.time_ms;
        self.read_anchor(|ahead| ahead.time_ms <= time_ms)?;
        match self.unmatched.remove(&(boot, counter)) {
            Some(hash) if hash != opened.hash => {
                let place = self.trail.place(&opened.checkpoint);
                self.damages.add(place, DamageKind::AnchorDiffers);
            }
            Some(_) | None => {}
        }
        if self.trail.count == 1 {
            // What is older stands in the anchor alone: Redis keeps the newest ones only.
            self.unmatched.clear();
        }
        if opened.in_order {
            self.check_sum(&opened);
            self.expect(&opened, Stream::Trail);
        }
        Ok(())
    }

    /// A checkpoint counts the records of all lanes that its run has listed: those that it does not list have
    /// not grown.
    fn check_sum(&mut self, opened: &Opened) {
        let checkpoint = &opened.checkpoint;
        let boot = checkpoint.boot;
        let complete = self.sums.contains_key(&boot) || checkpoint.counter == 1;
        let mut sum = self.sums.get(&boot).copied().unwrap_or(0);
        for head in &checkpoint.lanes {
            let at = self.index(head.lane.as_str());
            if let Some(lane) = self.states.get_mut(at) {
                let before = lane.state.stated.filter(|(by, _)| *by == boot).map_or(0, |(_, size)| size);
                sum += head.head.seq.saturating_sub(before);
                lane.state.stated = Some((boot, head.head.seq.max(before)));
            }
        }
        if !complete {
            return;
        }
        if sum != checkpoint.size {
            let kind = DamageKind::SizeDiffers { counted: sum, stated: checkpoint.size };
            self.damages.add(self.trail.place(checkpoint), kind);
        }
        let _ = self.sums.insert(boot, checkpoint.size);
    }

    /// What a checkpoint says of its lanes must be so.
    fn expect(&mut self, opened: &Opened, by: Stream) {
        for head in &opened.checkpoint.lanes {
            let at = self.index(head.lane.as_str());
            let Some(lane) = self.states.get_mut(at) else {
                continue;
            };
            let (size, root) = (head.head.seq, head.head.hash);
            let before_this_trail = lane.state.start() > size;
            let met = lane.state.sealed == size && lane.state.root_at(size) == Some(root);
            if lane.state.broken || before_this_trail || met {
                continue;
            }
            // Of the trail's and the anchor's checkpoint of one number the second says nothing new.
            let again = lane.expected.back().is_some_and(|last| last.size == size && last.root == root);
            if again {
                continue;
            }
            if lane.expected.back().is_some_and(|last| last.size > size) {
                // Checkpoints only grow; one that is out of its order is compared out of order.
                let place = lane.expected.partition_point(|last| last.size <= size);
                lane.expected.insert(place, Expected { size, root, by });
            } else {
                lane.expected.push_back(Expected { size, root, by });
            }
            self.meet(at);
        }
    }

    /// Reads the anchor on while its next checkpoint is `due`.
    fn read_anchor(&mut self, due: impl Fn(&super::checkpoint::Checkpoint) -> bool) -> io::Result<()> {
        if self.questions.anchor.is_none() {
            return Ok(());
        }
        loop {
            if self.ahead.is_none() {
                self.ahead = self.next_anchored()?;
            }
            let Some(opened) = self.ahead.take_if(|ahead| due(&ahead.checkpoint)) else {
                return Ok(());
            };
            self.anchored(&opened);
        }
    }

    fn next_anchored(&mut self) -> io::Result<Option<Opened>> {
        let Some(reader) = &mut self.questions.anchor else {
            return Ok(None);
        };
        loop {
            let note = match reader.next_line()? {
                None => return Ok(None),
                Some(AnchorLine::Unfinished) => {
                    self.anchor_unfinished = true;
                    continue;
                }
                Some(AnchorLine::Malformed) => String::new(),
                Some(AnchorLine::Note(note)) => note,
            };
            if let Some(opened) = self.anchor.open(&note, self.questions.keys, &mut self.damages) {
                return Ok(Some(opened));
            }
        }
    }

    fn anchored(&mut self, opened: &Opened) {
        let checkpoint = &opened.checkpoint;
        let key = (checkpoint.boot, checkpoint.counter);
        if self.trail.reaches(&key.0, key.1) {
            // The trail has passed this number already: it was compared, or it is missing there, which shows there.
        } else if self.unmatched.len() < MAX_UNMATCHED {
            let _ = self.unmatched.insert(key, opened.hash);
        }
        if opened.in_order {
            self.expect(opened, Stream::Anchor);
        }
    }

    /// What the trail says of a message that waits in Redis.
    pub fn standing(&self, id: Uuid) -> Standing {
        self.custody.standing(id)
    }

    /// A message that waits in Redis and that nobody was allowed to send.
    pub fn not_recorded(&mut self, stream: &str, id: &str, message: Uuid) {
        let place = Place::Entry { stream: stream.to_owned(), id: id.to_owned() };
        self.damages.add(place, DamageKind::NotRecorded { message });
    }

    /// Messages that wait in Redis and are of before the trail.
    pub fn add_older(&mut self, count: u64) {
        self.older += count;
    }

    /// The trail has been read to its end.
    pub fn finish(mut self, freshness: Option<Freshness>) -> io::Result<Report> {
        self.read_anchor(|_| true)?;
        self.check_lanes();
        if let Some(Freshness { now_ms, max_age_ms }) = freshness
            && self.trail.count > 0
        {
            let newest_ms = self.trail.newest_ms().max(self.anchor.newest_ms());
            let age_ms = now_ms.saturating_sub(newest_ms);
            if age_ms > max_age_ms {
                let number = self.trail.count;
                let place = Place::Note { stream: Stream::Trail, number };
                self.damages.add(place, DamageKind::Stale { age_ms });
            }
        }
        let older = match self.questions.without_custody {
            true => 0,
            false => self.custody.finish(&mut self.damages),
        };
        Ok(self.report(older))
    }

    /// The lanes against each other, the registry and what was signed.
    fn check_lanes(&mut self) {
        let mut found = Vec::new();
        for at in self.lanes.values() {
            let Some(lane) = self.states.get(*at).filter(|lane| !lane.state.broken) else {
                continue;
            };
            let state = &lane.state;
            let place = |seq| Place::Record { lane: state.id.clone(), seq };
            if state.size() == 0 {
                found.push((place(0), DamageKind::LaneMissing));
                continue;
            }
            if let Some(Expected { size, by, .. }) = lane.expected.front() {
                found.push((place(state.size()), DamageKind::Truncated { sealed: *size, by: *by }));
            }
            if !state.registered {
                found.push((place(state.size()), DamageKind::LaneUnlisted));
            }
            found.extend(self.check_predecessor(state));
        }
        for (place, kind) in found {
            self.damages.add(place, kind);
        }
    }

    fn check_predecessor(&self, state: &LaneState) -> Option<(Place, DamageKind)> {
        let (previous, stated) = state.predecessor.as_ref()?;
        let found = self.lanes.get(previous).and_then(|at| self.states.get(*at)).map(|lane| &lane.state);
        if found.is_some_and(|found| found.broken) || (found.is_none() && self.questions.partial) {
            return None;
        }
        let (seq, hash) = found.map_or((0, None), |found| {
            let (seq, hash) = found.end();
            (seq, Some(hash))
        });
        // A lane that never held a record has no stream.
        let agrees = |(at, root): &(u64, String)| *at == seq && hash.as_ref().is_none_or(|hash| hash == root);
        if stated.iter().any(agrees) {
            return None;
        }
        let stated: Vec<String> = stated.iter().map(|(seq, _)| seq.to_string()).collect();
        let place = Place::Record { lane: previous.clone(), seq };
        Some((place, DamageKind::TailDiffers { stated: stated.join(" or ") }))
    }

    fn report(self, older: u64) -> Report {
        let not_shown = self.not_shown();
        let unsealed = |state: &LaneState| state.size() - state.sealed.max(state.start());
        let unsealed = self.states.iter().map(|lane| unsealed(&lane.state)).sum();
        let decisions = Decision::ALL
            .iter()
            .filter_map(|decision| {
                let count = *self.decisions.get(usize::from(decision.code()))?;
                (count > 0).then_some((decision.as_str(), count))
            })
            .collect();
        Report {
            records: self.records,
            lanes: self.states.len(),
            decisions,
            checkpoints: self.trail.count,
            anchored: self.anchor.count,
            newest_checkpoint_ms: self.trail.newest_ms().max(self.anchor.newest_ms()),
            only_anchored: self.unmatched.len() as u64,
            unsealed,
            accepted: self.custody.accepted,
            done: self.custody.done,
            waiting: self.custody.waiting(),
            older: self.older + older,
            not_shown,
            further_damages: self.damages.further(),
            damages: self.damages.listed().to_vec(),
        }
    }

    fn not_shown(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |when: bool, text: &str| {
            if when {
                lines.push(text.to_owned());
            }
        };
        say(
            self.trail.count == 0 && self.anchor.count == 0,
            "without signed checkpoints: records cut off the newest end of a lane, and a trail that was \
             rewritten as a whole",
        );
        say(
            self.questions.keys.is_none() && (self.trail.count > 0 || self.anchor.count > 0),
            "without the public key: who signed the checkpoints",
        );
        say(
            self.questions.anchor.is_none() && self.trail.count > 0,
            "without the anchor: whether the whole store was rolled back to an older state, or cut at a \
             checkpoint",
        );
        say(self.questions.partial, "what was before this part of the trail");
        say(
            self.trail.headless && (self.anchor.count == 0 || self.anchor.headless),
            "what the checkpoints sealed that came before the first one here",
        );
        say(self.anchor_unfinished, "the anchor's last line, which is not finished");
        say(
            self.trail.fresh_starts > 0,
            "the order of server runs where a run did not know of the checkpoints before it: its anchor was new",
        );
        lines
    }
}

#[cfg(test)]
mod tests;
