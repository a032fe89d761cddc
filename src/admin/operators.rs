//! Who operates the server: on addresses that others can reach, whoever shows a certificate of
//! `spiffe://mas/operator/NAME` whose name the configuration has; at the unix socket, whom the kernel names.

use std::sync::Arc;

use nix::unistd::Uid;
use rustls::ServerConfig;

use super::http::{Peer, Remote};
use crate::certs::Revocations;
use crate::clock::Now;
use crate::config::{Config, ConfigError, Operator, OperatorRole};
use crate::gate;
use crate::identity::OperatorIdentity;
use crate::operation::user_name;

/// Whom a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Somebody on this machine; may read.
    Local,
    /// The server's own user, or root, at the unix socket: may do what the file system lets them do anyway.
    Owner(String),
    /// An operator of the configuration.
    Operator(Operator),
}

impl Who {
    /// Whether it may see what is on record, and not only how the server is.
    pub(super) fn may_see_records(&self) -> bool {
        match self {
            Self::Local | Self::Owner(_) => true,
            Self::Operator(operator) => operator.role != OperatorRole::Reader,
        }
    }
}

/// Whoever reaches the listener must show a certificate of the CA.
pub(super) fn tls(config: &Config) -> Result<ServerConfig, ConfigError> {
    // What it refuses is no agent's business, and not counted as that.
    let loaded = gate::load(config, &Arc::default())?;
    Ok(ServerConfig::clone(&loaded))
}

/// Who is at the other end; the error is what it is told.
pub(super) fn who(
    peer: &Peer,
    operators: &[Operator],
    revoked: &Revocations,
    with_tls: bool,
) -> Result<Who, &'static str> {
    if let Remote::User(uid) = peer.remote {
        return user(uid, operators);
    }
    if !with_tls {
        return Ok(Who::Local);
    }
    let certificate = peer.certificate.as_ref().ok_or("a certificate is required")?;
    let identity = OperatorIdentity::from_der(certificate)
        .ok_or("the certificate does not name an operator: expected spiffe://mas/operator/NAME")?;
    if !identity.is_current(Now::read()) {
        return Err("the certificate is not within its dates");
    }
    if identity.is_revoked(revoked) {
        return Err("the certificate is revoked");
    }
    let found = operators.iter().find(|operator| operator.name == identity.name);
    found.cloned().map(Who::Operator).ok_or("the configuration does not name this operator (operators:)")
}

/// A user of this host: an operator whom the configuration says so of, else the server's own user or root.
fn user(uid: Uid, operators: &[Operator]) -> Result<Who, &'static str> {
    let name = user_name(uid);
    if let Some(operator) = operators.iter().find(|operator| operator.user.as_ref() == Some(&name)) {
        return Ok(Who::Operator(operator.clone()));
    }
    if uid.is_root() || uid == Uid::effective() {
        return Ok(Who::Owner(name));
    }
    Err("the configuration does not name an operator with this user (operators:)")
}
