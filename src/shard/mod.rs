//! The worker loop: pinned threads that each own a Redis connection, an audit lane and the inboxes of
//! the agents that live there.
//!
//! Four layers; each may use itself and those before it:
//!
//! * [`desk`]: what completion-queue threads and workers share.
//! * [`inbox`]: one agent's consumers, credit and pending entries. Pure.
//! * `txn`: what happens to each job: its checks, its audit record, its effects. Pure.
//! * `worker`: the thread that takes jobs, makes round trips and changes memory.

pub mod desk;
pub mod inbox;
mod txn;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use uuid::Uuid;

use crate::audit::OperatorEvent;
use crate::certs::Revocations;
use crate::clock::Now;
use crate::config::Config;
use crate::ids::{AgentId, ServerId};
use crate::quarantine::Quarantine;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::attested;
use crate::store::news::News;
use desk::control::Control;
use desk::job::Job;
use desk::settings::Settings;
use desk::shared::Shared;
use desk::troubles::Code;
use desk::{WorkerMailbox, mailbox};
use worker::Worker;

/// The running workers.
pub struct Shards {
    shared: Arc<Shared>,
    boot: Uuid,
    mailboxes: Vec<WorkerMailbox>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shards {
    /// Starts `count` workers, each connected to Redis; fails when a connection or a thread cannot be made.
    pub fn start(shared: Arc<Shared>, count: usize) -> Result<Self, StoreError> {
        // Names this run of the server, and no earlier attempt to start it: lanes are written once.
        let boot = Uuid::now_v7();
        let mut mailboxes = Vec::with_capacity(count);
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let (mailbox, inlet) = mailbox::mailbox();
            workers.push(Worker::connect(
                shared.clone(),
                boot,
                index,
                count,
                (mailbox.line().clone(), inlet),
            )?);
            mailboxes.push(mailbox);
        }
        let shards = Self { shared: shared.clone(), boot, mailboxes, threads: Mutex::default() };
        for (index, worker) in workers.into_iter().enumerate() {
            match spawn(index, worker) {
                Ok(thread) => shards.threads().push(thread),
                Err(error) => {
                    shards.stop();
                    let answer = error.to_string();
                    return Err(StoreError::Unexpected { command: "starting a worker's thread", answer });
                }
            }
        }
        shared.set_mailboxes(shards.mailboxes.clone());
        Ok(shards)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// This run of the server: names its lanes.
    pub fn boot(&self) -> Uuid {
        self.boot
    }

    /// Puts an event of the server itself on record, with the first worker's next commit.
    pub fn record(&self, event: OperatorEvent) {
        if let Some(mailbox) = self.mailboxes.first() {
            mailbox.line().tell(Control::Record(event));
        }
    }

    /// The mailbox of the worker that owns `agent`'s inbox.
    pub fn home(&self, agent: &AgentId) -> Option<&WorkerMailbox> {
        self.by_hash(agent.route_hash())
    }

    /// The mailbox that a route hash leads to.
    pub fn by_hash(&self, hash: u16) -> Option<&WorkerMailbox> {
        self.mailboxes.get(usize::from(hash) % self.mailboxes.len().max(1))
    }

    /// Hands a job to the worker behind `hash`, or refuses it at once.
    pub fn submit(&self, hash: u16, job: Job) {
        self.queue(hash, job);
        if let Some(mailbox) = self.by_hash(hash) {
            mailbox.ring();
        }
    }

    /// Wakes the workers that sleep on what was queued for them.
    pub fn ring(&self) {
        self.mailboxes.iter().for_each(WorkerMailbox::ring);
    }

    /// How many jobs wait for each worker.
    pub fn depths(&self) -> Vec<usize> {
        self.mailboxes.iter().map(WorkerMailbox::depth).collect()
    }

    /// Wakes every worker, whether there is work or not.
    pub fn wake_all(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.line().ring());
    }

    /// The same as [`submit`](Self::submit), but for the doorbell: several jobs at a time are worth one
    /// [`ring`](Self::ring).
    pub fn queue(&self, hash: u16, job: Job) {
        if let Some(refusal) = self.shared.board.refusal() {
            return self.shared.turn_away(job, refusal);
        }
        if job.takes_room() && self.shared.is_storage_full() {
            return self.shared.turn_away(job, Refusal::STORAGE_FULL);
        }
        let Some(mailbox) = self.by_hash(hash) else {
            return self.shared.turn_away(job, Refusal::OVERLOADED);
        };
        let (from, bytes) = (AgentId::route_hash_of(job.agent()).unwrap_or(0), self.shared.cost(&job));
        if let Err((job, refusal)) = mailbox.try_send(job, from, bytes) {
            self.shared.turn_away(*job, refusal);
        }
    }

    /// Puts on record what was refused without being decided, as far as it is time for that; or all of it.
    pub fn record_unseen(&self, all: bool) {
        self.shared.report.flush(Now::mono_us(), all, |event| self.record(event));
    }

    /// Passes on what other servers tell.
    pub fn hear(&self, news: News) {
        let shared = &self.shared;
        let foreign = |server: &ServerId| *server != shared.server;
        match news {
            News::Inboxes(agents) => {
                for agent in agents {
                    shared.tell_news(&agent.clone(), Control::News(agent));
                }
            }
            News::Taken(agent, count) => {
                shared.tell_news(&agent.clone(), Control::Taken(agent, count));
            }
            News::Joined(server) if foreign(&server) => shared.peers.heard(&server),
            News::Opened(agent, instance, server) if foreign(&server) => {
                shared.opened_elsewhere(&agent, &instance, &server);
                shared.tell_news(&agent.clone(), Control::OpenedElsewhere(agent, server));
            }
            News::Closed(agent, instance, server) if foreign(&server) => {
                shared.directory.remove_elsewhere(&agent, &instance, &server);
                shared.tell_news(&agent.clone(), Control::Left(agent, instance));
            }
            News::Circuit(agent, open, server) if foreign(&server) => {
                shared.tell(&agent.clone(), Control::Circuit(agent, open));
            }
            News::Failed(agent, server) if foreign(&server) => {
                shared.tell_news(&agent.clone(), Control::Failed(agent));
            }
            // Also of this server: it is told once what was done is on record. Nobody else can say it.
            News::Unanswered(request, tag) => {
                if shared.directory.has(&request.agent, &request.instance)
                    && attested::check_unanswered(&shared.key_ring.keys(), &request.says(), &tag).is_ok()
                {
                    shared.tell_news(&request.agent.clone(), Control::Unanswered(request));
                }
            }
            // This server's own.
            News::Joined(_) | News::Opened(..) | News::Closed(..) | News::Circuit(..) | News::Failed(..) => {}
            News::Servers { alive, came, gone } => {
                let gone = shared.peers.looked(&alive, gone);
                let lost = !gone.is_empty();
                for server in gone {
                    for (agent, instances) in shared.directory.remove_server(&server) {
                        for instance in instances {
                            shared.tell_news(
                                &agent,
                                Control::Orphaned(agent.clone(), instance, server.clone()),
                            );
                        }
                    }
                }
                // Also after a loss: sessions that this server never heard of are found in Redis.
                if came || lost {
                    self.tell_all(|| Control::Resync);
                }
            }
            News::Storage { full, room } => shared.set_storage(full, room),
            News::Lease(problem) => shared.troubles.set(Code::Lease, problem),
            News::Missed => self.tell_all(|| Control::Resync),
        }
    }

    fn tell_all(&self, control: impl Fn() -> Control) {
        for mailbox in &self.mailboxes {
            mailbox.line().tell(control());
        }
    }

    /// Puts another configuration in force: for new calls at once, in each worker with its next round.
    pub fn reload(&self, config: &Config) {
        let settings = Arc::new(Settings::new(config, Some(&self.shared.settings())));
        self.shared.set_settings(settings.clone());
        self.tell_all(|| Control::Reload(settings.clone()));
    }

    /// Puts another deny-list in force: for new calls at once, in each worker with its next round.
    pub fn set_revoked(&self, list: Revocations) {
        self.shared.set_revoked(list);
        self.tell_all(|| Control::CheckCertificates);
    }

    /// Shuts out agents: for new calls at once, in each worker with its next round.
    pub fn set_quarantine(&self, quarantine: Quarantine) {
        self.shared.set_quarantine(quarantine);
        self.tell_all(|| Control::CheckCertificates);
    }

    /// Has the sessions move to other servers, between these times (monotonic milliseconds).
    pub fn move_sessions(&self, from_ms: u64, until_ms: u64) {
        self.tell_all(|| Control::Move { from_ms, until_ms });
    }

    /// Lets the workers finish what they accepted, end all sessions and stop.
    pub fn stop(&self) {
        self.tell_all(|| Control::Stop);
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                log::error!(code = "thread_panicked", part = "worker"; "a worker ended by a panic");
            }
        }
    }
}

fn spawn(index: usize, worker: Worker) -> std::io::Result<JoinHandle<()>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.get(index % cores.len().max(1)).copied();
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        if let Some(core) = core
            && !core_affinity::set_for_current(core)
        {
            log::warn!(
                code = "thread_not_pinned", worker = index, core = core.id;
                "worker {index} could not be pinned to core {}", core.id
            );
        }
        worker.run();
    })
}
