//! The rules that a command uses.

use std::path::Path;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::dlp::{Dlp, DlpConfig};

/// The rules of a configuration; without any, those of an empty one.
pub(super) fn rules(file: Option<&Path>) -> Result<Arc<Dlp>, String> {
    let named =
        file.is_some() || std::env::var_os(config::FILE_VARIABLE).is_some_and(|path| !path.is_empty());
    let path = match config::locate(file) {
        Ok(path) => path,
        Err(_) if !named => {
            let dlp = Dlp::compile(&DlpConfig::default()).map_err(|error| error.to_string())?;
            return Ok(Arc::new(dlp));
        }
        Err(error) => return Err(error.to_string()),
    };
    let config = Config::load(&path).map_err(|error| error.to_string())?;
    config.dlp.ok_or_else(|| format!("{}: gateway.features.dlp is off", path.display()))
}
