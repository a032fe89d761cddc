//! Attacks between any two commands of a running server, chosen by chance: whatever is done to Redis meanwhile, nothing reaches an
//! agent that nobody sent to it, nothing forged is read or signed, and the server goes on.
//!
//! `MAS_TEST_ATTACKS` sets how many; the seed is printed.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{BETA, Fields, envelope, fresh_id};
use crate::support::{Client, Random, Server, Session, World, within};

/// One command in so many has an attack before it.
const RARITY: u64 = 12;
/// Attacks of the short form.
const ATTACKS: u64 = 400;
/// How long a delivery may take before the next message is sent.
const MOMENT: Duration = Duration::from_millis(200);
/// A lane of a server that there never was.
const FORGED_LANE: &str = "0197f00000007000800000000000beef-w0-c1";

/// An entry's id, names and values.
type RawEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// Who has Redis' password.
struct Attacker {
    redis: redis::Connection,
    random: Random,
    done: HashMap<&'static str, u64>,
    /// An entry that was seen in beta's inbox once.
    seen: Option<Fields>,
}

impl Attacker {
    fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> Option<T> {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.redis).ok()
    }

    fn add(&mut self, stream: &str, fields: &[(String, String)]) {
        let mut words = vec!["XADD", stream, "*"];
        words.extend(fields.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        let _: Option<String> = self.run(&words);
    }

    fn newest(&mut self) -> Option<(String, Fields)> {
        let found: Option<Vec<(String, Fields)>> = self.run(&["XREVRANGE", BETA, "+", "-", "COUNT", "1"]);
        found?.pop()
    }

    fn attack(&mut self) {
        let (id, fields) = self.newest().unwrap_or_default();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let what = match self.random.below(12) {
            0 => {
                let forged = envelope(&fresh_id());
                self.add(BETA, &[field("envelope", &forged), field("attest", "AAAA 1 lane")]);
                "a forged message"
            }
            1 | 2 if !fields.is_empty() => {
                let (stream, what) = if self.random.chance(50) {
                    ("agent.stream:alpha", "a message copied to another agent")
                } else {
                    ("agent.stream:beta:b", "a message copied to an instance")
                };
                self.add(stream, &fields);
                what
            }
            3 if !fields.is_empty() => {
                let changed = |(name, value): (String, String)| (name, value.replace("\"n\":", "\"n\":77"));
                self.add(BETA, &fields.into_iter().map(changed).collect::<Fields>());
                let _: Option<u64> = self.run(&["XDEL", BETA, &id]);
                "a message changed"
            }
            4 if !fields.is_empty() => {
                let _: Option<u64> = self.run(&["XDEL", BETA, &id]);
                "a message deleted"
            }
            5 => {
                let _: Option<u64> = self.run(&["HSET", "agent.state:alpha", "a", "evil"]);
                "a state changed"
            }
            6 => {
                let key = format!("mas.pending_request:{}", fresh_id());
                let forged = r#"{"sender_id":"alpha","sender_instance_id":"a","tag":"AAAA"}"#;
                let _: Option<String> = self.run(&["SET", &key, forged]);
                "a request that was never made"
            }
            7 => {
                let keys: Vec<String> = self.run(&["KEYS", "mas.pending_request:*"]).unwrap_or_default();
                for key in keys {
                    let _: Option<u64> = self.run(&["DEL", &key]);
                }
                "requests deleted"
            }
            8 => {
                let letter = [field("envelope", &envelope(&fresh_id())), field("stream", BETA)];
                self.add("dlq:messages", &letter);
                "a forged dead letter"
            }
            9 => {
                let lanes: Vec<String> = self.run(&["KEYS", "audit:lane:*"]).unwrap_or_default();
                let copied: Option<Vec<RawEntry>> =
                    lanes.first().and_then(|lane| self.run(&["XRANGE", lane, "-", "+", "COUNT", "1"]));
                if let Some((id, fields)) = copied.and_then(|mut blocks| blocks.pop()) {
                    let mut add = redis::cmd("XADD");
                    add.arg(format!("audit:lane:{FORGED_LANE}")).arg(id);
                    for (name, value) in &fields {
                        add.arg(name).arg(value);
                    }
                    let _: Option<String> = add.query(&mut self.redis).ok();
                    let _: Option<u64> = self.run(&["HSET", "audit:lanes", FORGED_LANE, "{}"]);
                }
                "a forged lane"
            }
            10 => {
                let state = "agent.state_version:alpha";
                let _: Option<u64> = self.run(&["INCR", state]);
                "a version raised"
            }
            _ => match self.seen.clone() {
                // An own old message: it may come twice, and never to another one or changed.
                Some(seen) => {
                    self.add(BETA, &seen);
                    "a message again"
                }
                None => {
                    self.seen = (!fields.is_empty()).then_some(fields);
                    return;
                }
            },
        };
        *self.done.entry(what).or_default() += 1;
    }
}

/// Carries commands to Redis, one by one, with attacks between them.
struct Between {
    path: PathBuf,
    attacker: Arc<Mutex<Attacker>>,
    /// Attacks are made.
    armed: Arc<Mutex<bool>>,
}

impl Between {
    fn start(path: &Path, world: &World, seed: u64) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let attacker = Attacker {
            redis: world.redis.connection(),
            random: Random(seed),
            done: HashMap::new(),
            seen: None,
        };
        let attacker = Arc::new(Mutex::new(attacker));
        let armed = Arc::new(Mutex::new(false));
        let (socket, shared, on) = (world.redis.socket(), attacker.clone(), armed.clone());
        // Ends with the test's process.
        let _ = std::thread::spawn(move || {
            for server in listener.incoming() {
                let server = server.unwrap();
                let Ok(store) = UnixStream::connect(&socket) else { continue };
                let ends = (server.try_clone().unwrap(), store.try_clone().unwrap());
                let (shared, on) = (shared.clone(), on.clone());
                let _ = std::thread::spawn(move || carry_commands(ends.0, ends.1, &shared, &on));
                let _ = std::thread::spawn(move || carry_answers(store, server));
            }
        });
        Self { path: path.to_path_buf(), attacker, armed }
    }

    fn arm(&self, on: bool) {
        *self.armed.lock().unwrap() = on;
    }

    fn attacks(&self) -> u64 {
        self.attacker.lock().unwrap().done.values().sum()
    }
}

fn carry_commands(
    mut server: UnixStream,
    mut store: UnixStream,
    attacker: &Mutex<Attacker>,
    armed: &Mutex<bool>,
) {
    let (mut chunk, mut bytes) = (vec![0; 65536], Vec::new());
    while let Ok(read @ 1..) = server.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
        while let Some(end) = command_end(&bytes) {
            if *armed.lock().unwrap() {
                let mut attacker = attacker.lock().unwrap();
                if attacker.random.below(RARITY) == 0 {
                    attacker.attack();
                }
            }
            if store.write_all(&bytes[..end]).is_err() {
                return;
            }
            drop(bytes.drain(..end));
        }
    }
    // It may be closed already.
    let _ = store.shutdown(std::net::Shutdown::Both);
}

fn carry_answers(mut store: UnixStream, mut server: UnixStream) {
    let mut chunk = vec![0; 65536];
    while let Ok(read @ 1..) = store.read(&mut chunk) {
        if server.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

/// Where the first command ends, where all of it is there.
fn command_end(bytes: &[u8]) -> Option<usize> {
    let line = |at: usize| -> Option<(usize, usize)> {
        let length = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&bytes[at + 1..at + length]).unwrap().parse().unwrap();
        Some((number, at + length + 2))
    };
    let (parts, mut at) = line(0)?;
    for _ in 0..parts {
        let (length, start) = line(at)?;
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// What the agents know.
#[derive(Default)]
struct Known {
    /// What alpha has sent, also where it did not hear of it.
    sent: HashSet<u64>,
    /// By message id, as far as alpha heard of it.
    ids: HashMap<String, u64>,
    /// Requests that alpha has made.
    asked: HashSet<String>,
    delivered: u64,
}

impl Known {
    /// What beta gets was sent by alpha, as it is.
    fn at_beta(&mut self, b: &Session, beta: &Client) {
        while let Some(delivered) = b.next_within(Duration::from_millis(5)) {
            let n = delivered.data()["n"].as_u64();
            let n = n.unwrap_or_else(|| panic!("nobody sent this: {delivered:?}"));
            assert!(self.sent.contains(&n), "nobody sent this: {delivered:?}");
            if let Some(known) = self.ids.get(delivered.message_id()) {
                assert_eq!(*known, n, "{delivered:?}");
            }
            self.delivered += 1;
            if delivered.envelope["meta"]["expects_reply"] == true {
                // Refused where the request was deleted.
                let _ = beta.reply("b", delivered.correlation_id(), &format!("{{\"answer\":{n}}}"));
            }
            b.ack(&delivered.id);
        }
    }

    /// What alpha gets answers a request that it made.
    fn at_alpha(&self, a: &Session) {
        while let Some(delivered) = a.next_within(Duration::from_millis(1)) {
            assert!(self.asked.contains(delivered.correlation_id()), "{delivered:?}");
            assert!(delivered.data()["answer"].is_u64(), "{delivered:?}");
            a.ack(&delivered.id);
        }
    }
}

#[test]
fn whatever_is_done_to_redis_between_two_commands_nobody_is_deceived() {
    let attacks = std::env::var("MAS_TEST_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(ATTACKS);
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {attacks} attacks");
    let mut world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [1]}\n");
    world.set_gateway(
        "rate_limit: {per_minute: 1000000, per_hour: 10000000}, audit: {checkpoint_interval_ms: 50}",
    );
    let between = Between::start(&world.path().join("between"), &world, seed);
    let redis = format!("url: 'unix://{}', socket_timeout: 2", between.path.display());
    let mut server: Server = world.server_with(2, &redis);
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let mut known = Known::default();
    between.arm(true);
    let mut n = 0;
    while between.attacks() < attacks {
        n += 1;
        let _ = known.sent.insert(n);
        let text = format!("{{\"n\":{n}}}");
        if n % 3 == 0 {
            known.asked.extend(alpha.request("a", "beta", &text, 2_000));
        } else if let Ok(id) = alpha.send("a", "beta", &text) {
            let _ = known.ids.insert(id, n);
        }
        match alpha.state() {
            Ok(state) => assert_ne!(state.get("a").map(String::as_str), Some("evil")),
            // Refused, until the agent begins anew.
            Err(refused) => {
                assert_eq!(refused.details, "state_foreign");
                let _ = alpha.reset_state();
            }
        }
        let _ = alpha.update_state(&[("a", "good")]);
        known.at_beta(&b, &beta);
        known.at_alpha(&a);
        assert!(!server.has_ended(), "{}", world.logged());
    }
    between.arm(false);
    println!("{:?}; {n} sent, {} delivered", between.attacker.lock().unwrap().done, known.delivered);

    // It goes on as if nothing had been.
    n += 1;
    let _ = known.sent.insert(n);
    let _ = alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    let before = known.delivered;
    within(Duration::from_secs(30), "a message arrives", || {
        known.at_beta(&b, &beta);
        known.delivered > before && b.next_within(MOMENT).is_none()
    });
    server.stop();

    // Nothing forged is signed, and all of it is found.
    let notes: Vec<String> = world
        .redis
        .entries("audit:checkpoints")
        .into_iter()
        .flat_map(|(_, fields)| fields)
        .map(|(_, note)| note)
        .collect();
    assert!(!notes.is_empty() && notes.iter().all(|note| !note.contains(FORGED_LANE)));
    let (code, report) = world.verify();
    assert_eq!(code, 3, "{report}");
    assert!(super::kinds(&report).contains(&"not_attested"), "{report}");
}
