//! Dead letters as operators are shown them: what each died of, and, masked by the rules in force, what it says.

use serde_json::{Value as Json, json};

use crate::dlp::{Action, Dlp, Scratch};
use crate::store::dead_letters::Letter;

/// How much of a letter is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// All but what it says.
    Short,
    /// What it says, masked by the rules in force.
    Masked,
    /// All of it.
    Whole,
}

impl Shows {
    /// With what it says, as it was asked for.
    pub fn whole(unmasked: bool) -> Self {
        if unmasked { Self::Whole } else { Self::Masked }
    }
}

/// A letter, as much of it as is shown.
pub fn shown(letter: &Letter, shows: Shows, dlp: Option<&Dlp>) -> Json {
    match shows {
        Shows::Short => letter_json(letter),
        Shows::Masked => masked_json(letter, dlp),
        Shows::Whole => whole_json(letter),
    }
}

/// A letter without what it says.
pub fn letter_json(letter: &Letter) -> Json {
    json!({
        "id": letter.id.to_string(), "time_ms": letter.time_ms, "agent_id": letter.agent,
        "instance_id": letter.instance, "reason": letter.reason, "attempts": letter.attempts,
        "history": letter.history, "stream": letter.stream,
        "message_id": letter.message_id().map(|id| id.to_string()),
    })
}

/// A letter with all that it says.
fn whole_json(letter: &Letter) -> Json {
    let text = letter.envelope.as_deref().unwrap_or_default();
    // What is no JSON (a foreign writer's) is shown as text.
    let envelope = serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    with(letter_json(letter), [("envelope", envelope)])
}

/// A letter with what it says, masked.
pub fn masked_json(letter: &Letter, dlp: Option<&Dlp>) -> Json {
    let Shown { envelope, masked, problem } = Shown::of(letter, dlp);
    let fields = [("envelope", envelope), ("masked", masked.into()), ("payload_problem", problem.into())];
    with(letter_json(letter), fields)
}

/// An object with further fields.
pub fn with<const N: usize>(mut json: Json, more: [(&str, Json); N]) -> Json {
    if let Some(fields) = json.as_object_mut() {
        fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    json
}

/// A message as it may be shown.
pub struct Shown {
    /// The message; null where it is none.
    pub envelope: Json,
    /// Whether anything was masked.
    pub masked: bool,
    /// Why the payload is left out.
    pub problem: Option<&'static str>,
}

impl Shown {
    /// Masks what the rules would block or redact.
    pub fn of(letter: &Letter, dlp: Option<&Dlp>) -> Self {
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
    const UNSEARCHED: &str = "the payload cannot be searched as a whole: mas dlq show --unmasked has it";
    let Some(dlp) = dlp else { return Ok(None) };
    let scan = dlp.masking().scan(message_type, data, &mut Scratch::new());
    if scan.truncated {
        return Err(UNSEARCHED);
    }
    match (scan.action, scan.redacted) {
        (Action::Allow | Action::Alert, _) => Ok(None),
        (_, Some(redacted)) => serde_json::from_str(&redacted).map(Some).map_err(|_| UNSEARCHED),
        (_, None) => {
            Err("what the rules in force would block cannot be masked alone: mas dlq show --unmasked has it")
        }
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
        let text = r#"{"ssn":"123-45-6789","b":"fine"}"#;
        for action in ["block", "redact"] {
            let shown = masked(&format!("policy_overrides: {{ssn: {action}}}"), text).unwrap().unwrap();
            assert_eq!(shown["b"], "fine");
            // As a redaction of messages has it: the last four digits stay.
            assert!(!shown.to_string().contains("123"), "{shown}");
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
