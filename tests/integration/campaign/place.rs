//! Where the servers are, and orders to all agents of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// No server in particular.
const ANY: usize = usize::MAX;

#[derive(Debug, Clone)]
pub struct Place {
    addrs: Arc<[String; 2]>,
    orders: Arc<Orders>,
}

#[derive(Debug)]
struct Orders {
    /// Raised to make every agent drop its session.
    epoch: AtomicU64,
    /// Receivers stay away.
    closed: AtomicBool,
    /// Receivers of this process that have a session, or open one.
    receivers: AtomicUsize,
    /// Receivers move from server to server all the time, and some of their handlers are slow.
    moving: AtomicBool,
    /// Nobody ends a session without a reason.
    staying: AtomicBool,
    /// Receivers acknowledge many deliveries at once.
    batching: AtomicBool,
    /// Which server everybody connects to.
    home: AtomicUsize,
}

/// A receiver that has a session or opens one.
pub struct Here<'p>(&'p AtomicUsize);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Place {
    pub fn new(addrs: [&str; 2]) -> Self {
        let orders = Orders {
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            receivers: AtomicUsize::new(0),
            moving: AtomicBool::new(false),
            staying: AtomicBool::new(false),
            batching: AtomicBool::new(false),
            home: AtomicUsize::new(ANY),
        };
        Self { addrs: Arc::new(addrs.map(str::to_owned)), orders: Arc::new(orders) }
    }

    pub fn addrs(&self) -> &[String; 2] {
        &self.addrs
    }

    pub fn epoch(&self) -> u64 {
        self.orders.epoch.load(Ordering::SeqCst)
    }

    pub fn lose_sessions(&self) {
        self.orders.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn close(&self) {
        self.orders.closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.orders.closed.store(false, Ordering::SeqCst);
    }

    /// How many receivers of this process have a session, or open one.
    pub fn receivers(&self) -> usize {
        self.orders.receivers.load(Ordering::SeqCst)
    }

    /// Lets a receiver connect, unless receivers stay away.
    pub fn enter(&self) -> Option<Here<'_>> {
        self.orders.receivers.fetch_add(1, Ordering::SeqCst);
        let here = Here(&self.orders.receivers);
        (!self.orders.closed.load(Ordering::SeqCst)).then_some(here)
    }

    pub fn set_moving(&self, moving: bool) {
        self.orders.moving.store(moving, Ordering::SeqCst);
    }

    pub fn is_moving(&self) -> bool {
        self.orders.moving.load(Ordering::SeqCst)
    }

    pub fn set_staying(&self, staying: bool) {
        self.orders.staying.store(staying, Ordering::SeqCst);
    }

    pub fn is_staying(&self) -> bool {
        self.orders.staying.load(Ordering::SeqCst)
    }

    pub fn set_batching(&self, batching: bool) {
        self.orders.batching.store(batching, Ordering::SeqCst);
    }

    pub fn is_batching(&self) -> bool {
        self.orders.batching.load(Ordering::SeqCst)
    }

    /// Sends everybody to one server; `None` lets them choose again.
    pub fn set_home(&self, home: Option<usize>) {
        self.orders.home.store(home.unwrap_or(ANY), Ordering::SeqCst);
    }

    pub fn home(&self) -> Option<usize> {
        Some(self.orders.home.load(Ordering::SeqCst)).filter(|home| *home != ANY)
    }
}
