use proptest::prelude::*;

use std::borrow::Cow;

use super::*;
use crate::audit::lane::{Lane, LaneId};
use crate::audit::merkle::Frontier;
use crate::audit::{Action, Decision, Fields};
use crate::clock::Now;

/// What was written, as read back.
#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Lane(String, Option<String>, Frontier),
    Block(String, u64, Vec<u8>, Vec<u8>),
    Note(String),
}

fn read_all(bytes: &[u8]) -> Result<Vec<Owned>, SegmentError> {
    let mut reader = SegmentReader::new(bytes)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(match item {
            Item::Lane { lane, registered, before } => {
                Owned::Lane(lane.into_owned(), registered.map(Cow::into_owned), before)
            }
            Item::Block { lane, first, bytes, root, .. } => {
                Owned::Block(lane.into_owned(), first, bytes.into_owned(), root.into_owned())
            }
            Item::Checkpoint { note } => Owned::Note(note.into_owned()),
        });
    }
    assert!(reader.end().is_some());
    Ok(items)
}

/// A file with `blocks` blocks of two records in one lane, behind a tree of `before` leaves.
fn sample(blocks: u64, before: u64, note: &str) -> Vec<u8> {
    let now = Now { unix_us: 1_700_000_000_000_000, mono_ms: 1 };
    let mut lane = Lane::new(LaneId::from_stored("l-w0-c0"));
    let mut tree = Frontier::default();
    for n in 0..before {
        tree.push([n as u8; 32]);
    }
    let mut writer = SegmentWriter::new(Vec::new(), &Header::archive(3, 7)).unwrap();
    writer.lane(&lane.id().clone(), Some("{\"by\":\"\n\"}"), &tree).unwrap();
    for _ in 0..blocks {
        for _ in 0..2 {
            let _ = lane.append(now, Action::Send, Decision::Allowed, &Fields::default());
        }
        let block = lane.block().unwrap();
        writer.block(block.lane, block.first_seq, block.bytes, block.hash).unwrap();
        lane.confirm();
    }
    writer.checkpoint(note).unwrap();
    writer.finish().unwrap().0
}

proptest! {
    #[test]
    fn what_is_written_reads_back(blocks in 0u64..5, before in 0u64..40, note in "\\PC{0,40}\n.{0,10}") {
        let bytes = sample(blocks, before, &note);
        let items = read_all(&bytes).unwrap();
        prop_assert_eq!(items.len() as u64, blocks + 2);
        prop_assert_eq!(items.last().unwrap(), &Owned::Note(note));
        let Owned::Lane(_, registered, tree) = &items[0] else { panic!("a lane") };
        prop_assert_eq!(registered.as_deref(), Some("{\"by\":\"\n\"}"));
        prop_assert_eq!(tree.size(), before);
        prop_assert_eq!(bytes.iter().filter(|b| **b == b'\n').count() as u64, blocks + 4);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let bytes = sample(3, 5, "a note\n");
        let at = at.index(bytes.len());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        // The last line's number of records and such is compared, its spelling is not.
        prop_assert!(read_all(&flipped).is_err() || at + 200 > bytes.len(), "{at} {bit}");
        prop_assert!(read_all(&bytes[..at]).is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&bytes);
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let bytes = sample(2, 0, "note");
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |skip: usize| {
        let kept: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != skip).map(|(_, line)| *line).collect();
        read_all(format!("{}\n", kept.join("\n")).as_bytes()).unwrap_err().to_string()
    };
    assert!(without(0).starts_with("line 1: expected the header"), "{}", without(0));
    assert!(without(2).starts_with("line 5: expected the count"), "{}", without(2));
    assert!(without(5).starts_with("line 6: expected the closing line"), "{}", without(5));
    let swapped = text.replacen("\"first\":1,", "\"first\":1,\"size\":3,", 1);
    let error = read_all(swapped.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("line 3: expected a lane, a block"), "{error}");
    let more = format!("{text}{{}}\n");
    assert!(read_all(more.as_bytes()).unwrap_err().to_string().starts_with("line 7: expected the end"));
    let newer = text.replacen("segment\":2", "segment\":3", 1);
    assert_eq!(
        read_all(newer.as_bytes()).unwrap_err().to_string(),
        "line 1: expected format version 1 or 2, found 3"
    );
}

#[test]
fn a_tree_of_another_size_than_its_nodes_is_refused() {
    let bytes = sample(1, 5, "note");
    let text = String::from_utf8(bytes).unwrap().replacen("\"size\":5", "\"size\":7", 1);
    let error = read_all(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "line 2: expected as many nodes as a tree of that size has");
}
