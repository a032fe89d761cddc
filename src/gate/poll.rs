//! An epoll set whose entries carry a number, and the bell that wakes its thread.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events that one wait returns at most.
const MAX_EVENTS: usize = 256;
/// The bell's number.
const BELL: u64 = u64::MAX;

/// What a descriptor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub(super) const READ: Self = Self { read: true, write: false };

    fn event(self, number: u64) -> EpollEvent {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        EpollEvent::new(flags, number)
    }
}

/// Wakes the thread of a set, from any other.
#[derive(Debug, Clone)]
pub(super) struct Bell(Arc<EventFd>);

impl Bell {
    pub(super) fn ring(&self) {
        // A full counter has rung already.
        let _ = self.0.write(1);
    }
}

/// One thread's epoll set; level-triggered.
pub(super) struct Poll {
    set: Epoll,
    bell: Bell,
    events: Vec<EpollEvent>,
}

/// What has happened to an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub number: u64,
    pub read: bool,
    pub write: bool,
    /// The other end is gone, both ways.
    pub gone: bool,
}

impl Poll {
    pub(super) fn new() -> Result<Self, Errno> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        set.add(&bell, Interest::READ.event(BELL))?;
        Ok(Self { set, bell: Bell(Arc::new(bell)), events: vec![EpollEvent::empty(); MAX_EVENTS] })
    }

    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    pub(super) fn add(&self, fd: impl AsFd, number: u64, interest: Interest) -> Result<(), Errno> {
        self.set.add(fd, interest.event(number))
    }

    pub(super) fn change(&self, fd: impl AsFd, number: u64, interest: Interest) -> Result<(), Errno> {
        self.set.modify(fd, &mut interest.event(number))
    }

    pub(super) fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        self.set.delete(fd)
    }

    /// Sleeps until something has happened, or as long as that. The bell is among what has happened only as an end of
    /// the sleep.
    pub(super) fn wait(&mut self, longest: Option<Duration>, ready: &mut Vec<Ready>) {
        ready.clear();
        // Up to a millisecond late, and never early: a timer that has not come would be waited for again at once.
        let timeout = longest.map_or(EpollTimeout::NONE, |longest| {
            let ms = longest.as_micros().div_ceil(1000);
            EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
        });
        // EINTR is an early end of the sleep; nothing else can go wrong with a set of one's own.
        let count = self.set.wait(&mut self.events, timeout).unwrap_or(0);
        for event in self.events.iter().take(count) {
            if event.data() == BELL {
                let _ = self.bell.0.read();
                continue;
            }
            let flags = event.events();
            ready.push(Ready {
                number: event.data(),
                read: flags.contains(EpollFlags::EPOLLIN),
                write: flags.contains(EpollFlags::EPOLLOUT),
                gone: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
            });
        }
    }
}
