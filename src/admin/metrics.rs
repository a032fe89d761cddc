//! What a scrape is told. Counts are the workers' own, added up here; names and meanings stand in `docs/metrics.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::exposition::{Format, Page, bare, by, flag, one};
use super::http::Counters;
use super::process::Process;
use super::status::Status;
use crate::audit::tally::OUTCOMES;
use crate::audit::{Action, Decision};
use crate::shard::desk::troubles::Code;

/// Pairs of sender and target that are shown one by one: the busiest.
const MAX_EDGES: usize = 500;
/// The name of what is shown together.
const OTHER: &str = "other";

/// What was counted of one agent, by all workers: decisions in the order of their codes, deliveries in that of their outcomes.
#[derive(Default)]
struct Sums {
    messages: [u64; Decision::ALL.len()],
    deliveries: [u64; OUTCOMES.len()],
}

/// Writes everything.
pub(super) fn write(status: Status, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(status));
    let mut out = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

impl Collector for Status {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.build(&mut page)?;
        self.records(&mut page)?;
        self.agents(&mut page)?;
        self.times(&mut page)?;
        self.audit(&mut page)?;
        self.workers(&mut page)?;
        self.redis(&mut page)?;
        self.edge(&mut page)?;
        self.process(&mut page)
    }
}

impl Status {
    fn build(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = by("version", env!("CARGO_PKG_VERSION"));
        page.gauges("mas_build_info", "The version of this server; always 1.", [(version, 1.0)])?;
        let digest = by("digest", self.policy_version.as_str());
        page.gauges("mas_config_info", "The configuration in force; always 1.", [(digest, 1.0)])?;
        let reloads = [("success", self.reloads.0), ("failure", self.reloads.1)];
        page.counters(
            "mas_config_reloads",
            "Reloads of the configuration, by result.",
            reloads.map(|(result, count)| (by("result", result), count as f64)),
        )?;
        page.gauges(
            "mas_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded, Unix time.",
            one(self.loaded_ms as f64 / 1000.0),
        )?;
        page.gauges(
            "mas_ready",
            "Whether the server is ready, as /readyz says.",
            one(flag(self.is_ready())),
        )?;
        let trouble = |code: Code| {
            (by("code", code.as_str()), flag(self.troubles.iter().any(|trouble| trouble.code == code)))
        };
        page.gauges("mas_trouble", "What does not work now, by code; 0: it works.", Code::ALL.map(trouble))
    }

    fn records(&self, page: &mut Page<'_>) -> fmt::Result {
        let sum = |action: Action, decision: Decision| {
            self.meters.iter().map(|meter| meter.counters.records(action, decision)).sum::<u64>()
        };
        let pairs = |actions: &'static [Action], first: &'static str| {
            let all = actions.iter().flat_map(|action| Decision::ALL.iter().map(move |d| (*action, *d)));
            all.map(move |(action, decision)| {
                let labels = [(first, action.as_str().into()), ("decision", decision.as_str().into())];
                (labels, sum(action, decision) as f64)
            })
            .filter(|(_, count)| *count > 0.0)
        };
        page.counters(
            "mas_audit_records",
            "Records that this server's workers have committed, by action and decision.",
            pairs(Action::ALL, "action"),
        )?;
        page.counters(
            "mas_messages",
            "Decisions on messages, by call and decision.",
            pairs(&[Action::Send, Action::Request, Action::Reply], "call"),
        )?;
        let mut refusals: BTreeMap<&str, u64> = BTreeMap::new();
        let mut found: BTreeMap<(String, String), u64> = BTreeMap::new();
        for meter in &self.meters {
            for (detail, count) in meter.counters.refusals().filter(|(_, count)| *count > 0) {
                *refusals.entry(detail).or_default() += count;
            }
            for one in meter.counters.found() {
                *found.entry((one.kind.to_string(), one.action.to_string())).or_default() += one.count();
            }
        }
        page.counters(
            "mas_refusals",
            "Records of refusals, by what the caller was told.",
            refusals.into_iter().map(|(reason, count)| (by("reason", reason), count as f64)),
        )?;
        page.counters(
            "mas_dlp_findings",
            "What data-loss prevention has found in messages, by type and by what was done.",
            found.into_iter().map(|((kind, action), count)| {
                ([("type", kind.into()), ("action", action.into())], count as f64)
            }),
        )
    }

    fn agents(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut agents: BTreeMap<Arc<str>, Sums> = BTreeMap::new();
        for meter in &self.meters {
            meter.counters.each_agent(|name, counts| {
                let sums = match agents.get_mut(name) {
                    Some(sums) => sums,
                    None => agents.entry(name.clone()).or_default(),
                };
                for (sum, decision) in sums.messages.iter_mut().zip(Decision::ALL) {
                    *sum += counts.messages.of(*decision);
                }
                for (sum, (_, count)) in sums.deliveries.iter_mut().zip(counts.deliveries()) {
                    *sum += count;
                }
            });
        }
        let messages = agents.iter().flat_map(|(agent, sums)| {
            let counts = sums.messages.iter().zip(Decision::ALL).filter(|(count, _)| **count > 0);
            counts.map(move |(count, decision)| {
                ([("agent", (&**agent).into()), ("decision", decision.as_str().into())], *count as f64)
            })
        });
        let deliveries = agents.iter().flat_map(|(agent, sums)| {
            let counts = sums.deliveries.iter().zip(OUTCOMES).filter(|(count, _)| **count > 0);
            counts.map(move |(count, outcome)| {
                ([("agent", (&**agent).into()), ("outcome", outcome.into())], *count as f64)
            })
        });
        page.counters(
            "mas_agent_messages",
            "Decisions on messages, by the agent that asked and decision.",
            messages,
        )?;
        page.counters(
            "mas_deliveries",
            "What became of deliveries, by the agent that they were for.",
            deliveries,
        )?;
        let handling = self.meters.iter().flat_map(|meter| meter.handling_ms()).filter(|(_, ms)| *ms > 0);
        page.counters(
            "mas_agent_handling_seconds",
            "How long an agent's handlers had what they have settled, all deliveries together.",
            handling.map(|(agent, ms)| (by("agent", agent.to_string()), ms as f64 / 1000.0)),
        )?;
        page.counters(
            "mas_edge_messages",
            "Decisions on messages, by sender and target: the 500 busiest pairs, the others as \"other\".",
            self.edges().into_iter().map(|((sender, target), count)| {
                ([("sender", sender.into()), ("target", target.into())], count as f64)
            }),
        )?;
        let sessions = self.sessions.iter();
        page.gauges(
            "mas_sessions",
            "Sessions on this server, by agent.",
            sessions.map(|(agent, count)| (by("agent", agent.as_str()), *count as f64)),
        )?;
        page.gauges(
            "mas_circuit_open",
            "Circuits that are not closed, by target.",
            self.circuits.iter().map(|agent| (by("agent", agent.as_str()), 1.0)),
        )?;
        page.gauges(
            "mas_quarantined",
            "Who is in quarantine: an agent, a capability, or all.",
            self.quarantine.entries.keys().map(|whom| (by("whom", whom.to_string()), 1.0)),
        )?;
        let inboxes = self.inboxes.iter().flat_map(|inbox| {
            let delivered = inbox.pending;
            let waiting = inbox.queued.saturating_sub(delivered);
            [("waiting", waiting), ("delivered", delivered)].map(|(state, count)| {
                ([("agent", inbox.agent.as_str().into()), ("state", state.into())], count as f64)
            })
        });
        page.gauges(
            "mas_inbox_messages",
            "Messages in inboxes in Redis, by agent: waiting, or delivered and not acknowledged.",
            inboxes,
        )?;
        let bytes = self
            .inboxes
            .iter()
            .filter_map(|inbox| Some((by("agent", inbox.agent.as_str()), inbox.bytes? as f64)));
        page.gauges("mas_inbox_bytes", "What inboxes take in Redis, by agent.", bytes)?;
        let oldest = self.inboxes.iter().map(|inbox| {
            (
                by("agent", inbox.agent.as_str()),
                inbox.oldest_ms.map_or(0.0, |oldest_ms| oldest_ms as f64 / 1000.0),
            )
        });
        page.gauges(
            "mas_inbox_oldest_seconds",
            "For how long an inbox's oldest message is there, by agent; 0: it is empty.",
            oldest,
        )
    }

    /// The busiest pairs, and one for all others.
    fn edges(&self) -> BTreeMap<(String, String), u64> {
        let mut all: HashMap<(String, String), u64> = HashMap::new();
        for meter in &self.meters {
            meter.counters.each_edge(|edge| {
                let count: u64 = Decision::ALL.iter().map(|decision| edge.messages.of(*decision)).sum();
                *all.entry((edge.sender.to_string(), edge.target.to_string())).or_default() += count;
            });
        }
        let other = all.remove(&(String::new(), String::new())).unwrap_or(0);
        let mut sorted: Vec<((String, String), u64)> =
            all.into_iter().filter(|(_, count)| *count > 0).collect();
        sorted.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let rest = sorted.split_off(sorted.len().min(MAX_EDGES));
        let rest = other + rest.into_iter().map(|(_, count)| count).sum::<u64>();
        let mut edges: BTreeMap<(String, String), u64> = sorted.into_iter().collect();
        if rest > 0 {
            *edges.entry((OTHER.to_owned(), OTHER.to_owned())).or_default() += rest;
        }
        edges
    }

    fn times(&self, page: &mut Page<'_>) -> fmt::Result {
        const US: f64 = 1e-6;
        let meters = &self.meters;
        let help = "Time to decide the jobs of a round and to write its records.";
        page.histogram(("mas_policy_duration_seconds", help, US), meters, |meter| &meter.decide_us)?;
        let help = "Time from a round's commands to Redis' answers.";
        page.histogram(("mas_commit_duration_seconds", help, US), meters, |meter| &meter.commit_us)?;
        let help = "Jobs that one round has decided.";
        page.histogram(("mas_batch_messages", help, 1.0), meters, |meter| &meter.batch)?;
        let help = "Time from a message's acceptance to its first delivery, in steps of a millisecond.";
        page.histogram(("mas_queue_delay_seconds", help, US), meters, |meter| &meter.queue_us)?;
        let help = "Time from a delivery to its acknowledgement or refusal, in steps of a millisecond.";
        page.histogram(("mas_handling_duration_seconds", help, US), meters, |meter| &meter.handling_us)
    }

    fn audit(&self, page: &mut Page<'_>) -> fmt::Result {
        let age = |ms: u64| self.now_ms.saturating_sub(ms) as f64 / 1000.0;
        let sealed = (self.sealed_ms > 0).then(|| bare(age(self.sealed_ms)));
        page.gauges(
            "mas_audit_checkpoint_age_seconds",
            "Age of the newest checkpoint. Of an idle server it may be up to 60 intervals.",
            sealed,
        )?;
        page.gauges(
            "mas_audit_refusing",
            "Whether nothing is admitted because it could not be sealed or stored.",
            one(flag(self.refusal.is_some())),
        )?;
        let trail = self.trail.as_deref();
        let row = |value: Option<f64>| value.map(bare);
        page.gauges(
            "mas_audit_unsealed_records",
            "Records of lanes that are written which no checkpoint covers yet.",
            row(trail.map(|trail| trail.unsealed() as f64)),
        )?;
        page.gauges(
            "mas_audit_archive_lag_records",
            "Records in Redis that are in no file of an archive.",
            row(trail.map(|trail| trail.lag() as f64)),
        )?;
        page.gauges(
            "mas_audit_verify_last_result",
            "Whether the last verification of the trail found nothing damaged; absent: none was noted that can be believed.",
            row(trail.and_then(|trail| trail.was_intact()).map(flag)),
        )
    }

    fn workers(&self, page: &mut Page<'_>) -> fmt::Result {
        let beats = self.meters.iter().enumerate().map(|(index, meter)| {
            let age_ms = self.mono_ms.saturating_sub(meter.beat_ms.get());
            (by("worker", index.to_string()), age_ms as f64 / 1000.0)
        });
        page.gauges("mas_worker_beat_age_seconds", "Time since a worker's last sign of life.", beats)?;
        let busy =
            self.busy.iter().enumerate().map(|(index, share)| (by("worker", index.to_string()), *share));
        page.gauges("mas_worker_busy_ratio", "Share of the last second that a worker did not sleep.", busy)?;
        let depth = self
            .mailboxes
            .iter()
            .enumerate()
            .map(|(index, depth)| (by("worker", index.to_string()), *depth as f64));
        page.gauges("mas_mailbox_depth", "Jobs that wait for a worker.", depth)
    }

    fn redis(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauges("mas_redis_up", "Whether Redis answers.", one(flag(self.redis.is_ok())))?;
        let redis = self.redis.as_ref().ok();
        page.gauges(
            "mas_redis_memory_used_ratio",
            "Share of its bound of memory that Redis uses; absent without a bound.",
            redis
                .filter(|redis| redis.max_bytes > 0)
                .map(|redis| bare(redis.used_bytes as f64 / redis.max_bytes as f64)),
        )?;
        page.gauges(
            "mas_redis_memory_used_bytes",
            "What Redis uses of its bound of memory.",
            redis.map(|redis| bare(redis.used_bytes as f64)),
        )?;
        page.gauges(
            "mas_dead_letters",
            "Dead letters in Redis.",
            redis.map(|redis| bare(redis.dead_letters as f64)),
        )?;
        page.gauges(
            "mas_foreign_entries",
            "Things in Redis that no server had written, put aside.",
            redis.map(|redis| bare(redis.foreign as f64)),
        )?;
        page.gauges("mas_servers", "Servers on this Redis.", redis.map(|redis| bare(redis.servers as f64)))
    }

    fn edge(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauges("mas_connections", "Connections of agents.", one(self.connections as f64))?;
        page.counters(
            "mas_connections_turned_away",
            "Connections that the gate has cut or turned away, and calls refused undecided, by what was done.",
            self.turned_away.iter().map(|(done, count)| (by("done", *done), *count as f64)),
        )?;
        page.counters(
            "mas_telemetry_spans",
            "Spans by what became of them: exported, or dropped.",
            self.spans.iter().map(|(outcome, count)| (by("outcome", *outcome), *count as f64)),
        )?;
        page.gauges(
            "mas_certificate_expiry_timestamp_seconds",
            "When a certificate of the server ends, Unix time.",
            self.certificates.iter().map(|(name, end_s)| (by("name", *name), *end_s as f64)),
        )?;
        page.gauges(
            "mas_agent_certificate_expiry_timestamp_seconds",
            "When the first of the certificates that an agent is connected with ends, Unix time.",
            self.agents_certificates
                .iter()
                .map(|(agent, validity)| (by("agent", agent.as_str()), validity.end_s as f64)),
        )?;
        page.gauges(
            "mas_agents_certificates_ending",
            "Agents whose certificates should have been renewed, or have ended.",
            one(self.ending().count() as f64),
        )?;
        let sum = |of: fn(&Counters) -> &AtomicU64| {
            self.http.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum::<u64>()
        };
        page.gauges(
            "mas_admin_streams",
            "Event streams that are open at the admin listener.",
            one(sum(|counters| &counters.streams) as f64),
        )?;
        let answers = [
            ("2xx", sum(|counters| &counters.answered_2xx)),
            ("3xx", sum(|counters| &counters.answered_3xx)),
            ("4xx", sum(|counters| &counters.answered_4xx)),
            ("5xx", sum(|counters| &counters.answered_5xx)),
        ];
        page.counters(
            "mas_admin_answers",
            "Answers of the admin listener, by status.",
            answers.map(|(status, count)| (by("status", status), count as f64)),
        )
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let Process { cpu_s, resident_bytes, virtual_bytes, threads, open_fds, max_fds, start_s } =
            Process::read();
        let row = |value: Option<f64>| value.map(bare);
        let whole = |value: Option<u64>| row(value.map(|value| value as f64));
        page.counters("process_cpu_seconds", "CPU time of the server, user and system.", row(cpu_s))?;
        page.gauges("process_resident_memory_bytes", "Resident memory.", whole(resident_bytes))?;
        page.gauges("process_virtual_memory_bytes", "Virtual memory.", whole(virtual_bytes))?;
        page.gauges("process_threads", "Threads.", whole(threads))?;
        page.gauges("process_open_fds", "Open descriptors.", whole(open_fds))?;
        page.gauges("process_max_fds", "Descriptors that may be open.", whole(max_fds))?;
        page.gauges("process_start_time_seconds", "When the server started, Unix time.", row(start_s))
    }
}
