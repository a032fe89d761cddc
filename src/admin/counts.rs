//! What servers have counted since their starts: decisions by agent and by pair, deliveries by agent. One server's own counts are
//! its workers'; those of the others come with their reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::audit::Decision;
use crate::audit::tally::{ByDecision, OUTCOMES};
use crate::shard::desk::meters::Meter;
use crate::store::reports::MAX_REPORT_BYTES;

/// Pairs that a report has one by one: the busiest.
const MAX_REPORTED_EDGES: usize = 2_000;
/// Fewest of them before agents are left out as well.
const MIN_REPORTED_EDGES: usize = 10;

/// Counts by name.
pub(super) type ByName = BTreeMap<&'static str, u64>;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Decisions on messages that an agent asked for.
    pub(super) decisions: BTreeMap<String, ByName>,
    /// What became of deliveries to an agent.
    pub(super) deliveries: BTreeMap<String, ByName>,
    /// Decisions by sender and target.
    pub(super) edges: BTreeMap<(String, String), ByName>,
    /// Decisions that are not told apart by pair.
    pub(super) other: ByName,
}

/// As it stands in Redis: names once, everything else by their places.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report<'a> {
    #[serde(borrow)]
    agents: Vec<std::borrow::Cow<'a, str>>,
    decisions: Vec<(usize, BTreeMap<String, u64>)>,
    deliveries: Vec<(usize, BTreeMap<String, u64>)>,
    edges: Vec<(usize, usize, BTreeMap<String, u64>)>,
    other: BTreeMap<String, u64>,
}

fn by_name(counts: &ByDecision) -> ByName {
    let count = |decision: &Decision| (decision.as_str(), counts.of(*decision));
    Decision::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
}

fn add(to: &mut ByName, counts: &ByName) {
    counts.iter().for_each(|(name, count)| *to.entry(name).or_default() += count);
}

fn owned(counts: &ByName) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Counts with names that are known here.
fn known(counts: &BTreeMap<String, u64>) -> ByName {
    let names = Decision::ALL.iter().map(|decision| decision.as_str()).chain(OUTCOMES);
    names.filter_map(|name| Some((name, *counts.get(name)?))).collect()
}

fn total(counts: &ByName) -> u64 {
    counts.values().fold(0, |sum, count| sum.saturating_add(*count))
}

/// Counts as JSON.
pub(super) fn json(counts: Option<&ByName>) -> Json {
    counts.into_iter().flatten().map(|(name, count)| ((*name).to_owned(), Json::from(*count))).collect()
}

impl Counts {
    /// What this server's workers have counted.
    pub(super) fn own(meters: &[Arc<Meter>]) -> Self {
        let mut all = Self::default();
        for meter in meters {
            meter.counters.each_agent(|name, counts| {
                let decisions = by_name(&counts.messages);
                if !decisions.is_empty() {
                    add(all.decisions.entry(name.to_string()).or_default(), &decisions);
                }
                let deliveries: ByName =
                    counts.deliveries().into_iter().filter(|(_, count)| *count > 0).collect();
                if !deliveries.is_empty() {
                    add(all.deliveries.entry(name.to_string()).or_default(), &deliveries);
                }
            });
            meter.counters.each_edge(|edge| {
                let counts = by_name(&edge.messages);
                if edge.sender.is_empty() {
                    add(&mut all.other, &counts);
                } else if !counts.is_empty() {
                    let pair = (edge.sender.to_string(), edge.target.to_string());
                    add(all.edges.entry(pair).or_default(), &counts);
                }
            });
        }
        all
    }

    /// Adds another server's.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, counts) in &other.decisions {
            add(self.decisions.entry(name.clone()).or_default(), counts);
        }
        for (name, counts) in &other.deliveries {
            add(self.deliveries.entry(name.clone()).or_default(), counts);
        }
        for (pair, counts) in &other.edges {
            add(self.edges.entry(pair.clone()).or_default(), counts);
        }
        add(&mut self.other, &other.other);
    }

    /// It for the other servers, as much as a report may have.
    pub(super) fn report(&self) -> String {
        let mut most = MAX_REPORTED_EDGES;
        loop {
            let text = self.report_with(most);
            if text.len() <= MAX_REPORT_BYTES || most < MIN_REPORTED_EDGES {
                return text;
            }
            most /= 2;
        }
    }

    fn report_with(&self, most: usize) -> String {
        let mut edges: Vec<(&(String, String), &ByName)> = self.edges.iter().collect();
        edges.sort_by_key(|(_, counts)| std::cmp::Reverse(total(counts)));
        let mut other = self.other.clone();
        edges.iter().skip(most).for_each(|(_, counts)| add(&mut other, counts));
        edges.truncate(most);
        // The same counts are the same text.
        edges.sort();
        let mut names: Vec<&str> =
            self.decisions.keys().chain(self.deliveries.keys()).map(String::as_str).collect();
        names.extend(edges.iter().flat_map(|((from, to), _)| [from.as_str(), to.as_str()]));
        names.sort_unstable();
        names.dedup();
        let at = |name: &str| names.binary_search(&name).ok();
        let each = |counts: &BTreeMap<String, ByName>| {
            counts.iter().filter_map(|(name, counts)| Some((at(name)?, owned(counts)))).collect()
        };
        let report = Report {
            decisions: each(&self.decisions),
            deliveries: each(&self.deliveries),
            edges: edges.iter().filter_map(|((from, to), c)| Some((at(from)?, at(to)?, owned(c)))).collect(),
            other: owned(&other),
            agents: names.iter().map(|name| (*name).into()).collect(),
        };
        // Texts and numbers have a JSON form.
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// Another server's; `None` where it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let report: Report<'_> = serde_json::from_str(text).ok()?;
        let name = |at: usize| report.agents.get(at).map(|name| name.clone().into_owned());
        let each = |counts: &[(usize, BTreeMap<String, u64>)]| {
            counts.iter().map(|(at, counts)| Some((name(*at)?, known(counts)))).collect::<Option<_>>()
        };
        let edge = |(from, to, counts): &(usize, usize, BTreeMap<String, u64>)| {
            Some(((name(*from)?, name(*to)?), known(counts)))
        };
        Some(Self {
            decisions: each(&report.decisions)?,
            deliveries: each(&report.deliveries)?,
            edges: report.edges.iter().map(edge).collect::<Option<_>>()?,
            other: known(&report.other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(edges: usize) -> Counts {
        let one = |name, count| ByName::from([(name, count)]);
        let pair = |n: usize| (format!("agent-number-{n:05}"), format!("agent-number-{:05}", n + 1));
        Counts {
            decisions: BTreeMap::from([("a".to_owned(), one("ALLOWED", 3))]),
            deliveries: BTreeMap::from([("b".to_owned(), one("ack", 2))]),
            edges: (0..edges).map(|n| (pair(n), one("AUTHZ_DENIED", n as u64 + 1))).collect(),
            other: one("ALLOWED", 7),
        }
    }

    #[test]
    fn a_report_reads_back_and_adds_up() {
        let own = counts(3);
        let read = Counts::parse(&own.report()).unwrap();
        assert_eq!(read, own);
        let mut sum = own;
        sum.add(&read);
        assert_eq!(sum.decisions["a"]["ALLOWED"], 6);
        assert_eq!(sum.deliveries["b"]["ack"], 4);
        assert_eq!(sum.edges.values().map(total).sum::<u64>(), 12);
        assert_eq!(sum.other["ALLOWED"], 14);
        for bad in
            ["", "{}", "[]", r#"{"agents":[],"decisions":[[0,{}]],"deliveries":[],"edges":[],"other":{}}"#]
        {
            assert_eq!(Counts::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_report_has_a_bound_and_loses_no_count() {
        let own = counts(30_000);
        let text = own.report();
        assert!(text.len() <= MAX_REPORT_BYTES, "{}", text.len());
        let read = Counts::parse(&text).unwrap();
        assert!(read.edges.len() <= MAX_REPORTED_EDGES && read.edges.len() > MIN_REPORTED_EDGES);
        let all = |counts: &Counts| counts.edges.values().map(total).sum::<u64>() + total(&counts.other);
        assert_eq!(all(&read), all(&own));
        // The busiest are told apart.
        assert!(read.edges.contains_key(&("agent-number-29999".to_owned(), "agent-number-30000".to_owned())));
    }
}
