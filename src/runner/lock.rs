//! Locks that a panic does not close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The data behind a lock, also after a thread that held it panicked: every change here is complete in
/// one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
