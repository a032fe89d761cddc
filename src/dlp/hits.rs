//! Where detectors put what they find.

use super::action::Action;
use super::explain::Judged;
use super::kinds::Kind;

/// Most matches of one scan that are kept before they are sorted out. A payload with more of them is
/// blocked when it would otherwise have been redacted, since not every match is known.
pub(super) const MAX_HITS: usize = 8 * 1024;

/// A match in the scan buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The number of a built-in kind, or of a custom rule after them.
    pub(super) rule: u16,
}

/// The matches of one scan.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pub(super) list: Vec<Hit>,
    /// Matches beyond [`MAX_HITS`].
    pub(super) dropped: usize,
    /// The most restrictive action among the dropped ones.
    pub(super) dropped_action: Action,
    /// Card numbers that nothing but their checksum tells, and numbers of the same lengths without one.
    pub(super) bare_cards: Vec<Hit>,
    pub(super) no_cards: usize,
}

impl Hits {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.dropped = 0;
        self.dropped_action = Action::Allow;
        self.bare_cards.clear();
        self.no_cards = 0;
    }
}

/// Takes matches, leaving out those of kinds that are allowed.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    pub(super) hits: &'a mut Hits,
    /// What each rule does at most, by number; and what it does without exceptions.
    pub(super) actions: &'a [Action],
    pub(super) own: &'a [Action],
    /// What detectors may still cost, in steps of about two nanoseconds.
    pub(super) work: usize,
    /// Where somebody wants to know why: every candidate that was judged.
    pub(super) explained: Option<Vec<Judged>>,
    /// What stands within something that was found is looked at, too: there are exceptions, and that may be let through.
    pub(super) keep_all: bool,
}

impl Sink<'_> {
    /// Takes the price of something that was done. Prices are rounded estimates; the measure of them is the
    /// table of hostile inputs in `bench/dlp`.
    pub(super) fn spend(&mut self, steps: usize) {
        self.work = self.work.saturating_sub(steps);
    }

    /// True when nothing more may be looked at: the message is blocked because not all of it was.
    pub(super) fn is_spent(&self) -> bool {
        self.work == 0
    }

    /// Adds a match of a built-in kind.
    pub(super) fn add(&mut self, kind: Kind, start: usize, end: usize) {
        let action = self.actions.get(kind as usize).copied().unwrap_or_default();
        self.add_rule(kind as u16, action, start, end);
    }

    /// Adds what has the shape of a kind and nothing more: it alerts at most.
    pub(super) fn add_possible(&mut self, kind: Kind, start: usize, end: usize) {
        let rule = kind.possible();
        let action = self.actions.get(usize::from(rule)).copied().unwrap_or_default();
        self.add_rule(rule, action, start, end);
    }

    /// Adds a card number that stands for itself: whether it is one is said once all numbers have been seen.
    pub(super) fn add_bare_card(&mut self, start: usize, end: usize) {
        if self.hits.bare_cards.len() < MAX_HITS {
            self.hits.bare_cards.push(Hit { start, end, rule: Kind::CreditCard as u16 });
        } else {
            self.add(Kind::CreditCard, start, end);
        }
    }

    /// One number in thirty has the checksum and the beginning of a card number. Among many that have not, one that has is
    /// no card number; by itself it is one.
    pub(super) fn settle_cards(&mut self) {
        let cards = std::mem::take(&mut self.hits.bare_cards);
        let by_chance = self.hits.no_cards >= 3 && cards.len() <= self.hits.no_cards;
        for card in &cards {
            if by_chance {
                self.add_possible(Kind::CreditCard, card.start, card.end);
            } else {
                self.add(Kind::CreditCard, card.start, card.end);
            }
        }
        self.hits.bare_cards = cards;
    }

    /// Adds a match of any rule.
    pub(super) fn add_rule(&mut self, rule: u16, action: Action, start: usize, end: usize) {
        if action == Action::Allow || start >= end {
            return;
        }
        if self.hits.list.len() >= MAX_HITS {
            self.drop_rule(rule);
        } else {
            self.hits.list.push(Hit { start, end, rule });
        }
    }

    /// True when no further match can change what becomes of the message, or be listed.
    pub(super) fn is_settled(&self) -> bool {
        self.hits.dropped_action == Action::Block
    }

    /// Counts a match, or several, that cannot be kept: what it does, it does without exceptions.
    pub(super) fn drop_rule(&mut self, rule: u16) {
        let own = self.own.get(usize::from(rule)).copied().unwrap_or(Action::Block);
        self.hits.dropped += 1;
        self.hits.dropped_action = self.hits.dropped_action.max(own);
    }
}

/// The byte at `at`, NUL outside the text: the separator of segments ends every match.
pub(super) fn at(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// The byte before `at`.
pub(super) fn before(text: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(0, |before| self::at(text, before))
}

/// The end of the run of bytes that satisfy `is`, from `from`, at most `most` long.
pub(super) fn run_end(text: &[u8], from: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
    let tail = text.get(from..).unwrap_or_default();
    from + tail.iter().take(most).take_while(|byte| is(**byte)).count()
}

/// The start of the run of bytes that satisfy `is` and end before `to`, at most `most` long.
pub(super) fn run_start(text: &[u8], to: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
    let head = text.get(..to).unwrap_or_default();
    to - head.iter().rev().take(most).take_while(|byte| is(**byte)).count()
}
