//! `--ramp`: raises the open loop's rate step by step until latency or backlog breaks. The knee is the last rate
//! that held.

use serde_json::{Value, json};

use crate::AnyError;
use crate::fleet::Outcome;
use crate::run::Bench;
use crate::setting::line;

/// Most steps: 1.25 to this power is more than any rate.
const MAX_STEPS: u32 = 64;
/// The part of the rate that must arrive.
const MIN_DELIVERED: f64 = 0.97;
/// Seconds' worth of messages that may be under way when a step ends.
const MAX_BACKLOG_S: f64 = 0.5;

/// Runs the steps and prints them, and the knee.
pub(crate) fn run(bench: &mut Bench<'_>, first: f64) -> Result<(), AnyError> {
    let args = bench.args();
    let mut rate = first;
    let mut steps: Vec<Value> = Vec::new();
    let mut knee = None;
    let mut last: Option<Outcome> = None;
    for _ in 0..MAX_STEPS {
        let outcome = bench.measure(Some(rate))?;
        if steps.is_empty() && !args.json {
            println!("{}\n", line(&bench.setting(&outcome)));
            println!(
                "{:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>9}  broken by",
                "rate/s", "arrived/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "backlog"
            );
        }
        let broken = broken(&outcome, rate, args.ramp_p99_ms);
        if args.json {
            steps.push(json!({"rate": rate, "broken_by": broken, "result": crate::report::json(&outcome)}));
        } else {
            print_step(&outcome, rate, broken.as_deref());
            steps.push(Value::Null);
        }
        let over = broken.is_some();
        if !over {
            knee = Some(rate);
        }
        last = Some(outcome);
        if over {
            break;
        }
        rate *= args.ramp_step;
    }
    let last = last.ok_or("no step was run")?;
    if let Some(path) = &args.plot {
        crate::plot::write(path, &last, &line(&bench.setting(&last)))?;
    }
    if args.json {
        println!("{}", json!({"setting": bench.setting(&last), "steps": steps, "knee": knee}));
    } else {
        match knee {
            Some(rate) => println!("\nknee: {rate:.0} messages/s is the last rate that held"),
            None => println!("\nno knee: the first rate did not hold"),
        }
    }
    Ok(())
}

/// Why a step does not count as held.
fn broken(outcome: &Outcome, rate: f64, p99_ms: u32) -> Option<String> {
    let p99_us = outcome.latency().at(0.99);
    let done_per_s = outcome.latency().len() as f64 / outcome.seconds;
    if outcome.failed() > 0 {
        let most = outcome.failures.iter().max_by_key(|(_, count)| **count);
        return Some(format!("{} failures, most: {}", outcome.failed(), most.map_or("", |(why, _)| why)));
    }
    if outcome.backlog as f64 > rate * MAX_BACKLOG_S {
        return Some(format!("backlog of more than {MAX_BACKLOG_S} s"));
    }
    if done_per_s < rate * MIN_DELIVERED {
        return Some(format!("less than {:.0} % arrived", MIN_DELIVERED * 100.0));
    }
    (p99_us > u64::from(p99_ms) * 1000).then(|| format!("p99 over {p99_ms} ms"))
}

fn print_step(outcome: &Outcome, rate: f64, broken: Option<&str>) {
    let latency = outcome.latency();
    let ms = |quantile: f64| latency.at(quantile) as f64 / 1000.0;
    let cpu = outcome
        .server_cpu_s
        .map_or_else(|| "?".to_owned(), |used_s| format!("{:.1}", outcome.per_message_us(used_s)));
    println!(
        "{rate:>10.0} {:>12.0} {:>10.3} {:>10.3} {:>10.3} {cpu:>10} {:>9}  {}",
        latency.len() as f64 / outcome.seconds,
        ms(0.5),
        ms(0.99),
        ms(0.999),
        outcome.backlog,
        broken.unwrap_or("-")
    );
}
