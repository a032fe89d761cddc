//! How fast the server was in the last quarter of an hour: a point a second, made from the workers' own counts by the thread
//! that watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::audit::{Action, Decision};
use crate::clock::Now;
use crate::shard::desk::meters::{Histogram, Meter};

/// Points that are kept.
pub(super) const MAX_POINTS: usize = 900;
/// The shares of all values that percentiles are over.
const SHARES: [(&str, f64); 3] = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)];
/// What messages are asked for by.
const CALLS: [Action; 3] = [Action::Send, Action::Request, Action::Reply];

/// Upper bounds of buckets, for each share; `None`: nothing was measured, or it is beyond the last bucket.
type Percentiles = [Option<u64>; SHARES.len()];

/// What is known beside what workers count.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// For each worker, which share of the interval it worked.
    pub(super) busy: Vec<f64>,
    /// For each worker, how many jobs wait.
    pub(super) depths: Vec<usize>,
    /// What Redis uses, in bytes, and its bound.
    pub(super) redis_bytes: Option<(u64, u64)>,
    pub(super) connections: usize,
    pub(super) sessions: usize,
}

/// One second.
#[derive(Debug, Clone)]
struct Point {
    time_ms: u64,
    /// A second, in the order of [`Decision::ALL`].
    decisions: Vec<f64>,
    deliveries: f64,
    queue_us: Percentiles,
    commit_us: Percentiles,
    policy_us: Percentiles,
    beside: Beside,
}

/// What was counted at the last look.
#[derive(Debug, Default)]
struct Counted {
    at_us: u64,
    decisions: Vec<u64>,
    deliveries: u64,
    queue: Buckets,
    commit: Buckets,
    policy: Buckets,
}

/// Values by size: bound and count.
type Buckets = Vec<(Option<u64>, u64)>;

/// The last quarter of an hour.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: Option<Counted>,
    points: VecDeque<Point>,
}

impl History {
    /// Adds a point: what happened since the last look.
    pub(super) fn sample(&self, meters: &[Arc<Meter>], beside: Beside, now: Now) {
        let counted = Counted::of(meters, Now::mono_us());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.last.replace(counted)
            && let Some(counted) = &kept.last
        {
            let point = counted.since(&before, beside, now.unix_us / 1000);
            if kept.points.len() == MAX_POINTS {
                let _ = kept.points.pop_front();
            }
            kept.points.push_back(point);
        }
    }

    /// The newest points, as columns.
    pub(super) fn json(&self, server: &str, most: usize) -> Json {
        let points: Vec<Point> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.points.iter().skip(kept.points.len().saturating_sub(most)).cloned().collect()
        };
        let column = |of: &dyn Fn(&Point) -> Json| Json::from(points.iter().map(of).collect::<Vec<_>>());
        let mut decisions = BTreeMap::new();
        for (at, decision) in Decision::ALL.iter().enumerate() {
            let of = |point: &Point| point.decisions.get(at).copied().unwrap_or(0.0);
            if points.iter().any(|point| of(point) > 0.0) {
                let _ = decisions.insert(decision.as_str(), column(&|point| rounded(of(point))));
            }
        }
        let percentiles = |of: &dyn Fn(&Point) -> &Percentiles| {
            let share = |(at, (name, _)): (usize, &(&'static str, f64))| {
                (*name, column(&|point| Json::from(of(point).get(at).copied().flatten())))
            };
            SHARES.iter().enumerate().map(share).collect::<BTreeMap<_, _>>()
        };
        let workers = points.last().map_or(0, |point| point.beside.depths.len());
        let per_worker = |of: &dyn Fn(&Point, usize) -> Json| {
            (0..workers).map(|worker| column(&|point| of(point, worker))).collect::<Vec<_>>()
        };
        let redis = points.iter().rev().find_map(|point| point.beside.redis_bytes);
        json!({
            "server": server,
            "interval_ms": 1000,
            "time_unix_ms": column(&|point| point.time_ms.into()),
            "decisions": decisions,
            "deliveries": column(&|point| rounded(point.deliveries)),
            "queue_delay_us": percentiles(&|point| &point.queue_us),
            "commit_us": percentiles(&|point| &point.commit_us),
            "policy_us": percentiles(&|point| &point.policy_us),
            "workers_busy": per_worker(&|point, worker| {
                point.beside.busy.get(worker).map_or(Json::Null, |share| ((share * 1e4).round() / 1e4).into())
            }),
            "mailbox_depth": per_worker(&|point, worker| point.beside.depths.get(worker).copied().into()),
            "redis_used_bytes": column(&|point| point.beside.redis_bytes.map(|(used, _)| used).into()),
            "redis_max_bytes": redis.map(|(_, max)| max),
            "connections": column(&|point| point.beside.connections.into()),
            "sessions": column(&|point| point.beside.sessions.into()),
        })
    }
}

/// To a tenth: nobody reads more of a rate.
fn rounded(rate: f64) -> Json {
    ((rate * 10.0).round() / 10.0).into()
}

impl Counted {
    fn of(meters: &[Arc<Meter>], at_us: u64) -> Self {
        let of = |decision: Decision| {
            let calls = CALLS.iter().map(|call| (*call, decision));
            let count = |meter: &Arc<Meter>| {
                calls.clone().map(|(call, decision)| meter.counters.records(call, decision)).sum::<u64>()
            };
            meters.iter().map(count).sum()
        };
        let mut deliveries = 0;
        for meter in meters {
            meter.counters.each_agent(|_, counts| {
                let [(_, first), (_, again), ..] = counts.deliveries();
                deliveries += first + again;
            });
        }
        Self {
            at_us,
            decisions: Decision::ALL.iter().copied().map(of).collect(),
            deliveries,
            queue: sum(meters, |meter| &meter.queue_us),
            commit: sum(meters, |meter| &meter.commit_us),
            policy: sum(meters, |meter| &meter.decide_us),
        }
    }

    fn since(&self, before: &Self, beside: Beside, time_ms: u64) -> Point {
        let seconds = self.at_us.saturating_sub(before.at_us).max(1) as f64 / 1e6;
        let rate = |(now, before): (&u64, &u64)| now.saturating_sub(*before) as f64 / seconds;
        Point {
            time_ms,
            decisions: self.decisions.iter().zip(&before.decisions).map(rate).collect(),
            deliveries: rate((&self.deliveries, &before.deliveries)),
            queue_us: percentiles(&self.queue, &before.queue),
            commit_us: percentiles(&self.commit, &before.commit),
            policy_us: percentiles(&self.policy, &before.policy),
            beside,
        }
    }
}

/// One histogram of all workers.
fn sum(meters: &[Arc<Meter>], of: impl Fn(&Meter) -> &Histogram) -> Buckets {
    let mut all = Buckets::new();
    for meter in meters {
        let (buckets, _) = of(meter).read();
        all.resize(all.len().max(buckets.len()), (None, 0));
        for (sum, (bound, count)) in all.iter_mut().zip(buckets) {
            *sum = (bound, sum.1 + count);
        }
    }
    all
}

/// What was measured between two looks.
fn percentiles(now: &Buckets, before: &Buckets) -> Percentiles {
    let before = before.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
    let new: Buckets =
        now.iter().zip(before).map(|((bound, now), before)| (*bound, now.saturating_sub(before))).collect();
    let all: u64 = new.iter().map(|(_, count)| count).sum();
    SHARES.map(|(_, share)| {
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let found = new.iter().find(|(_, count)| {
            below += count;
            below >= wanted
        });
        found.and_then(|(bound, _)| *bound)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came_since_the_last_look() {
        let before = vec![(Some(32), 1000), (Some(64), 0), (None, 0)];
        let now = vec![(Some(32), 1050), (Some(64), 49), (None, 1)];
        assert_eq!(percentiles(&now, &before), [Some(32), Some(64), Some(64)]);
        assert_eq!(percentiles(&now, &now), [None, None, None]);
        assert_eq!(percentiles(&now, &Vec::new())[0], Some(32));
        let slow = vec![(Some(32), 1000), (Some(64), 0), (None, 5)];
        assert_eq!(percentiles(&slow, &before), [None, None, None]);
    }

    #[test]
    fn a_point_has_rates_by_the_time_that_has_passed() {
        let counted = |at_us, allowed| Counted { at_us, decisions: vec![allowed, 0], ..Counted::default() };
        let point = counted(3_000_000, 300).since(&counted(1_000_000, 100), Beside::default(), 7);
        assert_eq!((point.time_ms, point.decisions), (7, vec![100.0, 0.0]));
    }

    #[test]
    fn the_oldest_point_makes_room() {
        let history = History::default();
        let meters = [Arc::<Meter>::default()];
        for n in 0..MAX_POINTS + 3 {
            let beside = Beside { connections: n, depths: vec![0], ..Beside::default() };
            history.sample(&meters, beside, Now::read());
        }
        let json = history.json("s", 5);
        assert_eq!(json["connections"], json!([898, 899, 900, 901, 902]));
        assert_eq!(json["decisions"], json!({}));
        assert_eq!(json["workers_busy"], json!([[null, null, null, null, null]]));
        assert_eq!(history.json("s", usize::MAX)["time_unix_ms"].as_array().unwrap().len(), MAX_POINTS);
    }
}
