//! Dead letters in Redis: why each died, and, masked by the rules in force, what it says.

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use crate::admin::http::Request;
use crate::dlp::{Action, Dlp, Scratch};
use crate::ids::AgentId;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{self, Filter, Letter};
use crate::store::letter_pages::{self, Order};

/// Most letters of one answer, and how many there are where nothing is said.
const MAX_LIMIT: usize = 200;
const LIMIT: usize = 50;
/// Letters that are looked at for one answer.
const MAX_LOOKED_AT: usize = 10_000;

/// `GET /api/v1/dead-letters` and `GET /api/v1/dead-letters/ID`
pub(super) fn route(api: &Api, request: &Request, id: Option<&str>) -> Answered {
    match id {
        None => list(api, request),
        Some(id) => whole(api, request, id),
    }
}

fn list(api: &Api, request: &Request) -> Answered {
    let asked =
        Asked::of(request, &["agent", "reason", "message", "since", "until", "order", "limit", "cursor"])?;
    let order = match asked.text("order") {
        None | Some("newest") => Order::NewestFirst,
        Some("oldest") => Order::OldestFirst,
        Some(other) => return Err(Problem::Asked(format!("order={other:?}: expected newest or oldest"))),
    };
    let agent = match asked.text("agent") {
        None => None,
        Some(name) => Some(
            AgentId::parse(name).ok_or_else(|| Problem::Asked(format!("agent={name:?} is no agent id")))?,
        ),
    };
    let cursor = match asked.text("cursor") {
        None => None,
        Some(text) => {
            let wrong = || Problem::Asked("cursor is none that an answer has given as `next`".to_owned());
            Some(EntryId::parse(text).ok_or_else(wrong)?)
        }
    };
    let filter = Filter {
        agent,
        reason: asked.text("reason").map(str::to_owned),
        message: asked.parsed("message", "the id of a message")?,
        from_ms: asked.time("since")?.map(|us| us.div_ceil(1000)),
        // The filter's end is one of the times that fit.
        to_ms: asked.time("until")?.map(|us| us.div_ceil(1000).saturating_sub(1)),
    };
    let limit = asked.number("limit", 1..=MAX_LIMIT, LIMIT)?;
    let (found, total) = api.searches.run(&api.sources, |connection| {
        let found = letter_pages::look(connection, &filter, order, cursor, (limit, MAX_LOOKED_AT))?;
        Ok((found, letter_pages::count(connection)?))
    })?;
    let keys = api.store_keys();
    let letters = found.letters.iter().map(|letter| letter_json(letter, letter.is_ours(&keys)));
    Ok(json!({
        "letters": letters.collect::<Vec<_>>(), "looked_at": found.looked_at,
        "next": found.after.map(|id| id.to_string()), "total": total,
    }))
}

/// A letter without what it says.
fn letter_json(letter: &Letter, ours: bool) -> Json {
    json!({
        "id": letter.id.to_string(), "time_ms": letter.time_ms, "agent_id": letter.agent,
        "instance_id": letter.instance, "reason": letter.reason, "attempts": letter.attempts,
        "history": letter.history, "stream": letter.stream,
        "message_id": letter.message_id().map(|id| id.to_string()), "ours": ours,
    })
}

fn whole(api: &Api, request: &Request, id: &str) -> Answered {
    let _ = Asked::of(request, &[])?;
    let wrong = || Problem::Asked(format!("{id:?} is no id of a dead letter"));
    let entry = EntryId::parse(id).ok_or_else(wrong)?;
    let letter = api.searches.run(&api.sources, |connection| Ok(dead_letters::letter(connection, entry)?))?;
    let letter = letter.ok_or_else(|| Problem::Missing(format!("there is no dead letter {id} in Redis")))?;
    let reloaded = api.sources.reloaded();
    let Shown { envelope, masked, problem } = Shown::of(&letter, reloaded.config.dlp.as_deref());
    let mut json = letter_json(&letter, letter.is_ours(&api.store_keys()));
    if let Some(fields) = json.as_object_mut() {
        let _ = fields.insert("envelope".to_owned(), envelope);
        let _ = fields.insert("masked".to_owned(), masked.into());
        let _ = fields.insert("payload_problem".to_owned(), problem.into());
    }
    Ok(json)
}

/// A message as it may be shown.
struct Shown {
    envelope: Json,
    /// Whether anything was masked.
    masked: bool,
    /// Why the payload is left out.
    problem: Option<&'static str>,
}

impl Shown {
    fn of(letter: &Letter, dlp: Option<&Dlp>) -> Self {
        let text = letter.envelope.as_deref().unwrap_or_default();
        let Ok(Json::Object(mut envelope)) = serde_json::from_str::<Json>(text) else {
            let problem = Some("what stands there is no message of a server");
            return Self { envelope: Json::Null, masked: false, problem };
        };
        let message_type = envelope.get("message_type").and_then(Json::as_str).unwrap_or_default().to_owned();
        let data = envelope.get("data").map(Json::to_string).unwrap_or_default();
        let (data, masked, problem) = match mask(dlp, &message_type, &data) {
            Ok(None) => (None, false, None),
            Ok(Some(masked)) => (Some(masked), true, None),
            Err(why) => (Some(Json::Null), true, Some(why)),
        };
        if let Some(data) = data {
            let _ = envelope.insert("data".to_owned(), data);
        }
        Self { envelope: Json::Object(envelope), masked, problem }
    }
}

/// The payload without what the rules would block or redact; nothing, where it may be shown as it is.
fn mask(dlp: Option<&Dlp>, message_type: &str, data: &str) -> Result<Option<Json>, &'static str> {
    const UNSEARCHED: &str = "the payload cannot be searched as a whole: mas dlq show has it";
    let Some(dlp) = dlp else { return Ok(None) };
    let masking = dlp.masking().map_err(|_| "the rules of data-loss prevention could not be applied")?;
    let scan = masking.scan(message_type, data, &mut Scratch::new());
    if scan.truncated {
        return Err(UNSEARCHED);
    }
    match (scan.action, scan.redacted) {
        (Action::Allow | Action::Alert, _) => Ok(None),
        (_, Some(redacted)) => serde_json::from_str(&redacted).map(Some).map_err(|_| UNSEARCHED),
        (_, None) => Err("what the rules in force would block cannot be masked alone: mas dlq show has it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlp::DlpConfig;

    fn masked(rules: &str, data: &str) -> Result<Option<Json>, &'static str> {
        let config: DlpConfig = serde_yaml::from_str(rules).unwrap();
        mask(Some(&Dlp::compile(&config).unwrap()), "t", data)
    }

    #[test]
    fn what_would_be_blocked_or_redacted_is_masked_and_the_rest_is_not() {
        let text = r#"{"a":"123-45-6789","b":"fine"}"#;
        for action in ["block", "redact"] {
            let shown = masked(&format!("policy_overrides: {{ssn: {action}}}"), text).unwrap().unwrap();
            assert_eq!(shown["b"], "fine");
            assert!(!shown.to_string().contains("123-45"), "{shown}");
        }
        assert_eq!(masked("policy_overrides: {ssn: alert}", text), Ok(None));
        assert_eq!(masked("{}", r#"{"a":"nothing"}"#), Ok(None));
        assert_eq!(mask(None, "t", text), Ok(None));
        let own = "rules: [{id: x, type: y, pattern: 'secret-[0-9]+'}]";
        assert_eq!(
            masked(own, r#"{"k":"see secret-77 there"}"#).unwrap().unwrap()["k"],
            "see [REDACTED:y] there"
        );
    }
}
