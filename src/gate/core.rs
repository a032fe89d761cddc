//! What the gate knows of the server behind it.

use std::os::fd::OwnedFd;

use crate::identity::Identity;
use crate::refusal::Refusal;

/// What is behind the gate.
pub trait Core: Send + Sync {
    /// Takes the other end of a connection, in clear text.
    fn take(&self, pair: OwnedFd);
    /// Why that identity may not be here at all; `None`: it may.
    fn refusal(&self, identity: &Identity) -> Option<Refusal>;
    /// Puts on record what was counted until now, when it is time for that.
    fn record_counts(&self);
    /// Whether that may have changed for anybody since it was last asked.
    fn has_changed(&self) -> bool;
}
