//! Carries the output of children to the runner's own, whole lines at a time, each with its origin.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

/// Longest piece of a line that is forwarded at once, in bytes; longer lines are split.
pub(super) const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Which of a child's outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// Takes the lines of children, each complete with its prefix and a newline.
pub type LineSink = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// Receives the first line of an output in place of the sink, without the newline.
pub(super) type FirstLine = Box<dyn FnOnce(&[u8]) + Send>;

/// The sink that writes to this process's stdout and stderr, a line at a time.
pub fn std_sink() -> LineSink {
    Arc::new(|stream, line| {
        // An output that nobody reads any more must not stop the children.
        let _ = match stream {
            Stream::Stdout => write_line(&mut io::stdout().lock(), line),
            Stream::Stderr => write_line(&mut io::stderr().lock(), line),
        };
    })
}

/// Forwards `pipe` to `sink` until its end, every line prefixed by `{label} | `.
pub(super) fn forward(
    label: &str,
    stream: Stream,
    pipe: impl Read,
    mut first_line: Option<FirstLine>,
    sink: &LineSink,
) {
    let prefix = format!("{label} | ");
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    let mut inside_a_line = false;
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        let read = (&mut pipe).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let bytes = match read {
            Ok(0) => return,
            Ok(bytes) => bytes,
            Err(error) => {
                log::warn!(
                    code = "output_unread", process = label;
                    "{label}: its {stream:?} cannot be read: {error}"
                );
                return;
            }
        };
        let complete = line.last() == Some(&b'\n');
        // The newline of a line that was split exactly at its end is no line of its own.
        let only_the_end = inside_a_line && complete && bytes == 1;
        inside_a_line = !complete;
        if only_the_end {
            continue;
        }
        if !complete {
            line.push(b'\n');
        }
        match first_line.take() {
            Some(take) => take(line.get(prefix.len()..).unwrap_or_default().trim_ascii_end()),
            None => sink(stream, &line),
        }
    }
}

fn write_line(output: &mut impl Write, line: &[u8]) -> io::Result<()> {
    output.write_all(line)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn forwarded(input: &[u8], first_line: Option<FirstLine>) -> Vec<Vec<u8>> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let copy = lines.clone();
        let sink: LineSink = Arc::new(move |_, line| copy.lock().unwrap().push(line.to_vec()));
        forward("a/i0", Stream::Stdout, input, first_line, &sink);
        lines.lock().unwrap().clone()
    }

    #[test]
    fn every_line_gets_the_prefix_and_the_last_one_a_newline() {
        let lines = forwarded(b"one\n\ntwo", None);
        assert_eq!(lines, [&b"a/i0 | one\n"[..], b"a/i0 | \n", b"a/i0 | two\n"]);
    }

    #[test]
    fn a_long_line_is_split() {
        let limit = usize::try_from(MAX_LINE_BYTES).unwrap();
        let mut input = vec![b'x'; limit];
        input.extend_from_slice(b"\nrest\n");
        let lines = forwarded(&input, None);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), limit + b"a/i0 | \n".len());
        assert_eq!(lines[1], b"a/i0 | rest\n");

        let lines = forwarded(&vec![b'x'; limit * 2 + 1], None);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2], b"a/i0 | x\n");
    }

    #[test]
    fn the_first_line_can_be_captured() {
        let captured = Arc::new(Mutex::new(Vec::new()));
        let copy = captured.clone();
        let take: FirstLine = Box::new(move |line| copy.lock().unwrap().extend_from_slice(line));
        let lines = forwarded(b"hello\nworld\n", Some(take));
        assert_eq!(*captured.lock().unwrap(), b"hello");
        assert_eq!(lines, [b"a/i0 | world\n"]);
    }
}
