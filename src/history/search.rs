//! A search over the trail in Redis and in archives, a bounded part at a time: it says where to go on. For whoever looks
//! for something, not for whoever verifies: records are handed out as they stand.
//!
//! Newest first, Redis is read before the archives, and what Redis holds is left out there; oldest first the archives are, and
//! Redis behind where they end. A record that leaves Redis between two parts of a search may come twice, and none is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::chain::made_after_us;
use super::error::HistoryError;
use super::filter::Filter;
use super::lanes::{Key, Lanes};
use crate::archive::{Look, Pages, Place, Turned, Wanted, message_key};
use crate::audit::lane::split_block;
use crate::audit::{LaneId, View};
use crate::store::Connection;

/// Records that are looked at in one part of a search.
pub const MAX_LOOKED_AT: u64 = 50_000;
/// How long one part of a search may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is searched for; of each kind nothing: all.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Records that name one of these as sender or target.
    pub agents: Vec<String>,
    /// Senders.
    pub from: Vec<String>,
    /// Targets, as their senders wrote them.
    pub to: Vec<String>,
    /// What else a record must be.
    pub filter: Filter,
    /// Records with this correlation id.
    pub correlation: Option<[u8; 16]>,
    /// Records of this time or later, Unix microseconds.
    pub since_us: Option<u64>,
    /// Records before this time, Unix microseconds.
    pub until_us: Option<u64>,
    /// The oldest first.
    pub oldest_first: bool,
}

impl Query {
    /// Whether a record is searched for.
    fn wants(&self, record: &View<'_>) -> bool {
        let named =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
        named(&self.from, record.agent)
            && named(&self.to, record.target)
            && (self.agents.is_empty()
                || self.agents.iter().any(|name| name == record.agent || name == record.target))
            && self.correlation.as_ref().is_none_or(|id| record.correlation_id == Some(id))
            && self.since_us.is_none_or(|since_us| record.time_us >= since_us)
            && self.until_us.is_none_or(|until_us| record.time_us < until_us)
            && self.filter.holds(record)
    }

    /// From when on it can be on record.
    fn since(&self) -> Option<u64> {
        self.since_us.max(self.filter.message_id.and_then(made_after_us))
    }

    /// By what lists of frames find it.
    fn keys(&self) -> Vec<u32> {
        let message = self.filter.message_id.as_ref().map(Uuid::as_bytes);
        message.or(self.correlation.as_ref()).map(|id| message_key(id)).into_iter().collect()
    }
}

/// Where a search goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// In Redis, at this record.
    Redis {
        /// Its time, Unix microseconds.
        time_us: u64,
        /// Its lane.
        lane: LaneId,
        /// Its place there.
        seq: u64,
    },
    /// In an archive, at this frame; so many of its records were looked at.
    Archive {
        /// The frame.
        place: Place,
        /// Its records that were looked at.
        skip: usize,
    },
}

impl Cursor {
    /// Reads what [`Display`](std::fmt::Display) has written.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('.')?;
        let mut parts = rest.splitn(3, '.');
        let (first, second) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let third = parts.next()?;
        match kind {
            "r" => Some(Self::Redis { time_us: first, seq: second, lane: LaneId::from_stored(third) }),
            "a" => {
                let place = Place { segment: first, offset: second };
                Some(Self::Archive { place, skip: third.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Redis { time_us, lane, seq } => write!(f, "r.{time_us}.{seq}.{lane}"),
            Self::Archive { place, skip } => write!(f, "a.{}.{}.{skip}", place.segment, place.offset),
        }
    }
}

/// What one part of a search has found.
#[derive(Debug, Default)]
pub struct Part {
    /// Records that were looked at.
    pub looked_at: u64,
    /// Time of the last one of them, Unix microseconds.
    pub reached_us: Option<u64>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Cursor>,
    /// Segments of earlier versions were left out.
    pub unlisted: bool,
}

/// Takes a record that is searched for.
pub type OnFound<'a> = dyn FnMut(&LaneId, &View<'_>) + 'a;

/// One part of a search.
struct Search<'a> {
    query: &'a Query,
    limit: usize,
    give_up: Instant,
    found: usize,
    part: Part,
    /// Going forward: what is not behind this record was looked at before.
    behind: Option<Key>,
    /// The last frame that was read ends, or begins, here.
    reached: Option<Place>,
    on: &'a mut OnFound<'a>,
}

/// Whether a search goes on.
#[derive(PartialEq, Eq)]
enum Step {
    On,
    /// It is at its end, or has found what it may.
    Ended,
}

/// Searches on from a cursor, until `limit` records are found, or it has looked at enough.
pub fn search<'a>(
    connection: &mut Connection,
    folders: &[PathBuf],
    query: &'a Query,
    (cursor, limit): (Option<&Cursor>, usize),
    on: &'a mut OnFound<'a>,
) -> Result<Part, HistoryError> {
    let give_up = Instant::now() + PATIENCE;
    let mut pages = Pages::open(folders)?;
    let mut search =
        Search { query, limit, give_up, found: 0, part: Part::default(), behind: None, reached: None, on };
    let none = BTreeMap::new();
    let (record, frame) = match cursor {
        Some(Cursor::Redis { time_us, lane, seq }) => {
            (Some(Key { time_us: *time_us, lane: lane.clone(), seq: *seq }), None)
        }
        Some(Cursor::Archive { place, skip }) => (None, Some((*place, *skip))),
        None => (None, None),
    };
    if query.oldest_first {
        search.forward(connection, &mut pages, record, frame)?;
    } else if frame.is_some() {
        let lanes = Lanes::open(connection, true, Some(&at_time(0)), &none)?;
        let _ = search.archive(&mut pages, frame, &lanes.oldest)?;
    } else {
        let after = record.or_else(|| query.until_us.map(at_time));
        let mut lanes = Lanes::open(connection, true, after.as_ref(), &none)?;
        if search.redis(connection, &mut lanes)? == Step::On && !pages.is_empty() {
            let _ = search.archive(&mut pages, None, &lanes.oldest)?;
        }
    }
    search.part.unlisted = pages.has_unlisted();
    Ok(search.part)
}

/// Before all records of that time.
fn at_time(time_us: u64) -> Key {
    Key { time_us, lane: LaneId::from_stored(""), seq: 0 }
}

impl Search<'_> {
    /// Oldest first: the archives, then Redis behind them.
    fn forward(
        &mut self,
        connection: &mut Connection,
        pages: &mut Pages,
        record: Option<Key>,
        frame: Option<(Place, usize)>,
    ) -> Result<(), HistoryError> {
        let none = BTreeMap::new();
        if let Some(record) = record {
            let mut lanes = Lanes::open(connection, false, Some(&record), &none)?;
            let has_left = lanes.oldest.values().all(|oldest| oldest.time_us > record.time_us);
            if pages.is_empty() || !has_left {
                return self.redis(connection, &mut lanes).map(drop);
            }
            // Records behind this one may have left Redis since it was looked at.
            self.behind = Some(record);
        }
        if self.archive(pages, frame, &BTreeMap::new())? == Step::Ended {
            return Ok(());
        }
        let ends = pages.ends()?;
        // What was archived since the folders were looked at.
        let reached = self.reached.map(|place| (place, 0)).or(frame);
        if self.archive(pages, reached, &BTreeMap::new())? == Step::Ended {
            return Ok(());
        }
        let since = self.query.since().map(at_time);
        let after = self.behind.clone().or(since);
        let mut lanes = Lanes::open(connection, false, after.as_ref(), &ends)?;
        self.redis(connection, &mut lanes).map(drop)
    }

    /// Looks at a record; where the search stops behind it.
    fn look(&mut self, lane: &LaneId, record: &[u8]) -> Option<Key> {
        let view = View::decode(record)?;
        if self.behind.as_ref().is_some_and(|behind| !behind.is_before(&view, lane)) {
            return None;
        }
        self.part.looked_at += 1;
        self.part.reached_us = Some(view.time_us);
        if self.query.wants(&view) {
            self.found += 1;
            (self.on)(lane, &view);
        }
        self.is_enough().then(|| Key { time_us: view.time_us, lane: lane.clone(), seq: view.seq })
    }

    fn is_enough(&self) -> bool {
        self.found >= self.limit
            || self.part.looked_at >= MAX_LOOKED_AT
            || (self.part.looked_at.is_multiple_of(256) && Instant::now() >= self.give_up)
    }

    /// Whether everything behind a record of this time is out of the window.
    fn is_out(&self, record: &[u8]) -> bool {
        let time_us = View::time_of(record).unwrap_or(0);
        match self.query.oldest_first {
            true => self.query.until_us.is_some_and(|until_us| time_us >= until_us),
            false => self.query.since().is_some_and(|since_us| time_us < since_us),
        }
    }

    fn redis(&mut self, connection: &mut Connection, lanes: &mut Lanes) -> Result<Step, HistoryError> {
        while let Some((lane, record)) = lanes.next(connection)? {
            if self.is_out(&record) {
                return Ok(Step::Ended);
            }
            if let Some(Key { time_us, lane, seq }) = self.look(&lane, &record) {
                self.part.next = Some(Cursor::Redis { time_us, lane, seq });
                return Ok(Step::Ended);
            }
        }
        Ok(Step::On)
    }

    /// Reads the archives; `redis`: where each lane begins in Redis, for what is read there.
    fn archive(
        &mut self,
        pages: &mut Pages,
        from: Option<(Place, usize)>,
        redis: &BTreeMap<LaneId, Key>,
    ) -> Result<Step, HistoryError> {
        let backward = !self.query.oldest_first;
        let keys = self.query.keys();
        let wanted =
            Wanted { from_us: self.query.since(), to_us: self.query.until_us, messages: &keys, whole: false };
        let (mut at, mut skip) = from.map_or((None, 0), |(place, skip)| (Some(place), skip));
        loop {
            if let Some(place) = at.filter(|_| Instant::now() >= self.give_up) {
                self.part.next = Some(Cursor::Archive { place, skip });
                return Ok(Step::Ended);
            }
            let page = match pages.turn(backward, at, Look::Wanted(wanted), self.give_up)? {
                Turned::Page(page) => page,
                Turned::End => return Ok(Step::On),
                Turned::Stopped(place) => {
                    self.part.next = Some(Cursor::Archive { place, skip: 0 });
                    return Ok(Step::Ended);
                }
            };
            let begins = if backward { page.to } else { page.from };
            // Another frame than the one in which the search stopped, where that one is not wanted any more.
            let skipped = if at == Some(begins) { std::mem::take(&mut skip) } else { 0 };
            let mut records: Vec<(&LaneId, &[u8])> = Vec::new();
            for (lane, bytes) in &page.blocks {
                records
                    .extend(split_block(bytes).unwrap_or_default().into_iter().map(|record| (lane, record)));
            }
            if backward {
                records.reverse();
            }
            for (number, (lane, record)) in records.into_iter().enumerate().skip(skipped) {
                let is_live = redis
                    .get(lane)
                    .is_some_and(|oldest| View::decode(record).is_some_and(|view| view.seq >= oldest.seq));
                if !is_live && self.look(lane, record).is_some() {
                    self.part.next = Some(Cursor::Archive { place: begins, skip: number + 1 });
                    return Ok(Step::Ended);
                }
            }
            at = Some(if backward { page.from } else { page.to });
            self.reached = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let lane = LaneId::from_stored("0193.a:b-1");
        for cursor in [
            Cursor::Redis { time_us: 7, lane, seq: 9 },
            Cursor::Archive { place: Place { segment: 3, offset: u64::MAX }, skip: 5 },
        ] {
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        for bad in ["", "r", "r.1", "r.1.2", "x.1.2.3", "a.1.2.x", "a.-1.2.3", "r.1.99999999999999999999.l"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
