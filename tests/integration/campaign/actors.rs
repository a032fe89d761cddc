//! Agents that go on whatever happens: they connect again, to whichever server, and repeat what may not
//! have happened.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::history::{History, Opened, now_us, session_number};
use super::place::Place;
use crate::support::Random;
use crate::support::{Client, Polled, Session};

/// How long an attempt to open a session may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// How long a session lasts before its agent goes elsewhere, in milliseconds.
const STAY_MS: Range<u64> = 500..4000;
/// The same while receivers move all the time.
const SHORT_STAY_MS: Range<u64> = 100..500;
/// How many sessions of a receiver, in percent, leave some of their last deliveries unsettled.
const LEAVES_WORK: u64 = 30;
/// For how long before its end such a session does so.
const LEAVING: Duration = Duration::from_millis(300);
/// How long a receiver that left work behind stays away at times, in milliseconds: others get it meanwhile.
const AWAY_MS: Range<u64> = 350..700;

/// One instance of one agent.
pub struct Member {
    pub agent: String,
    pub instance: String,
    place: Place,
    clients: [Client; 2],
    /// Which server its session is on.
    home: AtomicUsize,
    connected: AtomicBool,
    random: Mutex<Random>,
}

impl Member {
    /// With the certificate that `certs` has for the agent.
    pub fn new(certs: &Path, place: &Place, agent: &str, instance: &str, seed: u64) -> Self {
        let client = |n: usize| Client::with_files(&place.addrs()[n], certs, agent);
        Self {
            agent: agent.to_owned(),
            instance: instance.to_owned(),
            place: place.clone(),
            clients: [client(0), client(1)],
            home: AtomicUsize::new(seed as usize % 2),
            connected: AtomicBool::new(false),
            random: Mutex::new(Random(seed)),
        }
    }

    /// Those that get messages and commit, as opposed to senders and those that get a commit's effects.
    pub fn is_receiver(&self) -> bool {
        self.agent.starts_with('r')
    }

    pub fn is_sender(&self) -> bool {
        self.agent.starts_with('s')
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }

    pub fn is_moving(&self) -> bool {
        self.is_receiver() && self.place.is_moving()
    }

    pub fn is_batching(&self) -> bool {
        self.is_receiver() && self.place.is_batching()
    }

    pub fn span(&self, ms: &Range<u64>) -> Duration {
        self.random.lock().unwrap().span(ms)
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.random.lock().unwrap().chance(percent)
    }

    pub fn client(&self) -> &Client {
        &self.clients[self.home.load(Ordering::SeqCst)]
    }

    pub fn other_client(&self) -> &Client {
        &self.clients[1 - self.home.load(Ordering::SeqCst)]
    }

    fn change_home(&self) {
        self.home.fetch_xor(1, Ordering::SeqCst);
    }

    /// Keeps a session open, now here, now there, and handles what comes.
    pub fn keep_session(&self, history: &History, over: &AtomicBool) {
        let mut desk = Desk::new(self, history);
        while !over.load(Ordering::SeqCst) {
            if let Some(home) = self.place.home() {
                self.home.store(home, Ordering::SeqCst);
            }
            let epoch = self.place.epoch();
            let here = self.is_receiver().then(|| self.place.enter());
            let stays_away = matches!(here, Some(None));
            let session =
                if stays_away { None } else { self.client().try_open(&self.instance, OPEN_PATIENCE) };
            let Some(session) = session else {
                self.change_home();
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            self.connected.store(true, Ordering::SeqCst);
            let left_work = self.attend(&session, &mut desk, epoch, over);
            self.connected.store(false, Ordering::SeqCst);
            drop((session, here));
            if self.is_moving() || self.chance(50) {
                self.change_home();
            }
            if left_work && self.chance(50) {
                std::thread::park_timeout(self.span(&AWAY_MS));
            }
        }
    }

    /// Handles what comes on a session until it is over; whether it leaves deliveries unsettled.
    fn attend(&self, session: &Session, desk: &mut Desk<'_>, epoch: u64, over: &AtomicBool) -> bool {
        let (number, server) = (session_number(), self.home.load(Ordering::SeqCst));
        desk.history.note(|seen| {
            seen.opened.push(Opened {
                session: number,
                agent: self.agent.clone(),
                instance: self.instance.clone(),
                server,
                pid: std::process::id(),
                at_us: now_us(),
            });
        });
        desk.begin(session, number);
        let stay = self.span(if self.is_moving() { &SHORT_STAY_MS } else { &STAY_MS });
        let leave = Instant::now() + stay;
        let leaves_work = self.is_receiver() && self.chance(LEAVES_WORK);
        let in_place = || self.place.home().is_none_or(|home| home == server);
        while !over.load(Ordering::SeqCst)
            && self.place.epoch() == epoch
            && in_place()
            && (Instant::now() < leave || self.place.is_staying() && !desk.leaves_work())
        {
            desk.do_what_is_due(session);
            match session.poll(Duration::from_millis(20)) {
                Polled::Nothing => {}
                Polled::Ended => break,
                Polled::Delivered(delivered) => {
                    let leaving = leaves_work && Instant::now() + LEAVING > leave && !self.place.is_staying();
                    desk.handle(session, &delivered, leaving);
                }
                Polled::Results(results) => {
                    results.into_iter().for_each(|result| desk.heard(session, result));
                }
            }
        }
        desk.end(session);
        desk.history.note(|seen| seen.closed.push((number, now_us())));
        desk.has_left_work()
    }
}
