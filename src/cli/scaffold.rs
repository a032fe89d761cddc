//! A folder to run in: certificates and a configuration.

use std::error::Error;
use std::path::Path;

use crate::certs::{self, Authority};
use crate::ids::AgentId;

/// Makes certificates for `agents` and writes the configuration `text` to `config_path`.
pub(super) fn prepare(
    dir: &Path,
    config_path: &Path,
    text: &str,
    agents: &[&str],
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    let authority = Authority::open_or_create(&dir.join("certs"), certs::CA_DAYS)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    drop(authority.issue_server(&names, certs::LEAF_DAYS)?);
    for agent in agents {
        let agent = AgentId::parse(agent).ok_or("a bundled agent's name is no agent id")?;
        drop(authority.issue_agent(&agent, certs::LEAF_DAYS)?);
    }
    std::fs::write(config_path, text)?;
    Ok(())
}
