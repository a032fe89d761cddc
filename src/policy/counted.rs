//! A message that was counted against its sender's rate, as long as it may still not happen.

use std::sync::{Arc, Mutex, PoisonError};

use super::rate::{Place, Sent};

/// Takes the message back when it is dropped: from the buckets in which it was counted, however much later.
#[derive(Debug)]
#[must_use = "dropped, the message does not count"]
pub struct Counted {
    sent: Arc<Mutex<Sent>>,
    place: Option<Place>,
}

impl Counted {
    pub(super) fn new(sent: Arc<Mutex<Sent>>, place: Place) -> Self {
        Self { sent, place: Some(place) }
    }

    /// The message counts for good: it happened, or it may have.
    pub fn keep(mut self) {
        self.place = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).take_back(place);
        }
    }
}
