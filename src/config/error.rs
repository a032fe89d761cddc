//! Why a configuration cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use super::place::KeyPath;

/// A configuration that cannot be used: names the file, the key, what was expected and the line.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct ConfigError {
    path: PathBuf,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(path: &Path, problem: impl fmt::Display) -> Self {
        Self { path: path.to_path_buf(), problem: problem.to_string() }
    }

    /// About the value of one key in a document that could be read.
    pub(super) fn at(path: &Path, text: &str, key: &KeyPath, problem: impl fmt::Display) -> Self {
        match key.line(text) {
            Some(line) => Self::new(path, format!("{key}: {problem} at line {line}")),
            None => Self::new(path, format!("{key}: {problem}")),
        }
    }
}
