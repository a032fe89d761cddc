//! The section `gateway.telemetry`: traces and metrics that are exported by OTLP.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::range::{Problem, within};

/// Shortest and longest time between two exports of metrics, in milliseconds.
const EXPORT_INTERVAL_MS: (u64, u64) = (100, 3_600_000);
/// Most headers of an export.
const MAX_HEADERS: usize = 64;

/// Traces and metrics to a collector (`gateway.telemetry`).
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Whether anything is exported.
    pub enabled: bool,
    /// The resource attribute `service.name`.
    pub service_name: String,
    /// The resource attribute `service.namespace`.
    pub service_namespace: String,
    /// The resource attribute `deployment.environment`.
    pub environment: Option<String>,
    /// The collector, `http://` or `https://`.
    pub otlp_endpoint: Option<String>,
    /// Share of traces that are kept, 0 to 1.
    pub sample_ratio: f64,
    /// Whether metrics are exported beside traces.
    pub export_metrics: bool,
    /// Time between two exports of metrics, in milliseconds.
    pub metrics_export_interval_ms: u64,
    /// Headers of every export: often credentials.
    pub headers: BTreeMap<String, String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            enabled: false,
            service_name: "mas".to_owned(),
            service_namespace: "mas".to_owned(),
            environment: None,
            otlp_endpoint: None,
            sample_ratio: 1.0,
            export_metrics: true,
            metrics_export_interval_ms: 60_000,
            headers: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("enabled", &self.enabled)
            .field("service_name", &self.service_name)
            .field("otlp_endpoint", &self.otlp_endpoint)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Whether anything is exported.
    pub fn exports(&self) -> bool {
        self.enabled && self.otlp_endpoint.is_some()
    }

    /// Whether traces are.
    pub fn traces(&self) -> bool {
        self.exports()
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(("sample_ratio", format!("is {}; expected 0 to 1", self.sample_ratio)));
        }
        let (low, high) = EXPORT_INTERVAL_MS;
        within("metrics_export_interval_ms", self.metrics_export_interval_ms, low, high)?;
        if self.headers.len() > MAX_HEADERS {
            return Err(("headers", format!("expected at most {MAX_HEADERS}")));
        }
        let schemes = ["http://", "https://"];
        if let Some(endpoint) = &self.otlp_endpoint
            && !schemes.iter().any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(("otlp_endpoint", format!("expected a URL with one of {schemes:?}")));
        }
        Ok(())
    }
}
