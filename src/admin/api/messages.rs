//! One message's life, by its id, by a correlation id, or by a receipt.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use super::records::correlation;
use crate::admin::http::Request;
use crate::audit::{Action, LaneId, View};
use crate::history::chain::{self, Step};
use crate::history::filter::Filter;
use crate::history::lookup;
use crate::history::search::{Query, search};
use crate::ids::{hex, unhex};
use crate::store::Connection;

/// Most steps of a chain that are shown.
const MAX_STEPS: usize = 1_000;
/// How long the search for a chain may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a message is asked for by.
enum By {
    Message(Uuid),
    Correlation([u8; 16]),
    Receipt(LaneId, u64),
}

impl By {
    fn parse(text: &str) -> Option<Self> {
        // Of 32 digits without hyphens: a correlation id.
        if let Some(id) = correlation(text) {
            return Some(Self::Correlation(id));
        }
        if let Ok(id) = Uuid::parse_str(text) {
            return Some(Self::Message(id));
        }
        let (lane, seq) = text.rsplit_once(':')?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        Some(Self::Receipt(LaneId::from_stored(lane), seq))
    }
}

/// `GET /api/v1/messages/ID`
pub(super) fn route(api: &Api, request: &Request, id: &str) -> Answered {
    let _ = Asked::of(request, &[])?;
    let by = By::parse(id).ok_or_else(|| {
        Problem::Asked(format!(
            "{id:?} is no message id, correlation id (32 hexadecimal digits) or receipt (LANE:SEQ)"
        ))
    })?;
    api.searches.run(&api.sources, |connection| {
        let mut chains = Chains { api, connection, give_up: Instant::now() + PATIENCE, cut: false };
        let missing = || Problem::Missing(format!("nothing is on record of {id}"));
        let message = match &by {
            By::Message(id) => *id,
            By::Correlation(id) => chains.asked_with(id)?.ok_or_else(missing)?,
            By::Receipt(lane, seq) => chains.on_record_at(lane, *seq)?.ok_or_else(missing)?,
        };
        let steps = chains.steps_of(message)?;
        let asked = steps.iter().find(|step| step.record.message_id == Some(message)).ok_or_else(missing)?;
        let related = match unhex(&asked.record.correlation_id).and_then(|id| <[u8; 16]>::try_from(id).ok()) {
            None => Vec::new(),
            Some(id) => chains.related(&id, message, asked.record.action == Action::Reply)?,
        };
        let json = |steps: &[Step]| steps.iter().map(chain::step_json).collect::<Vec<Json>>();
        Ok(json!({
            "message_id": message.to_string(), "state": chain::state(&steps), "chain": json(&steps),
            "related": json(&related), "cut": chains.cut,
        }))
    })
}

/// Looks steps up.
struct Chains<'a> {
    api: &'a Api,
    connection: &'a mut Connection,
    give_up: Instant,
    /// Some may be missing.
    cut: bool,
}

impl Chains<'_> {
    /// The records that fit, by time; `of` says which delivery each is about.
    fn collect(
        &mut self,
        query: &Query,
        of: impl Fn(&View<'_>) -> Option<u32>,
    ) -> Result<Vec<Step>, Problem> {
        let folders = self.api.archive_folders();
        let mut steps: Vec<Step> = Vec::new();
        let mut cursor = None;
        loop {
            let mut take = |lane: &LaneId, record: &View<'_>| {
                if let Some(attempt) = of(record) {
                    steps.push(Step { lane: lane.clone(), record: record.to_record(), attempt });
                }
            };
            let part = search(self.connection, &folders, query, (cursor.as_ref(), MAX_STEPS), &mut take)?;
            cursor = part.next;
            let is_late = Instant::now() >= self.give_up || steps.len() >= MAX_STEPS;
            if cursor.is_none() || is_late {
                self.cut |= cursor.is_some();
                break;
            }
        }
        steps.sort_by(|a, b| {
            (a.record.time_us, &a.lane, a.record.seq).cmp(&(b.record.time_us, &b.lane, b.record.seq))
        });
        // What was on its way from Redis to a file may have come twice.
        steps.dedup_by(|a, b| (&a.lane, a.record.seq) == (&b.lane, b.record.seq));
        Ok(steps)
    }

    fn steps_of(&mut self, message: Uuid) -> Result<Vec<Step>, Problem> {
        let filter = Filter { message_id: Some(message), ..Filter::default() };
        let query = Query { filter, oldest_first: true, ..Query::default() };
        self.collect(&query, |record| chain::about(record, message))
    }

    /// The message that was sent, or asked for, with this correlation id.
    fn asked_with(&mut self, id: &[u8; 16]) -> Result<Option<Uuid>, Problem> {
        let query = Query { correlation: Some(*id), oldest_first: true, ..Query::default() };
        let steps = self.collect(&query, |_| Some(0))?;
        let request = steps.iter().find(|step| step.record.action == Action::Request);
        Ok(request.or_else(|| steps.first()).and_then(|step| step.record.message_id))
    }

    fn on_record_at(&mut self, lane: &LaneId, seq: u64) -> Result<Option<Uuid>, Problem> {
        let found = lookup::record_at(self.connection, &self.api.archive_folders(), lane, seq)?;
        let view = found.as_ref().and_then(|(record, _)| View::decode(record));
        Ok(view.and_then(|view| view.message_id.or_else(|| view.messages.iter().next().map(|(id, _)| id))))
    }

    /// Records of other messages with the same correlation id.
    fn related(&mut self, id: &[u8; 16], message: Uuid, is_reply: bool) -> Result<Vec<Step>, Problem> {
        // A reply is made after its request, so the request is looked for from further back.
        let since_us = if is_reply { None } else { chain::made_after_us(message) };
        let query = Query { correlation: Some(*id), since_us, oldest_first: true, ..Query::default() };
        let text = hex(id);
        let mut related = self.collect(&query, |_| Some(0))?;
        related.retain(|step| step.record.message_id != Some(message) && step.record.correlation_id == text);
        Ok(related)
    }
}
