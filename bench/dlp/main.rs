//! What data-loss prevention finds and costs: detection on generated, labelled data, findings on benign
//! documents, nanoseconds for a clean message, and the dearest of many hostile inputs.
//!
//! `--hostile` prints what each hostile input costs, as a multiple of ordinary text; `--instructions`
//! counts instructions instead of time (it runs itself under valgrind once an input: minutes). `--corpus` holds the budgets of
//! `bench/dlp/corpus`.

#![forbid(unsafe_code)]

mod corpus;
mod hostile;
mod samples;

use std::hint::black_box;
use std::time::Instant;

use mas::dlp::{Action, Dlp, DlpConfig, Scratch};

/// Samples per row.
const SAMPLES: usize = 2000;
/// Rounds of the small message.
const ROUNDS: u32 = 200_000;
const MIB: usize = 1 << 20;
/// Inputs that the short form of the table of hostile inputs names.
const DEAREST: usize = 5;
/// Rounds of each hostile input and of ordinary text beside it.
const ROUNDS_EACH: usize = 2;
/// What a mebibyte of hostile text may cost, as a multiple of ordinary text.
const BOUND: f64 = 3.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dlp = Dlp::compile(&DlpConfig::default())?;
    let mut scratch = Scratch::new();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {}
        ["--hostile"] => {
            report(&timed(&dlp, &mut scratch), usize::MAX);
            return Ok(());
        }
        ["--instructions"] => {
            report(&counted()?, usize::MAX);
            return Ok(());
        }
        ["--corpus", budgets, folders @ ..] if !folders.is_empty() => {
            let folders: Vec<_> = folders.iter().map(std::path::PathBuf::from).collect();
            return corpus::gate(&dlp, budgets.as_ref(), &folders);
        }
        // What `--instructions` runs: one scan.
        ["--one", number] => {
            let data = match number.parse::<usize>()?.checked_sub(1) {
                None => ordinary(),
                Some(at) => hostile::inputs().get(at).ok_or("there is no such input")?.payload(),
            };
            let _ = black_box(dlp.scan("t", &data, &mut scratch));
            return Ok(());
        }
        _ => return Err("usage: dlp-bench [--hostile | --instructions | --corpus BUDGETS FOLDER…]".into()),
    }
    detection(&dlp, &mut scratch);
    benign(&dlp, &mut scratch);
    cost(&dlp, &mut scratch);
    Ok(())
}

/// Recall over what is there, precision against look-alikes that are not.
fn detection(dlp: &Dlp, scratch: &mut Scratch) {
    println!("{:<24} {:>8} {:>8} {:>10}", "type", "samples", "recall", "precision");
    for row in samples::rows() {
        let mut random = samples::Random::new(row.name);
        let mut found = |make: fn(&mut samples::Random) -> String| {
            let hits = (0..SAMPLES).filter(|_| {
                let data = samples::document(&mut random.clone_step(), &make(&mut random));
                let scan = dlp.scan("note", &data, scratch);
                scan.findings.iter().any(|finding| row.kinds.contains(&&*finding.kind))
            });
            hits.count()
        };
        let (true_hits, false_hits) = (found(row.positive), row.negative.map_or(0, &mut found));
        let recall = true_hits as f64 / SAMPLES as f64;
        let precision = true_hits as f64 / ((true_hits + false_hits).max(1)) as f64;
        println!("{:<24} {SAMPLES:>8} {recall:>8.4} {precision:>10.4}", row.name);
    }
}

fn benign(dlp: &Dlp, scratch: &mut Scratch) {
    let mut random = samples::Random::new("benign");
    let (mut stopped, mut alerted) = (0, 0);
    let documents = SAMPLES * 5;
    for _ in 0..documents {
        match dlp.scan("note", &samples::benign(&mut random), scratch).action {
            Action::Block | Action::Redact => stopped += 1,
            Action::Alert => alerted += 1,
            Action::Allow => {}
        }
    }
    println!("\nbenign documents: {documents}, blocked or redacted {stopped}, alerted {alerted}");
}

fn cost(dlp: &Dlp, scratch: &mut Scratch) {
    let small = samples::CLEAN;
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let _ = black_box(dlp.scan("task.request", black_box(small), scratch));
    }
    let ns = begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    println!("\nclean message of {} bytes: {ns:.0} ns", small.len());
    let usual = per_mib(dlp, &ordinary(), scratch);
    println!("ordinary text: {:.0} MB/s\n", MIB as f64 / 1e6 / usual);
    report(&timed(dlp, scratch), DEAREST);
}

/// A mebibyte of what agents send.
fn ordinary() -> String {
    let small = samples::CLEAN;
    format!("{{\"x\":[{small}{}]}}", format!(",{small}").repeat(MIB / small.len()))
}

/// What a hostile input costs.
struct Cost {
    name: String,
    times_ordinary: f64,
}

/// Prints the dearest first.
fn report(costs: &[Cost], most: usize) {
    let mut sorted: Vec<&Cost> = costs.iter().collect();
    sorted.sort_by(|a, b| b.times_ordinary.total_cmp(&a.times_ordinary));
    println!("hostile inputs: {}, times ordinary text:", sorted.len());
    for cost in sorted.iter().take(most) {
        println!("{:>8.2}  {}", cost.times_ordinary, cost.name.escape_debug());
    }
    let over = sorted.iter().filter(|cost| cost.times_ordinary > BOUND).count();
    println!("over {BOUND}: {over}");
}

/// In time. Ordinary text is measured beside each input, so that both see the same machine.
fn timed(dlp: &Dlp, scratch: &mut Scratch) -> Vec<Cost> {
    let ordinary = ordinary();
    let mut costs = Vec::new();
    for input in hostile::inputs() {
        let data = input.payload();
        let (mut usual, mut hostile) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS_EACH {
            usual = usual.min(per_mib(dlp, &ordinary, scratch));
            hostile = hostile.min(per_mib(dlp, &data, scratch));
        }
        costs.push(Cost { name: input.name, times_ordinary: hostile / usual });
    }
    costs
}

/// In instructions, as valgrind counts them.
fn counted() -> Result<Vec<Cost>, Box<dyn std::error::Error>> {
    let usual = instructions(0)?;
    let mut costs = Vec::new();
    for (at, input) in hostile::inputs().into_iter().enumerate() {
        let count = instructions(at + 1)? * MIB as f64 / input.payload().len() as f64;
        costs.push(Cost { name: input.name, times_ordinary: count / usual });
    }
    Ok(costs)
}

fn instructions(number: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let run = std::process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*Dlp*scan_texts*"])
        .arg(std::env::current_exe()?)
        .args(["--one", &number.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing for input {number}: {said}").into())
}

/// Seconds for a mebibyte: the best of some.
fn per_mib(dlp: &Dlp, data: &str, scratch: &mut Scratch) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        let _ = black_box(dlp.scan("t", data, scratch));
        best = best.min(begun.elapsed().as_secs_f64());
    }
    best * MIB as f64 / data.len() as f64
}
