//! Roles: named sets of permission patterns. A check costs one look-up per role and length of the
//! target's name, however many roles, patterns and agents there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::{Config, Pattern, parse_pattern};
use crate::ids::{AgentId, AgentMap};

#[derive(Debug, Default)]
struct Role {
    all: bool,
    prefixes: HashSet<String>,
    agents: HashSet<AgentId>,
}

impl Role {
    /// Patterns are checked with the configuration; what is none permits nothing.
    fn of(patterns: &[String]) -> Self {
        let mut role = Self::default();
        for pattern in patterns.iter().filter_map(|text| parse_pattern(text)) {
            match pattern {
                Pattern::All => role.all = true,
                Pattern::Prefix(prefix) => {
                    let _ = role.prefixes.insert(prefix);
                }
                Pattern::Agent(agent) => {
                    let _ = role.agents.insert(agent);
                }
            }
        }
        role
    }

    fn permits(&self, target: &AgentId) -> bool {
        let name = target.as_str();
        // An id is ASCII, so every length is a character boundary.
        let prefixed =
            || (1..=name.len()).any(|length| name.get(..length).is_some_and(|p| self.prefixes.contains(p)));
        self.all || self.agents.contains(target) || (!self.prefixes.is_empty() && prefixed())
    }
}

/// The roles of all agents.
#[derive(Debug, Default)]
pub(super) struct Roles {
    by_agent: AgentMap<Vec<Arc<Role>>>,
}

impl Roles {
    pub(super) fn compile(config: &Config) -> Self {
        let compiled: HashMap<&str, Arc<Role>> = config
            .roles
            .iter()
            .map(|(name, listed)| (name.as_str(), Arc::new(Role::of(&listed.permissions))))
            .collect();
        let roles_of =
            |names: &[String]| names.iter().filter_map(|name| compiled.get(name.as_str()).cloned()).collect();
        let by_agent = config
            .agents
            .values()
            .filter(|agent| !agent.roles.is_empty())
            .map(|agent| (agent.id.clone(), roles_of(&agent.roles)))
            .collect();
        Self { by_agent }
    }

    /// The place, in the sender's list, of the first role that permits it.
    pub(super) fn check(&self, sender: &AgentId, target: &AgentId) -> Option<u32> {
        let roles = self.by_agent.get(sender)?;
        roles.iter().position(|role| role.permits(target)).map(|place| place as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_role_permits_what_one_of_its_patterns_matches(
            stems in proptest::collection::vec("[ab-]{1,4}", 0..4), stars in proptest::collection::vec(any::<bool>(), 4),
            target in "[ab-]{1,6}"
        ) {
            let patterns: Vec<String> = stems.iter().zip(&stars)
                .map(|(stem, star)| format!("send:{stem}{}", if *star { "*" } else { "" })).collect();
            let expected = stems.iter().zip(&stars)
                .any(|(stem, star)| if *star { target.starts_with(stem) } else { &target == stem });
            prop_assert_eq!(Role::of(&patterns).permits(&AgentId::parse(&target).unwrap()), expected);
        }
    }

    #[test]
    fn a_star_alone_is_everybody() {
        assert!(Role::of(&["send:*".to_owned()]).permits(&AgentId::parse("anyone").unwrap()));
    }
}
