//! What a process has once: an authority and its certificates, the stand-in, and the real gate. The gate is replaced now
//! and then, so that its end is tried too, and what it remembers of strangers, who all share one account, does not shape
//! later inputs.

use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};

use super::life::{Ended, Events, Life};
use super::passport::Passport;
use super::stand_in::StandIn;
use crate::certs::{Authority, CustomLeaf, San, agent_uri};
use crate::config::Config;
use crate::gate::{self, Report};
use crate::ids::AgentId;

/// Connections of one agent at once: fewer than a script may open.
pub const MAX_EACH: usize = 4;
/// Days that the certificates are valid for.
const DAYS: u32 = 365;

pub struct Stage {
    config: Config,
    /// Two, to be renewed by turns.
    tls: [Arc<ServerConfig>; 2],
    turn: usize,
    authority: Authority,
    /// Certificates of those who are not let in, or name nobody.
    pub expired: Passport,
    pub nameless: Passport,
    pub foreign: Passport,
    pub nobody: Passport,
    pub stand_in: Arc<StandIn>,
    life: Option<Life>,
    at_rest: Option<(usize, usize)>,
    number: u64,
}

impl Stage {
    pub fn set() -> Self {
        // A write to a peer that has gone: Rust's own start, which a fuzz target does not have, ignores it too.
        let mut broken_pipe = SigSet::empty();
        broken_pipe.add(Signal::SIGPIPE);
        broken_pipe.thread_block().expect("a signal can be blocked");

        let folder = std::env::temp_dir().join(format!("mas-fuzz-gate-{}", std::process::id()));
        let authority = Authority::create(&folder.join("certs"), DAYS).expect("an authority");
        let other = Authority::create(&folder.join("other"), DAYS).expect("another");
        let _ = authority.issue_server(&["localhost".to_owned()], DAYS).expect("the server's certificate");
        let config = configuration(folder.join("mas.yaml"));
        let report = Arc::new(Report::default());
        let tls = [0; 2].map(|_| gate::load(&config, &report).expect("what was just made"));
        let ca = std::fs::read(folder.join("certs/ca.pem")).expect("what was just made");
        // All that is needed of them has been read.
        std::fs::remove_dir_all(&folder).expect("what was just made");

        let leaf = |agent: &str| CustomLeaf::client(vec![San::Uri(format!("spiffe://mas/agent/{agent}"))]);
        let nobody = Passport::without(&ca);
        let passport = |authority: &Authority, leaf| {
            let (cert, key) = authority.issue_custom(leaf).expect("a certificate");
            nobody.with(&cert, &key)
        };
        let past = OffsetDateTime::now_utc() - Duration::days(2);
        let expired = CustomLeaf { not_before: past, not_after: past + Duration::days(1), ..leaf("late") };
        Self {
            config,
            tls,
            turn: 0,
            expired: passport(&authority, expired),
            nameless: passport(&authority, CustomLeaf::client(Vec::new())),
            foreign: passport(&other, leaf("foreign")),
            nobody,
            authority,
            stand_in: Arc::new(StandIn::new()),
            life: None,
            at_rest: None,
            number: 0,
        }
    }

    /// A new agent whose name begins with that, and is on the list or not. Who was cut is turned away for a while: each
    /// input has its own.
    pub fn agent(&mut self, kind: &str, allowed: bool) -> AgentId {
        self.number += 1;
        let agent = AgentId::parse(&format!("{kind}{}", self.number)).expect("a valid name");
        if allowed {
            self.stand_in.allow(&agent, true);
        }
        agent
    }

    /// A new certificate for it.
    pub fn passport(&self, agent: &AgentId) -> Passport {
        let leaf = CustomLeaf::client(vec![San::Uri(agent_uri(agent))]);
        let (cert, key) = self.authority.issue_custom(leaf).expect("a certificate");
        self.nobody.with(&cert, &key)
    }

    /// The address of a gate that is open.
    pub fn open(&mut self) -> String {
        if self.life.as_ref().is_some_and(Life::is_spent) {
            let _ = self.close().map(Ended::end);
        }
        let mut life = self.life.take().unwrap_or_else(|| {
            let tls = self.tls[self.turn].clone();
            Life::begin(&self.config.limits, tls, self.stand_in.clone(), self.at_rest)
        });
        life.inputs += 1;
        let addr = life.addr.clone();
        self.at_rest = Some(life.at_rest());
        self.life = Some(life);
        addr
    }

    /// New handshakes use another configuration.
    pub fn renew(&mut self) {
        self.turn ^= 1;
        if let Some(life) = &self.life {
            life.renew(self.tls[self.turn].clone());
        }
    }

    /// Lets nobody in any more; what is left is to be ended.
    pub fn close(&mut self) -> Option<Ended> {
        self.life.take().map(Life::close)
    }

    /// What became of an input's agents: they are forgotten with it.
    pub fn over(&mut self, agents: &[AgentId], strangers_frames: usize, strangers_cut: bool) {
        agents.iter().for_each(|agent| self.stand_in.allow(agent, false));
        if let Some(life) = &mut self.life {
            life.strangers_did(strangers_frames, strangers_cut);
        }
    }

    /// Waits until nothing is left of an input's connections: what is on record of them.
    pub fn rest(&self) -> Events {
        self.life.as_ref().map_or_else(Events::new, Life::rest)
    }
}

fn configuration(path: PathBuf) -> Config {
    let text = format!(
        "tls_ca_path: certs/ca.pem\ntls_server_cert_path: certs/server.pem\n\
         tls_server_key_path: certs/server.key\nlimits:\n  max_connections_per_agent: {MAX_EACH}\n\
         agents: [{{agent_id: alpha}}]\n"
    );
    Config::parse(&path, &text).expect("a valid configuration")
}
