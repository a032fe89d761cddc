//! Dead letters put back or removed, each on record in the transaction that does it.

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::acting::{Acted, MAX_CONFLICTS, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::config::Config;
use crate::ids::AgentId;
use crate::store::Connection;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{self, Filter, Held, Letter, Origin};

/// Letters that are looked up in one step.
const STEP: usize = 16;
/// Ids that stand on record one by one.
const MAX_NAMED: usize = 50;
/// Letters that are dealt with where nobody says how many.
const DEFAULT_LIMIT: u64 = 1000;

/// Which letters are meant: either by id, or all that fit the filters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Their ids.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Every letter that there is now.
    #[serde(default)]
    pub all: bool,
    /// Letters of this agent's inbox.
    #[serde(default)]
    pub agent: Option<String>,
    /// Letters that died of this.
    #[serde(default)]
    pub died_of: Option<String>,
    /// The letter of this message.
    #[serde(default)]
    pub message: Option<String>,
    /// Died then or later, Unix milliseconds.
    #[serde(default)]
    pub from_ms: Option<u64>,
    /// Died then or earlier.
    #[serde(default)]
    pub to_ms: Option<u64>,
    /// Letters at most.
    #[serde(default = "default_limit")]
    pub limit: u64,
}

fn default_limit() -> u64 {
    DEFAULT_LIMIT
}

impl Wanted {
    /// The filters.
    pub fn filter(&self) -> Result<Filter, Trouble> {
        let agent = self.agent.as_deref().map(|name| {
            AgentId::parse(name).ok_or_else(|| Trouble::Usage(format!("{name:?} is no agent id")))
        });
        let message = self
            .message
            .as_deref()
            .map(|id| Uuid::parse_str(id).map_err(|_| Trouble::Usage(format!("{id:?} is no message id"))));
        Ok(Filter {
            agent: agent.transpose()?,
            reason: self.died_of.clone(),
            message: message.transpose()?,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
        })
    }

    /// In words, for the record.
    pub fn in_words(&self) -> String {
        let filters = [("agent", &self.agent), ("died_of", &self.died_of), ("message", &self.message)];
        let filters =
            filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        let times = [("from_ms", self.from_ms), ("to_ms", self.to_ms)];
        let times = times.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let named: Vec<String> =
            self.ids.iter().take(MAX_NAMED).cloned().chain(filters).chain(times).collect();
        let more = self.ids.len().saturating_sub(MAX_NAMED);
        let mut words = if named.is_empty() { "all".to_owned() } else { named.join(" ") };
        if more > 0 {
            words.push_str(&format!(" and {more} more"));
        }
        format!("{words}, at most {}", self.limit)
    }

    /// Ids and filters, where they say which letters are meant.
    pub fn chosen(&self) -> Result<(Vec<EntryId>, Filter), Trouble> {
        let filter = self.filter()?;
        let usage = |text: &str| Err(Trouble::Usage(text.to_owned()));
        match (self.ids.is_empty(), filter.is_empty(), self.all) {
            (true, true, false) => usage("which letters? Expected ids, filters, or --all"),
            (false, false, _) | (false, _, true) => usage("expected either ids, or filters or --all"),
            _ => {
                let unknown = |id: &String| Trouble::Usage(format!("{id:?} is no id of a dead letter"));
                let ids = self.ids.iter().map(|id| EntryId::parse(id).ok_or_else(|| unknown(id)));
                Ok((ids.collect::<Result<_, _>>()?, filter))
            }
        }
    }
}

/// Puts letters back.
pub(super) fn redrive(config: &Config, by: &By, wanted: &Wanted, say: Say<'_>) -> Result<Done, Trouble> {
    change(config, by, wanted, Action::Redriven, say)
}

/// Removes letters.
pub(super) fn drop_them(config: &Config, by: &By, wanted: &Wanted, say: Say<'_>) -> Result<Done, Trouble> {
    change(config, by, wanted, Action::Dropped, say)
}

fn change(config: &Config, by: &By, wanted: &Wanted, action: Action, say: Say<'_>) -> Result<Done, Trouble> {
    let (ids, filter) = wanted.chosen()?;
    let mut operator = Operator::connect(config, by)?;
    let mut letters = Letters::new(ids, filter, wanted.limit, &mut operator.connection)?;
    let mut done = Done::default();
    let ended = change_all(&mut operator, config, &mut letters, action, &mut done, say);
    // Also after a failure: what was done before it is covered.
    done.receipt = operator.close(config);
    done.more = letters.is_cut();
    ended.map(|()| done)
}

fn change_all(
    operator: &mut Operator,
    config: &Config,
    letters: &mut Letters,
    action: Action,
    done: &mut Done,
    say: Say<'_>,
) -> Result<(), Trouble> {
    while let Some(next) = letters.next(&mut operator.connection)? {
        let id = match &next {
            Ok(letter) => letter.id,
            Err(id) => *id,
        };
        match change_one(operator, config, id, action) {
            Ok(letter) => {
                done.done += 1;
                say(json!({
                    "id": id.to_string(), "message_id": letter.message_id().map(|id| id.to_string()),
                    "outcome": action.as_str(), "agent_id": letter.agent, "stream": letter.stream,
                }))?;
            }
            Err(Trouble::Refused(why)) => {
                done.failed += 1;
                say(json!({"id": id.to_string(), "outcome": "failed", "problem": why}))?;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// What the record says of a letter.
pub fn fields(letter: &Letter) -> Fields<'_> {
    Fields {
        message_id: letter.message_id(),
        attempt: letter.attempts,
        rule: &letter.reason,
        ..Fields::default()
    }
}

fn change_one(
    operator: &mut Operator,
    config: &Config,
    id: EntryId,
    action: Action,
) -> Result<Letter, Trouble> {
    let own = operator.name().to_owned();
    for _ in 0..MAX_CONFLICTS {
        let letter = match dead_letters::hold(&mut operator.connection, id, &own)? {
            Held::Ours(letter) => *letter,
            Held::Gone => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(Trouble::Refused("there is no such dead letter".to_owned()));
            }
            Held::Taken => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(Trouble::Refused("another operator deals with it right now".to_owned()));
            }
        };
        let acted = match action {
            Action::Redriven => put_back(operator, config, &letter),
            _ => {
                let mut fields = Fields { target: &letter.stream, ..fields(&letter) };
                if !letter.is_ours(&operator.keys) {
                    // No message of anybody's.
                    (fields.message_id, fields.rule) = (None, "not_written_by_a_server");
                }
                Ok(operator.act(action, &fields, |batch, _| dead_letters::remove(batch, id))?)
            }
        };
        match acted {
            Ok(Acted::Done(_)) => return Ok(letter),
            Ok(Acted::Conflict) => {}
            Err(refused @ Trouble::Refused(_)) => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(refused);
            }
            Err(other) => return Err(other),
        }
    }
    Err(Trouble::Refused("what it depends on keeps changing; try again".to_owned()))
}

fn put_back(operator: &mut Operator, config: &Config, letter: &Letter) -> Result<Acted, Trouble> {
    let refused = |why: String| Err(Trouble::Refused(why));
    if !letter.is_ours(&operator.keys) {
        return refused("no server has written it; `mas dlq drop` removes it".to_owned());
    }
    let max_len = config.limits.max_queue_len;
    let (stream, agent, instance) = match dead_letters::origin(&mut operator.connection, letter, max_len)? {
        Origin::Inbox { stream, agent, instance } => (stream, agent, instance),
        Origin::InstanceGone(instance) => {
            return refused(format!("it was for instance {instance} alone, which is gone"));
        }
        Origin::Full(len) => return refused(format!("the inbox holds {len} messages already")),
        Origin::Foreign(kind) => return refused(format!("the inbox's key holds a {kind}")),
        Origin::Unknown => return refused("it does not say which inbox it came from".to_owned()),
    };
    if !config.agents.contains_key(&agent) {
        return refused(format!("{agent} is not in `agents` any more"));
    }
    let servers = dead_letters::servers(&mut operator.connection)?;
    let fields = Fields {
        target: agent.as_str(),
        target_instance: instance.as_ref().map_or("", |instance| instance.as_str()),
        ..fields(letter)
    };
    let redriven = operator.act(Action::Redriven, &fields, |batch, on| {
        dead_letters::redrive(batch, (letter, &agent, &stream), &servers, on.keys, on.first());
    });
    Ok(redriven?)
}

/// The letters that a command is about, a few at a time.
#[derive(Debug)]
pub struct Letters {
    ids: std::vec::IntoIter<EntryId>,
    filter: Option<Filter>,
    after: Option<EntryId>,
    waiting: std::vec::IntoIter<Letter>,
    left: u64,
    ended: bool,
}

impl Letters {
    /// By id where there are ids, else by the filter.
    pub fn new(
        ids: Vec<EntryId>,
        mut filter: Filter,
        limit: u64,
        connection: &mut Connection,
    ) -> Result<Self, Trouble> {
        let by_id = !ids.is_empty();
        let mut ended = by_id;
        if !by_id {
            match dead_letters::newest(connection)? {
                // What is put back may die again while this goes on: it is not among those that were meant.
                Some(newest) => filter.to_ms = Some(filter.to_ms.map_or(newest.ms, |to| to.min(newest.ms))),
                None => ended = true,
            }
        }
        Ok(Self {
            ids: ids.into_iter(),
            filter: (!by_id).then_some(filter),
            after: None,
            waiting: Vec::new().into_iter(),
            left: limit,
            ended,
        })
    }

    /// Whether the limit left some out, as far as is known.
    pub fn is_cut(&self) -> bool {
        self.left == 0 && (!self.ended || self.waiting.len() > 0 || self.ids.len() > 0)
    }

    /// The next one, or the id of one that is not there.
    pub fn next(&mut self, connection: &mut Connection) -> Result<Option<Result<Letter, EntryId>>, Trouble> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if let Some(id) = self.ids.next() {
            return Ok(Some(dead_letters::letter(connection, id)?.ok_or(id)));
        }
        if let Some(letter) = self.waiting.next() {
            return Ok(Some(Ok(letter)));
        }
        let Some(filter) = self.filter.as_ref().filter(|_| !self.ended) else {
            return Ok(None);
        };
        let found = dead_letters::find(connection, filter, self.after, STEP)?;
        self.after = found.after;
        self.ended = found.after.is_none();
        self.waiting = found.letters.into_iter();
        Ok(self.waiting.next().map(Ok))
    }
}
