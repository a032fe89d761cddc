//! Who may send to whom. Deny by default; a deny rule wins over every allow rule; among several that
//! allow, the first in the file is the one on record.

use super::rule::Rule;
use super::verdict::{Verdict, allowed, denied};
use crate::config::Permission;
use crate::ids::{AgentId, AgentMap};

/// The compiled rules, by sender.
#[derive(Debug, Default)]
pub(super) struct Acl {
    senders: AgentMap<Outgoing>,
    /// Members of each full mesh. A mesh is kept as a set: writing out its pairs would be quadratic.
    meshes: AgentMap<Vec<u32>>,
}

/// Where one agent may send. Values are indexes into `permissions`.
#[derive(Debug, Default)]
struct Outgoing {
    allowed: AgentMap<u32>,
    denied: AgentMap<u32>,
    wildcard: Option<u32>,
}

impl Acl {
    pub(super) fn compile(permissions: &[Permission]) -> Self {
        let mut acl = Self::default();
        for (index, permission) in permissions.iter().enumerate() {
            // MAX_FILE_BYTES of the configuration bounds the number of rules far below u32::MAX.
            acl.add(index as u32, permission);
        }
        acl
    }

    fn add(&mut self, rule: u32, permission: &Permission) {
        match permission {
            Permission::AllowBidirectional { agents: [a, b] } => {
                self.allow(rule, a, b);
                self.allow(rule, b, a);
            }
            Permission::AllowNetwork { agents, bidirectional: true } => {
                for agent in agents {
                    let meshes = self.meshes.entry(agent.clone()).or_default();
                    if meshes.last() != Some(&rule) {
                        meshes.push(rule);
                    }
                }
            }
            Permission::AllowNetwork { agents, bidirectional: false } => {
                for (from, to) in agents.iter().zip(agents.iter().skip(1)) {
                    self.allow(rule, from, to);
                }
            }
            Permission::AllowBroadcast { sender, receivers } => {
                for receiver in receivers {
                    self.allow(rule, sender, receiver);
                }
            }
            Permission::AllowWildcard { agent_id } => {
                let _ = self.outgoing(agent_id).wildcard.get_or_insert(rule);
            }
            Permission::Allow { sender, targets } => {
                for target in targets {
                    self.allow(rule, sender, target);
                }
            }
            Permission::Deny { sender, targets } => {
                for target in targets {
                    let denied = &mut self.outgoing(sender).denied;
                    let _ = denied.entry(target.clone()).or_insert(rule);
                }
            }
        }
    }

    fn outgoing(&mut self, sender: &AgentId) -> &mut Outgoing {
        self.senders.entry(sender.clone()).or_default()
    }

    fn allow(&mut self, rule: u32, sender: &AgentId, target: &AgentId) {
        let allowed = &mut self.outgoing(sender).allowed;
        let _ = allowed.entry(target.clone()).or_insert(rule);
    }

    pub(super) fn check(&self, sender: &AgentId, target: &AgentId) -> Verdict {
        let outgoing = self.senders.get(sender);
        if let Some(rule) = outgoing.and_then(|o| o.denied.get(target)) {
            return denied(Rule::Permission(*rule));
        }
        let named = outgoing.and_then(|o| o.allowed.get(target).copied());
        let wildcard = outgoing.and_then(|o| o.wildcard);
        // A mesh gives no permission to message oneself.
        let mesh = if sender == target { None } else { self.common_mesh(sender, target) };
        match [named, wildcard, mesh].into_iter().flatten().min() {
            Some(rule) => allowed(Rule::Permission(rule)),
            None => denied(Rule::DefaultDeny),
        }
    }

    /// The first mesh that holds both. Both lists are sorted: rules are added in order.
    fn common_mesh(&self, a: &AgentId, b: &AgentId) -> Option<u32> {
        let (mut left, mut right) = (self.meshes.get(a)?.iter(), self.meshes.get(b)?.iter());
        let (mut x, mut y) = (left.next()?, right.next()?);
        loop {
            match x.cmp(y) {
                std::cmp::Ordering::Equal => return Some(*x),
                std::cmp::Ordering::Less => x = left.next()?,
                std::cmp::Ordering::Greater => y = right.next()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Decision;
    use proptest::prelude::*;

    fn agent(n: usize) -> AgentId {
        AgentId::parse(&format!("a{n}")).unwrap()
    }

    fn rule() -> impl Strategy<Value = Permission> {
        let id = || (0usize..5).prop_map(agent);
        let ids = || proptest::collection::vec((0usize..5).prop_map(agent), 0..4);
        prop_oneof![
            (id(), id()).prop_map(|(a, b)| Permission::AllowBidirectional { agents: [a, b] }),
            (ids(), any::<bool>())
                .prop_map(|(agents, bidirectional)| Permission::AllowNetwork { agents, bidirectional }),
            (id(), ids()).prop_map(|(sender, receivers)| Permission::AllowBroadcast { sender, receivers }),
            id().prop_map(|agent_id| Permission::AllowWildcard { agent_id }),
            (id(), ids()).prop_map(|(sender, targets)| Permission::Allow { sender, targets }),
            (id(), ids()).prop_map(|(sender, targets)| Permission::Deny { sender, targets }),
        ]
    }

    /// The rule's meaning, written out naively.
    fn allows(rule: &Permission, from: &AgentId, to: &AgentId) -> bool {
        match rule {
            Permission::AllowBidirectional { agents: [a, b] } => {
                (a == from && b == to) || (b == from && a == to)
            }
            Permission::AllowNetwork { agents, bidirectional: true } => {
                from != to && agents.contains(from) && agents.contains(to)
            }
            Permission::AllowNetwork { agents, bidirectional: false } => {
                agents.windows(2).any(|pair| &pair[0] == from && &pair[1] == to)
            }
            Permission::AllowBroadcast { sender, receivers } => sender == from && receivers.contains(to),
            Permission::AllowWildcard { agent_id } => agent_id == from,
            Permission::Allow { sender, targets } => sender == from && targets.contains(to),
            Permission::Deny { .. } => false,
        }
    }

    proptest! {
        #[test]
        fn the_compiled_rules_mean_what_the_listed_rules_mean(
            rules in proptest::collection::vec(rule(), 0..8), from in 0usize..5, to in 0usize..5
        ) {
            let (from, to) = (agent(from), agent(to));
            let denies = |rule: &Permission| {
                matches!(rule, Permission::Deny { sender, targets } if sender == &from && targets.contains(&to))
            };
            let expected = if let Some(at) = rules.iter().position(denies) {
                denied(Rule::Permission(at as u32))
            } else if let Some(at) = rules.iter().position(|rule| allows(rule, &from, &to)) {
                allowed(Rule::Permission(at as u32))
            } else {
                denied(Rule::DefaultDeny)
            };
            let verdict = Acl::compile(&rules).check(&from, &to);
            prop_assert_eq!((verdict.decision, verdict.rule), (expected.decision, expected.rule));
        }
    }

    #[test]
    fn without_rules_everything_is_denied() {
        let verdict = Acl::compile(&[]).check(&agent(0), &agent(1));
        assert_eq!(verdict.decision, Decision::AuthzDenied);
        assert_eq!(verdict.rule, Rule::DefaultDeny);
    }
}
