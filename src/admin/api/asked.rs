//! The parameters of a request: read once, within bounds, and none that is not known.

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::problem::Problem;
use crate::admin::http::Request;
use crate::history::when::parse_time;

/// Most values of one parameter.
const MAX_VALUES: usize = 64;

/// The parameters of one request.
pub(super) struct Asked<'a> {
    request: &'a Request,
}

impl<'a> Asked<'a> {
    /// The parameters, where they are among `known` and each is there once.
    pub(super) fn of(request: &'a Request, known: &[&str]) -> Result<Self, Problem> {
        for (at, (name, _)) in request.query().iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::Asked(format!("{name:?} is no parameter here; expected {expected}")));
            }
            if request.query().iter().take(at).any(|(other, _)| other == name) {
                return Err(Problem::Asked(format!("{name} is there twice")));
            }
        }
        Ok(Self { request })
    }

    /// A value; one that is empty is none.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.request.param(name).filter(|value| !value.is_empty())
    }

    /// A whole number.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            Problem::Asked(format!("{name}={text}: expected {} to {}", range.start(), range.end()))
        })
    }

    /// Something that is read from text.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = |_| Problem::Asked(format!("{name}={text:?}: expected {expected}"));
        text.parse().map(Some).map_err(wrong)
    }

    /// A time, in Unix microseconds.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let time = if is_digits { text.parse().ok() } else { parse_time(text) };
        time.map(Some).ok_or_else(|| {
            Problem::Asked(format!(
                "{name}={text:?}: expected Unix microseconds, 2026-01-31T12:00:00Z, 2026-01-31, or how long ago: 90s, 15m, 2h, 3d"
            ))
        })
    }

    /// Values separated by commas.
    pub(super) fn list(&self, name: &str) -> Result<Vec<&'a str>, Problem> {
        let values: Vec<&str> =
            self.text(name).unwrap_or_default().split(',').filter(|value| !value.is_empty()).collect();
        if values.len() > MAX_VALUES {
            return Err(Problem::Asked(format!("{name} has more than {MAX_VALUES} values")));
        }
        Ok(values)
    }

    /// Values separated by commas, each of which is one of `all`, in whatever case.
    pub(super) fn among<T: Copy>(
        &self,
        name: &str,
        all: &[T],
        named: impl Fn(T) -> &'static str,
    ) -> Result<Vec<T>, Problem> {
        let find = |value: &str| {
            let found = all.iter().find(|one| named(**one).eq_ignore_ascii_case(value));
            found.copied().ok_or_else(|| {
                let expected: Vec<&str> = all.iter().map(|one| named(*one)).collect();
                Problem::Asked(format!("{name}={value:?}: expected one of {}", expected.join(", ")))
            })
        };
        self.list(name)?.into_iter().map(find).collect()
    }
}
