//! A unary answer on its way out: what keeps its call alive until the C core is done with it.
//!
//! `RpcContext::spawn` would do that too, with a task for each call and a wake-up of its completion queue for each
//! answer: a tenth of what a unary message costs.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::gate::Answering;

/// A future that runs on whichever thread wakes it: the first time on the one that answers, then on the call's completion
/// queue. Only for futures whose wakers are called without a lock held that they need, as grpcio's are.
pub(super) struct Sending<F> {
    // Locked by the one thread that polls; the others leave it to that one.
    future: Mutex<Option<(F, Option<Answering>)>>,
    /// Wakes that no poll has followed yet, and the poll under way.
    wakes: AtomicUsize,
}

impl<F> Sending<F>
where
    F: Future<Output = grpcio::Result<()>> + Send + Unpin + 'static,
{
    /// Sees to it that the future runs to its end; `answering` is let go then.
    pub(super) fn start(future: F, answering: Option<Answering>) {
        let future = Mutex::new(Some((future, answering)));
        Arc::new(Self { future, wakes: AtomicUsize::new(0) }).wake();
    }

    /// Whether it is over.
    fn poll(self: &Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut slot = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((future, _)) = slot.as_mut() else { return true };
        match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => false,
            Poll::Ready(sent) => {
                *slot = None;
                if let Err(error) = sent {
                    log::debug!(code = "answer_unsent"; "an answer did not reach its caller: {error}");
                }
                true
            }
        }
    }
}

impl<F> Wake for Sending<F>
where
    F: Future<Output = grpcio::Result<()>> + Send + Unpin + 'static,
{
    fn wake(self: Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) > 0 {
            // Another thread polls, and will once more.
            return;
        }
        loop {
            let seen = self.wakes.load(Ordering::Acquire);
            if self.poll() || self.wakes.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    /// Ready once `done`, and tells when it is dropped; hands out its wakers.
    struct Waiting {
        done: Arc<AtomicBool>,
        wakers: mpsc::Sender<Waker>,
        dropped: Arc<AtomicBool>,
    }

    impl Future for Waiting {
        type Output = grpcio::Result<()>;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            if self.done.load(Ordering::SeqCst) {
                return Poll::Ready(Ok(()));
            }
            let _ = self.wakers.send(context.waker().clone());
            Poll::Pending
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            self.dropped.store(true, Ordering::SeqCst);
        }
    }

    fn start() -> (Arc<AtomicBool>, Arc<AtomicBool>, mpsc::Receiver<Waker>) {
        let (done, dropped) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (wakers, woken) = mpsc::channel();
        Sending::start(Waiting { done: done.clone(), wakers, dropped: dropped.clone() }, None);
        (done, dropped, woken)
    }

    #[test]
    fn it_lives_until_it_is_ready_and_no_longer() {
        let (done, dropped, woken) = start();
        let waker = woken.recv().unwrap();
        waker.wake();
        let waker = woken.recv().unwrap();
        assert!(!dropped.load(Ordering::SeqCst), "it is still waiting");
        done.store(true, Ordering::SeqCst);
        waker.wake_by_ref();
        assert!(dropped.load(Ordering::SeqCst));
        // As when two batches of a call end one after the other.
        waker.wake();
    }

    #[test]
    fn no_wake_is_lost_while_it_is_polled_elsewhere() {
        for _ in 0..2_000 {
            let (done, dropped, woken) = start();
            let waker = woken.recv().unwrap();
            let other = waker.clone();
            let waking = std::thread::spawn(move || other.wake());
            done.store(true, Ordering::SeqCst);
            waker.wake();
            waking.join().unwrap();
            assert!(dropped.load(Ordering::SeqCst), "whoever came last has seen to it");
        }
    }
}
