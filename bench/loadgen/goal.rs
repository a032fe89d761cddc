//! Goals: what was measured beside what should hold.

use serde_json::{Value, json};

use crate::AnyError;

/// On which side the measured value should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One goal.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    /// One value for each round; the median counts.
    pub(crate) measured: Vec<f64>,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
}

impl Goal {
    /// Whether it is met; never by what was not measured.
    pub(crate) fn is_met(&self) -> bool {
        let value = median(&self.measured);
        match self.bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }

    fn bound_text(&self) -> String {
        let (sign, value) = match self.bound {
            Bound::AtLeast(least) => (">=", least),
            Bound::AtMost(most) => ("<=", most),
        };
        format!("{sign} {value} {}", self.unit).trim_end().to_owned()
    }
}

/// The middle value, of an even number the mean of the middle two; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (lower, upper) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(lower), sorted.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

/// As a table.
pub(crate) fn print(goals: &[Goal]) {
    println!("{:<74} {:>11} {:>19} {:>9}  met", "what", "measured", "(least to most)", "goal");
    for goal in goals {
        let least = goal.measured.iter().copied().fold(f64::INFINITY, f64::min);
        let most = goal.measured.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread =
            if goal.measured.len() > 1 { format!("({least:.2} to {most:.2})") } else { String::new() };
        println!(
            "{:<74} {:>11} {spread:>19} {:>9}  {}",
            goal.what,
            format!("{:.2} {}", median(&goal.measured), goal.unit).trim_end(),
            goal.bound_text(),
            if goal.is_met() { "yes" } else { "NO" }
        );
    }
}

/// As JSON.
pub(crate) fn json(goals: &[Goal]) -> Value {
    goals
        .iter()
        .map(|goal| {
            json!({
                "what": goal.what, "measured": median(&goal.measured), "rounds": goal.measured,
                "goal": goal.bound_text(), "unit": goal.unit, "met": goal.is_met(),
            })
        })
        .collect()
}

/// An error when a goal is not met and that should be one.
pub(crate) fn verdict(goals: &[Goal], check: bool) -> Result<(), AnyError> {
    let missed = goals.iter().filter(|goal| !goal.is_met()).count();
    if check && missed > 0 {
        return Err(format!("{missed} of {} goals are not met", goals.len()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_decides() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < f64::EPSILON);
        let goal = |measured| Goal { what: "", measured, bound: Bound::AtMost(2.0), unit: "" };
        assert!(goal(vec![9.0, 1.0, 2.0]).is_met());
        assert!(!goal(Vec::new()).is_met());
    }
}
