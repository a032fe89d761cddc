//! One event stream, on the thread of its connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::answer::events_head;
use super::counters::{Counters, add};
use super::events::{EventSource, HEARTBEAT, Next, encode};
use super::limits::from_now;
use super::places::Place;
use super::wire::{Heard, Wire};

/// How long a source is waited for before the peer and the server's end are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How soon a source is asked again that did not wait.
const BREATH: Duration = Duration::from_millis(10);

/// Writes what the source has until either side ends it. An error is the peer's, or its silence.
pub(super) fn run(
    wire: &mut Wire,
    mut source: Box<dyn EventSource>,
    place: &Place,
    heartbeat: Duration,
    counters: &Counters,
) -> std::io::Result<()> {
    wire.write(&[&events_head()])?;
    let mut beat = from_now(heartbeat);
    // A peer that says more than its request has not understood what it is answered.
    while !place.stops() && wire.heard() == Heard::Nothing {
        let until = from_now(LOOK).min(beat);
        match catch_unwind(AssertUnwindSafe(|| source.next(until))) {
            Ok(Next::Event { id, name, data }) => {
                wire.write(&[&encode(id.as_deref(), name.as_deref(), &data)])?;
                beat = from_now(heartbeat);
            }
            Ok(Next::Idle) => {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(BREATH));
                if Instant::now() >= beat {
                    wire.write(&[HEARTBEAT])?;
                    beat = from_now(heartbeat);
                }
            }
            Ok(Next::End) => return Ok(()),
            Err(_) => {
                add(&counters.panics);
                log::error!(code = "admin_answer_panicked"; "the source of an event stream panicked");
                return Ok(());
            }
        }
    }
    Ok(())
}
