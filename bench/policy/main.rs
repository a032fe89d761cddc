//! What the pipeline costs for one clean message of 256 bytes with every stage on: nanoseconds and
//! allocations, with few agents and rules and with many, and how long the rules take to load.
//!
//! `--one few|many N` runs N checks and nothing else: for instruction counts by `bench/policy/instructions`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mas::clock::Now;
use mas::config::Config;
use mas::content::Content;
use mas::dlp::Scratch;
use mas::ids::AgentId;
use mas::policy::{Breaker, Message, Policy, check_payload};

/// Checks that are measured together, and how often: the best counts.
const CHECKS: u64 = 100_000;
const ROUNDS: usize = 7;
/// Checks before anything is measured: the buffers have their size then.
const WARM_UP: u64 = 1000;

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)] // The trait is unsafe; every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A clean message as agents send them: 256 bytes.
const CLEAN: &str = r#"{"task":"summarise","correlation_id":"7b1d6b1e-4f0a-4c44-9c7e-2f1f0f9a1b2c","priority":3,"payload":{"title":"Quarterly report","lines":["Revenue grew in all regions","Costs were flat for a year"],"count":1289,"ok":true,"updated_at":"2024-05-01T12:30:45Z"}}"#;

struct World {
    config: Config,
    policy: Policy,
    sender: AgentId,
    target: String,
    breaker: Breaker,
    scratch: Scratch,
}

impl World {
    /// `agents` agents, `rules` rules of one pair each, and roles that none of the checked pairs needs.
    fn new(agents: usize, rules: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let mut text = String::from(
            "tls_ca_path: ca.pem\ntls_server_cert_path: server.pem\ntls_server_key_path: server.key\n\
             gateway: {features: {dlp: true, rbac: true, circuit_breaker: true},\n  \
             rate_limit: {per_minute: 4000000000, per_hour: 4000000000}}\n\
             roles: [{name: worker, permissions: ['send:none*']}]\nagents:\n",
        );
        for agent in 0..agents {
            writeln!(text, "- {{agent_id: agent-{agent}, roles: [worker]}}")?;
        }
        text.push_str("permissions:\n");
        for rule in 0..rules {
            let (from, to) = (rule % agents, (rule * 7 + rule / agents + 1) % agents);
            writeln!(text, "- {{type: allow, sender: agent-{from}, targets: [agent-{to}]}}")?;
        }
        let begun = Instant::now();
        let config = Config::parse(Path::new("bench.yaml"), &text)?;
        let parsed = begun.elapsed();
        let policy = Policy::compile(&config, None);
        println!(
            "{agents} agents, {rules} rules: loaded in {:.0} ms, {:.0} ms of it parsing",
            begun.elapsed().as_secs_f64() * 1e3,
            parsed.as_secs_f64() * 1e3
        );
        let last = rules - 1;
        let sender = AgentId::parse(&format!("agent-{}", last % agents)).ok_or("no id")?;
        let target = format!("agent-{}", (last * 7 + last / agents + 1) % agents);
        Ok(Self { config, policy, sender, target, breaker: Breaker::default(), scratch: Scratch::new() })
    }

    /// What a worker does for one message before it builds the envelope.
    fn check(&mut self, now: Now) -> bool {
        let payload = check_payload(&self.config.limits, "task.request", black_box(CLEAN));
        let message = Message {
            sender: &self.sender,
            target: &self.target,
            content: Content { message_type: "task.request", data_json: black_box(CLEAN), trace: None },
        };
        let verdict = self.policy.check(message, Some(&self.breaker), now, &mut self.scratch);
        let name = black_box(verdict.rule.name());
        let passes = payload.is_ok() && verdict.refusal().is_none() && !name.is_empty();
        if let Some(counted) = verdict.counted {
            counted.keep();
        }
        passes
    }

    fn run(&mut self, checks: u64, now: Now) -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..checks {
            if !self.check(now) {
                return Err("the clean message was refused".into());
            }
        }
        Ok(())
    }

    fn measure(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let now = Now::read();
        self.run(WARM_UP, now)?;
        let (mut best, mut allocations) = (f64::INFINITY, 0);
        for _ in 0..ROUNDS {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let begun = Instant::now();
            self.run(CHECKS, now)?;
            best = best.min(begun.elapsed().as_nanos() as f64 / CHECKS as f64);
            allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        println!("  {best:.0} ns, {:.2} allocations per check\n", allocations as f64 / CHECKS as f64);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let few = || World::new(10, 10);
    let many = || World::new(10_000, 100_000);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            println!("message of {} bytes", CLEAN.len());
            few()?.measure()?;
            many()?.measure()
        }
        ["--one", size, checks] => {
            let mut world = if *size == "few" { few()? } else { many()? };
            world.run(checks.parse()?, Now::read())
        }
        _ => Err("usage: policy-bench [--one few|many N]".into()),
    }
}
