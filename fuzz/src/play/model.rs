//! What must pass of a client's bytes: the gate's own pure reader, asked byte by byte, with those budgets alone that do
//! not depend on time.

use crate::gate::frames::{Charge, Frames, Unit};

/// What one connection may do at once: `Own` in the gate's budgets.
const SETTINGS_AT_ONCE: u64 = 20;
const EMPTY_AT_ONCE: u64 = 100;
/// What comes back in a second.
const SETTINGS_PER_S: u64 = 1;
const EMPTY_PER_S: u64 = 50;

const TOO_MANY_SETTINGS: &str = "too many settings";
const TOO_MANY_EMPTY: &str = "too many empty data frames";

/// What was asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub frames: usize,
    /// Header blocks, of calls too.
    pub blocks: usize,
    pub fields: usize,
    pub resets: usize,
    pub windows: usize,
    pub pings: usize,
    pub calls: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.blocks += other.blocks;
        self.fields += other.fields;
        self.resets += other.resets;
        self.windows += other.windows;
        self.pings += other.pings;
        self.calls += other.calls;
    }
}

/// How far some bytes pass, why the rest does not, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    passes: usize,
    cut: Option<&'static str>,
    counts: Counts,
}

/// What may become of a connection's bytes.
#[derive(Debug)]
pub struct Model {
    /// No more than these may pass.
    pub passes: usize,
    /// It must be cut.
    pub must_cut: bool,
    /// Reasons for which it may be.
    pub reasons: Vec<&'static str>,
    pub counts: Counts,
}

fn read(bytes: &[u8], piece: usize, settings: u64, empty: u64) -> Reading {
    let mut frames = Frames::default();
    let (mut counts, mut passes) = (Counts::default(), 0);
    let (mut settings, mut empty) = (settings, empty);
    let take = |left: &mut u64, reason| {
        let taken = left.checked_sub(1);
        *left = taken.unwrap_or(0);
        if taken.is_some() { Charge::Pass } else { Charge::Cut(reason) }
    };
    for part in bytes.chunks(piece.max(1)) {
        let scanned = frames.scan(part, 1, &mut |unit| {
            counts.frames += usize::from(unit != Unit::Field);
            match unit {
                Unit::Frame => {}
                Unit::Call | Unit::EmptyCall => {
                    counts.blocks += 1;
                    counts.calls += 1;
                }
                Unit::Block => counts.blocks += 1,
                Unit::Field => counts.fields += 1,
                Unit::Reset => counts.resets += 1,
                Unit::Window => counts.windows += 1,
                Unit::Ping => counts.pings += 1,
                Unit::Settings => return take(&mut settings, TOO_MANY_SETTINGS),
                Unit::Empty => return take(&mut empty, TOO_MANY_EMPTY),
            }
            Charge::Pass
        });
        passes += scanned.pass;
        match scanned.then {
            Charge::Pass => assert_eq!(scanned.pass, part.len()),
            Charge::Cut(reason) => return Reading { passes, cut: Some(reason), counts },
            Charge::Hold(_) => unreachable!("nothing was held back"),
        }
    }
    Reading { passes, cut: None, counts }
}

impl Model {
    /// `seconds`: how long the connection lived at most.
    pub fn of(bytes: &[u8], seconds: u64) -> Self {
        let least = read(bytes, 1, SETTINGS_AT_ONCE, EMPTY_AT_ONCE);
        // In one piece it is the same, but that less may have passed before a cut.
        let whole = read(bytes, bytes.len(), SETTINGS_AT_ONCE, EMPTY_AT_ONCE);
        assert_eq!((least.cut, least.counts), (whole.cut, whole.counts), "a split changes what is read");
        assert!(whole.passes <= least.passes);
        let most = read(
            bytes,
            1,
            SETTINGS_AT_ONCE + SETTINGS_PER_S * (seconds + 1),
            EMPTY_AT_ONCE + EMPTY_PER_S * (seconds + 1),
        );
        let mut reasons: Vec<_> = [least.cut, most.cut].into_iter().flatten().collect();
        if least != most {
            reasons.extend([TOO_MANY_SETTINGS, TOO_MANY_EMPTY]);
        }
        reasons.sort_unstable();
        reasons.dedup();
        Self { passes: most.passes, must_cut: most.cut.is_some(), reasons, counts: most.counts }
    }
}
