//! What data-loss prevention finds and costs: detection on generated, labelled data, findings on benign
//! documents, nanoseconds for a clean message, and the dearest of many hostile inputs.

mod samples;

use std::hint::black_box;
use std::time::Instant;

use mas::dlp::{Action, Dlp, DlpConfig, Scratch};

/// Samples per row.
const SAMPLES: usize = 2000;
/// Rounds of the small message.
const ROUNDS: u32 = 200_000;
const MIB: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dlp = Dlp::compile(&DlpConfig::default())?;
    let mut scratch = Scratch::new();
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
    let ordinary = format!("{{\"x\":[{small}{}]}}", format!(",{small}").repeat(MIB / small.len()));
    let usual = per_mib(dlp, &ordinary, scratch);
    println!("ordinary text: {:.0} MB/s", MIB as f64 / 1e6 / usual);
    let worst = samples::hostile()
        .into_iter()
        .map(|data| (per_mib(dlp, &data, scratch) / usual, data))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((ratio, data)) = worst {
        let head: String = data.chars().take(40).collect();
        println!("dearest of the hostile inputs: {ratio:.2} times ordinary text ({head}…)");
    }
}

/// Seconds for a mebibyte: the best of some.
fn per_mib(dlp: &Dlp, data: &str, scratch: &mut Scratch) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let begun = Instant::now();
        let _ = black_box(dlp.scan("t", data, scratch));
        best = best.min(begun.elapsed().as_secs_f64());
    }
    best * MIB as f64 / data.len() as f64
}
