//! The beginning of a log on a Redis that holds something already: of an earlier version, or of the Python server. It is
//! taken over once: messages, replies, dead letters, pending requests and what idempotency keys remember get their tags,
//! and go on record as taken over. The lanes that are there stay as they are; nobody vouches for them but the signatures
//! that they have.

use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::lane::Head;
use crate::audit::{Action, Decision, Fields, Lane, LaneId, StoreKeys};
use crate::clock::Now;
use crate::envelope::message_id_of;
use crate::ids::hex;
use crate::store::answers::{EntryId, WholeEntry};
use crate::store::attested::{Foreign, OnRecord};
use crate::store::older::{self, Done, Place};
use crate::store::{Batch, Connection, Endpoint, StoreError, Value, answers, foreign, overview, trail};

/// Entries of one transaction, and messages of one record.
const PAGE: usize = 16;
/// What a Redis that syncs its file every second may lose of what it has answered.
const UNSYNCED: Duration = Duration::from_millis(2100);

/// What was taken over.
#[derive(Debug, Default)]
struct Count {
    messages: u64,
    letters: u64,
    done: u64,
    values: u64,
    states: u64,
    lanes: u64,
    foreign: u64,
}

/// The writer of what is taken over: one lane.
struct Takeover<'a> {
    connection: Connection,
    keys: &'a StoreKeys,
    lane: Lane,
    opened: bool,
    policy_version: &'a [u8],
    count: Count,
}

/// Takes over whatever the Redis holds that has no tag. It may be run again after it was interrupted.
pub(crate) fn run(endpoint: &Endpoint, keys: &StoreKeys, policy_version: &[u8]) -> Result<(), StoreError> {
    let mut takeover = Takeover {
        connection: endpoint.open()?,
        keys,
        lane: Lane::new(LaneId::new(Uuid::now_v7(), 0, 1)),
        opened: false,
        policy_version,
        count: Count::default(),
    };
    takeover.lanes()?;
    takeover.streams()?;
    takeover.values()?;
    takeover.states()?;
    takeover.close()?;
    let Count { messages, letters, done, values, states, lanes, foreign } = takeover.count;
    if done + messages + letters + values + states + lanes + foreign > 0 {
        // What is lost after the file says that this is done would be a stranger's.
        std::thread::sleep(UNSYNCED);
        log::warn!(
            code = "data_taken_over", messages, letters, lanes, foreign;
            "this log begins on a Redis that was in use: taken over are {messages} messages ({done} more were acknowledged before, and are removed), {letters} dead letters, \
             {values} pending requests and idempotency keys, {states} states, {lanes} audit lanes; {foreign} things that nothing can \
             be done with were put aside"
        );
    }
    Ok(())
}

impl Takeover<'_> {
    fn lanes(&mut self) -> Result<(), StoreError> {
        for lane in trail::lanes(&mut self.connection)?.existing {
            let block = match trail::newest_blocks(&mut self.connection, &lane, 1) {
                Ok(mut blocks) => blocks.pop(),
                // Something else is under that key.
                Err(StoreError::Unexpected { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(block) = block else {
                continue;
            };
            let end = block.last_seq().zip(block.hash.as_slice().try_into().ok());
            let Some((seq, hash)) = end.filter(|_| block.check(self.keys, &lane).is_err()) else {
                continue;
            };
            let head = Head { seq, hash };
            let (rule, reason) = (format!("records: {seq}"), hex(&hash));
            let fields = Fields { target: lane.as_str(), rule: &rule, reason: &reason, ..Fields::default() };
            let keys = self.keys;
            self.act(Action::TakenOver, &fields, |batch, _| trail::take_over(batch, keys, &lane, &head))?;
            self.count.lanes += 1;
        }
        Ok(())
    }

    /// Entries cannot be changed: each is added again at the end of its stream, in their order, and removed where it was.
    fn streams(&mut self) -> Result<(), StoreError> {
        for place in older::streams(&mut self.connection)? {
            let Some(last) = older::last(&mut self.connection, &place.stream)? else {
                continue;
            };
            let done = Done::read(&mut self.connection, &place)?;
            let mut after = EntryId::ZERO;
            while after < last {
                let entries = older::entries(&mut self.connection, &place.stream, after, last, PAGE)?;
                let Some(end) = entries.last().map(|found| found.entry.id) else {
                    break;
                };
                after = end;
                let without_tag = entries.into_iter().filter(|found| place.check(self.keys, found).is_err());
                let (done, waiting): (Vec<WholeEntry>, Vec<WholeEntry>) =
                    without_tag.partition(|found| done.holds(found.entry.id));
                self.remove_done(&place, &done)?;
                self.page(&place, waiting)?;
            }
        }
        Ok(())
    }

    /// What was acknowledged is done. The Python server leaves it in its stream.
    fn remove_done(&mut self, place: &Place, done: &[WholeEntry]) -> Result<(), StoreError> {
        if done.is_empty() {
            return Ok(());
        }
        let rule = format!("entries: {}, acknowledged before: removed", done.len());
        let fields = Fields { target: &place.agent, reason: &place.stream, rule: &rule, ..Fields::default() };
        self.act(Action::TakenOver, &fields, |batch, _| {
            done.iter().for_each(|found| place.remove(batch, found.entry.id));
        })?;
        self.count.done += done.len() as u64;
        Ok(())
    }

    fn page(&mut self, place: &Place, found: Vec<WholeEntry>) -> Result<(), StoreError> {
        let (messages, others): (Vec<WholeEntry>, Vec<WholeEntry>) =
            found.into_iter().partition(|found| found.entry.envelope.is_some());
        let keys = self.keys;
        for found in others {
            let aside =
                Foreign { key: place.stream.clone(), entry: Some(found.entry.id), bytes: found.fields };
            let (digest, entry) = (aside.digest(), found.entry.id.to_text());
            let fields =
                Fields { target: &place.stream, rule: &entry, payload_digest: &digest, ..Fields::default() };
            self.act(Action::ForeignEntry, &fields, |batch, _| {
                let _ = batch.command("XADD");
                foreign::arguments(batch, &aside, Now::read().unix_us / 1000);
                place.remove(batch, found.entry.id);
            })?;
            self.count.foreign += 1;
        }
        if messages.is_empty() {
            return Ok(());
        }
        let id = |found: &WholeEntry| found.entry.envelope.as_deref().and_then(message_id_of);
        let ids: Vec<(Uuid, u8)> = messages.iter().filter_map(id).map(|id| (id, 0)).collect();
        let mut digest = Sha256::new();
        messages.iter().for_each(|found| digest.update(found.entry.envelope.as_deref().unwrap_or_default()));
        let (digest, rule) = (digest.finalize(), format!("entries: {}", messages.len()));
        let fields = Fields {
            target: &place.agent,
            reason: &place.stream,
            rule: &rule,
            messages: &ids,
            payload_digest: &digest,
            ..Fields::default()
        };
        self.act(Action::TakenOver, &fields, |batch, on| {
            for found in &messages {
                place.add(batch, keys, found, on);
                place.remove(batch, found.entry.id);
            }
        })?;
        let count = if place.is_dead_letters() { &mut self.count.letters } else { &mut self.count.messages };
        *count += messages.len() as u64;
        Ok(())
    }

    fn values(&mut self) -> Result<(), StoreError> {
        for key in older::value_keys(&mut self.connection)? {
            let Some(text) = older::value(&mut self.connection, &key)? else {
                continue;
            };
            if older::check_value(self.keys, &key, &text).is_ok() {
                continue;
            }
            let Some(attested) = older::attested(self.keys, &key, &text) else {
                continue;
            };
            let fields = Fields { target: &key, ..Fields::default() };
            self.act(Action::TakenOver, &fields, |batch, _| older::replace(batch, &key, &text, &attested))?;
            self.count.values += 1;
        }
        Ok(())
    }

    fn states(&mut self) -> Result<(), StoreError> {
        for agent in older::states(&mut self.connection)? {
            let state = overview::watch_state(&mut self.connection, &agent)?;
            if state.is_ours(self.keys, &agent) {
                let _ = self.connection.command("UNWATCH", &[])?;
                continue;
            }
            let tag = state.next_tag(self.keys, &agent, &state.fields);
            let version = state.next_version();
            let rule = format!("state, version {version}");
            let fields = Fields { target: agent.as_str(), rule: &rule, ..Fields::default() };
            self.act(Action::TakenOver, &fields, |batch, _| {
                overview::set_state(batch, &agent, &[], (version, &tag));
            })?;
            self.count.states += 1;
        }
        Ok(())
    }

    /// Carries out effects and their record, all or nothing.
    fn act(
        &mut self,
        action: Action,
        fields: &Fields<'_>,
        effects: impl FnOnce(&mut Batch, OnRecord<'_>),
    ) -> Result<(), StoreError> {
        let now = Now::read();
        let mut batch = Batch::new();
        let _ = batch.command("MULTI");
        if !self.opened {
            self.lane.open(now, "takeover", self.policy_version);
            let description = serde_json::json!({
                "opened_unix_us": now.unix_us,
                "version": env!("CARGO_PKG_VERSION"),
                "operator": "first start",
            });
            let _ = trail::register(&mut batch, self.lane.id(), &description.to_string());
        }
        let fields = Fields { policy_version: self.policy_version, ..*fields };
        let seq = self.lane.append(now, action, Decision::Event, &fields).seq;
        let lane = self.lane.id().clone();
        effects(&mut batch, OnRecord { lane: lane.as_str(), seq });
        self.finish(batch)?;
        self.opened = true;
        Ok(())
    }

    fn finish(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        if let Some(block) = self.lane.block() {
            let _ = trail::append(&mut batch, self.keys, block);
        }
        let exec_at = batch.command("EXEC");
        let answers = self.connection.run(&mut batch)?;
        let refused = |values: &Vec<Value>| values.iter().find_map(answers::error_code).map(str::to_owned);
        match answers.get(exec_at) {
            Some(Value::Array(values)) if refused(values).is_none() => {
                self.lane.confirm();
                Ok(())
            }
            other => {
                let answer = format!("{other:?}").chars().take(200).collect();
                Err(StoreError::Unexpected { command: "taking over", answer })
            }
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if !self.opened {
            return Ok(());
        }
        let fields = Fields { policy_version: self.policy_version, ..Fields::default() };
        let _ = self.lane.append(Now::read(), Action::LaneClosed, Decision::Event, &fields);
        let mut batch = Batch::new();
        let _ = batch.command("MULTI");
        self.finish(batch)
    }
}
