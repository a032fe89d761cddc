//! The floor of Redis: the commands that the server issues for a batch of sends, their deliveries and their
//! acknowledgements, without a server. One connection for each of the server's worker threads; each has its
//! share of the messages in flight in one pipeline, which is one round trip, and starts the next when it is
//! answered.
//!
//! As seen with `MONITOR` on a server at 256 in flight:
//! `MULTI`, N × `XADD` inbox, `HINCRBY` and `EXPIRE` of the sender's rate, `XADD` of the audit block, `EXEC`,
//! `XDEL` and `XACK` of what was acknowledged, `XREADGROUP`, `WATCH` and `GET` of the fence. Redis runs with
//! the server's settings: append-only file, fsync every second, a unix socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mas::store::answers::{EntryId, read_one_stream};
use redis::{Cmd, Connection, Value, cmd};

use crate::latency::Latencies;
use crate::process::cpu_s;
use crate::{AnyError, interrupt};

/// Longest round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that one send adds to its lane's block: what `XRANGE` on a lane shows for a send with agents, ACL,
/// roles, rate limit and DLP on.
const AUDIT_RECORD_BYTES: usize = 176;
/// Bytes of a lane's root.
const HASH_BYTES: usize = 32;
/// What an envelope holds beside its payload.
const ENVELOPE_HEAD: &str = r#"{"sender_id":"s0","target_id":"r0","message_type":"load","data":"#;
const ENVELOPE_TAIL: &str = r#","meta":{"version":1,"correlation_id":null,"expects_reply":false,"is_reply":false,"sender_instance_id":"load","reply_to_instance_id":null,"traceparent":null,"tracestate":null},"timestamp":1795392545.871064,"message_id":"01a205bc-244f-7071-96bc-3ad943ce08bf"}"#;
const GROUP: &str = "agents";

/// What one measurement does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedisLoad {
    pub(crate) connections: usize,
    /// Messages in flight over all connections; at least one each.
    pub(crate) in_flight: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

/// What came of it.
pub(crate) struct RedisOutcome {
    pub(crate) per_s: f64,
    /// Round trips of batches, one for each message in them.
    pub(crate) latency: Latencies,
    /// Of the Redis process.
    pub(crate) cpu_us_per_message: f64,
}

/// Measures the Redis at `url`, which is process `pid` and is emptied before.
pub(crate) fn measure(url: &str, pid: u32, load: RedisLoad) -> Result<RedisOutcome, AnyError> {
    let batch = (load.in_flight / load.connections).max(1);
    let client = redis::Client::open(url)?;
    let mut lanes = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        let connection = client.get_connection_with_timeout(ANSWER_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut lane = Lane::new(connection, index, batch, load.payload_bytes);
        if index == 0 {
            let _: Value = cmd("FLUSHALL").query(&mut lane.connection)?;
        }
        lane.prepare()?;
        lanes.push(lane);
    }
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let threads = lanes
        .into_iter()
        .map(|lane| {
            let (counting, over) = (counting.clone(), over.clone());
            std::thread::Builder::new()
                .name("redis-floor".to_owned())
                .spawn(move || lane.run(&counting, &over).map_err(|error| error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let timed = (|| {
        interrupt::pause(load.warm_up)?;
        let before = cpu_s(pid)?;
        let started = Instant::now();
        counting.store(true, Ordering::SeqCst);
        interrupt::pause(load.counted)?;
        counting.store(false, Ordering::SeqCst);
        Ok::<_, AnyError>((cpu_s(pid)? - before, started.elapsed().as_secs_f64()))
    })();
    over.store(true, Ordering::SeqCst);
    let mut latency = Latencies::new()?;
    for thread in threads {
        latency.add(&thread.join().map_err(|_| "a thread of the Redis floor failed")??)?;
    }
    let (used_s, seconds) = timed?;
    let messages = latency.len();
    Ok(RedisOutcome {
        per_s: messages as f64 / seconds,
        latency,
        cpu_us_per_message: used_s * 1e6 / messages.max(1) as f64,
    })
}

/// One worker's part.
struct Lane {
    connection: Connection,
    batch: usize,
    inbox: String,
    consumer: String,
    rate: String,
    audit: String,
    fence: String,
    /// `MULTI` and the `XADD`s: the same in every round.
    head: Vec<u8>,
    block: Vec<u8>,
    next_seq: u64,
    /// Read in the last round, acknowledged in the next.
    read: Vec<EntryId>,
    bytes: Vec<u8>,
}

impl Lane {
    fn new(connection: Connection, index: usize, batch: usize, payload_bytes: usize) -> Self {
        let inbox = format!("agent.stream:r{index}");
        let text = payload_bytes.saturating_sub(r#"{"text":""}"#.len());
        let envelope = format!(r#"{ENVELOPE_HEAD}{{"text":"{}"}}{ENVELOPE_TAIL}"#, "y".repeat(text));
        let mut head = Vec::new();
        cmd("MULTI").write_packed_command(&mut head);
        for _ in 0..batch {
            cmd("XADD").arg(&inbox).arg("*").arg("envelope").arg(&envelope).write_packed_command(&mut head);
        }
        Self {
            connection,
            batch,
            consumer: format!("r{index}-load"),
            rate: format!("ratelimit:s{index}:498720"),
            audit: format!("audit:lane:floor-w{index}"),
            fence: "mas.fence:floor".to_owned(),
            inbox,
            head,
            block: vec![0xa5; batch * AUDIT_RECORD_BYTES],
            next_seq: 1,
            read: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn prepare(&mut self) -> Result<(), AnyError> {
        let _: Value = cmd("XGROUP")
            .arg("CREATE")
            .arg(&self.inbox)
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .query(&mut self.connection)?;
        Ok(())
    }

    fn run(mut self, counting: &AtomicBool, over: &AtomicBool) -> Result<Latencies, AnyError> {
        let mut latency = Latencies::new()?;
        while !over.load(Ordering::Relaxed) {
            let counts = counting.load(Ordering::Relaxed);
            let started = Instant::now();
            self.round()?;
            if counts {
                latency.record_n(started.elapsed().as_micros() as u64, self.batch as u64);
            }
        }
        Ok(latency)
    }

    fn round(&mut self) -> Result<(), AnyError> {
        let mut pipeline = Pipeline { bytes: std::mem::take(&mut self.bytes), commands: 1 + self.batch };
        pipeline.bytes.clear();
        pipeline.bytes.extend_from_slice(&self.head);
        let _ = pipeline.add(cmd("HINCRBY").arg(&self.rate).arg("29923209").arg(self.batch));
        let _ = pipeline.add(cmd("EXPIRE").arg(&self.rate).arg("7200"));
        let seq = format!("{}-0", self.next_seq);
        let hash = [0x5a; HASH_BYTES];
        let _ = pipeline.add(
            cmd("XADD").arg(&self.audit).arg(seq).arg("b").arg(&self.block).arg("h").arg(hash.as_slice()),
        );
        let executed_at = pipeline.add(&cmd("EXEC"));
        if !self.read.is_empty() {
            let _ = pipeline.add(cmd("XDEL").arg(&self.inbox).arg(&self.read));
            let _ = pipeline.add(cmd("XACK").arg(&self.inbox).arg(GROUP).arg(&self.read));
        }
        // No BLOCK, and as many as were added: every round takes what it made.
        let read =
            ["GROUP", GROUP, &self.consumer, "COUNT", &self.batch.to_string(), "STREAMS", &self.inbox, ">"];
        let read_at = pipeline.add(cmd("XREADGROUP").arg(&read));
        let _ = pipeline.add(cmd("WATCH").arg(&self.fence));
        let _ = pipeline.add(cmd("GET").arg(&self.fence));
        self.next_seq += self.batch as u64;
        self.connection.send_packed_command(&pipeline.bytes)?;
        for at in 0..pipeline.commands {
            let answer = self.connection.recv_response()?;
            if let Value::ServerError(error) = &answer {
                return Err(format!("Redis refused command {at} of the floor: {error:?}").into());
            }
            if at == executed_at && answer == Value::Nil {
                return Err("the floor's transaction was not executed".into());
            }
            if at == read_at {
                let entries = read_one_stream(answer).ok_or("XREADGROUP answered something else")?;
                self.read = entries.into_iter().map(|entry| entry.id).collect();
            }
        }
        self.bytes = pipeline.bytes;
        Ok(())
    }
}

/// Commands that go out together.
struct Pipeline {
    bytes: Vec<u8>,
    commands: usize,
}

impl Pipeline {
    /// Adds one and returns the place of its answer.
    fn add(&mut self, command: &Cmd) -> usize {
        command.write_packed_command(&mut self.bytes);
        self.commands += 1;
        self.commands - 1
    }
}
