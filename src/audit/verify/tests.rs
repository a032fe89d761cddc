use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::audit::checkpoint::{Checkpoint, LaneHead, text_hash};
use crate::audit::lane::Lane as Writer;
use crate::audit::note::SigningKey;
use crate::audit::record::{Action, Fields};
use crate::clock::Now;

mod missing;

/// A trail in memory, as it is handed to a verifier.
#[derive(Clone)]
enum Kept {
    Lane(String, bool),
    Block(String, u64, Vec<u8>, Vec<u8>),
    Note(String),
}

fn now(time_ms: u64) -> Now {
    Now { unix_us: time_ms * 1000, mono_ms: time_ms }
}

/// A server in small: lanes, and checkpoints over them.
struct Log {
    boot: Uuid,
    key: SigningKey,
    keys: KeyHistory,
    lanes: Vec<Writer>,
    time_ms: u64,
    counter: u64,
    previous: Hash,
    kept: Vec<Kept>,
    notes: Vec<String>,
}

impl Log {
    fn new(lanes: usize) -> Self {
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let boot = Uuid::now_v7();
        let mut log = Self {
            boot,
            keys: KeyHistory::new(&key),
            key,
            lanes: Vec::new(),
            time_ms: 1_700_000_000_000,
            counter: 0,
            previous: [0; 32],
            kept: Vec::new(),
            notes: Vec::new(),
        };
        for worker in 0..lanes {
            let mut lane = Writer::new(LaneId::new(boot, worker, 1));
            log.kept.push(Kept::Lane(lane.id().to_string(), true));
            lane.open(now(log.time_ms), "boot", &[]);
            log.lanes.push(lane);
            log.store(worker);
        }
        log
    }

    fn store(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        let block = lane.block().unwrap();
        let (id, first) = (block.lane.to_string(), block.first_seq);
        self.kept.push(Kept::Block(id, first, block.bytes.to_vec(), block.hash.to_vec()));
        lane.confirm();
    }

    /// Messages that are accepted, handed on and acknowledged; their ids.
    fn work(&mut self, lane: usize, messages: usize) -> Vec<Uuid> {
        self.time_ms += 10;
        let now = now(self.time_ms);
        let mut ids = Vec::new();
        for _ in 0..messages {
            let id = Uuid::now_v7();
            let fields = Fields { agent: "alpha", target: "beta", message_id: Some(id), ..Fields::default() };
            let _ = self.lanes[lane].append_counted(now, Action::Send, Decision::Allowed, &fields);
            ids.push(id);
        }
        self.store(lane);
        for action in [Action::Delivered, Action::Acked] {
            let messages: Vec<(Uuid, u8)> = ids.iter().map(|id| (*id, 1)).collect();
            let fields = Fields { agent: "beta", messages: &messages, ..Fields::default() };
            let _ = self.lanes[lane].append(now, action, Decision::Event, &fields);
            self.store(lane);
        }
        ids
    }

    fn checkpoint(&mut self) {
        self.time_ms += 10;
        self.counter += 1;
        let mut lanes: Vec<LaneHead> = self
            .lanes
            .iter()
            .map(|lane| LaneHead { lane: lane.id().clone(), head: lane.confirmed() })
            .collect();
        lanes.sort_by(|a, b| a.lane.cmp(&b.lane));
        let checkpoint = Checkpoint {
            origin: self.keys.origin().to_owned(),
            size: lanes.iter().map(|lane| lane.head.seq).sum(),
            boot: self.boot,
            counter: self.counter,
            previous: self.previous,
            time_ms: self.time_ms,
            policy: [7; 32],
            lanes,
        };
        let note = checkpoint.sign(&self.key).unwrap();
        self.previous = text_hash(&checkpoint.encode());
        self.notes.push(note.clone());
        self.kept.push(Kept::Note(note));
    }

    /// Three rounds of work on every lane, each under a checkpoint.
    fn busy(lanes: usize) -> Self {
        let mut log = Self::new(lanes);
        for _ in 0..3 {
            for lane in 0..lanes {
                let _ = log.work(lane, 3);
            }
            log.checkpoint();
        }
        log
    }

    fn anchor(&self) -> String {
        self.notes.iter().map(|note| format!("{}\n", serde_json::json!({"note": note}))).collect()
    }
}

fn verify(kept: &[Kept], keys: Option<&KeyHistory>, anchor: Option<&str>) -> Report {
    let anchors = anchor.map(|text| AnchorReader::new(Box::new(Cursor::new(text.to_owned()))));
    let keys: Vec<KeyHistory> = keys.into_iter().cloned().collect();
    let anchors = anchors.into_iter().collect();
    let mut verifier = Verifier::new(Questions { keys: &keys, anchors, ..Questions::default() });
    feed(&mut verifier, kept);
    verifier.finish(None).unwrap()
}

fn feed(verifier: &mut Verifier<'_>, kept: &[Kept]) {
    feed_as(verifier, kept, Attested::NotLooked);
}

fn feed_as(verifier: &mut Verifier<'_>, kept: &[Kept], attested: Attested) {
    for item in kept {
        let item = match item {
            Kept::Lane(lane, registered) => Item::Lane {
                lane: lane.into(),
                registered: registered.then_some("{}".into()),
                before: Frontier::default(),
            },
            Kept::Block(lane, first, bytes, root) => Item::Block {
                lane: lane.into(),
                first: *first,
                bytes: bytes.into(),
                root: root.into(),
                attested,
            },
            Kept::Note(note) => Item::Checkpoint { note: note.into() },
        };
        verifier.item(&item, &mut |_, _| {}).unwrap();
    }
}

#[track_caller]
fn assert_found(report: &Report, code: &str) {
    let codes: Vec<&str> = report.damages.iter().map(|damage| damage.kind.code()).collect();
    assert!(codes.contains(&code), "{code} is not in {:?}", report.damages);
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.damages.iter().map(|damage| damage.kind.code()).collect()
}

fn blocks(kept: &[Kept]) -> Vec<usize> {
    (0..kept.len()).filter(|at| matches!(kept[*at], Kept::Block(..))).collect()
}

fn notes(kept: &[Kept]) -> Vec<usize> {
    (0..kept.len()).filter(|at| matches!(kept[*at], Kept::Note(_))).collect()
}

#[test]
fn what_was_written_verifies_with_and_without_keys_and_anchor() {
    let mut log = Log::busy(2);
    let _ = log.work(0, 1);
    let anchor = log.anchor();
    let report = verify(&log.kept, Some(&log.keys), Some(&anchor));
    assert_eq!(codes(&report), [] as [&str; 0]);
    assert_eq!((report.records, report.lanes), (2 + 6 * 5 + 3, 2));
    assert_eq!((report.checkpoints, report.anchored, report.unsealed), (3, 3, 3));
    assert_eq!((report.accepted, report.done, report.waiting), (19, 19, 0));
    assert_eq!(report.not_shown, [] as [&str; 0]);
    assert_eq!(report.decisions["ALLOWED"], 19);

    let report = verify(&log.kept, Some(&log.keys), None);
    assert!(report.is_intact() && report.not_shown[0].contains("rolled back"), "{report:?}");
    let report = verify(&log.kept, None, None);
    assert!(report.is_intact() && report.not_shown[0].contains("who signed"), "{report:?}");
    let without: Vec<Kept> = log.kept.iter().filter(|k| !matches!(k, Kept::Note(_))).cloned().collect();
    let report = verify(&without, None, None);
    assert!(report.is_intact() && report.not_shown[0].contains("without signed checkpoints"), "{report:?}");
}

#[test]
fn what_is_in_the_anchor_alone_is_verified_against_the_trail() {
    let log = Log::busy(2);
    let anchor = log.anchor();
    let without: Vec<Kept> = log.kept.iter().filter(|k| !matches!(k, Kept::Note(_))).cloned().collect();
    let report = verify(&without, Some(&log.keys), Some(&anchor));
    assert!(report.is_intact(), "{:?}", report.damages);
    assert_eq!((report.checkpoints, report.only_anchored, report.unsealed), (0, 3, 0));
}

#[test]
fn a_missing_block_is_a_gap() {
    let log = Log::busy(1);
    for at in blocks(&log.kept) {
        let mut kept = log.kept.clone();
        drop(kept.remove(at));
        let report = verify(&kept, None, None);
        assert!(!report.is_intact(), "{at}");
    }
    let mut kept = log.kept;
    drop(kept.remove(blocks(&kept)[1]));
    let report = verify(&kept, None, None);
    assert_eq!(codes(&report), ["gap"]);
    assert!(report.damages[0].to_string().ends_with("record 5: records from 2 on are missing"), "{report:?}");
}

#[test]
fn a_block_of_another_lane_does_not_fit() {
    let log = Log::busy(2);
    let places = blocks(&log.kept);
    let (mut kept, other) = (log.kept.clone(), places[5]);
    let (Kept::Block(_, first, bytes, root), Kept::Block(lane, ..)) =
        (&log.kept[other], &log.kept[places[2]])
    else {
        panic!("blocks");
    };
    kept[places[2]] = Kept::Block(lane.clone(), *first, bytes.clone(), root.clone());
    assert!(!verify(&kept, None, None).is_intact());
}

#[test]
fn swapped_duplicated_and_inserted_blocks_are_found() {
    let log = Log::busy(1);
    let places = blocks(&log.kept);
    let mut swapped = log.kept.clone();
    swapped.swap(places[1], places[2]);
    assert_found(&verify(&swapped, None, None), "gap");
    let (Kept::Block(_, one, ..), Kept::Block(_, two, ..)) =
        (log.kept[places[1]].clone(), log.kept[places[2]].clone())
    else {
        panic!("blocks");
    };
    for (at, first) in [(places[1], one), (places[2], two)] {
        if let Kept::Block(_, place, ..) = &mut swapped[at] {
            *place = first;
        }
    }
    assert!(!verify(&swapped, None, None).is_intact());
    for at in &places {
        let mut doubled = log.kept.clone();
        doubled.insert(*at, log.kept[*at].clone());
        assert_found(&verify(&doubled, None, None), "gap");
    }
}

#[test]
fn every_flipped_byte_of_a_record_is_found() {
    let log = Log::busy(1);
    let place = blocks(&log.kept)[1];
    let Kept::Block(_, _, bytes, _) = &log.kept[place] else { panic!("a block") };
    for at in 0..bytes.len() {
        let mut kept = log.kept.clone();
        if let Kept::Block(_, _, bytes, _) = &mut kept[place] {
            bytes[at] ^= 1;
        }
        assert!(!verify(&kept, None, None).is_intact(), "byte {at}");
    }
}

#[test]
fn a_lane_that_is_dropped_unlisted_or_cut_is_found() {
    let log = Log::busy(2);
    let name = log.lanes[0].id().to_string();
    let of_lane = |kept: &Kept| match kept {
        Kept::Lane(lane, _) | Kept::Block(lane, ..) => *lane == name,
        Kept::Note(_) => false,
    };
    // Gone with its registration: only what was signed knows of it.
    let dropped: Vec<Kept> = log.kept.iter().filter(|kept| !of_lane(kept)).cloned().collect();
    assert_found(&verify(&dropped, Some(&log.keys), None), "lane_missing");
    let blocks_gone: Vec<Kept> =
        log.kept.iter().filter(|kept| !matches!(kept, Kept::Block(..)) || !of_lane(kept)).cloned().collect();
    assert_found(&verify(&blocks_gone, None, None), "lane_missing");
    let mut unlisted = log.kept.clone();
    unlisted[0] = Kept::Lane(name, false);
    assert_found(&verify(&unlisted, None, None), "lane_unlisted");
    let mut cut = log.kept.clone();
    drop(cut.remove(*blocks(&cut).last().unwrap()));
    assert_found(&verify(&cut, Some(&log.keys), None), "truncated");
}

/// What was signed, without the last checkpoint and what it covers.
fn rolled_back(log: &Log) -> Vec<Kept> {
    let places = notes(&log.kept);
    log.kept[..=places[places.len() - 2]].to_vec()
}

#[test]
fn a_rollback_shows_against_the_anchor_and_without_it_is_said_not_to() {
    let log = Log::busy(2);
    let report = verify(&rolled_back(&log), Some(&log.keys), None);
    assert!(report.is_intact());
    assert!(report.not_shown.iter().any(|line| line.contains("rolled back")), "{report:?}");
    let report = verify(&rolled_back(&log), Some(&log.keys), Some(&log.anchor()));
    assert_found(&report, "truncated");
}

#[test]
fn a_trail_that_is_rewritten_as_a_whole_shows_against_what_was_signed() {
    let log = Log::busy(2);
    // The same lanes, other records, everything computed anew.
    let mut forged = Log::busy(0);
    forged.boot = log.boot;
    forged.kept.clear();
    forged.time_ms = 1_700_000_000_000;
    for lane in &log.lanes {
        forged.kept.push(Kept::Lane(lane.id().to_string(), true));
        forged.lanes.push(Writer::new(lane.id().clone()));
    }
    for lane in 0..2 {
        forged.lanes[lane].open(now(forged.time_ms), "boot", &[]);
        forged.store(lane);
    }
    for _ in 0..3 {
        for lane in 0..2 {
            let _ = forged.work(lane, 3);
        }
    }
    assert!(verify(&forged.kept, Some(&log.keys), None).is_intact(), "as long as nothing signed is at hand");
    assert_found(&verify(&forged.kept, Some(&log.keys), Some(&log.anchor())), "rewritten");
    // With the old checkpoints kept beside it.
    let mut both = forged.kept.clone();
    both.extend(log.notes.iter().cloned().map(Kept::Note));
    assert_found(&verify(&both, Some(&log.keys), None), "rewritten");
    // With checkpoints signed by another key.
    forged.counter = 0;
    forged.previous = [0; 32];
    forged.checkpoint();
    assert_found(&verify(&forged.kept, Some(&log.keys), None), "other_log");
}

#[test]
fn missing_repeated_and_foreign_checkpoints_are_found() {
    let log = Log::busy(1);
    let places = notes(&log.kept);
    let mut without = log.kept.clone();
    drop(without.remove(places[1]));
    let report = verify(&without, Some(&log.keys), None);
    assert_eq!(codes(&report), ["checkpoint_missing"]);
    let mut replayed = log.kept.clone();
    replayed.push(log.kept[places[0]].clone());
    assert_eq!(codes(&verify(&replayed, Some(&log.keys), None)), ["checkpoint_repeated"]);
    let other = Log::new(0);
    assert_found(&verify(&log.kept, Some(&other.keys), None), "other_log");
    let mut garbled = log.kept.clone();
    garbled[places[1]] = Kept::Note("nothing".to_owned());
    assert_found(&verify(&garbled, Some(&log.keys), None), "not_signed");
    // The anchor has another one under that number.
    let (mut other, _) = Checkpoint::open(&log.notes[2], &log.keys).unwrap();
    other.policy = [8; 32];
    let mut forked = Log::busy(0);
    forked.notes = log.notes.clone();
    forked.notes[2] = other.sign(&log.key).unwrap();
    let report = verify(&log.kept, Some(&log.keys), Some(&forked.anchor()));
    assert_eq!(codes(&report), ["anchor_differs"]);
    let anchor = log.anchor().replacen("note", "nota", 1);
    assert_found(&verify(&log.kept, Some(&log.keys), Some(&anchor)), "not_signed");
}

#[test]
fn two_versions_of_a_lane_cannot_both_be_signed_for() {
    let mut log = Log::busy(1);
    // The server signs for one continuation, the store holds another.
    let before = log.kept.len();
    let _ = log.work(0, 2);
    log.checkpoint();
    let mut forked = log.kept.clone();
    drop(forked.drain(before..before + 3));
    let mut other = Writer::new(log.lanes[0].id().clone());
    for item in &log.kept[..before] {
        if let Kept::Block(_, _, bytes, _) = item {
            for part in crate::audit::lane::split_block(bytes).unwrap() {
                let view = View::decode(part).unwrap();
                let messages: Vec<(Uuid, u8)> = view.messages.iter().collect();
                let fields = Fields {
                    agent: view.agent,
                    target: view.target,
                    message_id: view.message_id,
                    reason: view.reason,
                    messages: &messages,
                    sender_seq: view.sender_seq,
                    ..Fields::default()
                };
                let time = Now { unix_us: view.time_us, mono_ms: 0 };
                let _ = other.append(time, view.action, view.decision, &fields);
            }
        }
    }
    let _ = other.block();
    other.confirm();
    for _ in 0..4 {
        let _ = other.append(now(log.time_ms), Action::Discover, Decision::Allowed, &Fields::default());
    }
    let block = other.block().unwrap();
    let block =
        Kept::Block(block.lane.to_string(), block.first_seq, block.bytes.to_vec(), block.hash.to_vec());
    forked.insert(before, block);
    assert_eq!(codes(&verify(&forked, Some(&log.keys), None)), ["rewritten"]);
}

#[test]
fn a_gap_in_a_senders_numbers_is_found() {
    let mut log = Log::new(1);
    let fields =
        |n| Fields { agent: "alpha", sender_seq: n, message_id: Some(Uuid::now_v7()), ..Fields::default() };
    for n in [1, 2, 4] {
        let _ = log.lanes[0].append(now(1), Action::Send, Decision::Refused, &fields(n));
    }
    log.store(0);
    let report = verify(&log.kept, None, None);
    assert_eq!(codes(&report), ["sender_gap"]);
    assert!(
        report.damages[0].to_string().contains("decision 4 on what alpha asked for, 3 should"),
        "{report:?}"
    );
}

#[test]
fn custody_of_what_was_never_accepted_is_found_and_of_older_messages_counted() {
    let mut log = Log::new(1);
    let unknown = Uuid::now_v7();
    let older = Uuid::new_v4();
    let fields = |id| Fields { agent: "beta", message_id: Some(id), ..Fields::default() };
    let _ = log.lanes[0].append(now(log.time_ms), Action::DeadLetter, Decision::Event, &fields(unknown));
    let _ = log.lanes[0].append(now(log.time_ms), Action::DeadLetter, Decision::Event, &fields(older));
    log.store(0);
    let report = verify(&log.kept, None, None);
    assert_eq!(codes(&report), ["unaccepted"]);
    assert_eq!(report.older, 1);
}

#[test]
fn acceptance_may_be_read_behind_what_follows_from_it() {
    let mut log = Log::new(2);
    let id = Uuid::now_v7();
    let custody = Fields { messages: &[(id, 1)], ..Fields::default() };
    let _ = log.lanes[0].append(now(1), Action::Delivered, Decision::Event, &custody);
    let _ = log.lanes[0].append(now(1), Action::Acked, Decision::Event, &custody);
    // Again, as after a lost connection.
    let _ = log.lanes[0].append(now(1), Action::Acked, Decision::Event, &custody);
    log.store(0);
    let fields = Fields { agent: "a", message_id: Some(id), ..Fields::default() };
    let _ = log.lanes[1].append(now(1), Action::Request, Decision::DlpRedacted, &fields);
    log.store(1);
    let report = verify(&log.kept, None, None);
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.accepted, report.done, report.waiting), (1, 1, 0));
}

#[test]
fn a_lane_names_its_predecessor_and_where_it_ended() {
    for (cut, intact) in [(0, true), (1, false)] {
        let mut log = Log::new(1);
        let _ = log.work(0, 2);
        // The outcome of the last transaction is unknown: it may be there or not.
        let _ = log.lanes[0].append(now(5), Action::Discover, Decision::Allowed, &Fields::default());
        let note = log.lanes[0].closing_note();
        let mut kept = log.kept.clone();
        kept.truncate(kept.len() - cut);
        let mut next = Writer::new(LaneId::new(log.boot, 0, 2));
        next.open(now(6), &note, &[]);
        let block = next.block().unwrap();
        kept.push(Kept::Lane(block.lane.to_string(), true));
        kept.push(Kept::Block(block.lane.to_string(), 1, block.bytes.to_vec(), block.hash.to_vec()));
        let report = verify(&kept, None, None);
        assert_eq!(report.is_intact(), intact, "{report:?}");
        if !intact {
            assert_eq!(codes(&report), ["tail_differs"]);
        }
        let block = log.lanes[0].block().unwrap();
        let last =
            Kept::Block(block.lane.to_string(), block.first_seq, block.bytes.to_vec(), block.hash.to_vec());
        kept.insert(kept.len() - 2, last);
        assert_eq!(verify(&kept, None, None).is_intact(), intact);
    }
}

#[test]
fn a_cut_lane_is_found_although_its_successor_may_never_have_come_to_be() {
    for second_is_there in [false, true] {
        let mut log = Log::new(1);
        let _ = log.work(0, 2);
        let mut kept = log.kept.clone();
        // Connections that break with the first block of their lane: more than a note has room for.
        let mut note = log.lanes[0].closing_note();
        for connection in 2..20 {
            let mut lane = Writer::opening(LaneId::new(log.boot, 0, connection), &note, &[]);
            let _ = lane.append(now(5), Action::Discover, Decision::Allowed, &Fields::default());
            note = lane.closing_note();
            if second_is_there && connection == 2 {
                store(&mut kept, &mut lane);
            }
        }
        let mut last = Writer::opening(LaneId::new(log.boot, 0, 20), &note, &[]);
        let _ = last.append(now(6), Action::Discover, Decision::Allowed, &Fields::default());
        store(&mut kept, &mut last);
        last.confirm();
        assert!(!last.closing_note().contains("-c19"), "nothing of the last lane is in doubt");
        let report = verify(&kept, None, None);
        assert!(report.is_intact(), "{report:?}");
        // The last block of the first lane.
        let is_first = |kept: &Kept| matches!(kept, Kept::Block(lane, ..) if lane.ends_with("-c1"));
        let cut = kept.iter().rposition(is_first).unwrap();
        let _ = kept.remove(cut);
        assert_found(&verify(&kept, None, None), "tail_differs");
    }
}

fn store(kept: &mut Vec<Kept>, lane: &mut Writer) {
    let block = lane.block().unwrap();
    kept.push(Kept::Lane(block.lane.to_string(), true));
    kept.push(Kept::Block(block.lane.to_string(), 1, block.bytes.to_vec(), block.hash.to_vec()));
}

#[test]
fn a_record_in_a_damaged_block_acknowledges_nothing() {
    let log = Log::busy(1);
    let at = *blocks(&log.kept).last().unwrap();
    // The block's root and tag stay, its records are others: so many as before.
    let forge = |target: &str| {
        let mut kept = log.kept.clone();
        let Kept::Block(_, _, bytes, _) = &mut kept[at] else { panic!("a block") };
        let parts: Vec<Vec<u8>> =
            crate::audit::lane::split_block(bytes).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        bytes.clear();
        for part in parts {
            let mut record = crate::audit::Record::decode(&part).unwrap();
            record.action = Action::Acknowledged;
            target.clone_into(&mut record.target);
            let part = record.encode();
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part);
        }
        let keys = [log.keys.clone()];
        let mut verifier = Verifier::new(Questions { keys: &keys, ..Questions::default() });
        feed_as(&mut verifier, &kept, Attested::Ours);
        verifier.finish(None).unwrap()
    };
    let report = forge("nothing");
    assert_found(&report, "hash_mismatch");
    let id = report.damages[0].id();
    let report = forge(&id);
    assert_found(&report, "hash_mismatch");
    assert_eq!(report.acknowledged.len(), 0, "{report:?}");
}

#[test]
fn an_old_newest_checkpoint_is_stale_while_a_server_runs() {
    let log = Log::busy(1);
    let keys = [log.keys.clone()];
    let mut verifier = Verifier::new(Questions { keys: &keys, ..Questions::default() });
    for note in &log.notes {
        verifier.item(&Item::Checkpoint { note: note.into() }, &mut |_, _| {}).unwrap();
    }
    let now_ms = log.time_ms + 10_001;
    let report =
        verifier.finish(Some(Freshness { now_ms, max_age_ms: 10_000, max_unsealed_ms: 10_000 })).unwrap();
    assert_found(&report, "stale");
}

proptest! {
    #[test]
    fn no_bytes_make_the_verifier_panic(
        first in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..100), note in "\\PC{0,100}"
    ) {
        let kept = [Kept::Block("l".to_owned(), first, bytes, vec![1]), Kept::Note(note)];
        let report = verify(&kept, None, Some("x\n{\"note\":\"y\"}\ncut"));
        prop_assert!(!report.is_intact());
    }

    #[test]
    fn any_cut_of_a_sealed_trail_is_found_with_the_anchor(at in any::<prop::sample::Index>()) {
        let log = Log::busy(2);
        let at = at.index(log.kept.len() - 1);
        let report = verify(&log.kept[..at], Some(&log.keys), Some(&log.anchor()));
        prop_assert!(!report.is_intact());
    }
}
