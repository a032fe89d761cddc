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
mod report;
mod seals;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;

use uuid::Uuid;

use super::attest::NotOurs;
use super::checkpoint::Checkpoint;
use super::keys::KeyHistory;
use super::lane::{Head, LaneId, StatedEnd};
use super::merkle::{Frontier, Hash};
use super::record::{Action, Decision, View};
use super::segment::{Attested, Item};

pub use anchor::{AnchorLine, AnchorReader};
pub use custody::Standing;
pub use damage::{Damage, DamageKind, Damages, MAX_DAMAGES, Place, Plain, Stream};
pub use report::Report;

use custody::{Custody, Missing};
use lane::{LaneState, REMEMBERED_ROOTS};
use seals::{Opened, Seals};

/// Checkpoints of the anchor that the trail has not shown yet; more than this are missing for sure.
const MAX_UNMATCHED: usize = 100_000;
/// Roots of lanes that are remembered, over all lanes that have more than the least: 80 MB.
const MAX_REMEMBERED_ROOTS: usize = 2_000_000;

/// Acknowledgements that are taken note of.
const MAX_ACKNOWLEDGED: usize = 100_000;

/// What is asked of a verification beside the trail itself.
#[derive(Debug, Default)]
pub struct Questions<'a> {
    /// Which key signed when, for each log; without any no signature is checked.
    pub keys: &'a [KeyHistory],
    /// The checkpoints outside the store, one file per log or per server.
    pub anchors: Vec<AnchorReader<'a>>,
    /// The trail may begin in the middle: earlier parts were archived, or not asked for.
    pub partial: bool,
    /// Archives of other hosts that have parts which are not in this trail: lanes may go on behind them.
    pub elsewhere: Vec<String>,
    /// Hand out decisions only: the join with what was delivered is left out.
    pub without_custody: bool,
}

/// On a live store: how old the newest checkpoint may be.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// The time, Unix milliseconds.
    pub now_ms: u64,
    /// The bound where nothing happens, in milliseconds.
    pub max_age_ms: u64,
    /// How old a record may be that no checkpoint covers.
    pub max_unsealed_ms: u64,
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
    /// Roots that lanes remember, all together.
    remembered: usize,
    trail: Seals,
    anchors: Vec<Anchor<'a>>,
    /// Checkpoints of the anchors that the trail has not shown: counter and text hash.
    unmatched: HashMap<(Uuid, u64), Hash>,
    custody: Custody,
    damages: Damages,
    records: u64,
    decisions: [u64; DECISIONS],
    older: u64,
    /// Messages that should wait and were not found.
    not_found: Vec<Uuid>,
    /// Dead letters that may be in files which are not here.
    letters_elsewhere: u64,
    vanished: u64,
    /// Lanes of before the log's beginning, and where they ended then.
    taken_over: BTreeMap<LaneId, Head>,
    /// Nobody can look at the tags of what is in Redis.
    without_store_keys: bool,
    /// Lanes with tags of a store key that is not at hand.
    other_keys: HashSet<String>,
    /// Time of the first record behind the newest checkpoint of the trail, Unix microseconds.
    unsealed_since_us: Option<u64>,
    /// What operators have acknowledged, by the damage's id: where that is on record, by whom and why.
    acknowledged: HashMap<String, (LaneId, u64, String)>,
    /// The last record of each lane that is known to be a server's, or an operator's command's.
    attested: HashMap<LaneId, u64>,
}

/// One anchor, read side by side with the trail.
#[derive(Debug)]
struct Anchor<'a> {
    reader: AnchorReader<'a>,
    seals: Seals,
    /// Its next checkpoint, not yet looked at against the lanes.
    ahead: Option<Opened>,
    /// Its last line is not finished.
    unfinished: bool,
}

/// Codes of decisions are below this.
const DECISIONS: usize = 16;

impl<'a> Verifier<'a> {
    /// Before the first item.
    pub fn new(mut questions: Questions<'a>) -> Self {
        let anchor =
            |reader| Anchor { reader, seals: Seals::new(Stream::Anchor), ahead: None, unfinished: false };
        let anchors = questions.anchors.drain(..).map(anchor).collect();
        let mut trail = Seals::new(Stream::Trail);
        if !questions.elsewhere.is_empty() {
            trail.allow_gaps();
        }
        let mut custody = Custody::default();
        if questions.partial {
            custody.begins_in_the_middle();
        }
        Self {
            anchors,
            questions,
            lanes: BTreeMap::new(),
            states: Vec::new(),
            last: None,
            remembered: 0,
            trail,
            unmatched: HashMap::new(),
            custody,
            damages: Damages::default(),
            records: 0,
            decisions: [0; DECISIONS],
            older: 0,
            not_found: Vec::new(),
            letters_elsewhere: 0,
            vanished: 0,
            taken_over: BTreeMap::new(),
            without_store_keys: false,
            other_keys: HashSet::new(),
            unsealed_since_us: None,
            acknowledged: HashMap::new(),
            attested: HashMap::new(),
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
            Item::Block { lane, first, bytes, root, attested } => {
                match attested {
                    Attested::Foreign if !self.is_taken_over(lane, *first) => self.not_written(lane, *first),
                    Attested::OtherKey => self.other_key(lane, *first),
                    Attested::Foreign | Attested::Ours | Attested::NotLooked => {}
                }
                self.block(lane, *first, bytes, root, each)?;
                if *attested == Attested::Ours {
                    self.ours(lane);
                }
                Ok(())
            }
            Item::Checkpoint { note } => {
                self.unsealed_since_us = None;
                self.checkpoint(note)
            }
        }
    }

    /// Nobody else has written the block that a lane ends with: its tag is over the root, and the root over its records.
    fn ours(&mut self, lane: &str) {
        let state = self.lanes.get(lane).and_then(|at| self.states.get(*at)).map(|lane| &lane.state);
        let Some(state) = state.filter(|state| !state.broken) else {
            return;
        };
        match self.attested.get_mut(lane) {
            Some(known) => *known = state.size(),
            None => drop(self.attested.insert(state.id.clone(), state.size())),
        }
    }

    /// What operators have acknowledged leaves the damages. It counts only where a checkpoint covers it, or the store key does.
    fn acknowledge(&self, damages: Vec<Damage>) -> (Vec<Damage>, Vec<(Damage, String)>) {
        let (mut left, mut acknowledged) = (Vec::new(), Vec::new());
        for damage in damages {
            let by = self.acknowledged.get(&damage.id()).filter(|(lane, seq, _)| {
                let state = self.lanes.get(lane).and_then(|at| self.states.get(*at)).map(|lane| &lane.state);
                state.is_some_and(|state| !self.questions.keys.is_empty() && state.sealed >= *seq)
                    || self.attested.get(lane).is_some_and(|last| last >= seq)
            });
            match by {
                Some((_, _, why)) => acknowledged.push((damage, why.clone())),
                None => left.push(damage),
            }
        }
        (left, acknowledged)
    }

    /// Lanes of before the log's beginning, and where they ended then.
    pub fn taken_over(&mut self, lanes: BTreeMap<LaneId, Head>) {
        self.custody.older_lanes(lanes.keys().cloned());
        self.taken_over = lanes;
    }

    /// Nobody can look at the tags of what is in Redis.
    pub fn without_store_keys(&mut self) {
        self.without_store_keys = true;
    }

    fn is_taken_over(&self, lane: &str, seq: u64) -> bool {
        self.taken_over.get(lane).is_some_and(|head| seq <= head.seq)
    }

    /// A block that has no tag; what follows in its lane proves nothing.
    fn not_written(&mut self, lane: &str, seq: u64) {
        let at = self.index(lane);
        let Some(lane) = self.states.get_mut(at).filter(|lane| !lane.state.broken) else {
            return;
        };
        lane.state.broken = true;
        lane.expected.clear();
        let place = Place::Record { lane: lane.state.id.clone(), seq };
        self.damages.add(place, DamageKind::NotAttested);
    }

    /// A block whose tag names a store key that is not at hand: said once a lane.
    fn other_key(&mut self, lane: &str, seq: u64) {
        if self.other_keys.insert(lane.to_owned()) {
            let place = Place::Record { lane: LaneId::from_stored(lane), seq };
            self.damages.add(place, DamageKind::OtherStoreKey);
        }
    }

    /// Something in Redis, an entry of a stream or a key's value, that no server has put there.
    pub fn not_attested(&mut self, key: &str, id: &str, why: NotOurs) {
        let place = Place::Entry { stream: key.to_owned(), id: id.to_owned() };
        let kind = match why {
            NotOurs::Foreign => DamageKind::NotAttested,
            NotOurs::UnknownKey => DamageKind::OtherStoreKey,
        };
        self.damages.add(place, kind);
    }

    /// The newest versions of agents' states that are on record so far.
    pub fn state_versions(&self) -> Vec<(String, u64)> {
        let mut versions: Vec<(String, u64)> =
            self.custody.versions().map(|(agent, version)| (agent.to_owned(), version)).collect();
        versions.sort();
        versions
    }

    /// An agent's state has version `found` in Redis, and `recorded` was on record before that was read.
    pub fn state_version(&mut self, agent: &str, key: String, found: u64, recorded: u64) {
        if found < recorded {
            let place = Place::Entry { stream: key, id: agent.to_owned() };
            self.damages.add(place, DamageKind::StateRolledBack { found, recorded });
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
        // What lies between was archived elsewhere; or is of before this part, and only the anchor has spoken of it.
        let is_jump =
            !self.questions.elsewhere.is_empty() || self.questions.partial && lane.state.size() == 0;
        if before.size() > lane.state.size() && !lane.state.broken && is_jump {
            let differs =
                |expected: &&Expected| expected.size == before.size() && expected.root != before.root();
            if let Some(Expected { size, by, .. }) = lane.expected.iter().find(differs) {
                let place = Place::Record { lane: lane.state.id.clone(), seq: *size };
                self.damages.add(place, DamageKind::Rewritten { sealed: *size, by: *by });
            }
            let state = LaneState::new(lane.state.id.clone(), lane.state.registered, before.clone());
            self.remembered = self.remembered.saturating_sub(lane.state.remembered());
            lane.state = state;
            lane.expected.retain(|expected| expected.size > before.size());
            self.custody.interrupted();
            return;
        }
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
            let _ = self.unsealed_since_us.get_or_insert(time_us);
        }
        let Some(lane) = self.states.get_mut(at) else {
            return Ok(());
        };
        if lane.state.broken {
            return Ok(());
        }
        let (custody, decisions, records) = (&mut self.custody, &mut self.decisions, &mut self.records);
        // Of a block that is damaged nothing is believed.
        let mut acknowledged = Vec::new();
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
            if record.action == Action::Acknowledged {
                let by = (id.clone(), record.seq, record.reason.to_owned());
                acknowledged.push((record.target.to_owned(), by));
            }
            each(&id, record);
        });
        if let Err((seq, kind)) = checked {
            lane.state.broken = true;
            lane.expected.clear();
            self.damages.add(Place::Record { lane: id, seq }, kind);
            return Ok(());
        }
        let room = MAX_ACKNOWLEDGED.saturating_sub(self.acknowledged.len());
        self.acknowledged.extend(acknowledged.into_iter().take(room));
        self.remember();
        self.meet(at);
        Ok(())
    }

    /// Keeps the memory of roots within its bound: lanes remember as much as they can together, so that a
    /// server whose clock was stepped does not look as if its trail had been rewritten.
    fn remember(&mut self) {
        self.remembered += 1;
        if self.remembered <= MAX_REMEMBERED_ROOTS {
            return;
        }
        let each = (MAX_REMEMBERED_ROOTS / 2 / self.states.len().max(1)).max(REMEMBERED_ROOTS);
        self.remembered = 0;
        for lane in &mut self.states {
            lane.state.forget_roots(each);
            self.remembered += lane.state.remembered();
        }
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
        if self.anchor_knows(&opened.checkpoint.previous) {
            // Its writer was killed between the anchor and Redis.
            self.trail.found_elsewhere(&opened.checkpoint.previous);
        }
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
        if opened.is_new {
            self.expect(&opened.checkpoint, Stream::Trail);
        }
        Ok(())
    }

    /// What a checkpoint says of its lanes must be so.
    fn expect(&mut self, checkpoint: &Checkpoint, by: Stream) {
        for head in &checkpoint.lanes {
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

    /// Reads the anchors on while their next checkpoint is `due`.
    fn read_anchor(&mut self, due: impl Fn(&Checkpoint) -> bool) -> io::Result<()> {
        for at in 0..self.anchors.len() {
            loop {
                let Some(anchor) = self.anchors.get_mut(at) else {
                    return Ok(());
                };
                if anchor.ahead.is_none() {
                    anchor.ahead = anchor.next(self.questions.keys, &mut self.damages)?;
                }
                let Some(opened) = anchor.ahead.take_if(|ahead| due(&ahead.checkpoint)) else {
                    break;
                };
                self.anchored(&opened);
            }
        }
        Ok(())
    }

    fn anchor_knows(&self, hash: &Hash) -> bool {
        self.anchors.iter().any(|anchor| anchor.seals.knows(hash))
    }

    fn anchored(&mut self, opened: &Opened) {
        let checkpoint = &opened.checkpoint;
        let key = (checkpoint.boot, checkpoint.counter);
        if self.trail.differs(&key.0, key.1, &opened.hash) {
            let place = self.trail.place(checkpoint);
            self.damages.add(place, DamageKind::AnchorDiffers);
        }
        // Where the trail has passed this number, it was compared, or is missing there, which shows there.
        if !self.trail.reaches(&key.0, key.1) && self.unmatched.len() < MAX_UNMATCHED {
            let _ = self.unmatched.insert(key, opened.hash);
        }
        if opened.is_new {
            self.expect(checkpoint, Stream::Anchor);
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

    /// Messages that must be in an inbox, as far as the trail was read.
    pub fn waiting(&self) -> HashSet<Uuid> {
        self.custody.waiting_ids(self.questions.partial)
    }

    /// Messages that must be among the dead letters, as far as the trail was read.
    pub fn letters(&self) -> HashSet<Uuid> {
        self.custody.letter_ids(self.questions.partial)
    }

    /// Whether a dead letter may have been moved to a file.
    pub fn may_be_moved(&self, letter: &Uuid) -> bool {
        self.custody.may_be_moved(*letter)
    }

    /// How many dead letters were moved to files of archives, as far as the trail was read.
    pub fn moved_letters(&self) -> u64 {
        self.custody.moved_letters
    }

    /// So many dead letters are in no place that was looked at, and may be in a file that was not.
    pub fn letters_elsewhere(&mut self, count: u64) {
        self.letters_elsewhere = count;
    }

    /// These are in no inbox, and not among the dead letters.
    pub fn not_found(&mut self, messages: Vec<Uuid>) {
        self.not_found = messages;
    }

    /// Judges what was not found, where the trail itself is intact: the records that are missing may say that a message
    /// is done.
    fn check_missing(&mut self) {
        let (left, _) = self.acknowledge(self.damages.listed().to_vec());
        if !left.is_empty() || self.damages.further() > 0 {
            return;
        }
        for message in std::mem::take(&mut self.not_found) {
            match self.custody.missing(message) {
                None => {}
                Some(Missing::Noticed) => self.vanished += 1,
                Some(Missing::Letter { agent }) => {
                    self.damages.add(Place::Message { message }, DamageKind::LetterMissing { agent });
                }
                Some(Missing::Unnoticed { agent }) => {
                    self.damages.add(Place::Message { message }, DamageKind::MessageMissing { agent });
                }
            }
        }
    }

    /// Messages that wait in Redis and are of before the trail.
    pub fn add_older(&mut self, count: u64) {
        self.older += count;
    }

    /// The trail has been read to its end.
    pub fn finish(mut self, freshness: Option<Freshness>) -> io::Result<Report> {
        self.read_anchor(|_| true)?;
        self.trail.finish(&mut self.damages);
        for anchor in &mut self.anchors {
            anchor.seals.finish(&mut self.damages);
        }
        self.check_lanes();
        if let Some(Freshness { now_ms, max_age_ms, max_unsealed_ms }) = freshness
            && self.trail.count > 0
        {
            let age_ms = now_ms.saturating_sub(self.newest_ms());
            // The anchor may have a newer one.
            let since_ms =
                self.unsealed_since_us.map(|us| us / 1000).filter(|since| *since > self.newest_ms());
            let unsealed_ms = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
            if age_ms > max_age_ms || unsealed_ms > max_unsealed_ms {
                let number = self.trail.count;
                let place = Place::Note { stream: Stream::Trail, number };
                self.damages.add(place, DamageKind::Stale { age_ms });
            }
        }
        let older = match self.questions.without_custody {
            true => 0,
            false => self.custody.finish(&mut self.damages),
        };
        self.check_missing();
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
                // Of a part without the first, the anchor speaks of lanes that ended before it.
                if state.registered || !self.questions.partial {
                    found.push((place(0), DamageKind::LaneMissing));
                }
                continue;
            }
            if let Some(Expected { size, by, .. }) = lane.expected.front() {
                found.push((place(state.size()), DamageKind::Truncated { sealed: *size, by: *by }));
            }
            if !state.registered {
                found.push((place(state.size()), DamageKind::LaneUnlisted));
            }
            found.extend(state.predecessors.iter().filter_map(|stated| self.check_predecessor(stated)));
        }
        for (place, kind) in found {
            self.damages.add(place, kind);
        }
    }

    fn check_predecessor(&self, (previous, stated): &StatedEnd) -> Option<(Place, DamageKind)> {
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
        // Of what the store was allowed to lose any number of blocks may be there; each was checked by itself.
        let between = |(first, _): &(u64, String), (last, _): &(u64, String)| *first < seq && seq < *last;
        if stated.first().zip(stated.last()).is_some_and(|(first, last)| between(first, last)) {
            return None;
        }
        let stated: Vec<String> = stated.iter().map(|(seq, _)| seq.to_string()).collect();
        let place = Place::Record { lane: previous.clone(), seq };
        Some((place, DamageKind::TailDiffers { stated: stated.join(" or ") }))
    }

    fn report(self, older: u64) -> Report {
        let (damages, acknowledged) = self.acknowledge(self.damages.listed().to_vec());
        let mut not_shown = self.not_shown();
        let broken = |(damage, _): &&(Damage, String)| matches!(damage.place, Place::Record { .. });
        match acknowledged.iter().filter(broken).count() {
            0 => {}
            places => {
                not_shown.push(format!("what lanes hold behind acknowledged damage, at {places} places"));
            }
        }
        let unsealed = |state: &LaneState| state.size() - state.sealed.max(state.start());
        let unsealed = self.states.iter().map(|lane| unsealed(&lane.state)).sum();
        let decisions = Decision::ALL
            .iter()
            .filter_map(|decision| {
                let count = *self.decisions.get(usize::from(decision.code()))?;
                (count > 0).then_some((decision.as_str(), count))
            })
            .collect();
        let older_lanes = self.taken_over.keys().filter_map(|lane| self.lanes.get(lane));
        let older_lanes = older_lanes.filter_map(|at| self.states.get(*at));
        let taken_over_records = older_lanes.map(|lane| lane.state.size()).sum();
        Report {
            acknowledged,
            taken_over: self.custody.taken_over,
            taken_over_records,
            records: self.records,
            lanes: self.states.len(),
            decisions,
            checkpoints: self.trail.count,
            anchored: self.anchored_count(),
            newest_checkpoint_ms: self.newest_ms(),
            only_anchored: self.unmatched.len() as u64,
            unsealed,
            accepted: self.custody.accepted,
            done: self.custody.done,
            waiting: self.custody.waiting(),
            vanished: self.vanished,
            older: self.older + older,
            not_shown,
            further_damages: self.damages.further(),
            damages,
        }
    }

    fn newest_ms(&self) -> u64 {
        let anchored = self.anchors.iter().map(|anchor| anchor.seals.newest_ms()).max();
        self.trail.newest_ms().max(anchored.unwrap_or(0))
    }

    fn anchored_count(&self) -> u64 {
        self.anchors.iter().map(|anchor| anchor.seals.count).sum()
    }

    fn not_shown(&self) -> Vec<String> {
        let anchored = self.anchored_count();
        let mut lines = Vec::new();
        let mut say = |when: bool, text: &str| {
            if when {
                lines.push(text.to_owned());
            }
        };
        say(
            self.trail.count == 0 && anchored == 0,
            "without signed checkpoints: records cut off the newest end of a lane, and a trail that was \
             rewritten as a whole",
        );
        say(
            self.questions.keys.is_empty() && (self.trail.count > 0 || anchored > 0),
            "without the public key: who signed the checkpoints",
        );
        say(
            self.without_store_keys,
            "without the store keys: whether servers have written what no checkpoint covers, and what waits",
        );
        say(
            self.anchors.is_empty() && self.trail.count > 0,
            "without the anchor: whether the whole store was rolled back to an older state, or cut at a \
             checkpoint",
        );
        let elsewhere = self.questions.elsewhere.join(", ");
        say(
            !elsewhere.is_empty(),
            &format!("what was archived in {elsewhere}: its folder is one more --archive"),
        );
        say(self.questions.partial && elsewhere.is_empty(), "what was before this part of the trail");
        say(
            !self.not_found.is_empty(),
            "beside the damage: whether messages that are in no inbox were removed, or are done",
        );
        say(
            self.letters_elsewhere > 0,
            &format!(
                "{} dead letters that are not in Redis: not all files that dead letters were moved to are here, or can be \
                 read",
                self.letters_elsewhere
            ),
        );
        say(
            self.trail.headless && (anchored == 0 || self.anchors.iter().any(|anchor| anchor.seals.headless)),
            "what the checkpoints sealed that came before the first one here",
        );
        say(
            self.anchors.iter().any(|anchor| anchor.unfinished),
            "the anchor's last line, which is not finished",
        );
        say(
            self.trail.fresh_starts > 0,
            "whether server runs that name no checkpoint before them are those of logs of their own",
        );
        lines
    }
}

impl Anchor<'_> {
    /// Its next checkpoint.
    fn next(&mut self, keys: &[KeyHistory], damages: &mut Damages) -> io::Result<Option<Opened>> {
        loop {
            let note = match self.reader.next_line()? {
                None => return Ok(None),
                Some(AnchorLine::Unfinished) => {
                    self.unfinished = true;
                    continue;
                }
                Some(AnchorLine::Malformed) => String::new(),
                Some(AnchorLine::Note(note)) => note,
            };
            if let Some(opened) = self.seals.open(&note, keys, damages) {
                return Ok(Some(opened));
            }
        }
    }
}

#[cfg(test)]
mod tests;
