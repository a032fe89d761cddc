//! The files that `mas.yaml` names, looked at before any of them is in force: the same by `mas-server --check-config`, at start and by a
//! reload.

use std::sync::Arc;

use crate::certs::Revocations;
use crate::config::{Config, ConfigError};
use crate::gate;

/// Checks the files; returns what an operator should look at although they can be used.
pub fn check(config: &Config) -> Result<Vec<String>, ConfigError> {
    let _ = gate::load(config, &Arc::default())?;
    let mut warnings = gate::warnings(config);
    if let Some(path) = &config.tls.revoked {
        let list = Revocations::find(path).map_err(|error| config.error_at("tls_revoked_path", error))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if list.is_none() && folder.is_some_and(|folder| !folder.is_dir()) {
            warnings.push(format!("tls_revoked_path: the folder of {} is not there", path.display()));
        }
    }
    Ok(warnings)
}
