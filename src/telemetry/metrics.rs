//! What a scrape is told, as messages of OTLP: the page in Prometheus' text format is taken apart again, so both tell the same.

use std::collections::BTreeMap;

use protobuf::MessageField;

use super::attributes::text;
use crate::otlp::{
    ExportMetrics, Gauge, Histogram, HistogramPoint, KeyValue, Metric, NumberPoint, Resource,
    ResourceMetrics, Scope, ScopeMetrics, Sum, Temporality,
};

/// Names and values of labels.
type Labels<'a> = Vec<(&'a str, String)>;
/// Name, labels and value.
type Sample<'a> = (&'a str, Labels<'a>, f64);

/// One family.
#[derive(Default)]
struct Family<'a> {
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

/// One export. `times`: since when it is counted, and now, Unix microseconds.
pub(super) fn export(page: &str, resource: &Resource, scope: Scope, times: (u64, u64)) -> ExportMetrics {
    let metrics = families(page).into_iter().filter_map(|(name, family)| metric(name, &family, times));
    let scope_metrics = ScopeMetrics {
        scope: MessageField::some(scope),
        metrics: metrics.collect(),
        ..ScopeMetrics::default()
    };
    let resource_metrics = ResourceMetrics {
        resource: MessageField::some(resource.clone()),
        scope_metrics: vec![scope_metrics],
        ..ResourceMetrics::default()
    };
    ExportMetrics { resource_metrics: vec![resource_metrics], ..ExportMetrics::default() }
}

fn families(page: &str) -> BTreeMap<&str, Family<'_>> {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    let mut current = "";
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            current = name;
            families.entry(name).or_default().kind = kind;
        } else if let Some((sample, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            if let (Ok(value), Some(family)) = (value.parse(), families.get_mut(current)) {
                family.samples.push((name, self::labels(labels), value));
            }
        }
    }
    families
}

/// `a="b",c="d"}`, with escapes in the values.
fn labels(text: &str) -> Labels<'_> {
    let mut labels = Vec::new();
    let mut rest = text;
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let mut end = quoted.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => {}
                },
                plain => value.push(plain),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        rest = quoted.get(end..).unwrap_or_default();
    }
    labels
}

fn attributes(labels: &[(&str, String)]) -> Vec<KeyValue> {
    labels.iter().filter(|(name, _)| *name != "le").map(|(name, value)| text(name, value)).collect()
}

fn metric(name: &str, family: &Family<'_>, (began_us, now_us): (u64, u64)) -> Option<Metric> {
    let (start, now) = (began_us.saturating_mul(1000), now_us.saturating_mul(1000));
    let point = |(_, labels, value): &Sample<'_>| NumberPoint {
        start_time_unix_nano: start,
        time_unix_nano: now,
        as_double: *value,
        attributes: attributes(labels),
        ..NumberPoint::default()
    };
    let points: Vec<NumberPoint> = family.samples.iter().map(point).collect();
    let temporality = Temporality::TEMPORALITY_CUMULATIVE.into();
    let mut metric =
        Metric { name: name.to_owned(), description: family.help.to_owned(), ..Metric::default() };
    if points.is_empty() {
        return None;
    }
    match family.kind {
        "counter" => metric.set_sum(Sum {
            data_points: points,
            aggregation_temporality: temporality,
            is_monotonic: true,
            ..Sum::default()
        }),
        "gauge" => metric.set_gauge(Gauge { data_points: points, ..Gauge::default() }),
        "histogram" => metric.set_histogram(Histogram {
            data_points: vec![histogram(family, (start, now))],
            aggregation_temporality: temporality,
            ..Histogram::default()
        }),
        _ => return None,
    }
    Some(metric)
}

/// The server's histograms have no labels but their bounds.
fn histogram(family: &Family<'_>, (start, now): (u64, u64)) -> HistogramPoint {
    let mut point =
        HistogramPoint { start_time_unix_nano: start, time_unix_nano: now, ..HistogramPoint::default() };
    let mut before = 0;
    for (name, labels, value) in &family.samples {
        if name.ends_with("_bucket") {
            // They are counts of all up to the bound there, and of those between two bounds here.
            let upto = *value as u64;
            point.bucket_counts.push(upto.saturating_sub(before));
            before = upto;
            let bound =
                labels.iter().find(|(name, _)| *name == "le").and_then(|(_, le)| le.parse::<f64>().ok());
            point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
        } else if name.ends_with("_sum") {
            point.sum = *value;
        } else if name.ends_with("_count") {
            point.count = *value as u64;
        }
    }
    point
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a_total Things.
# TYPE a_total counter
a_total{x=\"1\",y=\"q\\\"\\\\\\n,z=\\\"\"} 3
a_total{x=\"2\",y=\"\"} 4.5
# HELP g How much.
# TYPE g gauge
g 0.25
# HELP h_seconds How long.
# TYPE h_seconds histogram
h_seconds_sum 1.5
h_seconds_count 7
h_seconds_bucket{le=\"0.1\"} 2
h_seconds_bucket{le=\"1.0\"} 5
h_seconds_bucket{le=\"+Inf\"} 7
# HELP empty Nothing.
# TYPE empty gauge
# EOF
";

    #[test]
    fn a_page_is_told_as_it_is() {
        let export = export(PAGE, &Resource::default(), Scope::default(), (1, 2));
        let metrics = &export.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["a_total", "g", "h_seconds"]);
        let sum = metrics[0].sum();
        assert!(sum.is_monotonic);
        assert_eq!((sum.data_points[0].as_double, sum.data_points[1].as_double), (3.0, 4.5));
        let value = |at: usize| sum.data_points[0].attributes[at].value.string_value().to_owned();
        assert_eq!((value(0), value(1)), ("1".to_owned(), "q\"\\\n,z=\"".to_owned()));
        assert_eq!(metrics[1].gauge().data_points[0].as_double, 0.25);
        let histogram = &metrics[2].histogram().data_points[0];
        assert_eq!((histogram.sum, histogram.count), (1.5, 7));
        assert_eq!(histogram.bucket_counts, [2, 3, 2]);
        assert_eq!(histogram.explicit_bounds, [0.1, 1.0]);
    }
}
