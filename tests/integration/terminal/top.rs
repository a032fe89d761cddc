//! A running server, live in a terminal, and for pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::Value as Json;

use super::{NOBODY, admin, said, said_of, world};
use crate::support::{Process, until};

/// A command on a terminal of its own.
struct OnTerminal {
    process: Process,
    screen: Arc<Mutex<Vec<u8>>>,
    master: std::fs::File,
    slave: OwnedFd,
    before: nix::sys::termios::Termios,
}

impl OnTerminal {
    fn start(mut command: std::process::Command) -> Self {
        let size = nix::pty::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env_remove("NO_COLOR");
        let process = Process::start(&mut command);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let master = std::fs::File::from(pty.master);
        let (mut reader, seen) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { process, screen, master, slave: pty.slave, before }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until something is shown, since it last forgot.
    fn shows(&self, what: &str) {
        until(what, || self.seen().contains(what));
    }

    /// Forgets what was shown.
    fn forget(&self) {
        self.screen.lock().unwrap().clear();
    }

    /// What follows is what it shows then.
    fn press(&mut self, keys: &str) {
        self.forget();
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, lines: u16) {
        self.forget();
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.slave, size).unwrap();
        // It is no session leader here, so the kernel tells it nothing.
        self.process.signal(Signal::SIGWINCH);
    }

    /// It has ended, and the terminal is as it was.
    #[track_caller]
    fn gave_back(&mut self) -> Option<i32> {
        let code = self.process.wait().code();
        until("the screen is back", || self.seen().ends_with("\x1b[?25h\x1b[?1049l"));
        let after = nix::sys::termios::tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        code
    }
}

#[test]
fn top_shows_a_running_server_and_gives_the_terminal_back() {
    let mut world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let args = ["top", "--admin", admin(&server), "--interval", "1s"];
    let mut top = OnTerminal::start(world.mas_command(&args));
    until("it is on another screen", || top.seen().contains("\x1b[?1049h\x1b[?25l"));
    top.shows("READY  server ");
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    assert!(alpha.send("a", "gamma", "{}").is_err());
    for what in ["alpha ", "beta ", "worker 0 ", "q quit", "2 sessions"] {
        top.shows(what);
    }
    // No line is wider than the terminal.
    top.resize(40, 10);
    top.shows("\x1b[H");
    top.press("w\x1b[Bp");
    top.shows("PAUSED");
    let last = top.seen().rsplit("\x1b[H").next().unwrap().to_owned();
    let lines: Vec<String> = last.split("\r\n").map(bare).collect();
    assert!(lines.len() <= 10, "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
    top.press("p");
    world.redis.kill();
    top.shows("NOT READY");
    top.press("q");
    assert_eq!(top.gave_back(), Some(0));

    // The same on a signal, and where the server goes away meanwhile.
    world.redis.resume();
    let mut top = OnTerminal::start(world.mas_command(&args));
    top.shows("server ");
    // It does not answer, and keys are heard all the same.
    server.halt();
    top.press("p");
    top.shows("PAUSED");
    top.press("p");
    top.forget();
    server.signal(Signal::SIGCONT);
    top.shows("worker 0 ");
    drop(server);
    top.shows("what follows is older");
    top.process.signal(Signal::SIGTERM);
    assert_eq!(top.gave_back(), Some(0));
    // Nothing is taken for a server that is not there.
    let gone = world.mas(&["top", "--admin", NOBODY]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(!said(&gone).contains('\x1b'));
}

/// Text without escape sequences.
fn bare(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once("\x1b[") {
        text.push_str(before);
        rest = behind.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    // The terminal adds one before each line feed.
    text.trim_end_matches('\r').to_owned()
}

#[test]
fn top_tells_pipes_what_metrics_say() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let text = said_of(&world, &["top", "--once", "--admin", admin(&server)]);
    assert!(text.starts_with("READY  server ") && !text.contains('\x1b'), "{text}");
    assert!(text.lines().any(|line| line.starts_with("alpha ")), "{text}");
    let mut command = world.mas_command(&["top", "--json", "--admin", admin(&server)]);
    let mut top = Process::start(command.stdout(Stdio::piped()));
    let lines = BufReader::new(top.child().stdout.take().unwrap()).lines();
    let counted = std::thread::spawn(move || {
        let mut views = lines.map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap());
        views.find(|view| {
            let rows = view["agents"].as_array().unwrap();
            rows.iter().any(|row| row["agent"] == "alpha" && row["sent_per_s"].as_f64().unwrap() > 0.0)
        })
    });
    until("a rate is shown", || {
        alpha.send("a", "beta", "{}").unwrap();
        counted.is_finished()
    });
    let view = counted.join().unwrap().unwrap();
    assert!(view["decided_per_s"].as_f64().unwrap() > 0.0, "{view}");
    assert_eq!(view["status"]["ready"], true);
}
