//! A wire between a server and Redis that something happens on at a chosen command: before Redis has
//! it, or after Redis has done it and before the server knows.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Bytes that are carried at a time.
const CHUNK: usize = 64 * 1024;
/// How long what is held on a wire is held at most.
const HOLD: Duration = Duration::from_secs(5);

/// What the server is about to have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A message enters an inbox.
    Accept,
    /// A reply enters its requester's inbox.
    Reply,
    /// Messages are read for delivery.
    Deliver,
    /// An acknowledged message leaves.
    Ack,
    /// A message becomes a dead letter.
    DeadLetter,
    /// A delivery is committed, with a message.
    Commit,
}

impl Point {
    pub const ALL: [Self; 6] =
        [Self::Accept, Self::Reply, Self::Deliver, Self::Ack, Self::DeadLetter, Self::Commit];

    /// What is on the wire at that point (RESP). Senders' own inboxes get replies only, and `e0` gets what
    /// commits send.
    fn marker(self) -> &'static [u8] {
        match self {
            Self::Accept => b"XADD\r\n$15\r\nagent.stream:r",
            Self::Reply => b"XADD\r\n$18\r\nagent.stream:s",
            Self::Deliver => b"XREADGROUP\r\n",
            Self::Ack => b"XACK\r\n",
            Self::DeadLetter => b"XADD\r\n$12\r\ndlq:messages\r\n",
            Self::Commit => b"XADD\r\n$15\r\nagent.stream:e",
        }
    }

    /// Whether it happens inside MULTI and EXEC.
    fn in_transaction(self) -> bool {
        !matches!(self, Self::Deliver | Self::Ack)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Redis never gets the command.
    Before,
    /// Redis has done it; its answer is lost.
    After,
}

/// What happens there.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    /// kill -9 of the process with this id.
    Kill(u32),
    /// Only the connection is cut.
    Cut,
}

#[derive(Debug)]
enum Trap {
    Idle,
    Set(Point, When, Blow),
    /// The command is on its way: the answer will not arrive. Tells which connection it was.
    Waiting(u64, Blow),
    Sprung,
}

struct State {
    trap: Mutex<Trap>,
    changed: Condvar,
}

pub struct Wire {
    path: PathBuf,
    state: Arc<State>,
}

impl Wire {
    /// Listens at `path` and carries to and from `redis`, both unix sockets.
    pub fn start(path: &Path, redis: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(State { trap: Mutex::new(Trap::Idle), changed: Condvar::new() });
        let (redis, shared) = (redis.to_path_buf(), Arc::clone(&state));
        // Ends with the test's process.
        let _ = std::thread::spawn(move || {
            for (number, server) in listener.incoming().enumerate() {
                let server = server.unwrap();
                let Ok(store) = UnixStream::connect(&redis) else {
                    continue; // the server's end is closed: Redis is not there
                };
                let ends = (server.try_clone().unwrap(), store.try_clone().unwrap());
                let (state, number) = (Arc::clone(&shared), number as u64);
                let _ = std::thread::spawn(move || state.carry_commands(number, ends.0, ends.1));
                let state = Arc::clone(&shared);
                let _ = std::thread::spawn(move || state.carry_answers(number, store, server));
            }
        });
        Self { path: path.to_path_buf(), state }
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Lets `blow` fall at the next such point; whether the point was reached within `patience`.
    pub fn strike(&self, point: Point, when: When, blow: Blow, patience: Duration) -> bool {
        let mut trap = self.state.trap.lock().unwrap();
        *trap = Trap::Set(point, when, blow);
        let give_up = Instant::now() + patience;
        while !matches!(*trap, Trap::Sprung) {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() && matches!(*trap, Trap::Set(..)) {
                *trap = Trap::Idle;
                return false;
            }
            trap = self.state.changed.wait_timeout(trap, left.max(Duration::from_millis(1))).unwrap().0;
        }
        *trap = Trap::Idle;
        true
    }
}

fn close(one: &UnixStream, other: &UnixStream) {
    // It may be closed already.
    let _ = one.shutdown(std::net::Shutdown::Both);
    let _ = other.shutdown(std::net::Shutdown::Both);
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl State {
    fn spring(&self, trap: &mut Trap, blow: Blow) {
        if let Blow::Kill(pid) = blow {
            // The campaign restarts what is gone: the process cannot be another's by now.
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        }
        *trap = Trap::Sprung;
        self.changed.notify_all();
    }

    /// From the server to Redis.
    fn carry_commands(&self, connection: u64, mut server: UnixStream, mut store: UnixStream) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = server.read(&mut chunk) {
            let bytes = &chunk[..read];
            let mut trap = self.trap.lock().unwrap();
            if let Trap::Set(point, when, blow) = *trap
                && let Some(at) = find(bytes, point.marker())
                // What commits may still be on its way otherwise: that is another time's point.
                && (!point.in_transaction() || find(&bytes[at..], b"EXEC\r\n").is_some())
            {
                match when {
                    When::Before => {
                        self.spring(&mut trap, blow);
                        break;
                    }
                    When::After => *trap = Trap::Waiting(connection, blow),
                }
            }
            drop(trap);
            if store.write_all(bytes).is_err() {
                break;
            }
        }
        close(&server, &store);
    }

    /// From Redis to the server.
    fn carry_answers(&self, connection: u64, mut store: UnixStream, mut server: UnixStream) {
        let mut chunk = vec![0; CHUNK];
        store.set_read_timeout(Some(HOLD)).unwrap();
        loop {
            let read = match store.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            let mut trap = self.trap.lock().unwrap();
            if let Trap::Waiting(held, blow) = *trap
                && held == connection
            {
                // Redis answers a pipeline when it has done all of it that it has read.
                self.spring(&mut trap, blow);
                break;
            }
            drop(trap);
            if server.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        close(&store, &server);
        let mut trap = self.trap.lock().unwrap();
        if let Trap::Waiting(held, blow) = *trap
            && held == connection
        {
            self.spring(&mut trap, blow);
        }
    }
}
