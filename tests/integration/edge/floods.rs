//! Floods beside a well-behaved pair: the pair's messages go on, the server stays small, who floods is cut and on
//! record, and the record stays small too.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::raw::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Gone, HEADERS, PING, Passport, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, call_fields, frame, opened,
};
use crate::support::{Server, World, until};

/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(3);
/// What a call of the pair may take at most: a pair that is starved waits for as long as the flood goes on.
const LONGEST_CALL: Duration = Duration::from_millis(1500);
/// What the server may grow by, in KiB.
const GROWTH_KIB: u64 = 100 * 1024;
/// Records that the flood of one identity may leave behind beside those of its calls.
const CUT_RECORDS: usize = 40;

/// What share of these took no longer, in milliseconds.
fn percentiles(mut spans: Vec<Duration>) -> String {
    spans.sort();
    let at = |share: usize| spans.get((spans.len() * share / 100).min(spans.len().saturating_sub(1)));
    let ms = |share| at(share).map_or(0.0, |span| span.as_secs_f64() * 1e3);
    format!("{} messages, p50 {:.1} ms, p99 {:.1} ms", spans.len(), ms(50), ms(99))
}

/// Floods while a pair talks: the pair's messages. With `--nocapture` it says how the pair fared.
fn beside_a_pair(world: &World, server: &Server, flood: impl Fn(&AtomicBool) + Sync) -> usize {
    let (alpha, beta) = (world.client(server, "alpha"), world.client(server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let message = || {
        let began = Instant::now();
        alpha.send("a", "beta", "{}").unwrap();
        b.take();
        began.elapsed()
    };
    let alone: Vec<Duration> = (0..200).map(|_| message()).collect();
    let before = server.rss_kib();
    let over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let _end = End(&over);
        let flooding = scope.spawn(|| flood(&over));
        let (mut spans, mut most, end) = (Vec::new(), 0, Instant::now() + FLOOD);
        while Instant::now() < end {
            let span = message();
            assert!(span < LONGEST_CALL, "message {} took {span:?}", spans.len());
            let grown = server.rss_kib().saturating_sub(before);
            assert!(grown < GROWTH_KIB, "the server grew by {grown} KiB");
            most = most.max(grown);
            spans.push(span);
        }
        over.store(true, Ordering::SeqCst);
        flooding.join().unwrap();
        eprintln!("during: +{most} KiB");
        spans
    });
    let sent = beside.len();
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("{name}: alone {}; beside {}", percentiles(alone), percentiles(beside));
    until("the server is as small as before, but for what its malloc keeps", || {
        server.rss_kib() < before + GROWTH_KIB
    });
    sent
}

/// Ends the flood, also where an assertion fails meanwhile.
struct End<'f>(&'f AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Says the same again and again, on one connection after the other.
fn repeat(server: &Server, passport: &Passport, over: &AtomicBool, what: impl Fn(&mut u32) -> Vec<u8>) {
    while !over.load(Ordering::SeqCst) {
        let Ok(mut raw) = Raw::greeted(server, passport) else {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        };
        let mut stream = 1;
        while !over.load(Ordering::SeqCst) && raw.say(&what(&mut stream)) != Err(Gone) {}
    }
}

/// A hundred streams, each opened and given up at once.
fn resets(stream: &mut u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(opened(*stream, "Transport"));
        bytes.extend(frame(RST_STREAM, 0, *stream, &CANCEL));
        *stream += 2;
    }
    bytes
}

fn cut_records(world: &World) -> Vec<(String, String)> {
    let records = world.records();
    let cut = records.iter().filter(|record| record.action.as_str() == "connection_cut");
    cut.map(|record| (record.target.clone(), record.reason.clone())).collect()
}

#[track_caller]
fn assert_on_record(world: &World, agent: &str, reason: &str) {
    until("who was cut is on record", || {
        cut_records(world).iter().any(|(cut, why)| cut == agent && why == reason)
    });
    let count = cut_records(world).len();
    assert!(count <= CUT_RECORDS, "{count} records");
    world.assert_intact();
}

/// One attack by an agent that is allowed.
fn is_cut(reason: &str, what: impl Fn(&mut u32) -> Vec<u8> + Sync) {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "gamma");
    let sent = beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, &what));
    assert!(sent > 20, "the pair sent {sent}");
    assert_on_record(&world, "gamma", reason);
}

#[test]
fn streams_that_are_given_up_at_once_are_held_back_and_then_cut() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "gamma");
    // Three seconds of patience come first.
    for _ in 0..2 {
        beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, resets));
    }
    assert_on_record(&world, "gamma", "too many streams given up");
}

#[test]
fn a_stranger_who_gives_up_streams_is_cut_too() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "nobody");
    for _ in 0..2 {
        beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, resets));
    }
    until("somebody is cut", || !cut_records(&world).is_empty());
}

#[test]
fn several_who_give_up_streams_together_are_held_back_together() {
    let world = World::new();
    let server = world.server();
    let passports = ["gamma", "delta", "nobody"].map(|agent| Passport::of(&world, agent));
    beside_a_pair(&world, &server, |over| {
        std::thread::scope(|scope| {
            for passport in &passports {
                for _ in 0..2 {
                    scope.spawn(|| repeat(&server, passport, over, resets));
                }
            }
        });
    });
}

#[test]
fn many_header_fields_are_cut() {
    is_cut("too many header fields", |stream| {
        *stream += 2;
        // One field of the table, again and again: each is 4 KiB for who reads it.
        let mut fields = [&[0x40, 1][..], b"a", &[0x7f, 0x81, 0x1e], &[b'v'; 4000]].concat();
        fields.extend([0xbe; 8000]);
        frame(HEADERS, END_HEADERS, *stream, &fields)
    });
}

#[test]
fn endless_continuations_are_cut() {
    is_cut("an empty continuation", |stream| {
        *stream += 2;
        let mut bytes = frame(HEADERS, 0, *stream, &[0x83]);
        for _ in 0..1000 {
            bytes.extend(frame(CONTINUATION, 0, *stream, &[]));
        }
        bytes
    });
}

#[test]
fn settings_without_end_are_cut() {
    is_cut("too many settings", |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1000));
}

#[test]
fn empty_data_is_cut() {
    is_cut("too many empty data frames", |stream| {
        *stream += 2;
        [opened(*stream, "Transport"), frame(DATA, 0, *stream, &[]).repeat(1000)].concat()
    });
}

#[test]
fn tiny_windows_are_cut() {
    is_cut("a tiny window", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]));
}

#[test]
fn another_protocol_is_cut() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "gamma");
    let mut raw = Raw::connect(&server, &passport).unwrap();
    assert!(raw.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() || raw.ends_within(FLOOD));
    assert_on_record(&world, "gamma", "not HTTP/2");
}

#[test]
fn pings_and_windows_are_held_back() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "gamma");
    for kind in [PING, WINDOW_UPDATE] {
        let payload: &[u8] = if kind == PING { &[0; 8] } else { &[0, 0, 0, 1] };
        let what = |_: &mut u32| frame(kind, 0, 0, payload).repeat(1000);
        beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, what));
    }
}

#[test]
fn half_handshakes_do_not_keep_others_out() {
    let world = World::new();
    let server = world.server();
    beside_a_pair(&world, &server, |over| {
        let mut held = Vec::new();
        while !over.load(Ordering::SeqCst) {
            held.extend(TcpStream::connect(&server.addr));
            if held.len() >= 1500 {
                held.clear();
            }
        }
    });
    let gamma = world.client(&server, "gamma");
    let _session = gamma.session("g");
}

#[test]
fn handshakes_that_are_broken_off_are_not_noticed() {
    let world = World::new();
    let server = world.server();
    beside_a_pair(&world, &server, |over| {
        let mut count = 0;
        while !over.load(Ordering::SeqCst) && count < 20_000 {
            if let Ok(mut tcp) = TcpStream::connect(&server.addr) {
                // The head of a record that never comes.
                let _ = std::io::Write::write_all(&mut tcp, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
            }
            count += 1;
        }
    });
    let lines = world.logged().lines().filter(|line| line.contains("handshake")).count();
    assert!(lines < 60, "{lines} lines about handshakes");
}

#[test]
fn who_says_nothing_is_cut_after_a_while() {
    let world = World::new();
    let server = world.server();
    let mut raw = Raw::connect(&server, &Passport::of(&world, "gamma")).unwrap();
    assert!(raw.ends_within(Duration::from_secs(8)));
    // And who was cut for what it did is turned away for a while.
    let passport = Passport::of(&world, "delta");
    let mut raw = Raw::greeted(&server, &passport).unwrap();
    let many = frame(SETTINGS, 0, 0, &[]).repeat(100);
    assert!(raw.say(&many).is_err() || raw.ends_within(FLOOD));
    let turned_away = Raw::greeted(&server, &passport).map_or(true, |mut raw| raw.ends_within(FLOOD));
    assert!(turned_away);
    until("the penalty is over", || {
        Raw::greeted(&server, &passport).is_ok_and(|mut raw| !raw.ends_within(Duration::from_millis(300)))
    });
}

#[test]
fn calls_without_a_message_do_not_stop_new_calls() {
    let world = World::new();
    let server = world.server();
    for agent in ["nobody", "gamma"] {
        let passport = Passport::of(&world, agent);
        let mut held = Vec::new();
        for _ in 0..15 {
            let mut raw = Raw::greeted(&server, &passport).unwrap();
            let calls: Vec<u8> = (0..100).flat_map(|n| opened(2 * n + 1, "GetState")).collect();
            raw.say(&calls).unwrap();
            held.push(raw);
        }
        let began = Instant::now();
        world.client(&server, "alpha").discover(&[]).unwrap();
        let _session = world.client(&server, "beta").session("b");
        assert!(began.elapsed() < LONGEST_CALL, "{:?}", began.elapsed());
    }
}

#[test]
fn a_client_that_closes_within_its_handshake_stops_nobody() {
    let world = World::new();
    let mut server = world.server();
    let passport = Passport::of(&world, "gamma");
    for _ in 0..20 {
        let mut raw = Raw::close_at_once(&server, &passport).unwrap();
        assert!(raw.ends_within(Duration::from_secs(8)));
    }
    world.client(&server, "alpha").discover(&[]).unwrap();
    server.stop();
}

#[test]
fn streams_that_the_server_is_made_to_give_up_count_as_given_up() {
    let world = World::new();
    let server = world.server();
    let passport = Passport::of(&world, "gamma");
    let what = |stream: &mut u32| {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(opened(*stream, "Transport"));
            // A field's name may have no upper case.
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, *stream, &[0, 1, b'A', 1, b'b']));
            *stream += 2;
        }
        bytes
    };
    for _ in 0..2 {
        beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, what));
    }
}

#[test]
fn calls_of_a_client_that_acknowledges_no_settings_are_bounded() {
    let world = World::new();
    let server = world.server();
    for agent in ["gamma", "nobody"] {
        let passport = Passport::of(&world, agent);
        let what = |stream: &mut u32| {
            let mut bytes = Vec::new();
            for _ in 0..500 {
                bytes.extend(frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    *stream,
                    &call_fields("/mas/Transport"),
                ));
                *stream += 2;
            }
            bytes
        };
        beside_a_pair(&world, &server, |over| repeat(&server, &passport, over, what));
    }
}

#[test]
fn streams_and_padding_that_the_core_reads_otherwise_are_cut() {
    let world = World::new();
    let server = world.server();
    for (agent, bytes, reason) in [
        ("gamma", frame(HEADERS, END_HEADERS, 0x7fff_fffe, &[0x83]), "a stream that is not a client's"),
        ("delta", frame(HEADERS, END_HEADERS | 8, 1, &[1, 0x83, 0]), "padding"),
    ] {
        let mut raw = Raw::greeted(&server, &Passport::of(&world, agent)).unwrap();
        assert!(raw.say(&bytes).is_err() || raw.ends_within(FLOOD));
        assert_on_record(&world, agent, reason);
    }
}
