//! The terminal: another screen while it is used, and as it was before on every way out.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

/// To another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Bytes read from the keyboard in one step.
const KEY_BYTES: usize = 64;
/// A terminal that does not say how large it is.
const SIZE: (usize, usize) = (80, 24);

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A letter.
    Letter(char),
    Up,
    Down,
    PageUp,
    PageDown,
}

/// What happened while it was waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Key(Key),
    /// The terminal has another size, or shows something else.
    Changed,
    /// Nothing.
    TimeUp,
    /// Whoever runs it wants it to end, or the terminal is gone.
    End,
}

/// The terminal while it is used.
pub(super) struct Terminal {
    before: Termios,
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    changed: Arc<AtomicBool>,
    /// Keys that were read and not handed out yet, the last one first.
    keys: Vec<Key>,
}

impl Terminal {
    /// Takes it. Standard input and output must be one.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let flags = [Arc::<AtomicBool>::default(), Arc::default(), Arc::default()];
        let [end, stop, changed] = flags;
        let register = |signal, flag: &Arc<AtomicBool>| signal_hook::flag::register(signal, flag.clone());
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            let _ = register(signal, &end)?;
        }
        let _ = register(SIGTSTP, &stop)?;
        for signal in [SIGWINCH, SIGCONT] {
            let _ = register(signal, &changed)?;
        }
        let terminal = Self { before, end, stop, changed, keys: Vec::new() };
        terminal.take()?;
        Ok(terminal)
    }

    fn take(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        // Keys as they are pressed and unseen; those that make signals still do.
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
        write(ENTER)
    }

    fn give_back(&self) -> io::Result<()> {
        let shown = write(LEAVE);
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before)?;
        shown
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => SIZE,
        }
    }

    /// Shows lines from the top; what was there is gone.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write(&text)
    }

    /// Waits until `until` at the longest.
    pub(super) fn wait(&mut self, until: Instant) -> io::Result<Event> {
        loop {
            if self.end.load(Ordering::Relaxed) {
                return Ok(Event::End);
            }
            if self.stop.swap(false, Ordering::Relaxed) {
                self.suspend()?;
            }
            if self.changed.swap(false, Ordering::Relaxed) {
                return Ok(Event::Changed);
            }
            if let Some(key) = self.keys.pop() {
                return Ok(Event::Key(key));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::TimeUp);
            }
            if !self.read_keys(left)? {
                return Ok(Event::End);
            }
        }
    }

    /// Ctrl-Z: the shell gets its screen, and this process stands still until it is wanted again.
    fn suspend(&self) -> io::Result<()> {
        self.give_back()?;
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        self.take()
    }

    /// Reads what was pressed, if anything is within `left`; `false`: nobody can press anything any more.
    fn read_keys(&mut self, left: Duration) -> io::Result<bool> {
        let stdin = io::stdin();
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            // A signal: its flag says which.
            Ok(0) | Err(Errno::INTR) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; KEY_BYTES];
        match rustix::io::read(stdin.as_fd(), &mut bytes) {
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(count) => {
                self.keys = keys(bytes.get(..count).unwrap_or_default());
                self.keys.reverse();
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.give_back();
    }
}

/// Keys by what a terminal sends for them.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 6] = [
        (b"\x1b[A", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOA", Key::Up),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
    ];
    let mut found = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        if let Some((rest, key)) =
            SEQUENCES.iter().find_map(|(sequence, key)| Some((bytes.strip_prefix(*sequence)?, *key)))
        {
            found.push(key);
            bytes = rest;
        } else if *first == b'\x1b' {
            // Some other key: what belongs to it is no letter that was pressed.
            break;
        } else {
            if first.is_ascii_graphic() || *first == b' ' {
                found.push(Key::Letter(char::from(*first)));
            }
            bytes = rest;
        }
    }
    found
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_sequences() {
        assert_eq!(keys(b"q"), [Key::Letter('q')]);
        assert_eq!(keys(b"\x1b[Aj\x1b[6~"), [Key::Up, Key::Letter('j'), Key::PageDown]);
        assert_eq!(keys(b"\x1b[24~q"), []);
        assert_eq!(keys(b"\x01\xff"), []);
    }
}
