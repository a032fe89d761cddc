//! Which trail a command reads.

use std::path::PathBuf;

use clap::Args;

use super::trouble::Trouble;
use crate::audit::StoreKeys;
use crate::clock::Now;
use crate::config::Config;
use crate::history::source::{Files, Live, Source};
use crate::key_files::{StoreKeyFile, host_name};
use crate::store::Endpoint;

/// Which trail.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The configuration whose Redis holds the trail; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read this file, made by `mas audit export`, and not Redis; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub export: Vec<PathBuf>,
    /// Read the archived segments in this folder, too, before what is in Redis or in the files; else those of
    /// the configuration. Once for each folder, where several hosts have archived.
    #[arg(long, value_name = "DIR")]
    pub archive: Vec<PathBuf>,
    /// Read archived segments whole, and do not trust the lists of what is in them.
    #[arg(long)]
    pub no_index: bool,
    /// Do not look at the tags of what is in Redis: as somebody sees it who has no store key.
    #[arg(long)]
    pub no_store_key: bool,
}

impl SourceArgs {
    /// The trail that the arguments name. A configuration is read only where Redis is.
    pub(crate) fn open(&self, config: Option<&Config>) -> Result<Source, Trouble> {
        let files = Files {
            export: self.export.clone(),
            archive: self.archive_folders(config),
            no_index: self.no_index,
        };
        let (live, own) = match (self.export.is_empty(), config) {
            (false, _) => (None, String::new()),
            (true, None) => return Err(Trouble::Usage("no configuration, and no --export FILE".to_owned())),
            (true, Some(config)) => {
                let keys = if self.no_store_key { None } else { store_keys(config) };
                let dir = config.audit.archive().map(|dir| dir.display().to_string()).unwrap_or_default();
                let live = Live::new(Endpoint::new(&config.redis).open()?, keys);
                (Some(live), format!("{}:{dir}", host_name()))
            }
        };
        Ok(Source::open(files, live, &own)?)
    }

    /// Where archived segments are: as the arguments say, else, with what is in Redis, as the configuration does.
    fn archive_folders(&self, config: Option<&Config>) -> Vec<PathBuf> {
        if !self.archive.is_empty() || !self.export.is_empty() {
            return self.archive.clone();
        }
        config.map(|config| config.audit.archive_folders()).unwrap_or_default()
    }
}

/// The configuration that a command is about.
pub(super) fn config(args: &SourceArgs) -> Result<Config, Trouble> {
    Config::locate_and_load(args.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
}

/// The store keys of the configuration, where this user may read them.
fn store_keys(config: &Config) -> Option<StoreKeys> {
    match StoreKeyFile::new(&config.audit.store_key_path).load(Now::read().unix_us / 1000) {
        Ok(loaded) => loaded.map(|loaded| loaded.keys),
        Err(error) => {
            eprintln!("mas audit: {error}");
            None
        }
    }
}
