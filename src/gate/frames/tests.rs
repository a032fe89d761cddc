use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Preface and empty settings, then these frames.
fn client(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames.concat());
    bytes
}

/// What is asked for when all passes, and what it ends with.
fn read(bytes: &[u8]) -> (Vec<Unit>, Charge) {
    let mut units = Vec::new();
    let scanned = Frames::default().scan(bytes, 1, &mut |unit| {
        units.push(unit);
        Charge::Pass
    });
    if scanned.then == Charge::Pass {
        assert_eq!(scanned.pass, bytes.len());
    }
    (units, scanned.then)
}

/// The same in pieces of some sizes, where each unit is first held back `holds` times.
fn read_in_pieces(bytes: &[u8], sizes: &[usize], holds: usize) -> (Vec<Unit>, Charge) {
    let (mut units, mut asked) = (Vec::new(), 0);
    let mut frames = Frames::default();
    let mut sizes = sizes.iter().copied().cycle();
    let (mut at, mut passed) = (0, Vec::new());
    while at < bytes.len() {
        let end = bytes.len().min(at + sizes.next().unwrap().max(1));
        let mut piece = &bytes[at..end];
        while !piece.is_empty() {
            let scanned = frames.scan(piece, 1, &mut |unit| {
                asked += 1;
                if holds > 0 && asked % (holds + 1) != 0 {
                    return Charge::Hold(1);
                }
                units.push(unit);
                Charge::Pass
            });
            passed.extend_from_slice(&piece[..scanned.pass]);
            piece = &piece[scanned.pass..];
            match scanned.then {
                Charge::Pass => assert!(piece.is_empty()),
                Charge::Hold(_) => {}
                Charge::Cut(_) => return (units, scanned.then),
            }
        }
        at = end;
    }
    assert_eq!(passed, bytes);
    (units, Charge::Pass)
}

/// `:method: POST` by its index, a literal with a name of its own, one with an indexed name.
fn fields() -> Vec<u8> {
    [&[0x83][..], &[0x40, 3], b"abc", &[2], b"de", &[0x04, 1], b"/"].concat()
}

fn headers(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, 1, payload)
}

#[test]
fn a_call_costs_its_block_its_fields_and_its_data() {
    let call = [headers(END_HEADERS, &fields()), frame(DATA, END_STREAM, 1, b"12345")];
    let expected = [Unit::Settings, Unit::Call, Unit::Field, Unit::Field, Unit::Field, Unit::Frame].to_vec();
    assert_eq!(read(&client(&call)), (expected, Charge::Pass));
}

#[test]
fn a_priority_is_no_field() {
    let payload = [&[0, 0, 0, 0, 16][..], &fields()].concat();
    let (units, then) = read(&client(&[headers(END_HEADERS | PRIORITIZED, &payload)]));
    assert_eq!((units.iter().filter(|unit| **unit == Unit::Field).count(), then), (3, Charge::Pass));
}

#[test]
fn a_block_in_pieces_is_one() {
    let fields = fields();
    for split in 1..fields.len() {
        let (first, last) = fields.split_at(split);
        let frames = [headers(0, first), frame(CONTINUATION, END_HEADERS, 1, last)];
        let (units, then) = read(&client(&frames));
        assert_eq!(then, Charge::Pass);
        assert_eq!(units.iter().filter(|unit| **unit == Unit::Field).count(), 3, "{split}");
        assert_eq!(units.iter().filter(|unit| **unit == Unit::Call).count(), 1);
    }
}

#[test]
fn long_integers_are_read_to_their_end() {
    // A name of 127 + 1 + 2 * 128 bytes, and a value without any.
    let length = 127 + 1 + 2 * 128;
    let payload = [&[0, 0x7f, 0x81, 2][..], &vec![b'a'; length], &[0], &[0xff, 0x80, 1], &[0x83]].concat();
    let (units, then) = read(&client(&[headers(END_HEADERS, &payload)]));
    assert_eq!((units.iter().filter(|unit| **unit == Unit::Field).count(), then), (3, Charge::Pass));
}

#[test]
fn what_no_client_may_send_is_cut() {
    let many = vec![0x83; MAX_FIELDS as usize + 1];
    let long = [&[0, 0x7f, 0x80, 0x80, 2][..], &vec![b'a'; 20_000], &[0]].concat();
    let window = [&[0, 4][..], &(MIN_WINDOW_BYTES - 1).to_be_bytes()].concat();
    let cases: [(&str, Vec<Vec<u8>>); 17] = [
        ("too many header fields", vec![headers(END_HEADERS, &many)]),
        ("a long header block", vec![headers(END_HEADERS, &long)]),
        (
            "a long header block",
            vec![headers(0, &long[..16_000]), frame(CONTINUATION, 0, 1, &long[16_000..])],
        ),
        ("an empty continuation", vec![headers(0, &[0x83]), frame(CONTINUATION, 0, 1, &[])]),
        ("a continuation of no header block", vec![frame(CONTINUATION, 0, 1, &[0x83])]),
        (
            "a header block that another frame interrupts",
            vec![headers(0, &[0x83]), frame(PING, 0, 0, &[0; 8])],
        ),
        (
            "a header block that another frame interrupts",
            vec![headers(0, &[0x83]), frame(CONTINUATION, 0, 3, &[0x83])],
        ),
        ("a tiny window", vec![frame(SETTINGS, 0, 0, &window)]),
        ("a long control frame", vec![frame(SETTINGS, 0, 0, &[0; 6 * 3000])]),
        ("padding", vec![headers(END_HEADERS | PADDED, &[1, 0x83, 0])]),
        ("padding", vec![frame(DATA, PADDED, 1, &[0])]),
        ("unknown flags", vec![frame(DATA, 0x40, 1, &[0])]),
        ("a stream that is not a client's", vec![frame(HEADERS, END_HEADERS, 0x7fff_fffe, &[0x83])]),
        ("a stream that is not a client's", vec![frame(HEADERS, END_HEADERS, 0, &[0x83])]),
        ("a header frame that is too short", vec![headers(END_HEADERS | PRIORITIZED, &[0; 4])]),
        ("a long integer in a header field", vec![headers(END_HEADERS, &[0xff; 12])]),
        ("a header field that does not end", vec![headers(END_HEADERS, &[0x40, 3, b'a'])]),
    ];
    for (reason, frames) in cases {
        assert_eq!(read(&client(&frames)).1, Charge::Cut(reason), "{frames:?}");
    }
    assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n").1, Charge::Cut("not HTTP/2"));
    let unsettled = [&PREFACE[..], &headers(END_HEADERS, &fields())].concat();
    assert_eq!(read(&unsettled).1, Charge::Cut("a frame before the settings"));
}

#[test]
fn answers_and_ends_cost_no_more_than_a_frame() {
    let frames = [
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(DATA, END_STREAM, 1, &[]),
        frame(DATA, 0, 1, &[0; 257]),
    ];
    let (units, then) = read(&client(&frames));
    assert_eq!((&units[1..], then), (&[Unit::Frame; 4][..], Charge::Pass));
    let costly =
        [frame(DATA, 0, 1, &[]), frame(RST_STREAM, 0, 1, &[0; 4]), frame(WINDOW_UPDATE, 0, 1, &[0; 4])];
    let expected = [Unit::Empty, Unit::Reset, Unit::Window];
    assert_eq!(&read(&client(&costly)).0[1..], expected);
}

#[test]
fn a_frame_that_is_held_back_has_not_begun() {
    let bytes = client(&[frame(RST_STREAM, 0, 1, &[0; 4])]);
    let greeting = client(&[]).len();
    let mut frames = Frames::default();
    let mut charge = |unit| if unit == Unit::Reset { Charge::Hold(7) } else { Charge::Pass };
    let scanned = frames.scan(&bytes, 1, &mut charge);
    assert_eq!(scanned, Scanned { pass: greeting + HEADER_BYTES - 1, then: Charge::Hold(7) });
    let again = frames.scan(&bytes[scanned.pass..], 1, &mut charge);
    assert_eq!(again, Scanned { pass: 0, then: Charge::Hold(7) });
    let last = frames.scan(&bytes[scanned.pass..], 1, &mut |_| Charge::Pass);
    assert_eq!(last, Scanned { pass: 5, then: Charge::Pass });
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec(
        prop_oneof![
            (0x80..0xfe_u8).prop_map(|index| vec![index]),
            (prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(name, value)| {
                    let text = |text: &[u8]| match text.len() {
                        short @ 0..127 => [&[short as u8][..], text].concat(),
                        long => {
                            let rest = long - 127;
                            [&[0x7f, rest as u8 | 0x80, (rest >> 7) as u8][..], text].concat()
                        }
                    };
                    [&[0x40][..], &text(&name), &text(&value)].concat()
                }),
        ],
        1..8,
    );
    prop_oneof![
        (fields, any::<bool>(), 0..3_usize).prop_map(|(fields, prioritized, parts)| {
            let block = fields.concat();
            let first = block.len() / (parts + 1);
            let mut payload = Vec::new();
            if prioritized {
                payload.extend([0; 5]);
            }
            payload.extend(&block[..first]);
            let flags = if prioritized { PRIORITIZED } else { 0 };
            let ends = if first == block.len() { END_HEADERS } else { 0 };
            let mut bytes = frame(HEADERS, flags | ends, 1, &payload);
            let mut rest = &block[first..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(first.max(1)));
                let ends = if later.is_empty() { END_HEADERS } else { 0 };
                bytes.extend(frame(CONTINUATION, ends, 1, now));
                rest = later;
            }
            bytes
        }),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(|data| frame(DATA, 0, 1, &data)),
        Just(frame(PING, 0, 0, &[1; 8])),
        Just(frame(WINDOW_UPDATE, 0, 0, &[1; 4])),
        Just(frame(RST_STREAM, 0, 1, &[1; 4])),
        Just(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
    ]
}

#[test]
fn calls_wait_for_their_message_and_no_longer() {
    let data = |flags, stream, payload: &[u8]| frame(DATA, flags, stream, payload);
    let message = [0, 0, 0, 0, 2, 8, 9];
    let call = |stream| frame(HEADERS, END_HEADERS, stream, &fields());
    let cases: [(Vec<Vec<u8>>, usize); 8] = [
        (vec![call(1)], 1),
        (vec![call(1), data(0, 1, &message[..6])], 1),
        (vec![call(1), data(0, 1, &message[..6]), data(0, 1, &message[6..])], 0),
        (vec![call(1), data(END_STREAM, 1, &[])], 0),
        (vec![call(1), call(3), frame(RST_STREAM, 0, 1, &[0; 4])], 1),
        (vec![call(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields())], 0),
        (vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields())], 0),
        (vec![call(1), data(0, 3, &message), call(5), data(0, 5, &message)], 1),
    ];
    for (parts, waiting) in cases {
        let mut frames = Frames::default();
        let mut begun = 0;
        let _ = frames.scan(&client(&parts), 1, &mut |unit| {
            begun += usize::from(unit == Unit::Call);
            Charge::Pass
        });
        assert_eq!(begun - frames.calls.take_settled(), waiting, "{parts:?}");
        assert_eq!(frames.calls.waiting(), waiting);
    }
}

proptest! {
    #[test]
    fn any_split_and_any_hold_reads_the_same(
        frames in prop::collection::vec(any_frame(), 0..8),
        sizes in prop::collection::vec(1..50_usize, 1..20),
        holds in 0..3_usize,
    ) {
        let bytes = client(&frames);
        let whole = read(&bytes);
        prop_assert_eq!(whole.1, Charge::Pass);
        prop_assert_eq!(read_in_pieces(&bytes, &sizes, holds), whole);
    }

    #[test]
    fn any_bytes_read_the_same_in_pieces(
        tail in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1..20_usize, 1..20),
    ) {
        let bytes = client(&[tail]);
        prop_assert_eq!(read_in_pieces(&bytes, &sizes, 0), read(&bytes));
    }
}
