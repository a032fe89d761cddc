//! Certificates and private keys that a configuration names, or that lie where `mas certs` puts them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::certs::{self, Description};
use crate::config::Config;

/// Bits of a mode by which others than the owner and its group get at a file.
const OTHERS: u32 = 0o007;

/// One certificate.
pub(in crate::cli) struct Certificate {
    /// Whose: `ca`, `server`, `agent planner`, `operator ops`.
    pub(in crate::cli) whose: String,
    /// Where it is.
    pub(in crate::cli) path: PathBuf,
    /// What it says, or why it cannot be read.
    pub(in crate::cli) said: Result<Description, String>,
    /// Its private key.
    pub(in crate::cli) key: Option<PathBuf>,
    /// What is wrong with the file of the key.
    pub(in crate::cli) key_problem: Option<String>,
}

/// All of them: of the authority and the server, and those of agents and operators that are on this machine.
pub(in crate::cli) fn look(config: &Config) -> Vec<Certificate> {
    let mut found = vec![
        certificate("ca".to_owned(), &config.tls.ca, None),
        certificate("server".to_owned(), &config.tls.cert, Some(&config.tls.key)),
    ];
    let folder = config.tls.ca.parent().unwrap_or(Path::new("."));
    for agent in config.agents.values() {
        let there = certs::agent_files(folder, &agent.id);
        match (&agent.cert, &agent.key) {
            (Some(cert), key) => found.push(certificate(format!("agent {}", agent.id), cert, key.as_deref())),
            // Nobody has said that it should be here.
            (None, _) if there.cert.exists() => {
                let key = Some(&*there.key).filter(|key| key.exists());
                found.push(certificate(format!("agent {}", agent.id), &there.cert, key));
            }
            (None, _) => {}
        }
    }
    for operator in &config.operators {
        let there = certs::operator_files(folder, &operator.name);
        if there.cert.exists() {
            let key = Some(&*there.key).filter(|key| key.exists());
            found.push(certificate(format!("operator {}", operator.name), &there.cert, key));
        }
    }
    found
}

fn certificate(whose: String, path: &Path, key: Option<&Path>) -> Certificate {
    Certificate {
        whose,
        path: path.to_path_buf(),
        said: certs::describe(path).map_err(|error| error.to_string()),
        key: key.map(Path::to_path_buf),
        key_problem: key.and_then(|key| exposed(key, OTHERS)),
    }
}

/// Why a private key's file is not as it should be: it is missing, or its mode has one of these bits.
pub(in crate::cli) fn exposed(path: &Path, forbidden: u32) -> Option<String> {
    match std::fs::metadata(path) {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            (mode & forbidden != 0).then(|| format!("has mode {mode:o}: others can read or change it"))
        }
    }
}
