//! `mas.yaml`: found, read, parsed and checked once; what leaves this module is valid.
//!
//! `file` holds the document's shape (every key, unknown ones refused). `resolve` makes it the
//! [`Config`] that the rest of the program sees: paths resolved against the file's folder, ids parsed,
//! rules cross-checked. `place` finds the line of what is wrong.

mod admin;
mod audit;
mod breaker;
mod error;
mod file;
mod model;
mod next_start;
mod place;
mod range;
mod redis;
mod resolve;
mod roles;
mod same_files;
mod telemetry;
mod text;
mod unique;

use std::path::{Path, PathBuf};

pub(crate) use place::KeyPath;

pub use self::redis::{Durability, RedisTls, Sentinel};
pub use admin::{AdminListen, AdminSocket, AdminSocketAt, Operator, OperatorRole};
pub use audit::{Audit, TrustedLog};
pub use breaker::BreakerConfig;
pub use error::ConfigError;
pub use file::{Delivery, Features, Limits, Permission, Restart};
pub use model::{Agent, Config, MANAGED_SOCKET, MAX_AGENTS, MAX_INSTANCES, MAX_SPIN_US, Program, Redis, Tls};
pub use roles::{Pattern, Role, parse_pattern};
pub use telemetry::Telemetry;

/// Name of the configuration file that is searched upward from the working directory.
pub const FILE_NAME: &str = "mas.yaml";
/// Environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "MAS_CONFIG_FILE";
impl Config {
    /// Reads the file named by `explicit`, else by `MAS_CONFIG_FILE`, else the nearest `mas.yaml` upward
    /// from the working directory.
    pub fn locate_and_load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load(&locate(explicit)?)
    }

    /// Reads and checks one file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError::new(path, problem);
        let text = text::read(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
        Self::parse(path, &text)
    }

    /// Checks `text` as the content of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = file::parse(text).map_err(|problem| ConfigError::new(path, problem))?;
        resolve::resolve(path, text, file)
    }
}

/// Finds the configuration file without reading it.
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = explicit {
        return Ok(path.to_path_buf());
    }
    if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|p| !p.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_dir()
        .map_err(|e| ConfigError::new(Path::new("."), format!("no working directory: {e}")))?;
    here.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file()).ok_or_else(|| {
        ConfigError::new(&here, format!("no {FILE_NAME} here or in any folder above; name one with --config"))
    })
}

#[cfg(test)]
mod tests;
