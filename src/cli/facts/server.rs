//! The running server, as its admin listener tells.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::cli::admin::{AdminArgs, Asker, Trouble};

/// Where its status is.
const STATUS: &str = "/api/v1/status";

/// Whether a server answers.
pub(in crate::cli) enum Server {
    /// It does.
    Told(Box<Told>),
    /// It does not, or refuses to.
    Silent(String),
    /// It is not known where to ask.
    NotAsked(String),
}

/// What it says.
pub(in crate::cli) struct Told {
    /// Its status.
    pub(in crate::cli) status: Json,
    /// How long it took to say so.
    pub(in crate::cli) took: Duration,
    /// For further questions.
    pub(in crate::cli) asker: Asker,
}

impl Server {
    /// Asks the server that the arguments name.
    pub(in crate::cli) fn look(args: &AdminArgs) -> Self {
        let asker = match args.asker() {
            Ok(asker) => asker,
            Err(trouble) => return Self::NotAsked(trouble.to_string()),
        };
        let started = Instant::now();
        match asker.json(STATUS) {
            Ok(status) => Self::Told(Box::new(Told { status, took: started.elapsed(), asker })),
            Err(Trouble::Usage(why)) => Self::NotAsked(why),
            Err(trouble) => Self::Silent(trouble.to_string()),
        }
    }

    /// What it says, where it does.
    pub(in crate::cli) fn told(&self) -> Option<&Told> {
        match self {
            Self::Told(told) => Some(told),
            Self::Silent(_) | Self::NotAsked(_) => None,
        }
    }

    /// Why it says nothing.
    pub(in crate::cli) fn why_not(&self) -> Option<&str> {
        match self {
            Self::Told(_) => None,
            Self::Silent(why) | Self::NotAsked(why) => Some(why),
        }
    }
}

/// An inbox as the server tells of it.
pub(in crate::cli) struct Inbox {
    /// Whose.
    pub(in crate::cli) agent: String,
    /// Messages in it, delivered ones that are not acknowledged included.
    pub(in crate::cli) queued: u64,
}

impl Told {
    /// A part of the status; null where it is missing.
    pub(in crate::cli) fn of(&self, name: &str) -> &Json {
        self.status.get(name).unwrap_or(&Json::Null)
    }

    /// A number of the part about Redis.
    pub(in crate::cli) fn redis_number(&self, name: &str) -> Option<u64> {
        self.of("redis").get(name)?.as_u64()
    }

    /// Whether it is ready.
    pub(in crate::cli) fn is_ready(&self) -> bool {
        self.of("ready").as_bool() == Some(true)
    }

    /// What keeps it from being ready: the check's name, and what it says.
    pub(in crate::cli) fn problems(&self) -> Vec<(String, String)> {
        let checks = self.of("checks").as_array().into_iter().flatten();
        checks
            .filter_map(|check| Some((word(check, "name"), check.get("problem")?.as_str()?.to_owned())))
            .collect()
    }

    /// What else does not work: its code, and why.
    pub(in crate::cli) fn troubles(&self) -> Vec<(String, String)> {
        let troubles = self.of("troubles").as_array().into_iter().flatten();
        troubles.map(|trouble| (word(trouble, "code"), word(trouble, "why"))).collect()
    }

    /// When the newest checkpoint was made, Unix milliseconds.
    pub(in crate::cli) fn checkpoint_ms(&self) -> Option<u64> {
        self.of("checkpoint_unix_ms").as_u64()
    }

    /// Its clock, Unix milliseconds.
    pub(in crate::cli) fn time_ms(&self) -> Option<u64> {
        self.of("time_unix_ms").as_u64()
    }

    /// Inboxes that are not empty.
    pub(in crate::cli) fn inboxes(&self) -> Vec<Inbox> {
        let inboxes = self.of("inboxes").as_array().into_iter().flatten();
        let number = |inbox: &Json, name: &str| inbox.get(name).and_then(Json::as_u64).unwrap_or(0);
        inboxes
            .map(|inbox| Inbox {
                agent: word(inbox, "agent"),
                queued: number(inbox, "waiting") + number(inbox, "delivered"),
            })
            .collect()
    }

    /// Who is shut out, and by whom and why.
    pub(in crate::cli) fn quarantine(&self) -> Vec<(String, String)> {
        let entries = self.of("quarantine").as_array().into_iter().flatten();
        entries.map(|entry| (word(entry, "whom"), word(entry, "by"))).collect()
    }

    /// Agents whose certificates end soon, or have ended, and when, Unix seconds.
    pub(in crate::cli) fn agents_certificates(&self) -> Vec<(String, i64)> {
        ends(self.of("agents_certificates_end_unix_s"))
    }

    /// When the certificates that it has loaded end, Unix seconds, by name.
    pub(in crate::cli) fn certificates(&self) -> Vec<(String, i64)> {
        ends(self.of("certificates_end_unix_s"))
    }
}

fn ends(by_name: &Json) -> Vec<(String, i64)> {
    let ends = by_name.as_object().into_iter().flatten();
    ends.filter_map(|(name, end)| Some((name.clone(), end.as_i64()?))).collect()
}

fn word(json: &Json, name: &str) -> String {
    json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned()
}
