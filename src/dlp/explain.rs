//! Why something was found, or was not: what was looked at because of its name, with the evidence, for people.

use super::document::{Document, Part};
use super::kinds::Kind;
use super::score::FOUND;

/// A value that was judged by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The rule of the table of names.
    pub rule: String,
    /// The type of data.
    pub kind: &'static str,
    /// The member it stands in, as in findings.
    pub pointer: String,
    /// What the evidence adds up to.
    pub score: i32,
    /// What it needs.
    pub needed: i32,
    /// What counted, and how much.
    pub evidence: Vec<(&'static str, i32)>,
}

impl Candidate {
    /// Whether it is what its name says.
    pub fn is_found(&self) -> bool {
        self.score >= self.needed
    }

    /// What alone would have changed the outcome: the evidence without which it would have been the other one.
    pub fn decisive(&self) -> impl Iterator<Item = &'static str> {
        let (found, spare) = (self.is_found(), self.score - self.needed);
        self.evidence.iter().filter(move |(_, weight)| (spare - weight >= 0) != found).map(|(what, _)| *what)
    }
}

/// A candidate in the buffer.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) rule: String,
    pub(super) kind: Kind,
    /// Where its value begins.
    pub(super) start: usize,
    pub(super) total: i32,
    pub(super) evidence: Vec<(&'static str, i32)>,
}

impl Judged {
    pub(super) fn shown(self, document: &Document, places: &[&'static str], data: &str) -> Candidate {
        let segment = document.segment_at(self.start).map(|(_, segment)| segment);
        let pointer = segment.map(|segment| match segment.part {
            Part::Beside => places.get(segment.step as usize).copied().unwrap_or_default().to_owned(),
            _ => document.pointer(&segment, data, &|_, name| name.to_owned()).0,
        });
        Candidate {
            rule: self.rule,
            kind: self.kind.name(),
            pointer: pointer.unwrap_or_default(),
            score: self.total,
            needed: FOUND,
            evidence: self.evidence,
        }
    }
}
