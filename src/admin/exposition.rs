//! What a scrape is told, as text: families of metrics, each with its rows.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use crate::shard::desk::meters::{Histogram, Meter};

/// A label's name and value.
pub(super) type Label<'a> = (&'static str, Cow<'a, str>);
/// Labels and a value.
pub(super) type Row<'a, const N: usize> = ([Label<'a>; N], f64);

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// What a scraper asks for.
    pub(super) fn asked(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One family of metrics after the other.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    pub(super) fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = Row<'l, N>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            let mut row = family.encode_family(&labels)?;
            row.encode_counter::<NoLabelSet, f64, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = Row<'l, N>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// `scale`: what one unit of the measured values is.
    pub(super) fn histogram(
        &mut self,
        (name, help, scale): (&str, &str, f64),
        meters: &[std::sync::Arc<Meter>],
        of: impl Fn(&Meter) -> &Histogram,
    ) -> fmt::Result {
        let (mut counts, mut total) = (BTreeMap::<Option<u64>, u64>::new(), 0);
        for meter in meters {
            let (buckets, sum) = of(meter).read();
            total += sum;
            for (bound, count) in buckets {
                *counts.entry(bound).or_default() += count;
            }
        }
        let count = counts.values().sum();
        let last = counts.remove(&None).unwrap_or(0);
        let bounds = counts.into_iter().filter_map(|(bound, count)| Some((bound? as f64 * scale, count)));
        let buckets: Vec<(f64, u64)> = bounds.chain([(f64::MAX, last)]).collect();
        let exemplars: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        self.0.encode_descriptor(name, help, None, MetricType::Histogram)?.encode_histogram(
            total as f64 * scale,
            count,
            &buckets,
            exemplars,
        )
    }
}

/// A row without labels.
pub(super) fn bare(value: f64) -> Row<'static, 0> {
    ([], value)
}

/// The only row of a family, without labels.
pub(super) fn one(value: f64) -> [Row<'static, 0>; 1] {
    [bare(value)]
}

/// One label.
pub(super) fn by<'a>(name: &'static str, value: impl Into<Cow<'a, str>>) -> [Label<'a>; 1] {
    [(name, value.into())]
}

/// 0 or 1.
pub(super) fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
