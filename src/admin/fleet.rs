//! All servers on one Redis as one: what each reports of itself, and whether it is to be believed. A tag says who wrote a report,
//! not when; so each report has a number that rises, and one that has not risen for long, or has fallen, was put back by
//! somebody else.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::audit::StoreKeys;
use crate::clock::Now;
use crate::ids::ServerId;
use crate::store::overview;
use crate::store::reports::{self, Kind, NoReport, REPORT_MS};
use crate::store::{Connection, StoreError};

/// Most servers that are shown; this one is always among them.
pub(super) const MAX_SERVERS: usize = 64;

/// How long it is told that a server has ended without a stop in order, in milliseconds.
const GONE_MS: u64 = 15 * 60 * 1000;

/// What is remembered of the other servers.
#[derive(Debug, Default)]
pub(super) struct Fleet(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// The reports of those that are there.
    heard: HashMap<ServerId, Heard>,
    /// Where each of them is.
    places: BTreeMap<ServerId, Addresses>,
    /// Those that have ended without a stop in order.
    gone: BTreeMap<ServerId, Gone>,
}

/// The newest report of one server.
#[derive(Debug, Clone, Copy)]
struct Heard {
    number: u64,
    /// When it was seen first, monotonic milliseconds.
    at_ms: u64,
}

/// Where a server is: the host, and where agents reach it.
type Addresses = (String, String);

/// A server that is not there any more.
#[derive(Debug, Clone)]
struct Gone {
    place: Addresses,
    since: Now,
}

/// One server, as the others see it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) server: ServerId,
    /// Whether what is there was written by a server.
    pub(super) trusted: bool,
    /// Why its report is not used.
    pub(super) problem: Option<String>,
    /// How old the report is by Redis' clock, in milliseconds.
    pub(super) age_ms: Option<u64>,
    /// What it says of itself.
    pub(super) status: Option<Json>,
    /// Whether it has ended without a stop in order.
    pub(super) is_gone: bool,
}

impl Member {
    /// It as JSON.
    pub(super) fn json(&self, own: &ServerId) -> Json {
        json!({
            "server": self.server.as_str(), "this": self.server == *own, "trusted": self.trusted,
            "problem": self.problem, "age_ms": self.age_ms, "status": self.status,
        })
    }

    /// Which one, and what is wrong with it.
    pub(super) fn named(&self) -> Option<String> {
        Some(format!("server {}: {}", self.server, self.problem.as_ref()?))
    }

    /// A text of its status; empty where it is not known.
    pub(super) fn text(&self, name: &str) -> &str {
        self.status.as_ref().and_then(|status| status.get(name)).and_then(Json::as_str).unwrap_or_default()
    }
}

/// A server's report of itself, as it stands in Redis.
pub(super) fn report(number: u64, status: &mut Json) -> String {
    let whole = json!({"number": number, "status": status}).to_string();
    if whole.len() <= reports::MAX_REPORT_BYTES {
        return whole;
    }
    if let Some(fields) = status.as_object_mut() {
        let _ = fields.insert("cut".to_owned(), true.into());
        let _ = fields.insert("sessions".to_owned(), json!({}));
        let _ = fields.insert("inboxes".to_owned(), json!([]));
    }
    json!({"number": number, "status": status}).to_string()
}

impl Fleet {
    /// The other servers in the registry, by id.
    pub(super) fn others(connection: &mut Connection, own: &ServerId) -> Result<Vec<ServerId>, StoreError> {
        let mut servers = overview::servers(connection)?;
        let _ = servers.remove(own);
        Ok(servers.into_iter().take(MAX_SERVERS - 1).collect())
    }

    /// Reads what the other servers report.
    pub(super) fn read(
        &self,
        connection: &mut Connection,
        keys: &StoreKeys,
        own: &ServerId,
    ) -> Result<Vec<Member>, StoreError> {
        let servers = Self::others(connection, own)?;
        let found = reports::read(connection, keys, Kind::Status, &servers)?;
        let now = Now::read();
        let mut left = Vec::new();
        let mut members = Vec::new();
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.heard.retain(|server, _| servers.contains(server));
            for (server, found) in servers.iter().zip(found) {
                members.push(known.member(server, found, now.mono_ms));
            }
            left.extend(known.places.keys().filter(|server| !servers.contains(server)).cloned());
        }
        // The last word of one that has stopped in order is that it stops; a report outlives its server for a while.
        let last_words = reports::read(connection, keys, Kind::Status, &left)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (server, word) in left.into_iter().zip(last_words) {
            let stops = word.is_ok_and(|report| {
                read_report(&report.text, &server)
                    .is_some_and(|(_, status)| status.get("draining") == Some(&Json::Bool(true)))
            });
            if let Some(place) = known.places.remove(&server).filter(|_| !stops) {
                let _ = known.gone.insert(server, Gone { place, since: now });
            }
        }
        members.extend(known.gone(now));
        Ok(members)
    }
}

impl Remembered {
    fn member(&mut self, server: &ServerId, found: Result<reports::Report, NoReport>, now_ms: u64) -> Member {
        let member = |trusted, problem: Option<String>, report: Option<(u64, Json)>| {
            let (age_ms, status) = report.unzip();
            Member { server: server.clone(), trusted, problem, age_ms, status, is_gone: false }
        };
        let report = match found {
            Err(why) => return member(why == NoReport::Missing, Some(why.to_string()), None),
            Ok(report) => report,
        };
        let Some((number, status)) = read_report(&report.text, server) else {
            return member(
                true,
                Some("its report cannot be read: is it of another version?".to_owned()),
                None,
            );
        };
        if let Some(why) = heard_before(&mut self.heard, server, number, now_ms) {
            return member(false, Some(why), None);
        }
        let text = |name: &str| status.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let place = (text("host"), text("listen_addr"));
        // Another one has taken its place.
        self.gone.retain(|_, gone| gone.place != place);
        let _ = self.places.insert(server.clone(), place);
        member(true, None, Some((report.age_ms, status)))
    }

    /// Those that have ended without a stop in order, lately.
    fn gone(&mut self, now: Now) -> Vec<Member> {
        self.gone.retain(|_, gone| now.mono_ms.saturating_sub(gone.since.mono_ms) < GONE_MS);
        let member = |(server, gone): (&ServerId, &Gone)| {
            let ((host, addr), ago_s) = (&gone.place, now.mono_ms.saturating_sub(gone.since.mono_ms) / 1000);
            let problem = format!(
                "gone for {ago_s} s, without a stop in order: look whether mas-server runs on {} ({})",
                host.escape_default(),
                addr.escape_default()
            );
            Member {
                server: server.clone(),
                trusted: true,
                problem: Some(problem),
                age_ms: None,
                status: None,
                is_gone: true,
            }
        };
        self.gone.iter().take(MAX_SERVERS).map(member).collect()
    }
}

/// The number of a report and what it says; only a server's report of itself.
fn read_report(text: &str, server: &ServerId) -> Option<(u64, Json)> {
    let mut report: Json = serde_json::from_str(text).ok()?;
    let number = report.get("number")?.as_u64()?;
    let status = report.get_mut("status")?.take();
    (status.get("server")?.as_str()? == server.as_str()).then_some((number, status))
}

/// Why a report with this number was put back by somebody, if it was.
fn heard_before(
    heard: &mut HashMap<ServerId, Heard>,
    server: &ServerId,
    number: u64,
    now_ms: u64,
) -> Option<String> {
    let newest = heard.entry(server.clone()).or_insert(Heard { number, at_ms: now_ms });
    if number < newest.number {
        return Some(
            "its report is older than one that was seen before: somebody has put it back".to_owned(),
        );
    }
    if number > newest.number {
        *newest = Heard { number, at_ms: now_ms };
    }
    (now_ms.saturating_sub(newest.at_ms) > REPORT_MS).then(|| {
        "its report has been the same for more than 15 seconds, and is there all the same: somebody keeps it there"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_comes_back_is_not_believed() {
        let (mut heard, server) = (HashMap::new(), ServerId::new());
        assert_eq!(heard_before(&mut heard, &server, 5, 1_000), None);
        assert_eq!(heard_before(&mut heard, &server, 7, 2_000), None);
        assert!(heard_before(&mut heard, &server, 6, 2_500).unwrap().contains("put it back"));
        assert_eq!(heard_before(&mut heard, &server, 7, 2_000 + REPORT_MS), None);
        assert!(heard_before(&mut heard, &server, 7, 2_001 + REPORT_MS).unwrap().contains("the same"));
        assert_eq!(heard_before(&mut heard, &server, 8, 3_000 + REPORT_MS), None);
    }

    #[test]
    fn a_report_is_of_the_server_whose_key_it_is_under() {
        let (one, other) = (ServerId::new(), ServerId::new());
        let text = report(3, &mut json!({"server": one.as_str(), "ready": true}));
        assert_eq!(read_report(&text, &one).map(|(number, _)| number), Some(3));
        assert_eq!(read_report(&text, &other), None);
        assert_eq!(read_report("{}", &one), None);
    }

    #[test]
    fn a_long_report_is_cut_and_says_so() {
        let server = ServerId::new();
        let sessions: BTreeMap<String, u64> = (0..20_000).map(|n| (format!("agent-number-{n}"), n)).collect();
        let mut status =
            json!({"server": server.as_str(), "cut": false, "sessions": sessions, "inboxes": []});
        let text = report(1, &mut status);
        assert!(text.len() < reports::MAX_REPORT_BYTES);
        let (_, read) = read_report(&text, &server).unwrap();
        assert_eq!((&read["cut"], &read["sessions"]), (&json!(true), &json!({})));
    }
}
