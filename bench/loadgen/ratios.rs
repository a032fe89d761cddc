//! `loadgen ratios`: the product beside the floors, in turn, several rounds, and medians of what they come to.
//!
//! A ratio is taken within a round, where both sides met the same machine, and the median over the rounds.

use std::io::IsTerminal;

use serde_json::{Value, json};

use crate::agents::{Agents, Names};
use crate::args::RatiosArgs;
use crate::floors::{Floor, FloorPlan, Floors, LOADED, SENDERS, check};
use crate::goal::{self, Bound, Goal, median};
use crate::plan::{Path, Pattern};
use crate::product::{Load, Product};
use crate::setting::{Place, line, setting, with};
use crate::world::Setup;
use crate::{AnyError, usage};

/// The smaller world of the growth measurement: pairs of agents and rules. The larger one has twice as many,
/// and twice the messages in flight, so that a round trip carries as many for each agent.
const GROWTH_PAIRS: usize = 8;
const GROWTH_RULES: usize = 1000;

/// One round's figures.
struct Round {
    redis: Floor,
    redis_one: Floor,
    unary_echo: Floor,
    unary_echo_one: Floor,
    stream_echo: Floor,
    stream_echo_one: Floor,
    stream: Sent,
    unary: Sent,
    one: Sent,
}

/// What a run of the product comes to.
struct Sent {
    per_s: f64,
    end_to_end_p50_us: f64,
    server_cpu_us: f64,
}

/// The command.
pub(crate) fn run(args: &RatiosArgs) -> Result<(), AnyError> {
    let content = args.floor.content.content().map_err(usage)?;
    let (warm_up_s, counted_s) = (args.floor.warm_up as f64, args.floor.seconds as f64);
    let threads = args.floor.threads;
    let floors = Floors::start(FloorPlan { threads, warm_up_s, counted_s, content })?;
    let setup = Setup { threads, fsynced: false, rules: 0 };
    let agents = |pairs: usize| Agents::new(Pattern::Send, 2 * pairs, &Names::default());
    let mut product = Product::start(agents(SENDERS)?, setup, content)?;
    let load = |path, in_flight| Load { path, in_flight, rate: None, warm_up_s, counted_s };

    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        progress(&format!("round {number} of {}", args.rounds));
        rounds.push(Round {
            redis: floors.redis(LOADED)?,
            stream: sent(&mut product, load(Path::Stream, LOADED))?,
            stream_echo: floors.echo(Path::Stream, LOADED)?,
            unary_echo: floors.echo(Path::Unary, LOADED)?,
            unary: sent(&mut product, load(Path::Unary, LOADED))?,
            redis_one: floors.redis(1)?,
            one: sent(&mut product, load(Path::Stream, 1))?,
            stream_echo_one: floors.echo(Path::Stream, 1)?,
            unary_echo_one: floors.echo(Path::Unary, 1)?,
        });
    }

    let peak = median(&each(&rounds, |round| round.stream.per_s));
    let rate = (peak / 2.0).max(1.0);
    progress(&format!("open loop at {rate:.0} messages/s, {} s", args.open_seconds));
    // On a server of its own: how much the one before has on record depends on the rounds.
    drop((product, floors));
    let mut product = Product::start(agents(SENDERS)?, setup, content)?;
    let open = Load { rate: Some(rate), counted_s: args.open_seconds as f64, ..load(Path::Stream, 0) };
    // What fails here is not hidden by an error: it is a goal that is not met.
    let open = product.measure(open)?;
    let place = Place {
        server_version: product.world.version.clone(),
        redis_version: product.world.redis.version.clone(),
        threads: Some(threads),
        fsynced: false,
    };
    drop(product);

    let mut small = Product::start(agents(GROWTH_PAIRS)?, Setup { rules: GROWTH_RULES, ..setup }, content)?;
    let mut large =
        Product::start(agents(2 * GROWTH_PAIRS)?, Setup { rules: 2 * GROWTH_RULES, ..setup }, content)?;
    let mut growth = Vec::new();
    for number in 1..=args.rounds {
        progress(&format!("twice the agents, round {number} of {}", args.rounds));
        let before = sent(&mut small, load(Path::Stream, LOADED))?.server_cpu_us;
        growth.push(sent(&mut large, load(Path::Stream, 2 * LOADED))?.server_cpu_us / before);
    }
    drop((small, large));

    let p50 = open.end_to_end.at(0.5) as f64;
    let tail = [0.99, 0.999].map(|at| open.end_to_end.at(at) as f64 / p50);
    let lost = open.failed() as f64 + open.undelivered.max(0) as f64;
    let goals = goals(&rounds, tail, lost, growth);
    let more = json!({
        "payload_bytes": content.payload_bytes, "findings": content.findings, "rounds": args.rounds,
        "seconds": args.floor.seconds, "open_loop_rate": rate.round(), "open_loop_seconds": args.open_seconds,
        "agents": 2 * SENDERS, "in_flight": LOADED, "client_threads": crate::client_threads(),
        "growth": format!(
            "{} agents, {GROWTH_RULES} rules, {LOADED} in flight to twice of each", 2 * GROWTH_PAIRS
        ),
    });
    let setting = with(setting(&place), &more);
    if args.floor.json {
        let floors: Vec<Value> = rounds.iter().map(Round::json).collect();
        println!(
            "{}",
            json!({
                "setting": setting, "goals": goal::json(&goals), "rounds": floors,
                "open_loop": crate::report::json(&open),
            })
        );
    } else {
        println!("{}\n", line(&setting));
        println!("{}\n", crate::floors::EXPLANATION);
        print_medians(&rounds);
        println!("\nopen loop at half the peak, {rate:.0} messages/s");
        crate::report::print(&open);
        println!();
        goal::print(&goals);
    }
    goal::verdict(&goals, args.check)
}

fn sent(product: &mut Product, load: Load) -> Result<Sent, AnyError> {
    let outcome = product.measure(load)?;
    check(&outcome)?;
    Ok(Sent {
        per_s: outcome.accepted_per_s(),
        end_to_end_p50_us: outcome.end_to_end.at(0.5) as f64,
        server_cpu_us: outcome.per_message_us(outcome.server_cpu_s.unwrap_or_default()),
    })
}

fn each(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

fn goals(rounds: &[Round], tail: [f64; 2], lost: f64, growth: Vec<f64>) -> Vec<Goal> {
    let p50 = |floor: &Floor| floor.latency.at(0.5) as f64;
    let [p99, p999] = tail;
    vec![
        Goal {
            what: "stream sends, 256 in flight / Redis alone",
            measured: each(rounds, |round| round.stream.per_s / round.redis.per_s),
            bound: Bound::AtLeast(0.6),
            unit: "",
        },
        Goal {
            what: "unary sends, 256 in flight / unary echo",
            measured: each(rounds, |round| round.unary.per_s / round.unary_echo.per_s),
            bound: Bound::AtLeast(0.6),
            unit: "",
        },
        Goal {
            what: "server CPU per message, stream",
            measured: each(rounds, |round| round.stream.server_cpu_us),
            bound: Bound::AtMost(10.0),
            unit: "µs",
        },
        Goal {
            what: "server CPU per message, unary",
            measured: each(rounds, |round| round.unary.server_cpu_us),
            bound: Bound::AtMost(35.0),
            unit: "µs",
        },
        Goal {
            what: "one in flight: end to end p50 / (stream echo p50 + Redis round trip p50)",
            measured: each(rounds, |round| {
                round.one.end_to_end_p50_us / (p50(&round.stream_echo_one) + p50(&round.redis_one))
            }),
            bound: Bound::AtMost(3.0),
            unit: "",
        },
        Goal {
            what: "open loop at half the peak: p99 / p50",
            measured: vec![p99],
            bound: Bound::AtMost(5.0),
            unit: "",
        },
        Goal {
            what: "open loop at half the peak: p99.9 / p50",
            measured: vec![p999],
            bound: Bound::AtMost(10.0),
            unit: "",
        },
        Goal {
            what: "open loop at half the peak: messages not sent, failed or not delivered",
            measured: vec![lost],
            bound: Bound::AtMost(0.0),
            unit: "",
        },
        Goal {
            what: "twice the agents, messages, rules: server CPU per message, to before",
            measured: growth,
            bound: Bound::AtMost(1.1),
            unit: "",
        },
    ]
}

fn print_medians(rounds: &[Round]) {
    println!("{:<34} {:>12} {:>10} {:>16}", "medians", "messages/s", "p50 ms", "CPU µs/message");
    let floor = |name: &str, of: fn(&Round) -> &Floor| {
        row(
            name,
            &each(rounds, |round| of(round).per_s),
            &each(rounds, |round| of(round).latency.at(0.5) as f64),
            &each(rounds, |round| of(round).cpu_us),
        );
    };
    let product = |name: &str, of: fn(&Round) -> &Sent| {
        row(
            name,
            &each(rounds, |round| of(round).per_s),
            &each(rounds, |round| of(round).end_to_end_p50_us),
            &each(rounds, |round| of(round).server_cpu_us),
        );
    };
    floor("Redis alone, 256 in flight", |round| &round.redis);
    floor("Redis alone, 1 in flight", |round| &round.redis_one);
    floor("unary echo, 256 in flight", |round| &round.unary_echo);
    floor("unary echo, 1 in flight", |round| &round.unary_echo_one);
    floor("stream echo, 256 in flight", |round| &round.stream_echo);
    floor("stream echo, 1 in flight", |round| &round.stream_echo_one);
    product("server, stream, 256 in flight", |round| &round.stream);
    product("server, unary, 256 in flight", |round| &round.unary);
    product("server, stream, 1 in flight", |round| &round.one);
}

fn row(name: &str, per_s: &[f64], p50_us: &[f64], cpu_us: &[f64]) {
    let (per_s, p50_ms, cpu_us) = (median(per_s), median(p50_us) / 1000.0, median(cpu_us));
    println!("{name:<34} {per_s:>12.0} {p50_ms:>10.3} {cpu_us:>16.1}");
}

impl Round {
    fn json(&self) -> Value {
        let sent = |sent: &Sent| {
            json!({
                "messages_per_s": sent.per_s, "end_to_end_p50_us": sent.end_to_end_p50_us,
                "server_cpu_us_per_message": sent.server_cpu_us,
            })
        };
        let Self { redis, redis_one, unary_echo, unary_echo_one, stream_echo, stream_echo_one, .. } = self;
        let floors = [redis, redis_one, unary_echo, unary_echo_one, stream_echo, stream_echo_one];
        json!({
            "floors": crate::floors::json(&floors),
            "stream_256": sent(&self.stream), "unary_256": sent(&self.unary), "stream_1": sent(&self.one),
        })
    }
}

/// Long work shows that it goes on, on a terminal.
pub(crate) fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("loadgen: {what}");
    }
}
