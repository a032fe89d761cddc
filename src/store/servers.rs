//! The servers on one Redis: who is alive, and how one that is not is kept from doing harm.
//!
//! Each server renews a lease. When it runs out, or when its process is known to be gone, any other
//! server may *fence* it: mark it as void in the transaction that removes it from the registry. Workers
//! watch their own server's fence key, so no transaction of a fenced server commits, however late it
//! wakes up; its process then ends.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use redis::Value;

use super::answers::{self, text};
use super::connection::{Batch, Connection, StoreError};
use super::endpoint::Endpoint;
use super::fitness::{self, Memory};
use super::keys;
use super::news::News;
use super::pipeline::{Answers, Asked, Executed, Multi};
use crate::ids::ServerId;

/// How long a server is believed to live without renewing its lease.
pub const LEASE: Duration = Duration::from_millis(4000);
/// How often it is renewed, and the others are looked at.
const RENEWAL: Duration = Duration::from_millis(1000);
/// Looks at which a server's lease must have been missing, one after the other: after Redis itself was
/// away, everybody gets the time to renew.
const MISSED_LOOKS: u32 = 3;
/// How long a fence stands: far longer than a process can be stopped and go on.
const FENCED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the registry says of a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Holder {
    /// Its process id, of meaning within `space`.
    pid: u32,
    /// The host's boot and the process id namespace; empty where either could not be read.
    space: String,
}

/// What a worker's look at its server's fence key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// The server may commit.
    Intact,
    /// Another server has declared it void.
    Fenced,
    /// There is no such key: Redis has lost its data. The next renewal makes it again.
    Missing,
}

/// What became of commands that change the registry.
enum Carried {
    Out,
    /// This server is void.
    Fenced,
    /// Redis took them in neither way; its answer.
    Refused(String),
}

/// Adds the look at the fence: what follows in a later transaction is refused if it changes.
pub fn watch_fence(batch: &mut Batch, server: &ServerId) -> Asked<Fence> {
    let key = keys::fence(server);
    let _ = batch.command("WATCH");
    let _ = batch.arg(&key);
    let asked = batch.ask("GET", fence);
    let _ = batch.arg(&key);
    asked
}

fn fence(answer: Value) -> Fence {
    match text(&answer) {
        Some(keys::FENCED) => Fence::Fenced,
        Some(_) => Fence::Intact,
        None => Fence::Missing,
    }
}

/// Adds the arguments of the SET that declares a server void, for a transaction that takes over its instances.
pub fn set_fenced(batch: &mut Batch, server: &ServerId) {
    let _ = batch.arg(keys::fence(server)).arg(keys::FENCED).arg("PX").arg(FENCED_FOR.as_millis() as u64);
}

/// Whether any server runs: its lease lives.
pub fn any_alive(connection: &mut Connection) -> Result<bool, StoreError> {
    let Value::Array(ids) = connection.command("HKEYS", &[keys::SERVERS])? else {
        return Ok(false);
    };
    for id in ids.iter().filter_map(text).filter_map(ServerId::parse) {
        if is_alive(connection, &id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether that server runs: its lease lives.
pub fn is_alive(connection: &mut Connection, id: &ServerId) -> Result<bool, StoreError> {
    Ok(answers::int(&connection.command("EXISTS", &[&keys::server_lease(id)])?) == Some(1))
}

/// This server in the registry.
pub struct Membership {
    id: ServerId,
    own: Holder,
    connection: Connection,
    alive: BTreeSet<ServerId>,
    /// Servers without a lease, and at how many looks in a row.
    missing: HashMap<ServerId, u32>,
    /// Servers that this one has fenced, and nobody was told.
    fenced: BTreeSet<ServerId>,
    /// Redis' memory at the last look; `None` where it does not say.
    memory: Option<Memory>,
}

/// A membership that is kept up by a thread of its own until it is dropped.
pub struct Keeper {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Membership {
    /// Enters the registry, and fences servers that are certainly gone.
    pub fn join(endpoint: &Endpoint) -> Result<Self, StoreError> {
        let own = Holder { pid: std::process::id(), space: space() };
        let connection = endpoint.open()?;
        let mut membership = Self {
            id: ServerId::new(),
            own,
            connection,
            alive: BTreeSet::new(),
            missing: HashMap::new(),
            fenced: BTreeSet::new(),
            memory: None,
        };
        let _ = membership.renew()?;
        let joined = News::Joined(membership.id.clone()).to_text();
        let _ = membership.connection.command("PUBLISH", &[keys::NEWS, &joined])?;
        Ok(membership)
    }

    /// This server's id: of this run, never used again.
    pub fn id(&self) -> &ServerId {
        &self.id
    }

    /// The other servers.
    pub fn others(&self) -> &BTreeSet<ServerId> {
        &self.alive
    }

    /// Keeps the membership up; `tell` hears when servers come or go.
    pub fn keep(
        mut self,
        endpoint: &Endpoint,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Keeper, StoreError> {
        let (stop, stopped) = channel();
        let endpoint = endpoint.clone();
        let keeper = std::thread::Builder::new().name("membership".to_owned()).spawn(move || {
            let mut failing = false;
            let mut full = false;
            self.tell_storage(&mut full, &tell);
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                if endpoint.look_at_primary() {
                    // Also those who have nothing to ask leave the Redis that is none any more.
                    tell(News::Missed);
                }
                let renewed = if failing || self.connection.check_lead().is_err() {
                    endpoint.open().and_then(|connection| {
                        self.connection = connection;
                        self.renew()
                    })
                } else {
                    self.renew()
                };
                match renewed {
                    Ok((came, gone)) => {
                        failing = false;
                        tell(News::Lease(None));
                        self.tell_storage(&mut full, &tell);
                        tell(News::Servers { alive: self.alive.clone(), came, gone });
                    }
                    Err(error) => {
                        if !failing {
                            log::warn!(
                                code = "lease_not_renewed";
                                "the server's lease could not be renewed: {error}"
                            );
                        }
                        failing = true;
                        tell(News::Lease(Some(error.to_string())));
                        self.missing.clear();
                    }
                }
            }
            if let Err(error) = self.leave() {
                // It runs out by itself.
                log::warn!(code = "lease_not_released"; "the server's lease could not be given up: {error}");
            }
        });
        match keeper {
            Ok(thread) => Ok(Keeper { stop, thread: Some(thread) }),
            Err(error) => Err(StoreError::Unexpected {
                command: "starting the membership's thread",
                answer: error.to_string(),
            }),
        }
    }

    /// Tells how much room Redis has, and whether that is enough.
    fn tell_storage(&self, full: &mut bool, tell: &impl Fn(News)) {
        let is_full = self.memory.is_some_and(|memory| memory.is_full(*full));
        tell(News::Storage { full: is_full, room: self.memory.and_then(Memory::room) });
        if std::mem::replace(full, is_full) == is_full {
            return;
        }
        if is_full {
            log::error!(
                code = "storage_full";
                "Redis' memory is nearly full: messages are refused until there is room"
            );
        } else {
            log::warn!(code = "storage_has_room"; "Redis has room again: messages are admitted");
        }
    }

    /// Renews the lease, looks at the others, fences those that are gone: whether any came, and who went.
    fn renew(&mut self) -> Result<(bool, Vec<ServerId>), StoreError> {
        let mut batch = Batch::new();
        // Redis takes it whatever its memory: a lease that stands is renewed.
        let stands = batch.ask("PEXPIRE", |answer| answers::int(&answer) == Some(1));
        let _ = batch.arg(keys::server_lease(&self.id)).arg(LEASE.as_millis() as u64);
        let memory_at = fitness::look_at_memory(&mut batch);
        let mut answers = Answers::new(self.connection.run(&mut batch)?);
        self.memory = answers.at(memory_at..memory_at + 1).first().and_then(fitness::memory);
        let stands = answers.take(stands);
        // A struct of plain fields always serializes.
        let value = serde_json::to_string(&self.own).unwrap_or_default();
        let id = self.id.clone();
        let entered = self.carry_out(&|multi| {
            let _ = multi.effect("SET").arg(keys::fence(&id)).arg(keys::FENCE_OPEN).arg("NX");
            let _ = multi.effect("SET").arg(keys::server_lease(&id)).arg(keys::FENCE_OPEN);
            let _ = multi.args().arg("PX").arg(LEASE.as_millis() as u64);
            let _ = multi.effect("HSET").arg(keys::SERVERS).arg(id.as_str()).arg(&value);
        })?;
        match entered {
            // Its workers see it too, and end the process.
            Carried::Fenced => return Ok((false, Vec::new())),
            Carried::Refused(answer) if !stands => {
                return Err(StoreError::Unexpected { command: "the renewal of this server's lease", answer });
            }
            Carried::Refused(_) | Carried::Out => {}
        }
        let others = self.others_listed()?;
        self.look_at(others)
    }

    /// The other servers in the registry.
    fn others_listed(&mut self) -> Result<Vec<(ServerId, Option<Holder>)>, StoreError> {
        // A refusal is an error: nobody is gone because Redis does not say who is there.
        let listed = answers::pairs(self.connection.command("HGETALL", &[keys::SERVERS])?);
        Ok(listed
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(id, value)| Some((ServerId::parse(&id)?, serde_json::from_str(&value).ok())))
            .filter(|(id, _)| *id != self.id)
            .collect())
    }

    /// Fences those that are gone: whether any came, and who went.
    fn look_at(
        &mut self,
        others: Vec<(ServerId, Option<Holder>)>,
    ) -> Result<(bool, Vec<ServerId>), StoreError> {
        let mut alive = BTreeSet::new();
        for (id, holder) in others {
            let leased = self.connection.command("EXISTS", &[&keys::server_lease(&id)])?;
            let gone = holder.is_some_and(|holder| is_gone(&holder, &self.own));
            if answers::int(&leased) == Some(1) && !gone {
                let _ = self.missing.remove(&id);
                let _ = alive.insert(id);
                continue;
            }
            let looks = self.missing.entry(id.clone()).or_default();
            *looks += 1;
            if gone || *looks >= MISSED_LOOKS {
                let _ = self.missing.remove(&id);
                self.fence(&id)?;
                // It may have come and gone between two looks.
                let _ = self.fenced.insert(id);
            } else {
                let _ = alive.insert(id);
            }
        }
        let came = !alive.is_subset(&self.alive);
        let mut gone = std::mem::take(&mut self.fenced);
        gone.extend(self.alive.difference(&alive).cloned());
        self.alive = alive;
        Ok((came, gone.into_iter().collect()))
    }

    /// Declares another server void.
    fn fence(&mut self, id: &ServerId) -> Result<(), StoreError> {
        log::warn!(
            code = "server_taken_over", server:% = id;
            "server {id} is gone: what it served goes on here"
        );
        let fenced = self.carry_out(&|multi| {
            set_fenced(multi.effect("SET"), id);
            let _ = multi.effect("DEL").arg(keys::server_lease(id));
            let _ = multi.effect("HDEL").arg(keys::SERVERS).arg(id.as_str());
        })?;
        match fenced {
            Carried::Out => Ok(()),
            Carried::Fenced => Err(StoreError::Unexpected {
                command: "fencing a server",
                answer: "this one is fenced itself".to_owned(),
            }),
            Carried::Refused(answer) => Err(StoreError::Unexpected { command: "fencing a server", answer }),
        }
    }

    /// Carries commands out as a whole, also where Redis' memory is full, unless this server is fenced.
    fn carry_out(&mut self, write: &dyn Fn(&mut Multi<'_>)) -> Result<Carried, StoreError> {
        let mut refusal = String::new();
        for essential in [false, true] {
            let mut batch = Batch::new();
            let fence = watch_fence(&mut batch, &self.id);
            if Answers::new(self.connection.run(&mut batch)?).take(fence) == Fence::Fenced {
                return Ok(Carried::Fenced);
            }
            let mut multi = match essential {
                false => Multi::begin(&mut batch),
                true => Multi::begin_essential(&mut batch),
            };
            write(&mut multi);
            let exec = multi.exec(&self.id, &[]);
            let mut answers = Answers::new(self.connection.run(&mut batch)?);
            if let Some(first) = answers.refusal() {
                refusal = format!("{first:?}");
            }
            match answers.executed(exec) {
                Executed::Done(effects) => match effects.refused(&(0..effects.len())) {
                    None => return Ok(Carried::Out),
                    Some(code) => code.clone_into(&mut refusal),
                },
                Executed::Conflict => return Ok(Carried::Fenced),
                Executed::Refused => {}
            }
        }
        Ok(Carried::Refused(refusal))
    }

    fn leave(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let _ = batch.command("HDEL");
        let _ = batch.arg(keys::SERVERS).arg(self.id.as_str());
        let _ = batch.command("DEL");
        let _ = batch.arg(keys::server_lease(&self.id)).arg(keys::fence(&self.id));
        let _ = self.connection.run(&mut batch)?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Length of a boot id: a UUID with hyphens.
const BOOT_ID_CHARS: usize = 36;

/// This boot of this host, where the system says it.
pub fn machine() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// Names the place in which a process id has its meaning: this boot of this host, and the process id namespace.
fn space() -> String {
    let boot = machine();
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
    space_of(boot.as_deref(), namespace.as_deref())
}

/// Empty unless both are known: the first namespace of every host has the same number, and a service manager or
/// a container may hide the boot id, so one without the other would make two hosts look like one.
fn space_of(boot: Option<&str>, namespace: Option<&Path>) -> String {
    match (boot.map(str::trim), namespace) {
        (Some(boot), Some(namespace)) if boot.len() == BOOT_ID_CHARS => {
            format!("{boot} {}", namespace.display())
        }
        _ => String::new(),
    }
}

/// Whether the holder's process is certainly gone. Anything less than certain leaves it to the lease.
fn is_gone(holder: &Holder, own: &Holder) -> bool {
    if own.space.is_empty() || holder.space != own.space {
        return false;
    }
    let Ok(pid) = i32::try_from(holder.pid) else {
        return false;
    };
    // Asked of the kernel: /proc may hide the processes of other users (hidepid, ProtectProc).
    match kill(Pid::from_raw(pid), None) {
        Err(Errno::ESRCH) => true,
        // A zombie holds nothing any more.
        Ok(()) | Err(_) => match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_is_not() {
        let own = Holder { pid: std::process::id(), space: space() };
        let parent = std::os::unix::process::parent_id();
        assert!(!is_gone(&Holder { pid: parent, ..own.clone() }, &own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        assert!(is_gone(&Holder { pid, ..own.clone() }, &own));
        assert!(!is_gone(&Holder { pid, space: "elsewhere".to_owned() }, &own));
    }

    #[test]
    fn where_the_host_cannot_be_told_only_the_lease_says_who_is_gone() {
        let namespace = Some(Path::new("pid:[4026531836]"));
        let boot = "0f6a2d3e-1111-4222-8333-444455556666";
        assert_eq!(space_of(Some(&format!("{boot}\n")), namespace), format!("{boot} pid:[4026531836]"));
        // Hidden, masked by an empty file, or no namespace to be read.
        for space in [space_of(None, namespace), space_of(Some("\n"), namespace), space_of(Some(boot), None)]
        {
            assert_eq!(space, "");
            // Another host's server with a process id that nobody has here.
            let (own, other) =
                (Holder { pid: 1, space: space.clone() }, Holder { pid: i32::MAX as u32, space });
            assert!(!is_gone(&other, &own));
        }
    }
}
