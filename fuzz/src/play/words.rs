//! What a real client says: its greeting, and calls in the shapes that clients of gRPC have.

use super::script::frame;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;

/// The preface and the settings of gRPC's C core, and its window.
pub fn greeting() -> Vec<u8> {
    let settings: [(u16, u32); 6] =
        [(2, 0), (3, 0), (4, 4_194_304), (5, 4_194_304), (6, 16_384), (0xfe03, 1)];
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &settings),
        frame(8, 0, 0, &4_128_769_u32.to_be_bytes()),
    ]
    .concat()
}

/// The header fields of a call: the first on a connection names what later ones have by number.
fn fields(first: bool) -> Vec<u8> {
    if !first {
        return vec![0x86, 0x83, 0xc6, 0xc5, 0xc4, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
    }
    let mut bytes = vec![0x86, 0x83];
    for (name, value) in [
        (":path", "/mas.runtime.v1.RuntimeService/SendMessage"),
        (":authority", "localhost:50051"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python/1.76.0 grpc-c/49.0.0 (linux; chttp2)"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("accept-encoding", "identity,gzip"),
    ] {
        bytes.extend([0x40, name.len() as u8]);
        bytes.extend(name.as_bytes());
        bytes.push(value.len() as u8);
        bytes.extend(value.as_bytes());
    }
    bytes
}

/// A call on that stream; each bit of `shape` is something that differs from the plainest one.
pub fn call(stream: u32, shape: u8) -> Vec<u8> {
    let has = |bit: u8| shape & 1 << bit != 0;
    let (silent, alone, split, open, halves, weight, padding) =
        (has(0), has(1), has(2), has(3), has(4), has(5), has(6));
    let mut block = fields(stream == 1);
    let mut flags = if alone { END_STREAM } else { 0 };
    if weight {
        block.splice(0..0, [0, 0, 0, 0, 15]);
        flags |= PRIORITIZED;
    }
    if padding {
        block.insert(0, 2);
        block.extend([0, 0]);
        flags |= PADDED;
    }
    let mut bytes = if split {
        let (head, tail) = block.split_at(block.len() / 2);
        [frame(HEADERS, flags, stream, head), frame(CONTINUATION, END_HEADERS, stream, tail)].concat()
    } else {
        frame(HEADERS, flags | END_HEADERS, stream, &block)
    };
    if silent || alone {
        return bytes;
    }
    let message = [&[0, 0, 0, 0, 24][..], &[b'm'; 24]].concat();
    let last = if open { 0 } else { END_STREAM };
    if halves {
        let (head, tail) = message.split_at(3);
        bytes.extend([frame(DATA, 0, stream, head), frame(DATA, last, stream, tail)].concat());
    } else {
        bytes.extend(frame(DATA, last, stream, &message));
    }
    bytes
}
