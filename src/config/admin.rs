//! The admin listener (`admin_listen_addr`, `admin_socket_path`), and who may do what there (`operators`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::range::Problem;
use crate::ids::{MAX_OPERATOR_NAME_BYTES, is_operator_name};

/// Most operators.
const MAX_OPERATORS: usize = 1_000;

/// Where the admin listener is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminListen {
    /// Nothing is configured: at [`Self::DEFAULT_ADDR`], where that can be had.
    #[default]
    Default,
    /// `null`: nowhere.
    Off,
    /// There, or the server does not start.
    At(String),
}

impl AdminListen {
    /// `host:port` unless something else is configured.
    pub const DEFAULT_ADDR: &str = "127.0.0.1:9464";
}

impl<'de> Deserialize<'de> for AdminListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map_or(Self::Off, Self::At))
    }
}

/// Where the admin listener's unix socket is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminSocket {
    /// Nothing is configured: at [`Self::DEFAULT_PATH`], where that can be had.
    #[default]
    Default,
    /// `null`: nowhere.
    Off,
    /// There, or the server does not start.
    At(PathBuf),
}

impl AdminSocket {
    /// Beside the configuration unless something else is configured.
    pub const DEFAULT_PATH: &str = ".mas/admin.sock";

    /// Its path.
    pub fn path(&self, absolute: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::Default => Some(absolute(Path::new(Self::DEFAULT_PATH))),
            Self::At(path) => Some(absolute(path)),
        }
    }
}

impl<'de> Deserialize<'de> for AdminSocket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<PathBuf>::deserialize(deserializer)?.map_or(Self::Off, Self::At))
    }
}

/// The same, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocketAt {
    /// The file; `None`: nowhere.
    pub path: Option<PathBuf>,
    /// Whether the configuration names it: then the server does not start without it.
    pub asked: bool,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRole {
    /// See how the server and its agents are.
    Reader,
    /// Also change something.
    Operator,
    /// See how the server is, and everything that is on record; change nothing.
    Auditor,
}

impl OperatorRole {
    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

/// Somebody who operates the server, with a certificate of `spiffe://mas/operator/NAME`, or as a user of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The name in the certificate.
    pub name: String,
    /// What it may do.
    pub role: OperatorRole,
    /// The user of the host that is this operator at the unix socket.
    #[serde(default)]
    pub user: Option<String>,
}

pub(super) fn check(operators: &[Operator]) -> Result<(), (usize, Problem)> {
    for (at, operator) in operators.iter().enumerate() {
        if at >= MAX_OPERATORS {
            return Err((at, ("name", format!("expected at most {MAX_OPERATORS} operators"))));
        }
        if !is_operator_name(&operator.name) {
            let expected =
                format!("expected 1 to {MAX_OPERATOR_NAME_BYTES} letters, digits, '-', '_' or '.'");
            return Err((at, ("name", format!("is {:?}; {expected}", operator.name))));
        }
        if operators.iter().take(at).any(|other| other.name == operator.name) {
            return Err((at, ("name", format!("{:?} is there twice", operator.name))));
        }
        if operator.user.is_some() && operators.iter().take(at).any(|other| other.user == operator.user) {
            return Err((at, ("user", format!("{:?} is another operator already", operator.user))));
        }
    }
    Ok(())
}
