//! The reader of a client's frames: it never panics, whatever is split or held back it asks for the same, passes every
//! byte that it does not cut, and counts the calls that wait as it asked for them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mas_fuzz::gate::frames::{Charge, Frames, Unit};

/// What was asked for, what passed, and why the rest was cut.
fn read(bytes: &[u8], mut piece: impl FnMut() -> usize, mut hold: impl FnMut() -> bool) -> (Vec<Unit>, usize, Charge) {
    let mut frames = Frames::default();
    let (mut units, mut passed, mut end) = (Vec::new(), 0, 0);
    let (mut begun, mut settled) = (0, 0);
    while passed < bytes.len() {
        end = bytes.len().min(end.max(passed) + piece().max(1));
        while passed < end {
            let scanned = frames.scan(&bytes[passed..end], 1, &mut |unit| {
                if hold() {
                    return Charge::Hold(1);
                }
                units.push(unit);
                begun += usize::from(unit == Unit::Call);
                Charge::Pass
            });
            passed += scanned.pass;
            assert!(passed <= end);
            settled += frames.calls.take_settled();
            assert_eq!(begun, settled + frames.calls.waiting());
            match scanned.then {
                Charge::Pass => assert_eq!(passed, end),
                Charge::Hold(_) => {}
                Charge::Cut(_) => return (units, passed, scanned.then),
            }
        }
    }
    (units, passed, Charge::Pass)
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, tail)) = data.split_first_chunk::<4>() else { return };
    // Most of it behind a greeting: the fuzzer would rarely find that.
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let bytes = if seed[0] & 1 == 0 { [&greeting[..], tail].concat() } else { tail.to_vec() };
    let whole = read(&bytes, || bytes.len(), || false);
    let mut state = u32::from_le_bytes(*seed) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut other = random;
    let pieces = read(&bytes, || random() as usize % 40, || other() % 3 == 0);
    assert_eq!((&whole.0, whole.2), (&pieces.0, pieces.2));
});
