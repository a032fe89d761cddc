//! Which agents there are, who may send to whom, and who opens which sessions, for each pattern.

use crate::AnyError;
use crate::plan::{Pattern, SessionPlan};

/// What stands for the number in a pattern of names.
const NUMBER: &str = "{}";

/// Names of agents: a text with `{}` for the number.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) senders: String,
    pub(crate) receivers: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { senders: "s{}".to_owned(), receivers: "r{}".to_owned() }
    }
}

/// The agents of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    pub(crate) names: Vec<String>,
    /// Who may send to whom.
    pub(crate) rules: Vec<(String, Vec<String>)>,
    senders: Vec<(String, Vec<String>)>,
    receivers: Vec<String>,
}

impl Agents {
    /// `count` agents in all, arranged for `pattern`.
    ///
    /// # Errors
    /// When the count does not go with the pattern, in the user's words.
    pub(crate) fn new(pattern: Pattern, count: usize, names: &Names) -> Result<Self, AnyError> {
        let name = |pattern: &str, number: usize| pattern.replace(NUMBER, &number.to_string());
        let some = |template: &str, count: usize| -> Vec<String> {
            (0..count).map(|number| name(template, number)).collect()
        };
        let (senders, receivers) = match pattern {
            Pattern::Send | Pattern::Request => {
                if count < 2 || !count.is_multiple_of(2) {
                    return Err("--agents: this pattern has pairs: give an even number, at least 2".into());
                }
                (some(&names.senders, count / 2), some(&names.receivers, count / 2))
            }
            Pattern::FanIn | Pattern::FanOut if count < 2 => {
                return Err("--agents: this pattern needs at least 2".into());
            }
            Pattern::FanIn => (some(&names.senders, count - 1), some(&names.receivers, 1)),
            Pattern::FanOut => (some(&names.senders, 1), some(&names.receivers, count - 1)),
            Pattern::State | Pattern::Echo => (some(&names.senders, count.max(1)), Vec::new()),
        };
        let senders: Vec<(String, Vec<String>)> = senders
            .into_iter()
            .enumerate()
            .map(|(number, sender)| {
                let targets = match pattern {
                    Pattern::Send | Pattern::Request => receivers.get(number).cloned().into_iter().collect(),
                    Pattern::FanIn | Pattern::FanOut => receivers.clone(),
                    Pattern::State => Vec::new(),
                    Pattern::Echo => vec!["echo".to_owned()],
                };
                (sender, targets)
            })
            .collect();
        let mut all: Vec<String> = senders.iter().map(|(sender, _)| sender.clone()).collect();
        all.extend(receivers.iter().cloned());
        let mut distinct = all.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() != all.len() {
            return Err("--sender-name, --receiver-name: two agents would have the same name".into());
        }
        let rules = senders.iter().filter(|(_, targets)| !targets.is_empty()).cloned().collect();
        Ok(Self { names: all, rules, senders, receivers })
    }

    /// One active pair, and the names of `count` agents that only connect.
    pub(crate) fn pair_and_idle(count: usize) -> Result<(Self, Vec<String>), AnyError> {
        let mut agents = Self::new(Pattern::Send, 2, &Names::default())?;
        let idle: Vec<String> = (0..count).map(|number| format!("quiet-{number}")).collect();
        agents.names.extend(idle.iter().cloned());
        Ok((agents, idle))
    }

    /// Sending agents.
    pub(crate) fn senders(&self) -> usize {
        self.senders.len()
    }

    /// The sessions of `processes` client processes: `connections` for each sender, `instances` for each
    /// receiver, a connection each. `run` keeps the instances of one run apart from those of the one before,
    /// whose end the server may not have seen yet. Partners are in one process where they are as many.
    pub(crate) fn sessions(
        &self,
        processes: usize,
        connections: usize,
        instances: usize,
        run: usize,
    ) -> Vec<Vec<SessionPlan>> {
        let mut parts = vec![Vec::new(); processes.max(1)];
        let mut place = |number: usize, session: SessionPlan| {
            let part = number % parts.len().max(1);
            if let Some(part) = parts.get_mut(part) {
                part.push(session);
            }
        };
        for (number, (agent, targets)) in self.senders.iter().enumerate() {
            for connection in 0..connections {
                let instance = format!("load-{run}-{connection}");
                let (agent, targets) = (agent.clone(), targets.clone());
                // One sender's connections are spread: it may be the only one.
                place(number + connection, SessionPlan { agent, instance, targets, sends: true });
            }
        }
        for (number, agent) in self.receivers.iter().enumerate() {
            for instance in 0..instances {
                let (agent, instance_id) = (agent.clone(), format!("load-{run}-{instance}"));
                let session = SessionPlan { agent, instance: instance_id, targets: Vec::new(), sends: false };
                place(number + instance, session);
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }
}
