//! Members at work: each keeps a session, those that send send.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use super::actors::Member;
use super::history::History;

/// Those who send.
pub struct Crew<'scope> {
    sending: &'scope AtomicBool,
    senders: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Crew<'_> {
    /// Nothing new is sent from now on.
    pub fn send_no_more(&self) {
        self.sending.store(false, Ordering::SeqCst);
    }

    /// Whether the outcome of something that was sent is neither known nor given up.
    pub fn is_sending(&self) -> bool {
        self.senders.iter().any(|sender| !sender.is_finished())
    }

    /// Returns when the outcome of what was sent is known, or given up.
    pub fn stop_sending(&mut self) {
        self.send_no_more();
        for sender in self.senders.drain(..) {
            sender.join().unwrap();
        }
    }
}

/// What every member looks at.
#[derive(Default)]
struct Signals {
    sending: AtomicBool,
    over: AtomicBool,
}

/// Ends the work, also when what happens meanwhile panics: the threads are waited for.
struct End<'s>(&'s Signals);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.sending.store(false, Ordering::SeqCst);
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// Lets `members` work while `meanwhile` happens.
pub fn work(members: &[Member], history: &History, meanwhile: impl FnOnce(&mut Crew<'_>)) {
    let signals = Signals { sending: AtomicBool::new(true), ..Signals::default() };
    std::thread::scope(|scope| {
        let _end = End(&signals);
        for member in members {
            scope.spawn(|| member.keep_session(history, &signals.over));
        }
        let senders = members
            .iter()
            .filter(|member| member.is_sender())
            .map(|member| scope.spawn(|| member.keep_sending(history, &signals.sending)))
            .collect();
        meanwhile(&mut Crew { sending: &signals.sending, senders });
    });
}
