//! `mas policy replay`: a candidate configuration over what was decided before. Lists every decision that would
//! be another, and why.
//!
//! It is the pipeline's own code that decides. Payloads are not on record: what was found in them is judged
//! anew by rule and type, and what other rules would find cannot be known. Each line says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::audit::filter::TimeArgs;
use super::audit::{SourceArgs, Trouble};
use super::exit::Exit;
use super::text::time_text;
use crate::audit::record::REPETITION_RULE;
use crate::audit::verify::Plain;
use crate::audit::{Action, Decision, LaneId, View};
use crate::clock::Now;
use crate::config::Config;
use crate::envelope::MAX_MESSAGE_TYPE_BYTES;
use crate::history::filter::findings;
use crate::history::records::each_record;
use crate::history::source::Range;
use crate::ids::AgentId;
use crate::policy::replay::Recorded;
use crate::policy::{Breaker, Circuit, Policy, Verdict};
use crate::refusal::Refusal;

/// What was sent in the longest window before `--from` counts, too, in microseconds.
const WINDOW_US: u64 = 3_660_000_000;
/// Requests that would be refused, whose replies are watched for.
const MAX_REFUSED_REQUESTS: usize = 1_000_000;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The candidate.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The configuration whose Redis holds the trail; else the candidate's.
    #[arg(long, value_name = "FILE", conflicts_with = "export")]
    trail: Option<PathBuf>,
    /// Read this file, made by `mas audit export`, and not Redis.
    #[arg(long, value_name = "FILE")]
    export: Vec<PathBuf>,
    /// Read the archived segments in this folder, too.
    #[arg(long, value_name = "DIR")]
    archive: Vec<PathBuf>,
    #[command(flatten)]
    time: TimeArgs,
    /// One JSON object a line: each change, then the counts.
    #[arg(long)]
    json: bool,
}

/// What the candidate makes of a record.
struct Judgement {
    decision: Decision,
    rule: String,
    why: String,
    /// It rests on the findings on record: rules that look at the payload might say otherwise.
    content_unknown: bool,
}

pub(super) fn run(args: &ReplayArgs) -> Exit {
    match replay(args) {
        Ok(()) => Exit::Done,
        Err(trouble) => {
            let exit = trouble.exit();
            if exit != Exit::Done {
                eprintln!("mas policy replay: {trouble}");
            }
            exit
        }
    }
}

fn replay(args: &ReplayArgs) -> Result<(), Trouble> {
    let load = |path: &PathBuf| Config::load(path).map_err(|error| Trouble::Usage(error.to_string()));
    let candidate = load(&args.config)?;
    let trail = args.trail.as_ref().map(load).transpose()?;
    let source = SourceArgs {
        config: None,
        export: args.export.clone(),
        archive: args.archive.clone(),
        no_index: false,
        no_store_key: true,
    };
    let mut source = source.open(Some(trail.as_ref().unwrap_or(&candidate)))?;
    let range = args.time.range(false)?;
    // Rates depend on what was sent before.
    let read = Range { from_us: range.from_us.map(|from_us| from_us.saturating_sub(WINDOW_US)), ..range };
    let mut replayer = Replayer::new(&candidate);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut summary = Summary::default();
    each_record::<Trouble>(&mut source, read, &mut |lane, record| {
        let Some(judged) = replayer.record(record) else {
            return Ok(ControlFlow::Continue(()));
        };
        if !range.holds(record.time_us) {
            return Ok(ControlFlow::Continue(()));
        }
        summary.count(record, &judged);
        if judged.decision != record.decision {
            write_change(&mut out, lane, record, &judged, args.json).map_err(Trouble::output)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    summary.write(&mut out, &candidate, args.json).map_err(Trouble::output)?;
    out.flush().map_err(Trouble::output)
}

/// The candidate, and the state that its decisions depend on.
struct Replayer<'a> {
    config: &'a Config,
    policy: Policy,
    breakers: HashMap<String, Breaker>,
    /// Requests that the candidate refuses: nobody would have been asked to reply.
    unasked: HashSet<[u8; 16]>,
}

impl<'a> Replayer<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            policy: Policy::compile(config, None),
            breakers: HashMap::new(),
            unasked: HashSet::new(),
        }
    }

    /// What the candidate decides on a recorded decision; `None` for other records.
    fn record(&mut self, record: &View<'_>) -> Option<Judgement> {
        let now = Now { unix_us: record.time_us, mono_ms: record.time_us / 1000 };
        match record.action {
            Action::CircuitOpened => {
                let _ = self.breakers.insert(record.agent.to_owned(), Breaker::reopened(now.mono_ms));
                None
            }
            Action::CircuitClosed => {
                drop(self.breakers.remove(record.agent));
                None
            }
            Action::Send | Action::Request | Action::Reply => {
                let judged = self.decide(record, now);
                if let (Action::Request, Some(id), true) = (
                    record.action,
                    record.correlation_id,
                    passes(record.decision) && !passes(judged.decision),
                ) && self.unasked.len() < MAX_REFUSED_REQUESTS
                {
                    let _ = self.unasked.insert(*id);
                }
                Some(judged)
            }
            _ => None,
        }
    }

    fn decide(&mut self, record: &View<'_>, now: Now) -> Judgement {
        let sender = AgentId::parse(record.agent).filter(|id| self.config.agents.contains_key(id));
        let Some(sender) = sender else {
            return refused(Refusal::AGENT_NOT_ALLOWLISTED, Decision::Unauthenticated);
        };
        if let Some(judged) = self.decided_before(record) {
            return judged;
        }
        if record.action == Action::Reply && record.correlation_id.is_some_and(|id| self.unasked.contains(id))
        {
            return refused(Refusal::UNKNOWN_CORRELATION_ID, Decision::Refused);
        }
        let verdict = self.verdict(&sender, record, now);
        if passes(verdict.decision)
            && record.decision == Decision::Refused
            && record.reason != Refusal::MESSAGE_TOO_LARGE.detail
        {
            return as_recorded(
                record,
                "queues, sessions and the form of a payload are not part of a configuration",
            );
        }
        let unsearched = self.policy.searches_payloads()
            && passes(verdict.decision)
            && record.policy_version != self.policy.version();
        let rule = verdict.rule.to_string();
        Judgement {
            why: why(record, verdict.decision, &rule),
            decision: verdict.decision,
            rule,
            content_unknown: unsearched,
        }
    }

    /// What is decided before the policy is asked.
    fn decided_before(&self, record: &View<'_>) -> Option<Judgement> {
        if record.decision == Decision::Unauthenticated
            && record.reason != Refusal::AGENT_NOT_ALLOWLISTED.detail
        {
            return Some(as_recorded(record, "certificates and sessions are not part of a configuration"));
        }
        if record.rule == REPETITION_RULE {
            return Some(as_recorded(record, "a repetition gets the answer of the first"));
        }
        let too_large = record.reason == Refusal::MESSAGE_TOO_LARGE.detail;
        let behind_the_pipeline = [Refusal::QUEUE_FULL.detail, Refusal::TARGET_OFFLINE.detail];
        if record.decision == Decision::Refused && !too_large && !behind_the_pipeline.contains(&record.reason)
        {
            let why = "the form of a request and its session are not part of a configuration";
            return Some(as_recorded(record, why));
        }
        if record.payload_len as usize > self.config.limits.max_message_bytes {
            return Some(refused(Refusal::MESSAGE_TOO_LARGE, Decision::Refused));
        }
        let long_type = record.message_type.len() > MAX_MESSAGE_TYPE_BYTES;
        long_type.then(|| refused(Refusal::INVALID_MESSAGE_TYPE, Decision::Refused))
    }

    /// What the policy says.
    fn verdict(&mut self, sender: &AgentId, record: &View<'_>, now: Now) -> Verdict {
        let found = findings(record);
        let recorded = Recorded {
            sender,
            target: record.target,
            message_type: record.message_type,
            found: &found,
            rule: record.rule,
        };
        if record.action == Action::Reply {
            return self.policy.replay_reply(recorded);
        }
        let breaker = self.breakers.get_mut(record.target);
        let verdict = self.policy.replay(recorded, breaker.as_deref(), now);
        if let (Some(config), Some(breaker), true) =
            (self.policy.breaker(), breaker, passes(verdict.decision))
            && breaker.circuit(config, now.mono_ms) == Circuit::HalfOpen
        {
            breaker.admitted(config, now.mono_ms);
        }
        verdict
    }
}

fn refused(refusal: Refusal, decision: Decision) -> Judgement {
    Judgement { decision, rule: String::new(), why: refusal.detail.to_owned(), content_unknown: false }
}

/// What a configuration does not decide stays as it was.
fn as_recorded(record: &View<'_>, why: &str) -> Judgement {
    Judgement {
        decision: record.decision,
        rule: record.rule.to_owned(),
        why: why.to_owned(),
        content_unknown: false,
    }
}

fn why(record: &View<'_>, decision: Decision, rule: &str) -> String {
    if decision == record.decision {
        return String::new();
    }
    match decision {
        Decision::AuthzDenied if rule == "unknown_target" => "the target is not in `agents`".to_owned(),
        Decision::AuthzDenied if rule == "default_deny" => "no rule allows it".to_owned(),
        Decision::AuthzDenied => format!("{rule} denies it"),
        Decision::RateLimited => format!("{rule} is reached"),
        Decision::CircuitOpen => "the target's circuit is open".to_owned(),
        Decision::DlpBlocked => format!("{rule} blocks what was found"),
        Decision::DlpRedacted => "what was found is redacted".to_owned(),
        Decision::Alert => "what was found only alerts".to_owned(),
        Decision::Allowed => format!("{rule} allows it"),
        Decision::Unauthenticated | Decision::Refused | Decision::Event => rule.to_owned(),
    }
}

fn passes(decision: Decision) -> bool {
    matches!(decision, Decision::Allowed | Decision::Alert | Decision::DlpRedacted)
}

/// Said with each decision that rests on findings on record.
const UNKNOWN_CONTENT: &str =
    "payload not recorded: judged by the findings on record, new patterns cannot be";

fn write_change(
    out: &mut dyn Write,
    lane: &LaneId,
    record: &View<'_>,
    judged: &Judgement,
    as_json: bool,
) -> std::io::Result<()> {
    if as_json {
        let line = json!({
            "lane": lane.as_str(), "seq": record.seq, "time_us": record.time_us,
            "action": record.action.as_str(), "message_id": record.message_id.map(|id| id.to_string()),
            "sender": record.agent, "target": record.target, "message_type": record.message_type,
            "was": record.decision.as_str(), "was_rule": record.rule,
            "would_be": judged.decision.as_str(), "would_be_rule": judged.rule, "why": judged.why,
            "content": if judged.content_unknown { Some(UNKNOWN_CONTENT) } else { None },
        });
        return writeln!(out, "{line}");
    }
    let note = if judged.content_unknown { format!("  ({UNKNOWN_CONTENT})") } else { String::new() };
    writeln!(
        out,
        "{}  {} {} → {}: {} would be {}: {}{note}",
        time_text(record.time_us),
        record.action.as_str(),
        Plain(record.agent),
        Plain(record.target),
        record.decision.as_str(),
        judged.decision.as_str(),
        Plain(&judged.why),
    )
}

#[derive(Debug, Default)]
struct Summary {
    decisions: u64,
    changed: u64,
    content_unknown: u64,
    changes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Summary {
    fn count(&mut self, record: &View<'_>, judged: &Judgement) {
        self.decisions += 1;
        self.content_unknown += u64::from(judged.content_unknown);
        if judged.decision != record.decision {
            self.changed += 1;
            *self.changes.entry((record.decision.as_str(), judged.decision.as_str())).or_default() += 1;
        }
    }

    fn write(&self, out: &mut dyn Write, candidate: &Config, as_json: bool) -> std::io::Result<()> {
        if as_json {
            let changes: Vec<_> = self
                .changes
                .iter()
                .map(|((was, would_be), count)| json!({"was": was, "would_be": would_be, "count": count}))
                .collect();
            let line = json!({
                "decisions": self.decisions, "changed": self.changed, "changes": changes,
                "content_unknown": self.content_unknown, "policy_version": crate::ids::hex(&candidate.digest),
            });
            return writeln!(out, "{line}");
        }
        writeln!(out, "{} decisions, {} of them would be others", self.decisions, self.changed)?;
        for ((was, would_be), count) in &self.changes {
            writeln!(out, "  {was:<16} → {would_be:<16} {count:>10}")?;
        }
        if self.content_unknown > 0 {
            writeln!(
                out,
                "{} that pass rest on the findings on record: payloads are not recorded, so what new patterns would \
                 find in them is not known",
                self.content_unknown
            )?;
        }
        Ok(())
    }
}
