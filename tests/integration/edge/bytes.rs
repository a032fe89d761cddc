//! Whatever bytes come, in whatever pieces: what is right is answered, what is not ends its own connection at most, and the
//! server goes on with the others. `MAS_TEST_BYTES` says on how many connections; each failure names its seed.

use std::time::Duration;

use super::raw::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, Passport, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, call_fields, frame, opened,
};
use crate::support::{Random, World, pass, until};

/// A call of GetState, whole.
fn whole(stream: u32) -> Vec<u8> {
    [opened(stream, "GetState"), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

#[test]
fn a_call_is_answered_wherever_it_is_split() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "alpha");
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let words = [greeting, whole(1), frame(PING, 0, 0, &[7; 8]), whole(3)].concat();
    let pieces = |at: usize| vec![&words[..at], &words[at..]];
    for split in (1..words.len()).map(pieces).chain([words.chunks(1).collect(), words.chunks(7).collect()]) {
        let mut raw = Raw::connect(&server, &passport).unwrap();
        let many = split.len() > 2;
        for piece in split {
            raw.say(piece).unwrap();
            if !many {
                // So that the server reads what there is before the rest comes.
                pass(Duration::from_millis(1));
            }
        }
        until("both calls are answered", || raw.is_answered(1) && raw.is_answered(3));
    }
}

/// One frame, right or wrong.
fn any_frame(random: &mut Random, next: &mut u32) -> Vec<u8> {
    let known = *next;
    let stream = match random.below(4) {
        0 => random.below(u64::from(known) + 4) as u32,
        _ => known,
    };
    match random.below(20) {
        0..=5 => {
            *next += 2;
            whole(known)
        }
        6 => {
            *next += 2;
            opened(known, "Transport")
        }
        7 => {
            *next += 2;
            let fields = call_fields("/mas.runtime.v1.RuntimeService/Discover");
            let (first, rest) = fields.split_at(random.below(fields.len() as u64) as usize);
            let flags = if random.below(3) == 0 { 0 } else { END_HEADERS };
            [frame(HEADERS, 0, known, first), frame(CONTINUATION, flags, known, rest)].concat()
        }
        8 => frame(RST_STREAM, 0, stream, &CANCEL),
        9 => frame(WINDOW_UPDATE, 0, stream, &(random.below(1 << 31) as u32).to_be_bytes()),
        10 => frame(PING, random.below(2) as u8, 0, &[1; 8]),
        11 => frame(SETTINGS, random.below(2) as u8, 0, &[0, random.below(7) as u8, 0, 0, 0x40, 0]),
        12..=14 => {
            let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
            frame(DATA, random.below(16) as u8, stream, &bytes)
        }
        // Any kind, flags and stream.
        15..=17 => {
            let bytes: Vec<u8> = (0..random.below(64)).map(|_| random.below(256) as u8).collect();
            frame(random.below(12) as u8, random.below(256) as u8, stream, &bytes)
        }
        // A length that is not so.
        18 => {
            let mut bytes = whole(known);
            let at = random.below(3) as usize;
            bytes[at] = random.below(256) as u8;
            bytes
        }
        // A flipped bit somewhere.
        _ => {
            let mut bytes = whole(known);
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            bytes
        }
    }
}

#[test]
fn no_bytes_hurt_anybody_else() {
    let count = std::env::var("MAS_TEST_BYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(400_u64);
    // Who is cut is shut out for a while: many take turns.
    let agents = (count / 4).clamp(1, 2_000);
    let names: String = (0..agents).map(|n| format!("  - {{agent_id: g{n}}}\n")).collect();
    let world = World::with(&format!("{}{names}", World::PAIR), "");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let before = server.rss_kib();
    let passports: Vec<Passport> = (0..agents).map(|n| Passport::of(&world, &format!("g{n}"))).collect();
    let start = std::env::var("MAS_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1_u64);
    let mut let_in = 0;
    for seed in start..start + count {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut next = 1;
        let mut words = Vec::new();
        for _ in 0..random.below(60) {
            words.extend(any_frame(&mut random, &mut next));
        }
        let passport = &passports[(seed % agents) as usize];
        if let Ok(mut raw) = Raw::greeted(&server, passport) {
            // Who is shut out hears nothing but the end.
            until("it is greeted or over", || raw.hear().is_err() || raw.heard > 0);
            let_in += u64::from(raw.heard > 0);
            let mut rest = words.as_slice();
            while !rest.is_empty() {
                let most = if random.below(2) == 0 { 20 } else { 2_000 };
                let (piece, behind) = rest.split_at((1 + random.below(most) as usize).min(rest.len()));
                if raw.say(piece).is_err() {
                    break;
                }
                rest = behind;
            }
            // Closed at once, the server might not read it all.
            let _ = raw.ends_within(Duration::from_millis(10));
        }
        if seed % 20 == 0 {
            alpha.send("a", "beta", "{}").unwrap_or_else(|refused| panic!("seed {seed}: {refused:?}"));
            let _ = b.take();
        }
    }
    assert!(let_in > count / 2, "{let_in} of {count}");
    let after = server.rss_kib();
    assert!(after < before + 100 * 1024, "{before} KiB before, {after} KiB after");
    world.assert_intact();
}
