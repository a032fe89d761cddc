//! One server per Redis: a lease that a server holds while it runs, so that a second one cannot take its
//! inboxes apart. (Several servers on one Redis need leases per instance; this is the guard until then.)

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use super::answers::{error_code, int, text};
use super::connection::{Batch, Connection, StoreError};
use super::keys;

/// How long a lease lives without renewal.
const LEASE: Duration = Duration::from_millis(6000);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(2000);

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Holder {
    /// The server's run.
    boot: String,
    /// Its process id, of meaning within `space`.
    pid: u32,
    /// The host's boot and the process id namespace.
    space: String,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another server is running.
    #[error("another server (process {pid}{place}) serves this Redis")]
    Held {
        /// Its process id.
        pid: u32,
        /// Where it runs, when not here.
        place: &'static str,
        /// Whether it is known to be alive: waiting is of no use.
        alive: bool,
    },
}

/// Whether a server runs: its lease lives.
pub fn is_held(connection: &mut Connection) -> Result<bool, StoreError> {
    let answer = connection.command("EXISTS", &[keys::SERVER_LEASE])?;
    Ok(int(&answer) == Some(1))
}

/// A held lease, renewed by a thread of its own until it is dropped.
pub struct Lease {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes the lease, also over from a holder whose process is gone.
    pub fn acquire(url: &str, timeout: Duration) -> Result<Self, LeaseError> {
        let mut connection = Connection::open(url, timeout)?;
        let own = Holder { boot: Uuid::now_v7().to_string(), pid: std::process::id(), space: space() };
        take(&mut connection, &own)?;
        let (stop, stopped) = channel();
        let url = url.to_owned();
        let keeper = std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
            let mut connection = Some(connection);
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                renew(&mut connection, &url, timeout, &own);
            }
            release(&mut connection, &own);
        });
        match keeper {
            Ok(thread) => Ok(Self { stop, thread: Some(thread) }),
            Err(error) => Err(LeaseError::Store(StoreError::Unexpected {
                command: "starting the lease's thread",
                answer: error.to_string(),
            })),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Names the place in which a process id has its meaning.
fn space() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// Whether the holder's process is certainly gone.
fn is_gone(holder: &Holder, own: &Holder) -> bool {
    if holder.space != own.space {
        return false;
    }
    if holder.pid == own.pid {
        return true;
    }
    match std::fs::read_to_string(format!("/proc/{}/stat", holder.pid)) {
        // A zombie holds nothing any more.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}

fn value_of(holder: &Holder) -> String {
    // A struct of plain fields always serializes.
    serde_json::to_string(holder).unwrap_or_default()
}

fn current(connection: &mut Connection) -> Result<Option<Holder>, StoreError> {
    let stored = connection.command("GET", &[keys::SERVER_LEASE])?;
    Ok(text(&stored).and_then(|text| serde_json::from_str(text).ok()))
}

fn take(connection: &mut Connection, own: &Holder) -> Result<(), LeaseError> {
    let lease_ms = LEASE.as_millis().to_string();
    let value = value_of(own);
    let key = keys::SERVER_LEASE;
    if connection.command("SET", &[key, &value, "NX", "PX", &lease_ms])? == Value::Okay {
        return Ok(());
    }
    let _ = connection.command("WATCH", &[key])?;
    if let Some(holder) = current(connection)?
        && !is_gone(&holder, own)
    {
        let here = holder.space == own.space;
        let place = if here { "" } else { " on another host" };
        return Err(LeaseError::Held { pid: holder.pid, place, alive: here });
    }
    let mut batch = Batch::new();
    let _ = batch.command("MULTI");
    let _ = batch.command("SET");
    let _ = batch.arg(key).arg(&value).arg("PX").arg(&lease_ms);
    let _ = batch.command("EXEC");
    match connection.run(&mut batch)?.pop() {
        Some(Value::Array(_)) => Ok(()),
        // Somebody was faster.
        Some(Value::Nil) => Err(LeaseError::Held { pid: 0, place: ", just started", alive: false }),
        other => Err(LeaseError::Store(StoreError::Unexpected {
            command: "taking the lease",
            answer: other.as_ref().and_then(error_code).unwrap_or("nothing").to_owned(),
        })),
    }
}

fn renew(connection: &mut Option<Connection>, url: &str, timeout: Duration, own: &Holder) {
    if connection.is_none() {
        // The workers say what is wrong with Redis.
        *connection = Connection::open(url, timeout).ok();
    }
    let Some(open) = connection else {
        return;
    };
    let lease_ms = LEASE.as_millis().to_string();
    let renewed = match current(open) {
        Ok(Some(holder)) if holder.boot != own.boot => {
            log::error!(
                "process {} has taken the lease of this server: two servers on one Redis",
                holder.pid
            );
            return;
        }
        Ok(_) => open.command("SET", &[keys::SERVER_LEASE, &value_of(own), "PX", &lease_ms]),
        Err(error) => Err(error),
    };
    if let Err(error) = renewed {
        log::warn!("the server's lease could not be renewed: {error}");
        *connection = None;
    }
}

fn release(connection: &mut Option<Connection>, own: &Holder) {
    let Some(connection) = connection else {
        return;
    };
    // What cannot be released runs out by itself.
    if current(connection).is_ok_and(|holder| holder.is_some_and(|holder| holder.boot == own.boot)) {
        let _ = connection.command("DEL", &[keys::SERVER_LEASE]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_is_not() {
        let own = Holder { boot: Uuid::now_v7().to_string(), pid: std::process::id(), space: space() };
        let parent = std::os::unix::process::parent_id();
        assert!(!is_gone(&Holder { pid: parent, ..own.clone() }, &own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        assert!(is_gone(&Holder { pid, ..own.clone() }, &own));
        assert!(!is_gone(&Holder { pid, space: "elsewhere".to_owned(), ..own.clone() }, &own));
    }
}
