//! What is read from a server, and what two readings say of the time between them.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::cli::admin::{Asker, Trouble};
use crate::cli::facts::samples::{Labels, Samples};

/// What a server said at one time.
pub(super) struct Reading {
    at: Instant,
    pub(super) status: Json,
    samples: Samples,
}

impl Reading {
    /// Asks the server.
    pub(super) fn take(asker: &Asker) -> Result<Self, Trouble> {
        let status = asker.json("/api/v1/status")?;
        let (code, page) = asker.text("/metrics")?;
        let at = Instant::now();
        if code != 200 {
            let url = "/metrics".to_owned();
            return Err(Trouble::Refused { url, status: code, why: page.chars().take(200).collect() });
        }
        Ok(Self { at, status, samples: Samples::parse(&page) })
    }

    /// Whether both are of the same run of a server: counters begin anew with each.
    fn is_of(&self, other: &Self) -> bool {
        self.status.get("server") == other.status.get("server")
    }
}

/// One agent, in a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) agent: String,
    pub(super) sessions: u64,
    /// What it asked for and was allowed, and what it was refused.
    pub(super) sent: f64,
    pub(super) refused: f64,
    /// What it was given, acknowledged, and gave back.
    pub(super) delivered: f64,
    pub(super) acked: f64,
    pub(super) failed: f64,
    pub(super) waiting: u64,
    pub(super) unacked: u64,
    pub(super) is_open: bool,
}

/// One worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worker {
    pub(super) index: String,
    pub(super) busy: f64,
    pub(super) beat_age_s: f64,
}

/// What is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    /// Each in a second.
    pub(super) decided: f64,
    pub(super) refused: f64,
    pub(super) delivered: f64,
    pub(super) acked: f64,
    pub(super) failed: f64,
    /// Means over the time between, in seconds; `None`: nothing happened.
    pub(super) queue_delay_s: Option<f64>,
    pub(super) commit_s: Option<f64>,
    pub(super) batch: Option<f64>,
    pub(super) cpu: f64,
    pub(super) workers: Vec<Worker>,
    pub(super) rows: Vec<Row>,
}

impl View {
    /// What happened from one reading to the next, which are of the same run of a server. Without an earlier one rates are 0.
    pub(super) fn between(before: Option<&Reading>, now: &Reading) -> Self {
        let before = before.filter(|before| before.is_of(now));
        let seconds = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
        let delta = |name: &str, fits: &dyn Fn(&Labels) -> bool| {
            let earlier = before.map_or(0.0, |before| before.samples.sum(name, fits));
            (now.samples.sum(name, fits) - earlier).max(0.0)
        };
        let rate = |name: &str, fits: &dyn Fn(&Labels) -> bool| {
            if seconds > 0.0 { delta(name, fits) / seconds } else { 0.0 }
        };
        let mean = |name: &str| {
            let count = before.map_or(0.0, |_| delta(&format!("{name}_count"), &any));
            (count > 0.0).then(|| delta(&format!("{name}_sum"), &any) / count)
        };
        let outcome = |wanted: &'static [&'static str]| {
            rate("mas_deliveries_total", &|labels| wanted.contains(&of(labels, "outcome")))
        };
        Self {
            decided: rate("mas_messages_total", &any),
            refused: rate("mas_messages_total", &is_refused),
            delivered: outcome(DELIVERED),
            acked: outcome(ACKED),
            failed: outcome(FAILED),
            queue_delay_s: mean("mas_queue_delay_seconds"),
            commit_s: mean("mas_commit_duration_seconds"),
            batch: mean("mas_batch_messages"),
            cpu: rate("process_cpu_seconds_total", &any),
            workers: workers(&now.samples),
            rows: rows(before, now, seconds),
        }
    }

    /// It as JSON, beside what the server says of itself.
    pub(super) fn json(&self, status: &Json) -> Json {
        let rows = self.rows.iter().map(|row| {
            json!({
                "agent": row.agent, "sessions": row.sessions, "sent_per_s": row.sent, "refused_per_s": row.refused,
                "delivered_per_s": row.delivered, "acked_per_s": row.acked, "failed_per_s": row.failed,
                "waiting": row.waiting, "unacked": row.unacked, "circuit_open": row.is_open,
            })
        });
        let workers = self.workers.iter().map(
            |worker| json!({"worker": worker.index, "busy": worker.busy, "beat_age_s": worker.beat_age_s}),
        );
        json!({
            "status": status, "decided_per_s": self.decided, "refused_per_s": self.refused,
            "delivered_per_s": self.delivered, "acked_per_s": self.acked, "failed_per_s": self.failed,
            "queue_delay_s": self.queue_delay_s, "commit_s": self.commit_s, "batch_messages": self.batch,
            "cpu_cores": self.cpu, "workers": workers.collect::<Vec<_>>(), "agents": rows.collect::<Vec<_>>(),
        })
    }
}

const DELIVERED: &[&str] = &["delivered", "redelivered"];
const ACKED: &[&str] = &["ack"];
const FAILED: &[&str] = &["nack", "dead"];
/// Decisions that let a message pass.
const ALLOWED: &[&str] = &["ALLOWED", "ALERT", "DLP_REDACTED"];

fn any(_: &Labels) -> bool {
    true
}

fn of<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.get(name).map(String::as_str).unwrap_or_default()
}

fn is_refused(labels: &Labels) -> bool {
    !ALLOWED.contains(&of(labels, "decision"))
}

fn workers(samples: &Samples) -> Vec<Worker> {
    let beats = samples.all("mas_worker_beat_age_seconds");
    let busy = samples.all("mas_worker_busy_ratio");
    let worker = |(labels, age): &(Labels, f64)| {
        let index = of(labels, "worker");
        let ratio = busy.iter().find(|(labels, _)| of(labels, "worker") == index);
        Worker { index: index.to_owned(), busy: ratio.map_or(0.0, |(_, ratio)| *ratio), beat_age_s: *age }
    };
    beats.iter().map(worker).collect()
}

fn rows(before: Option<&Reading>, now: &Reading, seconds: f64) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let row = |rows: &mut BTreeMap<String, Row>, agent: &str, change: &dyn Fn(&mut Row)| {
        let row = rows.entry(agent.to_owned()).or_default();
        agent.clone_into(&mut row.agent);
        change(row);
    };
    for name in ["mas_agent_messages_total", "mas_deliveries_total"] {
        let earlier: BTreeMap<&Labels, f64> = before
            .map(|before| before.samples.all(name).iter().map(|(labels, count)| (labels, *count)).collect())
            .unwrap_or_default();
        for (labels, count) in now.samples.all(name) {
            let rate = match before {
                Some(_) if seconds > 0.0 => (count - earlier.get(labels).unwrap_or(&0.0)).max(0.0) / seconds,
                _ => 0.0,
            };
            row(&mut rows, of(labels, "agent"), &|row| match of(labels, "outcome") {
                "" if is_refused(labels) => row.refused += rate,
                "" => row.sent += rate,
                outcome if DELIVERED.contains(&outcome) => row.delivered += rate,
                outcome if ACKED.contains(&outcome) => row.acked += rate,
                outcome if FAILED.contains(&outcome) => row.failed += rate,
                _ => {}
            });
        }
    }
    let number = |json: &Json, name: &str| json.get(name).and_then(Json::as_u64).unwrap_or(0);
    for (agent, count) in now.status.get("sessions").and_then(Json::as_object).into_iter().flatten() {
        row(&mut rows, agent, &|row| row.sessions = count.as_u64().unwrap_or(0));
    }
    for inbox in now.status.get("inboxes").and_then(Json::as_array).into_iter().flatten() {
        let agent = inbox.get("agent").and_then(Json::as_str).unwrap_or_default();
        row(&mut rows, agent, &|row| {
            (row.waiting, row.unacked) = (number(inbox, "waiting"), number(inbox, "delivered"));
        });
    }
    let open = now.status.get("circuits_open").and_then(Json::as_array).into_iter().flatten();
    for agent in open.filter_map(Json::as_str) {
        row(&mut rows, agent, &|row| row.is_open = true);
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reading(at: Instant, server: &str, page: &str) -> Reading {
        let status = json!({
            "server": server, "sessions": {"a": 2}, "circuits_open": ["b"],
            "inboxes": [{"agent": "b", "waiting": 3, "delivered": 1}],
        });
        Reading { at, status, samples: Samples::parse(page) }
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings_of_one_run() {
        let start = Instant::now();
        let page = |n: u32| {
            format!(
                "mas_messages_total{{call=\"send\",decision=\"ALLOWED\"}} {n}\n\
                 mas_messages_total{{call=\"send\",decision=\"AUTHZ_DENIED\"}} 4\n\
                 mas_agent_messages_total{{agent=\"a\",decision=\"ALLOWED\"}} {n}\n\
                 mas_deliveries_total{{agent=\"b\",outcome=\"ack\"}} {n}\n\
                 mas_commit_duration_seconds_sum {n}\nmas_commit_duration_seconds_count {n}\n\
                 mas_worker_beat_age_seconds{{worker=\"0\"}} 0.5\nmas_worker_busy_ratio{{worker=\"0\"}} 0.25\n"
            )
        };
        let before = reading(start, "x", &page(10));
        let now = reading(start + Duration::from_secs(2), "x", &page(30));
        let view = View::between(Some(&before), &now);
        assert_eq!((view.decided, view.refused, view.acked), (10.0, 0.0, 10.0));
        assert_eq!((view.commit_s, view.queue_delay_s), (Some(1.0), None));
        assert_eq!(view.workers, [Worker { index: "0".to_owned(), busy: 0.25, beat_age_s: 0.5 }]);
        let a = Row { agent: "a".to_owned(), sessions: 2, sent: 10.0, ..Row::default() };
        let b = Row {
            agent: "b".to_owned(),
            acked: 10.0,
            waiting: 3,
            unacked: 1,
            is_open: true,
            ..Row::default()
        };
        assert_eq!(view.rows, [a, b]);
        // Another run counts from 0 again.
        let after = reading(start + Duration::from_secs(3), "y", &page(1));
        assert_eq!(View::between(Some(&now), &after).decided, 0.0);
        assert_eq!(View::between(None, &now).rows[0].sent, 0.0);
    }
}
