//! How what a client says is cut, and when the next piece is sent.

use std::time::{Duration, Instant};

/// How long the arrival of a record is waited for in lockstep, and how long a part of one has.
const ARRIVAL: Duration = Duration::from_millis(1);
const PART: Duration = Duration::from_micros(50);
/// Pieces of one client that are sent in lockstep.
const MAX_LOCKSTEPS: usize = 400;
/// Records of one client that are cut as a script has it, and as many writes; what is beyond goes as it is. All that it
/// says in pieces of a byte or two would be a million writes, more than a busy machine does in the time that is waited.
const MAX_CUT: usize = 20_000;

/// Sizes of pieces, in turn; 0: as much as there is.
#[derive(Default)]
struct Sizes {
    sizes: Vec<u8>,
    at: usize,
    /// Pieces that were cut.
    cut: usize,
}

impl Sizes {
    fn next(&mut self, there: usize) -> usize {
        let size = self.sizes.get(self.at).copied().unwrap_or(0);
        self.at = (self.at + 1) % self.sizes.len().max(1);
        if size == 0 || there <= size.into() || self.cut == MAX_CUT {
            return there;
        }
        self.cut += 1;
        size.into()
    }

    /// Others from now on.
    fn set(&mut self, sizes: Vec<u8>) {
        (self.sizes, self.at) = (sizes, 0);
    }
}

/// Sizes of TLS records and of writes; in lockstep each is sent when the one before has arrived.
#[derive(Default)]
pub struct Pieces {
    records: Sizes,
    writes: Sizes,
    lockstep: bool,
    count: usize,
    wait_until: Option<Instant>,
    awaits: usize,
}

impl Pieces {
    pub fn set(&mut self, records: Vec<u8>, writes: Vec<u8>, lockstep: bool) {
        self.records.set(records);
        self.writes.set(writes);
        self.lockstep = lockstep;
    }

    /// The size of the next record, where so much is there.
    pub fn record(&mut self, there: usize) -> usize {
        self.records.next(there)
    }

    /// The size of the next write.
    pub fn write(&mut self, there: usize) -> usize {
        self.writes.next(there)
    }

    /// A piece was sent; of whole records: as much of what the client says has to arrive now.
    pub fn sent(&mut self, awaits: Option<usize>) {
        if self.lockstep && self.count < MAX_LOCKSTEPS {
            self.count += 1;
            self.awaits = awaits.unwrap_or(0);
            let span = if awaits.is_some() { ARRIVAL } else { PART };
            self.wait_until = Some(Instant::now() + span);
        }
    }

    /// Until when the next piece waits. `arrived`: so much has.
    pub fn wait_until(&mut self, arrived: usize) -> Option<Instant> {
        let until = self.wait_until?;
        if Instant::now() >= until || (self.awaits > 0 && arrived >= self.awaits) {
            self.wait_until = None;
        }
        self.wait_until
    }
}
