//! Medians over the rounds, as tables and as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::args::Loop;
use crate::drive::Outcome;
use crate::rounds::Series;

/// What is not said by the columns.
const EXPLANATION: &str = "\
Medians over the rounds; least to most messages/s beside them. messages/s: had by the receiver's client, which
acknowledges each. Call: until the sender has the publish ack (NATS), the answer to XADD (Redis), the result on the
stream (MAS). End to end: until the receiver's client has it. In a closed loop the next message follows the ack or
answer; in an open loop both count from the instant at which a message was due. CPU: of all server processes, per
accepted message. Backlog: sent and not received when sending stopped. Undelivered: accepted and not received 5 s after
that, in all rounds together.";

type Rows = Vec<Vec<String>>;

/// The loop, in words.
pub(crate) fn loop_text(kind: Loop) -> String {
    match kind {
        Loop::Closed(in_flight) => format!("{in_flight} in flight"),
        Loop::Open(rate) => format!("{rate}/s"),
    }
}

/// As tables.
pub(crate) fn print(setting: &Map<String, Value>, all: &[Series]) {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" + "),
        other => other.to_string(),
    };
    let parts = setting.iter().filter(|(_, value)| !value.is_null());
    let parts = parts.map(|(key, value)| format!("{}: {}", key.replace('_', " "), shown(value)));
    println!("{}\n", parts.collect::<Vec<_>>().join("; "));
    println!("{}\n", table(&figures(all)));
    println!("{}\n", table(&traits(all)));
    println!("{EXPLANATION}");
    for warning in warnings(all) {
        println!("\nNOTE: {warning}");
    }
}

fn figures(all: &[Series]) -> Rows {
    let head = [
        "server",
        "load",
        "messages/s",
        "least to most",
        "accepted/s",
        "call p50 ms",
        "p99",
        "end to end p50 ms",
        "p99",
        "server CPU µs",
        "client CPU µs",
        "backlog",
        "undelivered",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for series in all {
        let of = |figure: fn(&Outcome) -> f64| median(series.outcomes.iter().map(figure));
        let ms = |figure: fn(&Outcome) -> f64| format!("{:.3}", of(figure) / 1000.0);
        let per_s = || series.outcomes.iter().map(|outcome| outcome.delivered_per_s);
        let least = per_s().fold(f64::INFINITY, f64::min);
        let most = per_s().fold(0.0, f64::max);
        rows.push(vec![
            series.row.traits().name.to_owned(),
            loop_text(series.kind),
            format!("{:.0}", of(|outcome| outcome.delivered_per_s)),
            format!("{least:.0}–{most:.0}"),
            format!("{:.0}", of(|outcome| outcome.accepted_per_s)),
            ms(|outcome| outcome.call_p50),
            ms(|outcome| outcome.call_p99),
            ms(|outcome| outcome.end_to_end_p50),
            ms(|outcome| outcome.end_to_end_p99),
            cpu_text(series),
            format!("{:.1}", of(|outcome| outcome.client_cpu_us)),
            format!("{:.0}", of(|outcome| outcome.backlog as f64)),
            undelivered(series).to_string(),
        ]);
    }
    rows
}

/// The sum, and its parts where there are several.
fn cpu_text(series: &Series) -> String {
    let parts = cpu_parts(series);
    let sum: f64 = parts.iter().map(|(_, us)| us).sum();
    match parts.as_slice() {
        [_] => format!("{sum:.1}"),
        several => {
            let several = several.iter().map(|(name, us)| format!("{name} {us:.1}")).collect::<Vec<_>>();
            format!("{sum:.1} ({})", several.join(", "))
        }
    }
}

fn cpu_parts(series: &Series) -> Vec<(&'static str, f64)> {
    let names = series.outcomes.first().map(|first| first.server_cpu_us.iter().map(|(name, _)| *name));
    let of = |name: &'static str| {
        let all = series.outcomes.iter().flat_map(|outcome| &outcome.server_cpu_us);
        median(all.filter(|(of, _)| *of == name).map(|(_, us)| *us))
    };
    names.into_iter().flatten().map(|name| (name, of(name))).collect()
}

fn traits(all: &[Series]) -> Rows {
    let mut rows = vec![["server", "fsync", "TLS", "checked", "recorded"].map(str::to_owned).to_vec()];
    for series in all {
        let traits = series.row.traits();
        let row = [traits.name, traits.fsync, traits.tls, traits.checked, traits.recorded].map(str::to_owned);
        if !rows.iter().any(|known| known.first() == row.first()) {
            rows.push(row.to_vec());
        }
    }
    rows
}

/// A Markdown table that is aligned as plain text too.
fn table(rows: &Rows) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let line =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    let mut lines = Vec::new();
    for row in rows {
        lines.push(line(&mut row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"))));
        if lines.len() == 1 {
            lines.push(line(&mut widths.iter().map(|width| "-".repeat(*width))));
        }
    }
    lines.join("\n")
}

/// A backlog of this many times what is in flight, or of this part of a second's messages, is no longer what is
/// under way: messages arrive more slowly than they are sent, and end-to-end latency says how long that went on.
const LAG: f64 = 3.0;
const LAG_S: f64 = 0.1;

fn lags(series: &Series) -> bool {
    let under_way = match series.kind {
        Loop::Closed(in_flight) => f64::from(in_flight) * LAG,
        Loop::Open(rate) => f64::from(rate) * LAG_S,
    };
    median(series.outcomes.iter().map(|outcome| outcome.backlog as f64)) > under_way
}

/// What a reader must not miss.
fn warnings(all: &[Series]) -> Vec<String> {
    let mut warnings = Vec::new();
    for series in all {
        let name = format!("{}, {}", series.row.traits().name, loop_text(series.kind));
        if lags(series) {
            let hint = if series.row.appendfsync().is_some() { "; try a larger --read-count" } else { "" };
            warnings.push(format!(
                "{name}: messages arrived more slowly than they were sent: end to end shows a backlog that grew{hint}"
            ));
        }
        let undelivered = undelivered(series);
        if undelivered > 0 {
            warnings.push(format!("{name}: {undelivered} accepted messages did not arrive"));
        }
        if let Some(left) = left(series).filter(|left| *left > undelivered) {
            warnings.push(format!("{name}: {left} messages were still stored at the end"));
        }
        let repeated: u64 = series.outcomes.iter().map(|outcome| outcome.repeated).sum();
        if repeated > 0 {
            warnings.push(format!("{name}: {repeated} messages were delivered again"));
        }
        for (reason, count) in failures(series) {
            warnings.push(format!("{name}: {count} failed: {reason}"));
        }
    }
    warnings
}

fn undelivered(series: &Series) -> u64 {
    series.outcomes.iter().map(|outcome| outcome.undelivered).sum()
}

fn left(series: &Series) -> Option<u64> {
    series.outcomes.iter().map(|outcome| outcome.left).sum()
}

fn failures(series: &Series) -> BTreeMap<&str, u64> {
    let mut all = BTreeMap::new();
    for (reason, count) in series.outcomes.iter().flat_map(|outcome| &outcome.failures) {
        *all.entry(reason.as_str()).or_default() += count;
    }
    all
}

/// As one JSON object; times in microseconds.
pub(crate) fn json(setting: &Map<String, Value>, all: &[Series]) -> Value {
    let mut rows = Vec::new();
    for series in all {
        let of = |figure: fn(&Outcome) -> f64| median(series.outcomes.iter().map(figure));
        let (in_flight, rate) = match series.kind {
            Loop::Closed(in_flight) => (Some(in_flight), None),
            Loop::Open(rate) => (None, Some(rate)),
        };
        let traits = series.row.traits();
        rows.push(json!({
            "server": traits.name, "in_flight": in_flight, "rate": rate,
            "fsync": traits.fsync, "tls": traits.tls, "checked": traits.checked, "recorded": traits.recorded,
            "median": {
                "accepted_per_s": of(|outcome| outcome.accepted_per_s),
                "delivered_per_s": of(|outcome| outcome.delivered_per_s),
                "call_us": {"p50": of(|outcome| outcome.call_p50), "p99": of(|outcome| outcome.call_p99)},
                "end_to_end_us": {
                    "p50": of(|outcome| outcome.end_to_end_p50), "p99": of(|outcome| outcome.end_to_end_p99),
                },
                "server_cpu_us_per_message": cpu_parts(series).into_iter().collect::<BTreeMap<_, _>>(),
                "client_cpu_us_per_message": of(|outcome| outcome.client_cpu_us),
            },
            "undelivered": undelivered(series), "left": left(series), "failures": failures(series),
            "rounds": series.outcomes.iter().map(round).collect::<Vec<_>>(),
        }));
    }
    json!({"setting": setting, "rows": rows, "explanation": EXPLANATION, "notes": warnings(all)})
}

fn round(outcome: &Outcome) -> Value {
    json!({
        "accepted_per_s": outcome.accepted_per_s, "delivered_per_s": outcome.delivered_per_s,
        "call_us": {"p50": outcome.call_p50, "p99": outcome.call_p99},
        "end_to_end_us": {"p50": outcome.end_to_end_p50, "p99": outcome.end_to_end_p99},
        "server_cpu_us_per_message": outcome.server_cpu_us.iter().copied().collect::<BTreeMap<_, _>>(),
        "client_cpu_us_per_message": outcome.client_cpu_us,
        "backlog": outcome.backlog, "undelivered": outcome.undelivered, "repeated": outcome.repeated,
        "left": outcome.left, "failures": outcome.failures,
    })
}

/// The middle one, or between the two middle ones; 0 of none.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = figures.collect();
    all.sort_by(f64::total_cmp);
    let at = |index: usize| all.get(index).copied().unwrap_or_default();
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
