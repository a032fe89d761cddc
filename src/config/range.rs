//! What a section checks of its values.

/// What is wrong with a section: the key within it, and what was expected.
pub(super) type Problem = (&'static str, String);

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Problem> {
    if value < low || value > high {
        return Err((key, format!("is {value}; expected {low} to {high}")));
    }
    Ok(())
}
