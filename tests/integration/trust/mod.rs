//! Redis in hostile hands: whoever can write to it, and has no store key. What they write is never delivered, used or
//! signed; it is put aside or refused, and on record, and everything else goes on.

mod between;
mod messages;
mod starts;
mod states;
mod values;

use mas::audit::Record;
use serde_json::Value;

use crate::support::{Client, Server, Session, World, until};

/// A world with messages under way: alpha and beta are connected.
struct Scene {
    world: World,
    server: Server,
    alpha: Client,
    beta: Client,
    a: Session,
    b: Session,
}

type Fields = Vec<(String, String)>;

const BETA: &str = "agent.stream:beta";

impl Scene {
    fn new() -> Self {
        Self::with("delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [1]}\n")
    }

    fn with(settings: &str) -> Self {
        let mut world = World::with(World::PAIR, settings);
        world.set_gateway(
            "rate_limit: {per_minute: 1000000, per_hour: 10000000}, audit: {checkpoint_interval_ms: 100}",
        );
        let server = world.server();
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let (a, b) = (alpha.session("a"), beta.session("b"));
        Self { world, server, alpha, beta, a, b }
    }

    /// Redis, for whoever has its password.
    fn redis(&self, words: &[&str]) -> redis::Value {
        self.world.redis.query(words)
    }

    /// Adds an entry to a stream.
    fn add(&self, stream: &str, fields: &[(&str, &str)]) -> String {
        let mut words = vec!["XADD", stream, "*"];
        words.extend(fields.iter().flat_map(|(name, value)| [*name, *value]));
        self.world.redis.query(&words)
    }

    /// The stream's entries.
    fn entries(&self, stream: &str) -> Vec<(String, Fields)> {
        self.world.redis.entries(stream)
    }

    /// Waits until so many things were put aside, and are on record.
    #[track_caller]
    fn put_aside(&self, count: usize) -> Vec<Record> {
        until("it is put aside", || self.world.redis.len("mas.foreign") >= count);
        let records = self.foreign_records();
        assert_eq!(records.len(), count, "{records:?}");
        records
    }

    fn foreign_records(&self) -> Vec<Record> {
        let records = self.world.records();
        records.into_iter().filter(|record| record.action.as_str() == "foreign_entry").collect()
    }

    /// A message still gets from alpha to beta, and it is the next one there.
    #[track_caller]
    fn goes_on(&self, n: u64) {
        self.alpha.send("a", "beta", &format!("{{\"goes_on\":{n}}}")).unwrap();
        let delivered = self.b.next();
        assert_eq!(delivered.data()["goes_on"], n, "{delivered:?}");
        self.b.ack(&delivered.id);
    }

    fn verify(&self, args: &[&str]) -> (i32, Value) {
        let output = self.world.mas(&[&["audit", "verify", "--json"], args].concat());
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    }
}

fn kinds(report: &Value) -> Vec<&str> {
    report["damages"].as_array().unwrap().iter().map(|damage| damage["kind"].as_str().unwrap()).collect()
}

fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn field<'f>(fields: &'f Fields, name: &str) -> &'f str {
    &fields.iter().find(|(field, _)| field == name).unwrap().1
}

fn fresh_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// What a forged message from alpha to beta looks like.
fn envelope(id: &str) -> String {
    serde_json::json!({
        "sender_id": "alpha", "target_id": "beta", "message_type": "note", "data": {"transfer": 1_000_000},
        "meta": {
            "version": 1, "correlation_id": null, "expects_reply": false, "is_reply": false,
            "sender_instance_id": "a", "reply_to_instance_id": null, "traceparent": null, "tracestate": null,
        },
        "timestamp": 1_760_000_000.5, "message_id": id,
    })
    .to_string()
}
