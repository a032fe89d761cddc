//! Evidence for and against a candidate, and what it adds up to.

/// A candidate with so much evidence is what its name or shape says.
pub(super) const FOUND: i32 = 60;

/// The sum of the evidence. What counted is kept where somebody wants to read it.
#[derive(Debug, Default)]
pub(super) struct Score {
    total: i32,
    name: i32,
    log: Option<Vec<(&'static str, i32)>>,
}

impl Score {
    /// Begins with what the name says by itself.
    pub(super) fn of_name(weight: i32, explained: bool) -> Self {
        let log = explained.then(|| vec![("its name", weight)]);
        Self { total: weight, name: weight, log }
    }

    /// Counts evidence: for it above zero, against it below.
    pub(super) fn count(&mut self, what: &'static str, weight: i32) {
        self.total += weight;
        if let Some(log) = &mut self.log {
            log.push((what, weight));
        }
    }

    /// Counts evidence where it is there.
    pub(super) fn count_if(&mut self, is: bool, what: &'static str, weight: i32) {
        if is {
            self.count(what, weight);
        }
    }

    /// What the name says by itself.
    pub(super) fn of_name_alone(&self) -> i32 {
        self.name
    }

    pub(super) fn total(&self) -> i32 {
        self.total
    }

    pub(super) fn is_found(&self) -> bool {
        self.total >= FOUND
    }

    /// What counted, in the order it was looked at.
    pub(super) fn into_log(self) -> Vec<(&'static str, i32)> {
        self.log.unwrap_or_default()
    }
}
