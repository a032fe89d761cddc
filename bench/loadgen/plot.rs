//! Latency by percentile and over time as one page: inline SVG, no script, nothing from outside.

use std::fmt::Write;
use std::path::Path;

use crate::AnyError;
use crate::fleet::Outcome;
use crate::latency::Latencies;

/// Size of a chart and the margins of its plot area, in pixels.
const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// Points of a curve by percentile.
const POINTS: u32 = 200;
/// The axis of percentiles ends at 1 - 10^-this.
const MAX_NINES: f64 = 5.0;
/// Where the median is on it: -log10(1 - 0.5).
const HALF: f64 = std::f64::consts::LOG10_2;
/// Fewest latencies beyond a percentile that make it worth drawing.
const MIN_BEYOND: f64 = 1.0;
/// Told apart in print and by the colour-blind (Okabe and Ito).
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

struct Curve {
    name: &'static str,
    /// Horizontal value and milliseconds.
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: &'static str,
    x_label: &'static str,
    /// Value and text.
    x_ticks: Vec<(f64, String)>,
    x_max: f64,
    curves: Vec<Curve>,
}

/// Writes the page.
pub(crate) fn write(path: &Path, outcome: &Outcome, setting: &str) -> Result<(), AnyError> {
    let page = page(outcome, setting)?;
    std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn page(outcome: &Outcome, setting: &str) -> Result<String, AnyError> {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>loadgen</title>\
         <style>body{font:14px sans-serif;max-width:880px;margin:2em auto;color:#222}\
         svg{display:block;margin:1em 0;max-width:100%;height:auto}p{line-height:1.5}</style></head><body>\n",
    );
    writeln!(page, "<h1>Latency under load</h1>")?;
    writeln!(
        page,
        "<p>{:.0} messages/s accepted, {} failed, {} under way at the end.</p>",
        outcome.accepted_per_s(),
        outcome.failed(),
        outcome.backlog
    )?;
    for chart in [by_percentile(outcome), over_time(outcome)] {
        page.push_str(&chart.svg()?);
    }
    writeln!(page, "<p>{}</p>\n</body></html>", escape(setting))?;
    Ok(page)
}

fn by_percentile(outcome: &Outcome) -> Chart {
    let mut curves = vec![Curve { name: "call", points: percentiles(&outcome.call) }];
    if outcome.pattern.arrives() {
        curves.push(Curve { name: "end to end", points: percentiles(&outcome.end_to_end) });
    }
    let ticks = [
        (0.0, "0 %"),
        (HALF, "50 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    Chart {
        title: "Latency by percentile",
        x_label: "messages that were at least as fast (%)",
        x_ticks: ticks.map(|(at, text)| (at, text.to_owned())).to_vec(),
        x_max: MAX_NINES,
        curves,
    }
}

fn percentiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let count = latencies.len() as f64;
    (0..=POINTS)
        .map(|step| f64::from(step) / f64::from(POINTS) * MAX_NINES)
        .filter(|nines| count * 10f64.powf(-nines) >= MIN_BEYOND)
        .map(|nines| (nines, latencies.at(1.0 - 10f64.powf(-nines)) as f64 / 1000.0))
        .collect()
}

fn over_time(outcome: &Outcome) -> Chart {
    let curve = |name, value: fn(&Latencies) -> u64| {
        let slices = outcome.slices.iter().enumerate().filter(|(_, slice)| slice.len() > 0);
        let points = slices
            .map(|(at, slice)| ((at as f64 + 0.5) * outcome.slice_s, value(slice) as f64 / 1000.0))
            .collect();
        Curve { name, points }
    };
    let step = nice_step(outcome.seconds);
    let ticks = (0..).map(|at| f64::from(at) * step).take_while(|at| *at <= outcome.seconds * 1.0001);
    Chart {
        title: if outcome.pattern.arrives() { "End to end over time" } else { "Calls over time" },
        x_label: "time since counting started (s)",
        x_ticks: ticks.map(|at| (at, format!("{at}"))).collect(),
        x_max: outcome.seconds,
        curves: vec![
            curve("p50", |slice| slice.at(0.5)),
            curve("p99", |slice| slice.at(0.99)),
            curve("max", Latencies::max),
        ],
    }
}

/// A step of 1, 2 or 5 times a power of ten that makes 5 to 12 ticks.
fn nice_step(range: f64) -> f64 {
    let rough = range.max(1e-3) / 10.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

impl Chart {
    fn svg(&self) -> Result<String, AnyError> {
        let values = || self.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, ms)| *ms));
        let least = values().fold(f64::INFINITY, f64::min).clamp(1e-3, 1e5);
        let most = values().fold(least, f64::max);
        // Whole decades, at least one.
        let (low, mut high) = (least.log10().floor(), most.log10().ceil());
        if high <= low {
            high = low + 1.0;
        }
        let x = |value: f64| LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT);
        let y = |ms: f64| {
            let part = (ms.max(1e-6).log10() - low) / (high - low);
            HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
        };
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            self.title
        )?;
        for decade in low as i32..=high as i32 {
            let ms = 10f64.powi(decade);
            let at = y(ms);
            writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ccc\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms}</text>",
                LEFT - 6.0,
                at + 4.0
            )?;
        }
        for (value, text) in &self.x_ticks {
            let at = x(*value);
            writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            )?;
        }
        writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"#444\"/>",
            right - LEFT,
            bottom - TOP
        )?;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 12.0,
            self.x_label
        )?;
        let middle = f64::midpoint(TOP, bottom);
        writeln!(
            svg,
            "<text transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">latency (ms)</text>"
        )?;
        for (number, (curve, colour)) in self.curves.iter().zip(COLOURS).enumerate() {
            let mut points = String::new();
            for (value, ms) in &curve.points {
                write!(points, "{:.1},{:.1} ", x(*value), y(*ms))?;
            }
            writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            )?;
            let legend = right - 100.0 * (self.curves.len() - number) as f64;
            writeln!(
                svg,
                "<line x1=\"{legend:.1}\" x2=\"{:.1}\" y1=\"30\" y2=\"30\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <text x=\"{:.1}\" y=\"34\">{}</text>",
                legend + 20.0,
                legend + 26.0,
                curve.name
            )?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
