//! What the tests of the runner share.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::config::Restart;

/// Longer than anything that is waited for takes; only a failing test waits that long.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A configuration in `folder` with the certificate files that it names.
pub(super) fn config(folder: &Path, body: &str) -> Config {
    for name in ["ca.pem", "a.pem", "a.key"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let head = "tls_ca_path: ca.pem\ntls_server_cert_path: s.pem\ntls_server_key_path: s.key\n";
    let path = folder.join("mas.yaml");
    let text = format!("{head}{body}");
    std::fs::write(&path, &text).unwrap();
    Config::parse(&path, &text).unwrap()
}

/// Options over such a configuration.
pub(super) fn options(folder: &Path, body: &str) -> RunOptions {
    RunOptions {
        config: config(folder, body),
        server_binary: PathBuf::from("mas-server"),
        threads: None,
        stop: StopSignal::new(),
        sink: std_sink(),
        guard: Guard::default(),
    }
}

/// A child that runs a shell script.
pub(super) fn shell(label: &str, script: &str, restart: Restart) -> ChildSpec {
    ChildSpec {
        label: label.to_owned(),
        program: PathBuf::from("sh"),
        args: vec![OsString::from("-c"), OsString::from(script)],
        env: BTreeMap::new(),
        restart,
        announces_ready: false,
    }
}

/// A sink and the lines that arrive in it.
pub(super) fn collector() -> (LineSink, Lines) {
    let (sender, lines) = mpsc::channel();
    let sink: LineSink = Arc::new(move |stream, line: &[u8]| {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        drop(sender.send((stream, line)));
    });
    (sink, Lines(lines))
}

/// Lines that a test waits for.
pub(super) struct Lines(mpsc::Receiver<(Stream, String)>);

impl Lines {
    /// The next line.
    pub(super) fn next(&self) -> (Stream, String) {
        self.0.recv_timeout(SOON).expect("a line in time")
    }

    /// The next line that contains `part`.
    pub(super) fn next_with(&self, part: &str) -> String {
        loop {
            let (_, line) = self.next();
            if line.contains(part) {
                return line;
            }
        }
    }

    /// All lines that have arrived and were not taken.
    pub(super) fn rest(&self) -> Vec<String> {
        self.0.try_iter().map(|(_, line)| line).collect()
    }
}
