//! What every check is told: whom to ask, thresholds, the form of the answer.

use clap::Args;

use super::outcome::{Bounds, Format, Unit};
use super::threshold::Threshold;
use crate::cli::admin::AdminArgs;

/// Arguments of every check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    /// From here on it is a warning. Times may be written as 90s, 15m, 2h or 3d.
    #[arg(long, value_name = "N", value_parser = Threshold::parse)]
    warn: Option<Threshold>,
    /// From here on it is critical.
    #[arg(long, value_name = "N", value_parser = Threshold::parse)]
    critical: Option<Threshold>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl CheckArgs {
    /// The thresholds: as given, else these. One that is given alone takes the other along where that would be passed before it.
    pub(super) fn bounds(&self, unit: Unit, falling: bool, default: (f64, f64)) -> Result<Bounds, String> {
        let given = |threshold: Option<Threshold>| threshold.map(|threshold| threshold.of(unit)).transpose();
        let (warn, critical) = (given(self.warn)?, given(self.critical)?);
        let is_order = |warn: f64, critical: f64| if falling { warn >= critical } else { warn <= critical };
        let (warn, critical) = match (warn, critical) {
            (Some(warn), Some(critical)) if !is_order(warn, critical) => {
                let side = if falling { "below" } else { "above" };
                return Err(format!("--warn is {side} --critical: it would never be a warning"));
            }
            (Some(warn), Some(critical)) => (warn, critical),
            (Some(warn), None) => (warn, if is_order(warn, default.1) { default.1 } else { warn }),
            (None, Some(critical)) => {
                (if is_order(default.0, critical) { default.0 } else { critical }, critical)
            }
            (None, None) => default,
        };
        Ok(Bounds { warn, critical, falling })
    }

    /// The form of the answer.
    pub(super) fn form(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}
