//! A future that runs on whichever thread wakes it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const WOKEN: u8 = 2;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that runs on whichever thread wakes it.
pub(super) struct Task {
    future: Mutex<Option<Boxed>>,
    state: AtomicU8,
}

impl Task {
    /// Runs it until it waits for the first time.
    pub(super) fn start(future: impl Future<Output = ()> + Send + 'static) {
        let task =
            Arc::new(Self { future: Mutex::new(Some(Box::pin(future))), state: AtomicU8::new(IDLE) });
        task.run();
    }

    fn run(self: Arc<Self>) {
        loop {
            match self.state.compare_exchange(IDLE, RUNNING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(RUNNING) => {
                    if self
                        .state
                        .compare_exchange(RUNNING, WOKEN, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                    {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            let mut future = self.future.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = future.as_mut() else { return };
            if let Poll::Ready(()) = running.as_mut().poll(&mut context) {
                *future = None;
                return;
            }
            drop(future);
            match self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(_) => self.state.store(RUNNING, Ordering::Release),
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.run();
    }
}
