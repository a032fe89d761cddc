//! A segment is decompressed, parsed and hashed by a thread of its own, while its reader works on what came before.

use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::audit::segment::{Item, SegmentError, SegmentReader};

/// Bytes of records that are handed over at once: one line more than this at most.
const BATCH_BYTES: usize = 256 * 1024;
/// Items that are handed over at once.
const BATCH_ITEMS: usize = 4096;
/// Batches that wait for the reader.
const MAX_WAITING: usize = 2;

type Batch = Vec<Item<'static>>;

/// Hands out what the reader still has, and gives it back at its end. `on` may end it before.
pub(super) fn each_item<R: BufRead + Send, E>(
    mut reader: SegmentReader<R>,
    on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    not_started: &dyn Fn(io::Error) -> E,
    wrong: &dyn Fn(SegmentError) -> E,
) -> Result<ControlFlow<(), SegmentReader<R>>, E> {
    let (sender, batches) = sync_channel(MAX_WAITING);
    std::thread::scope(|scope| {
        let run = move || {
            let read = hand_over(&mut reader, &sender);
            (reader, read)
        };
        let thread = std::thread::Builder::new().name("segment".to_owned());
        let thread = thread.spawn_scoped(scope, run).map_err(not_started)?;
        for item in batches.into_iter().flatten() {
            if on(&item)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match thread.join() {
            Ok((reader, Ok(()))) => Ok(ControlFlow::Continue(reader)),
            Ok((_, Err(error))) => Err(wrong(error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Reads to the end, or until nobody wants more.
fn hand_over<R: BufRead>(
    reader: &mut SegmentReader<R>,
    sender: &SyncSender<Batch>,
) -> Result<(), SegmentError> {
    let (mut batch, mut bytes) = (Batch::new(), 0);
    let read = loop {
        let item = match reader.next_item() {
            Ok(Some(item)) => item.into_owned(),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        bytes += match &item {
            Item::Block { bytes, .. } => bytes.len(),
            Item::Checkpoint { note } => note.len(),
            Item::Lane { .. } => 0,
        };
        batch.push(item);
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_ITEMS {
            bytes = 0;
            if sender.send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
    };
    // Nobody is left to hear of it where this fails.
    let _ = sender.send(batch);
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::segment::{Header, SegmentWriter};
    use crate::audit::{LaneId, merkle::Frontier};

    /// More lanes than two batches hold.
    fn sample() -> Vec<u8> {
        let mut writer = SegmentWriter::new(Vec::new(), &Header::archive(1, 7)).unwrap();
        for n in 0..2 * BATCH_ITEMS + 17 {
            let lane = LaneId::from_stored(&format!("l-w{n}"));
            writer.lane(&lane, None, &Frontier::default()).unwrap();
        }
        writer.finish().unwrap().0
    }

    type ReadBack<'a> = Result<Option<SegmentReader<&'a [u8]>>, SegmentError>;

    /// What is read, up to `most` items: the reader, where there was an end.
    fn read(bytes: &[u8], most: usize) -> (Vec<Item<'static>>, ReadBack<'_>) {
        let mut items = Vec::new();
        let mut on = |item: &Item<'_>| {
            items.push(item.clone().into_owned());
            Ok(if items.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let not_started = |error| panic!("{error}");
        let reader = SegmentReader::new(bytes).unwrap();
        let read = each_item(reader, &mut on, &not_started, &|error| error);
        (items, read.map(ControlFlow::continue_value))
    }

    #[test]
    fn everything_is_handed_out_in_its_order_and_the_reader_comes_back() {
        let bytes = sample();
        let mut reader = SegmentReader::new(&bytes[..]).unwrap();
        let mut expected = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            expected.push(item.into_owned());
        }
        let (items, reader) = read(&bytes, usize::MAX);
        assert_eq!(items, expected);
        assert!(reader.unwrap().unwrap().end().is_some());
    }

    #[test]
    fn who_wants_no_more_ends_it_and_what_is_cut_off_is_said_behind_what_is_good() {
        let bytes = sample();
        let (items, reader) = read(&bytes, 3);
        assert_eq!(items.len(), 3);
        assert!(reader.unwrap().is_none());
        let (items, reader) = read(&bytes[..bytes.len() - 2], usize::MAX);
        assert_eq!(items.len(), 2 * BATCH_ITEMS + 17);
        assert!(reader.is_err());
    }
}
