//! Lines of a segment, decompressed by a thread of their own while the reader works on those before them.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait for the reader.
const MAX_WAITING: usize = 4;

/// What the thread has read.
pub(super) struct Lines {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// Bytes of it that were taken.
    taken: usize,
}

impl Lines {
    /// Starts reading `source` to its end. The thread ends when nobody reads on.
    pub(super) fn new(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(MAX_WAITING);
        let run = move || {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let read = source.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
                let is_last = !matches!(read, Ok(bytes) if bytes > 0);
                if sender.send(read.map(|_| chunk)).is_err() || is_last {
                    return;
                }
            }
        };
        let _ = std::thread::Builder::new().name("segment".to_owned()).spawn(run)?;
        Ok(Self { chunks, chunk: Vec::new(), taken: 0 })
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

impl BufRead for Lines {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken >= self.chunk.len() {
            self.taken = 0;
            // Without a sender, the end was handed over before.
            self.chunk = self.chunks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
        }
        Ok(self.chunk.get(self.taken..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_handed_on_and_so_is_an_error() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|n| n as u8).collect();
        let mut read = Vec::new();
        let _ = Lines::new(io::Cursor::new(bytes.clone())).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        let mut broken = Lines::new(zstd::stream::read::Decoder::new(&b"no frame"[..]).unwrap()).unwrap();
        assert!(broken.read_to_end(&mut Vec::new()).is_err());
    }
}
