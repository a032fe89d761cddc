//! A gate between a server and Redis. The test holds one pipeline in front of it, or lets Redis carry a
//! pipeline out and loses the answer together with the connection.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::{PATIENCE, Redis};

/// Bytes that are carried at a time: more than a pipeline of the tests that use a gate.
const CHUNK: usize = 256 * 1024;

/// The texts that a pipeline contains, all of them, in any order.
type Marks = Vec<Vec<u8>>;

#[derive(Debug)]
enum Order {
    /// Everything passes.
    Open,
    /// The next pipeline with these marks is held.
    Hold(Marks),
    /// It is held, and Redis has not got it.
    Held,
    /// The answer to the next pipeline with these marks is lost.
    Lose(Marks),
    /// Redis has got it; the answer on this connection will be lost.
    Losing(usize),
    /// It is lost, and its connection closed.
    Lost,
}

struct State {
    order: Mutex<Order>,
    changed: Condvar,
}

pub struct Gate {
    path: PathBuf,
    state: Arc<State>,
}

impl Gate {
    /// Listens at `path` and carries to and from `redis`.
    pub fn start(path: &Path, redis: &Redis) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(State { order: Mutex::new(Order::Open), changed: Condvar::new() });
        let (redis, shared) = (redis.socket(), Arc::clone(&state));
        // Ends with the test's process.
        let _ = std::thread::spawn(move || {
            for (number, server) in listener.incoming().enumerate() {
                let server = server.unwrap();
                let Ok(store) = UnixStream::connect(&redis) else {
                    continue; // the server's end is closed: Redis is not there
                };
                let ends = (server.try_clone().unwrap(), store.try_clone().unwrap());
                let state = Arc::clone(&shared);
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

    /// Holds the next pipeline that contains all of `marks`.
    pub fn hold(&self, marks: &[&str]) {
        self.state.set(Order::Hold(bytes(marks)));
    }

    /// Whether a pipeline is held.
    pub fn is_holding(&self) -> bool {
        matches!(*self.state.lock(), Order::Held)
    }

    /// Everything passes from now on, what was held first.
    pub fn open(&self) {
        self.state.set(Order::Open);
    }

    /// Loses the answer to the next pipeline that contains all of `marks`.
    pub fn lose_answer(&self, marks: &[&str]) {
        self.state.set(Order::Lose(bytes(marks)));
    }

    /// Waits until that answer is lost.
    #[track_caller]
    pub fn wait_lost(&self) {
        super::until("the answer is lost", || matches!(*self.state.lock(), Order::Lost));
    }
}

fn bytes(marks: &[&str]) -> Marks {
    marks.iter().map(|mark| mark.as_bytes().to_vec()).collect()
}

fn contains(bytes: &[u8], marks: &Marks) -> bool {
    marks.iter().all(|mark| bytes.windows(mark.len()).any(|window| window == mark))
}

fn close(one: &UnixStream, other: &UnixStream) {
    // It may be closed already.
    let _ = one.shutdown(std::net::Shutdown::Both);
    let _ = other.shutdown(std::net::Shutdown::Both);
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap()
    }

    fn set(&self, order: Order) {
        *self.lock() = order;
        self.changed.notify_all();
    }

    /// From the server to Redis.
    fn carry_commands(&self, number: usize, mut server: UnixStream, mut store: UnixStream) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = server.read(&mut chunk) {
            let bytes = &chunk[..read];
            let mut order = self.lock();
            let hold = matches!(&*order, Order::Hold(marks) if contains(bytes, marks));
            if hold {
                *order = Order::Held;
                let held = |order: &mut Order| matches!(order, Order::Held);
                // Bounded, so that a test that fails meanwhile leaves no thread behind.
                order = self.changed.wait_timeout_while(order, PATIENCE, held).unwrap().0;
            } else if matches!(&*order, Order::Lose(marks) if contains(bytes, marks)) {
                *order = Order::Losing(number);
            }
            drop(order);
            if store.write_all(bytes).is_err() {
                break;
            }
        }
        close(&server, &store);
    }

    /// From Redis to the server.
    fn carry_answers(&self, number: usize, mut store: UnixStream, mut server: UnixStream) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = store.read(&mut chunk) {
            if matches!(*self.lock(), Order::Losing(losing) if losing == number) {
                // Redis answers a pipeline when it has carried out all of it.
                self.set(Order::Lost);
                break;
            }
            if server.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        close(&store, &server);
    }
}

/// Lets `span` go by: for how long a test breaks something, never for a result.
pub fn pass(span: Duration) {
    let over = std::time::Instant::now() + span;
    while std::time::Instant::now() < over {
        std::thread::park_timeout(over.saturating_duration_since(std::time::Instant::now()));
    }
}
