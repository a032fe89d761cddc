//! What to run and how.

use std::path::PathBuf;

use super::error::RunnerError;
use super::forward::{LineSink, std_sink};
use super::guard::Guard;
use super::stop_signal::StopSignal;
use crate::config::Config;

/// Environment variable that names the server's program.
pub const SERVER_BINARY_VARIABLE: &str = "MAS_SERVER_BIN";
/// Name of the server's program beside this one.
const SERVER_BINARY: &str = "mas-server";

/// What to run and how.
pub struct RunOptions {
    /// The configuration; the server reads its file again.
    pub config: Config,
    /// The server's program.
    pub server_binary: PathBuf,
    /// Worker threads of the server, in place of the configured number.
    pub threads: Option<usize>,
    /// Ends the start when asked to stop, and kills all children when asked to kill.
    pub stop: StopSignal,
    /// Takes the output of the children.
    pub sink: LineSink,
    /// Ends the children when this process is killed.
    pub guard: Guard,
}

impl RunOptions {
    /// With a guard, whose program is this one.
    pub fn guarded(self) -> Result<Self, RunnerError> {
        let program = this_program()?;
        Ok(Self { guard: Guard::start(&program, self.config.redis.managed.as_deref())?, ..self })
    }

    /// The defaults: the server's program from `MAS_SERVER_BIN` or beside this one, output to stdout
    /// and stderr, and a request to stop that no signal makes.
    pub fn new(config: Config) -> Result<Self, RunnerError> {
        Ok(Self {
            config,
            server_binary: server_binary()?,
            threads: None,
            stop: StopSignal::new(),
            sink: std_sink(),
            guard: Guard::default(),
        })
    }
}

/// The server's program: what `MAS_SERVER_BIN` names, else `mas-server` beside this program.
pub fn server_binary() -> Result<PathBuf, RunnerError> {
    if let Some(path) = std::env::var_os(SERVER_BINARY_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    Ok(this_program()?.with_file_name(SERVER_BINARY))
}

fn this_program() -> Result<PathBuf, RunnerError> {
    std::env::current_exe().map_err(|source| RunnerError::File {
        path: PathBuf::from("mas"),
        action: "cannot be found as the running program",
        source,
    })
}
