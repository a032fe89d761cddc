//! Sessions that open, discovery, and refusals that were made before a worker was needed.

use std::sync::Arc;

use super::transaction::{Ruling, Success, Transaction, cut};
use crate::audit::{Action, Decision, Fields};
use crate::identity::Identity;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::{Kind, Refusal};
use crate::shard::desk::job::{Caller, RefusedJob};
use crate::shard::desk::session::Session;
use crate::store::keys;
use crate::store::news::News;
use crate::store::owners::owned_by;

impl Transaction<'_> {
    /// Opens a session, unless its instance has one anywhere.
    pub(super) fn open(&mut self, session: &Arc<Session>) -> Ruling {
        let agent = &session.identity.agent;
        let checked = self.check_open(session);
        let _ = self.record(
            Action::SessionOpen,
            if checked.is_ok() { Decision::Allowed } else { Decision::Refused },
            &Fields {
                agent: agent.as_str(),
                instance: session.instance.as_str(),
                fingerprint: &session.identity.fingerprint,
                reason: checked.err().map_or("", |refusal| refusal.detail),
                ..Fields::default()
            },
        );
        checked?;
        self.opening.push((agent.clone(), session.instance.clone()));
        for stream in [keys::inbox(agent), keys::instance_inbox(agent, &session.instance)] {
            let _ = self.effect("XGROUP").arg("CREATE").arg(stream).arg(keys::GROUP).arg("0").arg("MKSTREAM");
        }
        let _ = self.effect("HSET").arg(keys::agent(agent)).arg("status").arg("ACTIVE");
        let owner = owned_by(&self.shared.server);
        let _ = self.effect("HSET").arg(keys::instances(agent)).arg(session.instance.as_str()).arg(owner);
        let (agent, instance) = (agent.clone(), session.instance.clone());
        self.publish(&News::Opened(agent, instance, self.shared.server.clone()));
        Ok(Success::Opened)
    }

    fn check_open(&self, session: &Arc<Session>) -> Result<(), Refusal> {
        // On a connection that is about to end: what it were given would be lost with it.
        if self.shared.is_moving() {
            return Err(Refusal::SERVER_STOPPING);
        }
        let agent = &session.identity.agent;
        let inbox = self.inboxes.get(agent);
        let is_opening = |(a, i): &(AgentId, InstanceId)| a == agent && *i == session.instance;
        let taken = inbox.is_some_and(|inbox| inbox.consumer(&session.instance).is_some())
            || self.opening.iter().any(is_opening)
            || self.facts.presence.elsewhere(agent, &session.instance, &self.shared.server);
        if taken {
            return Err(Refusal::INSTANCE_ALREADY_CONNECTED);
        }
        let opening = self.opening.iter().filter(|(a, _)| a == agent).count();
        let open = inbox.map_or(0, |inbox| inbox.consumers().len()) + opening;
        if open >= self.settings.limits.max_sessions_per_agent {
            return Err(Refusal::TOO_MANY_SESSIONS);
        }
        self.check_identity(&session.identity)
    }

    /// Whether a certificate is still good, and its agent not shut out: it was checked on arrival, and may have run out or
    /// been revoked since.
    pub(super) fn check_identity(&self, identity: &Identity) -> Result<(), Refusal> {
        if !identity.is_current(self.now) {
            Err(Refusal::INVALID_CERTIFICATE)
        } else if !self.revoked.is_empty() && identity.is_revoked(&self.revoked) {
            Err(Refusal::CERTIFICATE_REVOKED)
        } else if self.settings.is_shut_out(&identity.agent, &self.quarantine) {
            Err(Refusal::QUARANTINED)
        } else {
            Ok(())
        }
    }

    /// The agents that the caller may message and that are connected.
    pub(super) fn discover(&mut self, caller: &Caller, capabilities: &[String]) -> Ruling {
        let identity = &caller.identity;
        let (settings, shared) = (&self.settings, self.shared);
        let connected = shared.listed.connected(&settings.listing, &shared.directory);
        let found = settings.listing.find(&settings.policy, &identity.agent, capabilities, &connected);
        let _ = self.record(
            Action::Discover,
            Decision::Allowed,
            &Fields {
                agent: identity.agent.as_str(),
                fingerprint: &identity.fingerprint,
                ..Fields::default()
            },
        );
        Ok(Success::Discovered(found))
    }

    /// Records a refusal that was made on arrival.
    pub(super) fn refused(&mut self, job: &RefusedJob) -> Ruling {
        let _ = self.record_counted(
            job.action,
            decision_of(job.refusal),
            &Fields {
                agent: cut(&job.agent),
                instance: cut(&job.instance),
                fingerprint: job.fingerprint.as_ref().map_or(&[], |f| f.as_slice()),
                target: cut(&job.target),
                message_type: cut(&job.message_type),
                reason: job.refusal.detail,
                ..Fields::default()
            },
        );
        Err(job.refusal)
    }

    /// Records that a caller's certificate is no good any more.
    pub(super) fn turn_away(&mut self, action: Action, caller: &Caller, refusal: Refusal) -> Ruling {
        let _ = self.record_counted(
            action,
            decision_of(refusal),
            &Fields {
                agent: caller.identity.agent.as_str(),
                instance: caller.instance.as_ref().map_or("", InstanceId::as_str),
                fingerprint: &caller.identity.fingerprint,
                reason: refusal.detail,
                ..Fields::default()
            },
        );
        Err(refusal)
    }
}

fn decision_of(refusal: Refusal) -> Decision {
    match refusal.kind {
        Kind::Unauthenticated => Decision::Unauthenticated,
        Kind::PermissionDenied => Decision::AuthzDenied,
        Kind::InvalidArgument
        | Kind::FailedPrecondition
        | Kind::ResourceExhausted
        | Kind::Aborted
        | Kind::Unavailable => Decision::Refused,
    }
}
