//! Writes the seeds of the target `gate`: `cargo run --example gate_seeds -- seeds/gate`.

use mas_fuzz::play::script::code::*;
use mas_fuzz::play::script::frame;

/// Finales, as `Script::read` has them.
const FIN: u8 = 0;
const NOTIFY_FIN: u8 = 2;
const RESET: u8 = 4;
const BEHIND: u8 = 6;
const GATE: u8 = 7;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Filled up to 16 KiB.
const FULL: u8 = 255;
/// One byte in a record or a write at a time, in lockstep.
const BYTE_BY_BYTE: [u8; 3] = [PIECES, 0x41, 1];

fn say(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[FRAME, kind, flags, stream, payload.len() as u8], payload].concat()
}

fn behind(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[SAY_BEHIND, kind, flags, stream, payload.len() as u8], payload].concat()
}

fn counted(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code, bytes.len() as u8], bytes].concat()
}

fn again(times: u16) -> Vec<u8> {
    [&[AGAIN], &times.to_be_bytes()[..]].concat()
}

/// On further streams.
fn again_on(times: u16) -> Vec<u8> {
    again(times | 0x8000)
}

// A table.
#[rustfmt::skip]
fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let write = |name: &str, finale: u8, steps: &[&[u8]]| {
        let path = format!("{folder}/{name}");
        std::fs::write(path, [&[finale][..], &steps.concat()].concat()).expect("the folder can be written");
    };
    let a = [OPEN, 0];
    let a12 = [OPEN, 16];
    let early = [OPEN, 32];
    let narrow = [OPEN, 64];
    let b = [OPEN, 5];
    let stranger = [OPEN, 8];
    let first = |index: u8| [TURN, index];
    let greeted = [GREET];
    let plain = [CALL, 0];
    let settled = [SETTLE];
    let answer = [behind(SETTINGS, 0, 0, &[]), behind(SETTINGS, 1, 0, &[])].concat();
    let reply = [
        behind(HEADERS, 4, 1, &[0x88]),
        behind(DATA, 0, 1, &[0, 0, 0, 0, 0]),
        behind(HEADERS, 5, 1, &[0x88]),
    ]
    .concat();

    // What honest clients do.
    write("greeting", FIN, &[&a, &greeted, &settled, &answer]);
    write("call", NOTIFY_FIN, &[&a, &greeted, &plain, &answer, &settled, &reply, &settled]);
    write("call-tls12", BEHIND, &[&a12, &greeted, &plain, &answer, &reply, &settled]);
    write("call-early", BEHIND, &[&early, &greeted, &plain, &plain, &answer, &reply]);
    write("calls-gate-ends", GATE, &[&a, &greeted, &plain, &plain, &answer, &reply, &b, &greeted, &plain]);
    write("byte-by-byte", FIN, &[&a, &BYTE_BY_BYTE, &greeted, &plain, &say(PING, 0, 0, &[7; 8]), &plain]);
    write("two-by-three", BEHIND, &[&early, &[PIECES, 0x52, 2, 3, 5, 1], &greeted, &[CALL, 4], &[CALL, 16], &plain]);
    write("shapes", FIN, &[&a, &greeted, &[CALL, 2, CALL, 4, CALL, 8, CALL, 16, CALL, 32, CALL, 36, CALL, 1],
        &say(DATA, 1, 13, &[0; 5])]);
    write("stream", BEHIND, &[&a, &greeted, &[CALL, 8], &say(DATA, 0, 1, &[1; 90]), &again(40), &say(WINDOW_UPDATE, 0,
        1, &[0, 0, 1, 0]), &answer, &reply]);
    write("held-notify", FIN, &[&a, &greeted, &plain, &say(HEADERS, 5, 1, &[0x88]), &again(3_000), &plain, &[LEAVE, 1]]);
    write("held-notify-fin", FIN, &[&a, &greeted, &plain, &say(HEADERS, 5, 1, &[0x88]), &again(3_000), &[LEAVE, 2]]);
    write("cancelled", FIN, &[&a, &greeted, &plain, &say(RST_STREAM, 0, 1, &[0, 0, 0, 8]), &plain, &say(RST_STREAM, 0,
        3, &[0, 0, 0, 8])]);
    write("pings", FIN, &[&a, &greeted, &say(PING, 0, 0, &[1; 8]), &behind(PING, 1, 0, &[1; 8]), &say(PING, 1, 0, &[1;
        8])]);
    write("goaway", FIN, &[&a, &greeted, &plain, &behind(GOAWAY, 0, 0, &[0; 8]), &[LEAVE_BEHIND, 0]]);
    write("rekey", FIN, &[&a, &greeted, &[REKEY], &plain, &[REKEY], &settled, &[RENEW], &plain]);
    write("identities", FIN, &[&a, &greeted, &b, &greeted, &first(0), &plain, &first(1), &plain, &stranger, &greeted,
        &plain]);
    write("five-of-one", FIN, &[&a, &greeted, &settled, &a, &greeted, &settled, &a, &settled, &a, &settled, &a,
        &greeted]);
    write("forbidden", FIN, &[&a, &greeted, &plain, &settled, &[FORBID, FORBID_KEY], &a, &greeted, &plain]);
    write("allowed", FIN, &[&stranger, &greeted, &plain, &settled, &[FORBID, FORBID_KEY]]);

    // Who is not let in.
    for (name, who) in
        [("nameless", 10), ("other-authority", 11), ("no-certificate", 12), ("expired", 13), ("no-alpn", 14)]
    {
        write(name, FIN, &[&[OPEN, who], &greeted, &plain, &[OPEN, who | 16], &greeted]);
    }
    write("no-tls", FIN, &[&[OPEN, 15], &counted(NOISE, b"GET / HTTP/1.1\r\n\r\n"), &[OPEN, 15], &counted(NOISE, &[22,
        3, 1, 2, 0, 1])]);
    write("garbled", FIN, &[&a, &greeted, &settled, &counted(NOISE, &[0x17, 3, 3, 0, 20, 9, 9, 9]), &counted(NOISE,
        &[0; 60])]);

    // How they leave.
    for (how, name) in ["fin", "notify", "notify-fin", "fin-now", "reset", "drop"].iter().enumerate() {
        write(&format!("leave-{name}"), RESET, &[&a, &greeted, &plain, &answer, &settled, &plain, &[LEAVE, how as u8], &b,
        &[LEAVE, how as u8]]);
    }
    for (how, name) in ["close", "shut", "close-now", "deaf"].iter().enumerate() {
        write(&format!("behind-{name}"), FIN, &[&a, &greeted, &settled, &[READ_BEHIND, 0], &plain, &answer, &reply,
        &settled, &[LEAVE_BEHIND, how as u8], &plain]);
    }

    // What takes its time.
    let large = [&[FRAME, DATA, 0, 1, FULL][..], &again(16)].concat();
    let large_behind = [&[SAY_BEHIND, DATA, 0, 1, FULL][..], &[AGAIN_BEHIND, 0, 16]].concat();
    write("slow-behind", FIN, &[&a, &greeted, &[CALL, 8], &settled, &[READ_BEHIND, 0], &large, &[PAUSE, 20],
        &[READ_BEHIND, 200, PAUSE, 9, READ_BEHIND, 255]]);
    write("slow-behind-leaves", NOTIFY_FIN, &[&a, &greeted, &[CALL, 8], &settled, &[READ_BEHIND, 0], &large, &[PAUSE,
        20, LEAVE, 0]]);
    write("slow-client", BEHIND, &[&narrow, &greeted, &plain, &settled, &[READ, 0], &answer, &large_behind, &[PAUSE,
        20], &[READ, 1]]);
    write("slow-client-told", FIN, &[&narrow, &greeted, &plain, &settled, &[READ, 0], &large_behind, &[LEAVE_BEHIND,
        0, PAUSE, 20, READ, 1]]);
    write("slow-both", BEHIND, &[&narrow, &greeted, &[CALL, 8], &settled, &[READ, 0, READ_BEHIND, 0], &large,
        &large_behind, &[PAUSE, 20]]);

    // Floods.
    let some = [&[FRAME, DATA, 0, 1, FULL][..], &again(13)].concat();
    write("slow-behind-notify", FIN, &[&a, &greeted, &[CALL, 8], &settled, &[READ_BEHIND, 0], &some, &[LEAVE, 1, PAUSE, 20]]);
    write("header-bomb", FIN, &[&a, &greeted, &[FRAME, HEADERS, 4, 1, FULL]]);
    write("header-bomb-small", FIN, &[&a, &greeted, &say(HEADERS, 4, 1, &[0x88; 64]), &say(HEADERS, 4, 1, &[0x88;
        65])]);
    write("continuation-flood", FIN, &[&a, &greeted, &say(HEADERS, 0, 1, &[0x88]), &say(CONTINUATION, 0, 1, &[0, 1,
        b'a', 1, b'b']), &again(100)]);
    write("settings-flood", FIN, &[&a, &greeted, &say(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), &again(18), &settled,
        &again(4)]);
    write("ping-flood", FIN, &[&a, &greeted, &say(PING, 0, 0, &[1; 8]), &again(5_500)]);
    write("reset-flood", FIN, &[&a, &greeted, &say(RST_STREAM, 0, 1, &[0, 0, 0, 8]), &again(600)]);
    write("resets-behind", FIN, &[&a, &greeted, &plain, &behind(RST_STREAM, 0, 1, &[0; 4]), &[AGAIN_BEHIND, 2, 0]]);
    // Held back where nobody listens: what comes behind is read in its order.
    let blocks = [&say(HEADERS, 5, 1, &[0x88; 3])[..], &again(3_000), &settled, &plain].concat();
    let small_records = [PIECES, 1, 250];
    write("held-deaf", FIN, &[&a, &greeted, &plain, &settled, &[LEAVE_BEHIND, 3], &small_records, &blocks]);
    write("held-closed", FIN, &[&narrow, &greeted, &plain, &settled, &[READ, 0], &large_behind, &[PAUSE, 20, LEAVE_BEHIND,
        2], &small_records, &blocks]);
    write("window-flood", FIN, &[&a, &greeted, &say(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), &again(6_000), &again(6_000)]);
    write("block-flood", FIN, &[&a, &greeted, &plain, &say(HEADERS, 5, 1, &[0x88]), &again(3_000), &plain]);
    write("field-flood", FIN, &[&a, &greeted, &plain, &say(HEADERS, 5, 1, &[0x88; 60]), &again(4_000), &plain]);
    write("empty-flood", FIN, &[&a, &greeted, &[CALL, 8], &say(DATA, 0, 1, &[]), &again(98), &settled, &again(20)]);
    write("call-flood-ended", BEHIND, &[&a, &[END_CALLS], &greeted, &plain, &say(HEADERS, 5, 1, &[0x88]),
        &again_on(700)]);
    write("call-flood", BEHIND, &[&a, &greeted, &plain, &say(HEADERS, 5, 1, &[0x88]), &again_on(700)]);
    write("waiting-flood-ended", FIN, &[&a, &[END_CALLS], &greeted, &say(HEADERS, 4, 1, &[0x88]), &again_on(700),
        &plain]);
    write("stranger-calls", FIN, &[&stranger, &[END_CALLS], &greeted, &say(HEADERS, 5, 1, &[0x88]), &again_on(40)]);

    // What no client may send.
    let wrong: [(&str, Vec<u8>); 12] = [
        ("padding", [CALL, 64].to_vec()),
        ("padded-data", [&plain[..], &say(DATA, 8, 1, &[1, 0, 0])].concat()),
        ("data-flags", [&plain[..], &say(DATA, 2, 1, &[0])].concat()),
        ("even-stream", say(HEADERS, 4, 2, &[0x88])),
        ("interrupted", [say(HEADERS, 0, 1, &[0x88]), say(PING, 0, 0, &[0; 8])].concat()),
        ("lone-continuation", say(CONTINUATION, 4, 1, &[0x88])),
        ("empty-continuation", [say(HEADERS, 0, 1, &[0x88]), say(CONTINUATION, 4, 1, &[])].concat()),
        ("tiny-window", say(SETTINGS, 0, 0, &[0, 4, 0, 0, 3, 255])),
        ("long-control", [FRAME, GOAWAY, 0, 0, FULL].to_vec()),
        ("half-field", say(HEADERS, 4, 1, &[0, 3, b'a', b'b'])),
        ("long-integer", say(HEADERS, 4, 1, &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0])),
        ("short-headers", say(HEADERS, 0x24, 1, &[0, 0])),
    ];
    for (name, steps) in &wrong {
        write(name, FIN, &[&a, &greeted, steps, &plain, &a, &greeted]);
    }
    write("no-settings", FIN, &[&a, &counted(BYTES, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &plain]);
    write("no-preface", FIN, &[&a, &counted(BYTES, b"GET / HTTP/1.1\r\n\r\n")]);
    write("stranger-cut", FIN, &[&stranger, &greeted, &[CALL, 64], &settled, &stranger, &greeted]);
    write("odd-kinds", FIN, &[&a, &greeted, &say(PRIORITY, 0, 1, &[0; 5]), &say(PUSH_PROMISE, 4, 1, &[0; 4]), &say(77,
        255, 9, &[3; 20]), &plain]);
    write("odd-behind", BEHIND, &[&a, &greeted, &plain, &counted(BYTES_BEHIND, &frame(DATA, 1, 1, &[5; 30])[..20]),
        &settled, &counted(BYTES_BEHIND, b"?")]);
}
