//! Agents in a process of their own, which can be killed and stopped: this test program again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::actors::{CALL_PATIENCE, Member, Place};
use super::crew;
use super::history::History;
use crate::support::{PATIENCE, Process};

/// Who lives in the process: agent and instance.
pub const INHABITANTS: [(&str, &str); 3] = [("r1", "i0"), ("r1", "i1"), ("s2", "i0")];

const CERTS: &str = "MAS_CAMPAIGN_CERTS";
const ADDRS: &str = "MAS_CAMPAIGN_ADDRS";
/// What a process says when all its messages have an outcome.
const IS_QUIET: &str = "is quiet";

pub struct AgentProcess {
    certs: PathBuf,
    addrs: String,
    history: Arc<History>,
    process: Process,
    /// Reads what it tells.
    ear: Option<JoinHandle<()>>,
    quiet: Receiver<()>,
}

impl AgentProcess {
    pub fn start(certs: &Path, place: &Place, history: Arc<History>) -> Self {
        let (certs, addrs) = (certs.to_path_buf(), place.addrs().join(","));
        let (process, ear, quiet) = spawn(&certs, &addrs, &history);
        Self { certs, addrs, history, process, ear: Some(ear), quiet }
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// kill -9, and the next one starts.
    pub fn kill(&mut self) {
        self.process.kill();
        self.ear.take().unwrap().join().unwrap();
        let (process, ear, quiet) = spawn(&self.certs, &self.addrs, &self.history);
        (self.process, self.ear, self.quiet) = (process, Some(ear), quiet);
    }

    /// No new messages; waits until the outcome of each is known.
    pub fn stop_sending(&mut self) {
        self.process.child().stdin.as_mut().unwrap().write_all(b"quiet\n").unwrap();
        self.quiet.recv_timeout(CALL_PATIENCE + PATIENCE).expect("the agents' process becomes quiet");
    }

    /// Ends it, and knows all it told.
    pub fn end(mut self) {
        drop(self.process.child().stdin.take());
        self.process.wait();
        self.ear.take().unwrap().join().unwrap();
    }
}

fn spawn(certs: &Path, addrs: &str, history: &Arc<History>) -> (Process, JoinHandle<()>, Receiver<()>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["campaign::agents_in_a_process", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CERTS, certs).env(ADDRS, addrs).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command);
    let stdout = BufReader::new(process.child().stdout.take().unwrap());
    let (says, quiet): (Sender<()>, _) = channel();
    let history = Arc::clone(history);
    let ear = std::thread::spawn(move || {
        // A line that cannot be read is the last of a process that was killed.
        for line in stdout.lines().map_while(Result::ok) {
            if line == IS_QUIET {
                let _ = says.send(());
            } else {
                history.hear(&line);
            }
        }
    });
    (process, ear, quiet)
}

/// What the process does, until its stdin ends.
pub fn live() {
    let (Ok(certs), Ok(addrs)) = (std::env::var(CERTS), std::env::var(ADDRS)) else {
        return;
    };
    // The test harness has begun a line.
    println!();
    let addrs: Vec<&str> = addrs.split(',').collect();
    let place = Place::new([addrs[0], addrs[1]]);
    let history = History::told();
    let members: Vec<Member> = INHABITANTS
        .iter()
        .enumerate()
        .map(|(n, (agent, instance))| {
            let seed = u64::from(std::process::id()) * 8 + n as u64;
            Member::new(Path::new(&certs), &place, agent, instance, seed)
        })
        .collect();
    crew::work(&members, &history, |crew| {
        let _ = std::io::stdin().lines().next();
        crew.stop_sending();
        println!("{IS_QUIET}");
        // Nothing more is said: this is the end.
        while std::io::stdin().lines().next().is_some() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
}
