//! What may have happened to the connections of an input, and what must.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Conn;
use super::client::Gone;
use super::life::Events;
use super::model::{Counts, Model};
use super::script::{Leave, Who};
use super::stage::MAX_EACH;
use crate::gate::calls::{Answers, Calls};
use crate::ids::AgentId;

/// What an identity may have at once, of what does not come back within an instant.
const OPEN_CALLS: usize = 512;
const RESETS: usize = 1_400;
/// The same for all strangers, who share it with those of earlier inputs.
const STRANGERS: Counts =
    Counts { frames: 10_000, blocks: 100, fields: 5_000, resets: 15, windows: 500, pings: 250, calls: 48 };
/// From this age on a connection may be ended because of its age.
const OLD: Duration = Duration::from_secs(4);

const PUNISHED: &str = "connections of it were cut a short while ago";
const FULL: &str = "it has as many connections as it may";
const GIVEN_UP: &str = "too many streams given up";
const STUCK: &str = "calls that do not end";
const SILENT: &str = "a call whose message does not come";
const LATE: &str = "its certificate is expired";

struct One {
    model: Model,
    stranger: bool,
    /// Time may decide.
    slack: bool,
}

pub(super) struct Expected(Vec<One>);

fn is_stranger(conn: &Conn, forbidden: Option<&AgentId>) -> bool {
    matches!(conn.who, Who::Stranger | Who::Nameless)
        || (conn.agent.is_some() && conn.agent.as_ref() == forbidden)
}

/// Streams that the stand-in gives up, as the gate reads it.
fn resets_behind(conn: &Conn) -> usize {
    let mut answers = Answers::default();
    answers.scan(&conn.behind.said, &mut Calls::default());
    answers.take_resets()
}

fn is_within(counts: &Counts, most: &Counts) -> bool {
    counts.blocks <= most.blocks
        && counts.fields <= most.fields
        && counts.resets <= most.resets
        && counts.windows <= most.windows
        && counts.pings <= most.pings
        && counts.calls <= most.calls
}

impl Expected {
    pub(super) fn of(conns: &[Conn], forbidden: Option<&AgentId>) -> Self {
        let account = |conn: &Conn| {
            if is_stranger(conn, forbidden) { None } else { conn.agent.clone() }
        };
        let mut sums: BTreeMap<Option<AgentId>, (Counts, bool)> = BTreeMap::new();
        let mut all: Vec<One> = conns
            .iter()
            .map(|conn| {
                let model = Model::of(&conn.client.said, conn.opened.elapsed().as_secs() + 1);
                let (counts, ends) = sums.entry(account(conn)).or_insert((Counts::default(), true));
                *counts += model.counts;
                counts.resets += resets_behind(conn);
                *ends &= conn.behind.ends_all();
                One { model, stranger: is_stranger(conn, forbidden), slack: false }
            })
            .collect();
        for (one, conn) in all.iter_mut().zip(conns) {
            let (counts, ends) = sums.get(&account(conn)).copied().unwrap_or_default();
            let enough = if one.stranger {
                is_within(&counts, &STRANGERS)
            } else {
                counts.resets <= RESETS && (ends || counts.calls <= OPEN_CALLS)
            };
            one.slack = !enough
                || conn.opened.elapsed() > OLD
                || conn.agent.as_ref().is_some_and(|agent| Some(agent) == forbidden);
        }
        Self(all)
    }

    pub(super) fn is_slack(&self, at: usize) -> bool {
        self.0[at].slack
    }

    fn may_be_cut(&self, at: usize) -> bool {
        self.0[at].slack || !self.0[at].model.reasons.is_empty()
    }

    /// Whether a cut is certain, whenever all has been read.
    fn must_be_cut(&self, at: usize, conn: &Conn) -> bool {
        self.0[at].model.must_cut && !self.0[at].slack && !conn.behind.deaf && conn.behind.left.is_none()
    }

    /// Whether it may have been turned away.
    fn may_be_away(&self, at: usize, conns: &[Conn]) -> bool {
        let own = &conns[at];
        let same = |(other, conn): &(usize, &Conn)| {
            (conn.agent.is_some() && conn.agent == own.agent)
                || (self.0[at].stranger && self.0[*other].stranger)
        };
        let mut others = conns.iter().enumerate().filter(same);
        let count = others.clone().count();
        others.any(|(other, _)| self.may_be_cut(other)) || count > MAX_EACH
    }

    /// Whether all has happened that must, of what was said.
    pub(super) fn is_settled(&self, at: usize, conn: &Conn) -> bool {
        let (client, behind) = (&conn.client, &conn.behind);
        if client.socket().is_none() || conn.who == Who::Silent {
            return true;
        }
        if let Some(Leave::Fin | Leave::Notify | Leave::NotifyFin | Leave::FinNow) = client.left {
            return self.0[at].slack || (client.spoiled && client.left != Some(Leave::FinNow));
        }
        if client.spoiled {
            return true;
        }
        if is_refused(conn.who) || conn.overtaken || behind.left.is_some() || self.must_be_cut(at, conn) {
            return false;
        }
        (self.0[at].slack && behind.is_taken) || is_whole(conn)
    }

    /// Whether the client must be told of the stand-in's end, after all that it said.
    pub(super) fn is_told(&self, at: usize, conn: &Conn) -> bool {
        conn.client.left.is_none() && !self.may_be_cut(at)
    }
}

fn is_refused(who: Who) -> bool {
    matches!(who, Who::OtherAuthority | Who::NoCertificate | Who::Expired | Who::NoAlpn)
}

/// Whether both sides have all that was said.
fn is_whole(conn: &Conn) -> bool {
    let (client, behind) = (&conn.client, &conn.behind);
    let there = behind.arrived == client.said.len() || behind.deaf;
    behind.is_taken && there && behind.sent == behind.said.len() && client.heard.len() == behind.sent
}

pub(super) fn describe(conns: &[Conn]) -> String {
    let one = |conn: &Conn| {
        let (client, behind) = (&conn.client, &conn.behind);
        format!(
            "\n{:?}: said {}, arrived {}, done {}, in {}, left {:?}, gone {:?}; behind: taken {}, said {}, sent {}, heard {}, left {:?}, gone {}",
            conn.who,
            client.said.len(),
            behind.arrived,
            client.is_done(),
            client.is_in(),
            client.left,
            client.gone,
            behind.is_taken,
            behind.said.len(),
            behind.sent,
            client.heard.len(),
            behind.left,
            behind.gone
        )
    };
    conns.iter().map(one).collect()
}

/// Nobody's connection has ended for nothing, and what arrived is all that may.
pub(super) fn ends(conns: &[Conn], expected: &Expected) {
    for (at, conn) in conns.iter().enumerate() {
        let (client, behind, one) = (&conn.client, &conn.behind, &expected.0[at]);
        assert!(behind.arrived <= one.model.passes, "what must not pass has arrived: {}", describe(conns));
        assert!(!is_refused(conn.who) || !behind.is_taken, "who is refused is let in: {}", describe(conns));
        let at_fault = client.spoiled || client.left.is_some() || is_refused(conn.who);
        let excused = at_fault || behind.left.is_some() || expected.may_be_cut(at);
        let away = !behind.is_taken && expected.may_be_away(at, conns);
        assert!(client.gone.is_none() || excused || away, "an end for nothing: {}", describe(conns));
        assert!(at_fault || !matches!(client.gone, Some(Gone::Tls(_))), "broken TLS: {}", describe(conns));
        let leaves = behind.has_left && behind.is_taken && !at_fault && !expected.may_be_cut(at);
        assert!(!leaves || client.gone == Some(Gone::Told), "an end without a word: {}", describe(conns));
        // Who said all and left in order is heard to the end.
        let heard = behind.left.is_none() && !behind.deaf && !expected.may_be_cut(at) && behind.is_taken;
        if heard && !client.spoiled && client.is_done() {
            assert_eq!(behind.arrived, client.said.len(), "something was lost: {}", describe(conns));
        }
    }
}

/// What the clients heard is what the stand-in said, from its beginning; `whole`: to its end, where nobody broke off.
pub(super) fn words(conns: &[Conn], expected: &Expected, whole: bool) {
    for (at, conn) in conns.iter().enumerate() {
        let sent = &conn.behind.said[..conn.behind.sent];
        assert!(sent.starts_with(&conn.client.heard), "not what was said: {}", describe(conns));
        let off = conn.client.spoiled || conn.client.left.is_some() || expected.may_be_cut(at);
        let whole = whole || conn.behind.left.is_none() || conn.client.gone.is_some();
        if whole && !off && conn.behind.is_taken {
            assert_eq!(sent.len(), conn.client.heard.len(), "an answer was lost: {}", describe(conns));
        }
    }
}

/// These were told of the end.
pub(super) fn told(conns: &[Conn], told: &[bool]) {
    for (conn, told) in conns.iter().zip(told) {
        assert!(!told || conn.client.gone == Some(Gone::Told), "an end without a word: {}", describe(conns));
    }
}

/// What is on record is what was done: how many frames strangers sent, and whether one of them was cut.
pub(super) fn events(conns: &[Conn], expected: &Expected, events: &Events) -> (usize, bool) {
    let name = |conn: &Conn| conn.agent.as_ref().map_or(String::new(), ToString::to_string);
    let fail = |what: &str| -> ! { panic!("{what}: {events:?} {}", describe(conns)) };
    let (mut frames, mut cut) = (0, false);
    let mut unexplained: BTreeMap<String, usize> = BTreeMap::new();
    for (at, conn) in conns.iter().enumerate() {
        let one = &expected.0[at];
        frames += if one.stranger { one.model.counts.frames } else { 0 };
        let away = !conn.behind.is_taken && !conn.client.spoiled && conn.client.left.is_none();
        if away && !one.slack && !is_refused(conn.who) && conn.who != Who::Silent {
            *unexplained.entry(name(conn)).or_default() += 1;
        }
        if let ([reason], true) = (one.model.reasons.as_slice(), expected.must_be_cut(at, conn))
            && conn.behind.is_taken
            && !conn.client.spoiled
            && !events.contains_key(&(name(conn), "cut", (*reason).to_owned()))
        {
            fail("a cut is not on record");
        }
    }
    for ((agent, done, reason), count) in events {
        let of: Vec<usize> = (0..conns.len()).filter(|at| name(&conns[*at]) == *agent).collect();
        let has = |at: &&usize| {
            let one = &expected.0[**at];
            let time = one.slack && [GIVEN_UP, STUCK, SILENT].contains(&reason.as_str());
            time || one.model.reasons.contains(&reason.as_str())
        };
        let may = match (*done, reason.as_str()) {
            ("cut", _) => of.iter().filter(has).count(),
            ("turned away", PUNISHED) if of.iter().any(|at| expected.may_be_away(*at, conns)) => of.len(),
            ("turned away", FULL) if of.len() > MAX_EACH => of.len() - MAX_EACH,
            ("turned away", LATE) if agent == "late" => {
                conns.iter().filter(|conn| conn.who == Who::Expired).count()
            }
            _ => 0,
        };
        if *count as usize > may {
            fail("on record for nothing");
        }
        if *done == "turned away" {
            let left = unexplained.entry(agent.clone()).or_default();
            *left = left.saturating_sub(*count as usize);
        }
        cut |= *done == "cut" && of.iter().any(|at| expected.0[*at].stranger);
    }
    if unexplained.values().any(|left| *left > 0) {
        fail("who was not let in is not on record");
    }
    (frames, cut)
}
