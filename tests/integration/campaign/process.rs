//! Agents in a process of their own, which can be killed and stopped: this test program again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use super::actors::Member;
use super::crew;
use super::history::{History, now_us};
use super::place::Place;
use super::sending::CALL_PATIENCE;
use crate::support::{PATIENCE, Process};

/// Who lives in the process: agent and instance.
pub const INHABITANTS: [(&str, &str); 3] = [("r1", "i0"), ("r1", "i1"), ("s2", "i0")];

const CERTS: &str = "MAS_CAMPAIGN_CERTS";
const ADDRS: &str = "MAS_CAMPAIGN_ADDRS";
/// What the names of its instances end with.
const SUFFIX: &str = "MAS_CAMPAIGN_SUFFIX";
/// Orders, a line each. Nothing more is sent; everybody goes to one server; everybody goes where they like.
const QUIET: &str = "quiet";
const HOME: &str = "home ";
const ANYWHERE: &str = "anywhere";
/// Nobody ends a session without a reason; everybody may again.
const STAY: &str = "stay";
const ROAM: &str = "roam";
/// What a process says when all its messages have an outcome.
const IS_QUIET: &str = "is quiet";

pub struct AgentProcess {
    certs: PathBuf,
    addrs: String,
    /// How many came before under other names.
    generation: usize,
    history: Arc<History>,
    process: Process,
    /// Reads what it tells.
    ear: Option<JoinHandle<()>>,
    quiet: Receiver<()>,
}

impl AgentProcess {
    pub fn start(certs: &Path, place: &Place, history: Arc<History>) -> Self {
        let (certs, addrs) = (certs.to_path_buf(), place.addrs().join(","));
        let (process, ear, quiet) = spawn(&certs, &addrs, 0, &history);
        Self { certs, addrs, generation: 0, history, process, ear: Some(ear), quiet }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The instances of one of its agents.
    pub fn instances(&self, agent: &str) -> Vec<String> {
        let own = INHABITANTS.iter().filter(|(name, _)| *name == agent);
        own.map(|(_, instance)| format!("{instance}{}", suffix(self.generation))).collect()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// kill -9, and the next one starts.
    pub fn kill(&mut self) {
        let pid = self.process.pid();
        self.process.kill();
        self.history.note(|seen| seen.died.push((pid, now_us())));
        self.ear.take().unwrap().join().unwrap();
        let (process, ear, quiet) = spawn(&self.certs, &self.addrs, self.generation, &self.history);
        (self.process, self.ear, self.quiet) = (process, Some(ear), quiet);
    }

    /// kill -9, and others come: these instances never return.
    pub fn replace(&mut self) {
        self.generation += 1;
        self.kill();
    }

    fn order(&mut self, order: &str) {
        self.process.child().stdin.as_mut().unwrap().write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// Sends everybody to one server; `None` lets them choose again.
    pub fn set_home(&mut self, home: Option<usize>) {
        self.order(&home.map_or(ANYWHERE.to_owned(), |home| format!("{HOME}{home}")));
    }

    /// Lets nobody end a session without a reason, or lets all do so again.
    pub fn set_staying(&mut self, staying: bool) {
        self.order(if staying { STAY } else { ROAM });
    }

    /// No new messages; waits until the outcome of each is known.
    pub fn stop_sending(&mut self) {
        self.order(QUIET);
        self.quiet.recv_timeout(CALL_PATIENCE + PATIENCE).expect("the agents' process becomes quiet");
    }

    /// Ends it, and knows all it told.
    pub fn end(mut self) {
        drop(self.process.child().stdin.take());
        self.process.wait();
        self.ear.take().unwrap().join().unwrap();
    }
}

fn suffix(generation: usize) -> String {
    if generation == 0 { String::new() } else { format!("g{generation}") }
}

fn spawn(
    certs: &Path,
    addrs: &str,
    generation: usize,
    history: &Arc<History>,
) -> (Process, JoinHandle<()>, Receiver<()>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["campaign::agents_in_a_process", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CERTS, certs).env(ADDRS, addrs).env(SUFFIX, suffix(generation));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
    let suffix = std::env::var(SUFFIX).unwrap_or_default();
    let addrs: Vec<&str> = addrs.split(',').collect();
    let place = Place::new([addrs[0], addrs[1]]);
    let history = History::told();
    let members: Vec<Member> = INHABITANTS
        .iter()
        .enumerate()
        .map(|(n, (agent, instance))| {
            let seed = u64::from(std::process::id()) * 8 + n as u64;
            Member::new(Path::new(&certs), &place, agent, &format!("{instance}{suffix}"), seed)
        })
        .collect();
    crew::work(&members, &history, |crew| {
        // When nothing more is said, this is the end.
        for order in std::io::stdin().lines().map_while(Result::ok) {
            if order == QUIET {
                crew.stop_sending();
                println!("{IS_QUIET}");
            } else if order == STAY || order == ROAM {
                place.set_staying(order == STAY);
            } else if order == ANYWHERE {
                place.set_home(None);
            } else if let Some(home) = order.strip_prefix(HOME) {
                place.set_home(Some(home.parse().unwrap()));
            }
        }
    });
}
