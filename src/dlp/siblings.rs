//! Values split over sibling strings of one array or object: the pieces are joined, and a checksum has
//! to confirm what they make.

use super::checks::{self, IBAN_MAX};
use super::digits;
use super::document::{Document, Origin, Part, Segment};
use super::hits::Sink;
use super::kinds::Kind;

/// Most digits of a card number.
const CARD_MAX: usize = 19;
/// Most pieces of a run of siblings among which the usual groupings of a card number are looked for; in
/// longer lists of ids one would soon be found by chance.
const GROUPED_PIECES: usize = 8;
/// Price of the key of a piece.
const COUNTED_STEPS: usize = 200;
/// Price of a piece.
const PIECE_STEPS: usize = 8;
/// The usual groupings.
const GROUPINGS: &[&[usize]] = &[&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[8, 8], &[6, 6, 4], &[12, 4]];

/// Buffers of the pass.
#[derive(Debug, Default)]
pub(super) struct SiblingScratch {
    pieces: Vec<Piece>,
    joined: Vec<u8>,
}

/// A short string among its siblings: its bytes in the buffer.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
}

fn is_piece(text: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= IBAN_MAX
        && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'.'))
        && (text.len() <= 4 || text.iter().any(u8::is_ascii_digit))
}

/// Looks at every run of adjacent short strings in segments of the payload.
pub(super) fn join(document: &Document, scratch: &mut SiblingScratch, sink: &mut Sink<'_>) {
    scratch.pieces.clear();
    let mut container = None;
    for segment in &document.segments {
        if segment.part == Part::Key || matches!(segment.origin, Origin::Percent) {
            continue;
        }
        if sink.is_spent() {
            break;
        }
        let text = piece_of(document, segment);
        if (text.is_none() || container != Some(segment.container)) && !scratch.pieces.is_empty() {
            flush(document, scratch, sink);
        }
        container = Some(segment.container);
        if text.is_some() {
            sink.spend(PIECE_STEPS);
            let (start, end) = segment.span();
            scratch.pieces.push(Piece { start, end });
        }
    }
    flush(document, scratch, sink);
}

fn piece_of<'a>(document: &'a Document, segment: &Segment) -> Option<&'a [u8]> {
    let text = document.text.as_bytes().get(segment.start as usize..segment.end as usize)?;
    (segment.part == Part::Text && is_piece(text)).then_some(text)
}

fn flush(document: &Document, scratch: &mut SiblingScratch, sink: &mut Sink<'_>) {
    if scratch.pieces.len() > 1 {
        let SiblingScratch { pieces, joined } = scratch;
        cards(document, pieces, joined, sink);
        ibans(document, pieces, joined, sink);
    }
    scratch.pieces.clear();
}

fn bytes<'a>(document: &'a Document, piece: &Piece) -> &'a [u8] {
    document.text.as_bytes().get(piece.start..piece.end).unwrap_or_default()
}

fn found(kind: Kind, pieces: &[Piece], sink: &mut Sink<'_>) {
    for piece in pieces {
        sink.add(kind, piece.start, piece.end);
    }
}

fn cards(document: &Document, pieces: &[Piece], joined: &mut Vec<u8>, sink: &mut Sink<'_>) {
    let mut rest = pieces;
    while !rest.is_empty() {
        joined.clear();
        // The digits of a piece fit a card; more pieces than a card has digits are none.
        let len = rest.iter().take_while(|piece| digits::only_digits(bytes(document, piece), joined)).count();
        let (run, tail) = rest.split_at(len);
        if len > 1 {
            let whole = len <= CARD_MAX && checks::is_card(joined) && of_one(document, run);
            if whole {
                found(Kind::CreditCard, run, sink);
            } else if len <= GROUPED_PIECES
                && may_be_grouped(run)
                && !is_counted(document, run)
                && !in_table(document, run)
            {
                sink.spend(COUNTED_STEPS * run.len());
                grouped(document, run, joined, sink);
            }
        }
        rest = tail.get(usize::from(len == 0)..).unwrap_or_default();
    }
}

/// Whether any of the usual groupings is among the lengths of pieces.
fn may_be_grouped(run: &[Piece]) -> bool {
    let length = |piece: &Piece| piece.end - piece.start;
    GROUPINGS.iter().any(|grouping| {
        run.windows(grouping.len())
            .any(|window| window.iter().zip(*grouping).all(|(piece, len)| length(piece) == *len))
    })
}

/// Whether keys of pieces are of things that are counted.
fn is_counted(document: &Document, run: &[Piece]) -> bool {
    run.iter().any(|piece| {
        document
            .segment_at(piece.start)
            .is_some_and(|(_, segment)| digits::is_sequence(document.key_text(&segment).as_bytes()))
    })
}

/// Whether pieces stand in arrays.
fn in_array(document: &Document, run: &[Piece]) -> bool {
    run.iter().all(|piece| {
        let segment = document.segment_at(piece.start).map(|(_, segment)| segment);
        let container = segment.and_then(|segment| document.containers.get(segment.container as usize));
        container.is_some_and(|container| container.array)
    })
}

/// Whether pieces stand in an array of arrays: one row of several.
fn in_table(document: &Document, run: &[Piece]) -> bool {
    let first = run.first().and_then(|piece| document.segment_at(piece.start));
    first.is_some_and(|(_, segment)| document.in_table(&segment))
}

/// Whether pieces are those of one array, or of as many digits as card numbers are written in groups.
fn of_one(document: &Document, run: &[Piece]) -> bool {
    if is_counted(document, run) || in_table(document, run) {
        return false;
    }
    // Numbers of their own, as "65-5399-5399" is, are no pieces of one.
    let parted =
        |piece: &Piece| bytes(document, piece).trim_ascii().iter().filter(|b| !b.is_ascii_digit()).count();
    let own = run.iter().all(|piece| parted(piece) > 0) && run.iter().any(|piece| parted(piece) > 1);
    in_array(document, run) && !own
        || GROUPINGS.iter().any(|grouping| {
            grouping.len() == run.len()
                && grouping.iter().zip(run).all(|(len, piece)| {
                    bytes(document, piece).iter().filter(|b| b.is_ascii_digit()).count() == *len
                })
        })
}

fn grouped(document: &Document, run: &[Piece], joined: &mut Vec<u8>, sink: &mut Sink<'_>) {
    for grouping in GROUPINGS {
        // A row of numbers holds such a window now and then.
        if in_array(document, run) && run.len() != grouping.len() {
            continue;
        }
        for window in run.windows(grouping.len()) {
            let fits = window.iter().zip(*grouping).all(|(piece, len)| piece.end - piece.start == *len);
            joined.clear();
            if fits {
                sink.hits.no_cards += 1;
            }
            if fits
                && window.iter().all(|piece| digits::only_digits(bytes(document, piece), joined))
                && checks::is_card(joined)
            {
                sink.hits.no_cards -= 1;
                for piece in window {
                    sink.add_bare_card(piece.start, piece.end);
                }
                return;
            }
        }
    }
}

fn ibans(document: &Document, pieces: &[Piece], joined: &mut Vec<u8>, sink: &mut Sink<'_>) {
    let mut skip = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let [first, second, ..] = bytes(document, piece) else { continue };
        let Some((length, digits_only)) = checks::iban_country(*first, *second) else { continue };
        if index < skip {
            continue;
        }
        joined.clear();
        for (count, piece) in pieces.get(index..).unwrap_or_default().iter().enumerate() {
            joined.extend(bytes(document, piece).iter().filter(|b| b.is_ascii_alphanumeric()));
            let digits = if digits_only { length } else { 4 };
            let number = joined.get(2..digits.min(joined.len()));
            if !number.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) {
                break;
            }
            if joined.len() < length {
                continue;
            }
            if joined.len() == length && count > 0 && checks::iban_checksum(joined) {
                let run = pieces.get(index..=index + count).unwrap_or_default();
                found(Kind::Iban, run, sink);
                skip = index + count + 1;
            }
            break;
        }
    }
}
