//! `mas top`: a running server, live in the terminal.

mod reading;
mod screen;
mod terminal;

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;

use super::admin::{self, AdminArgs, Asker, Trouble};
use super::exit::Exit;
use super::text::{parse_span_ms, plain};
use reading::{Reading, View};
use screen::{Line, Sort, Style};
use terminal::{Event, Key, Terminal};

const HELP: &str = "\
Keys: q ends it, p stops the picture and lets it go on, arrows and page keys move through the agents.
Agents by: s sent, r refused, d delivered, f failed, w waiting, c connected, n name.
Where standard output is no terminal, one picture is printed, as with --once. NO_COLOR turns colours off.

Rates are of the time between two looks, queue delay and commit time are means over it. Counts are of the server that is asked; what waits
is of all servers.

Examples:
  mas top
  mas top --admin 127.0.0.1:9464 --interval 5s --sort waiting
  mas top --once
  mas top --json | jq -c '[.decided_per_s, .refused_per_s]'";

/// Shortest time between two looks.
const MIN_INTERVAL_MS: u64 = 100;
/// How often it is looked whether the server has answered, while keys are waited for.
const LOOK: Duration = Duration::from_millis(100);
/// Lines below the agents.
const FOOT_LINES: usize = 1;

/// Arguments of `mas top`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Time between two looks, as 2s or 1m.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// By what agents are sorted at first.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Look twice, print what happened between, and end.
    #[arg(long)]
    once: bool,
    /// One JSON object for each look, instead of a picture.
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_span_ms(text) {
        Some(ms) if ms >= MIN_INTERVAL_MS => Ok(Duration::from_millis(ms)),
        _ => Err("expected a time: 1s, 30s, 5m".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &TopArgs) -> Exit {
    admin::exit("top", look(args))
}

fn look(args: &TopArgs) -> Result<Exit, Trouble> {
    let asker = args.admin.asker()?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.json || args.once || !is_terminal {
        return print(args, &asker);
    }
    live(args, asker)
}

/// For pipes.
fn print(args: &TopArgs, asker: &Asker) -> Result<Exit, Trouble> {
    let mut before = Reading::take(asker)?;
    loop {
        std::thread::sleep(args.interval);
        let now = Reading::take(asker)?;
        let mut view = View::between(Some(&before), &now);
        args.sort.sort(&mut view.rows);
        let mut out = io::stdout().lock();
        if args.json {
            writeln!(out, "{}", view.json(&now.status))?;
        } else {
            for (_, line) in screen::head(&view, &now.status).into_iter().chain(screen::agents(&view.rows)) {
                writeln!(out, "{line}")?;
            }
        }
        out.flush()?;
        if args.once || !args.json {
            return Ok(Exit::Done);
        }
        before = now;
    }
}

/// The picture and how it is looked at.
struct Picture {
    sort: Sort,
    /// Agents above the first that is shown.
    skipped: usize,
    paused: bool,
    colours: bool,
    head: Vec<Line>,
    view: View,
    /// Why there is nothing newer.
    problem: Option<String>,
}

/// Asks the server on a thread of its own: keys are heard while it does not answer.
struct Looker {
    ask: SyncSender<()>,
    told: Receiver<Result<Reading, Trouble>>,
    /// Whether it was asked and has not answered.
    is_asked: bool,
}

impl Looker {
    fn start(asker: Asker) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let (tell, told) = sync_channel(1);
        let run = move || {
            // It ends with whoever asks.
            while asked.recv().is_ok() && tell.send(Reading::take(&asker)).is_ok() {}
        };
        drop(std::thread::Builder::new().name("top-looker".to_owned()).spawn(run)?);
        Ok(Self { ask, told, is_asked: false })
    }

    fn ask(&mut self) {
        // The channel is empty: it was not asked.
        self.is_asked = self.ask.try_send(()).is_ok();
    }

    fn answer(&mut self) -> Option<Result<Reading, Trouble>> {
        let answer = self.told.try_recv().ok()?;
        self.is_asked = false;
        Some(answer)
    }
}

fn live(args: &TopArgs, asker: Asker) -> Result<Exit, Trouble> {
    // Nothing is taken from the terminal for a server that is not there.
    let mut last = Reading::take(&asker)?;
    let mut looker = Looker::start(asker)?;
    let mut terminal = Terminal::enter()?;
    let mut picture = Picture {
        sort: args.sort,
        skipped: 0,
        paused: false,
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        head: Vec::new(),
        view: View::default(),
        problem: None,
    };
    picture.take(None, &last);
    picture.draw(&terminal)?;
    let mut due = Instant::now() + args.interval;
    loop {
        let until = if looker.is_asked { Instant::now() + LOOK } else { due };
        match terminal.wait(until)? {
            Event::End | Event::Key(Key::Letter('q' | 'Q')) => return Ok(Exit::Done),
            Event::Key(key) => picture.press(key, terminal.size().1),
            Event::Changed => {}
            Event::TimeUp => match looker.answer() {
                Some(answer) => {
                    due = Instant::now() + args.interval;
                    match answer {
                        Ok(now) => {
                            picture.take(Some(&last), &now);
                            last = now;
                        }
                        Err(trouble) => picture.problem = Some(trouble.to_string()),
                    }
                }
                None if looker.is_asked => continue,
                None if picture.paused => {
                    due = Instant::now() + args.interval;
                    continue;
                }
                None => {
                    looker.ask();
                    due = Instant::now() + args.interval;
                    continue;
                }
            },
        }
        picture.draw(&terminal)?;
    }
}

impl Picture {
    fn take(&mut self, before: Option<&Reading>, now: &Reading) {
        self.view = View::between(before, now);
        self.head = screen::head(&self.view, &now.status);
        self.problem = None;
    }

    fn press(&mut self, key: Key, lines: usize) {
        let page = lines.saturating_sub(self.head.len() + FOOT_LINES + 2).max(1);
        match key {
            Key::Letter('p') => self.paused = !self.paused,
            Key::Up | Key::Letter('k') => self.skipped = self.skipped.saturating_sub(1),
            Key::Down | Key::Letter('j') => self.skipped += 1,
            Key::PageUp => self.skipped = self.skipped.saturating_sub(page),
            Key::PageDown => self.skipped += page,
            Key::Letter(letter) => {
                if let Some(sort) = Sort::of_key(letter) {
                    (self.sort, self.skipped) = (sort, 0);
                }
            }
        }
        self.skipped = self.skipped.min(self.view.rows.len().saturating_sub(1));
    }

    fn draw(&mut self, terminal: &Terminal) -> io::Result<()> {
        let (width, height) = terminal.size();
        self.sort.sort(&mut self.view.rows);
        let mut lines: Vec<Line> = Vec::new();
        if let Some(problem) = &self.problem {
            lines.push((Style::Alarm, format!("what follows is older: {}", plain(problem))));
        }
        lines.extend(self.head.iter().cloned());
        let skipped = self.skipped.min(self.view.rows.len());
        lines.extend(screen::agents(self.view.rows.get(skipped..).unwrap_or_default()));
        lines.truncate(height.saturating_sub(FOOT_LINES));
        let state = if self.paused { "PAUSED  " } else { "" };
        let foot = format!(
            "{state}q quit  p pause  by: s sent r refused d delivered f failed w waiting c connected n name"
        );
        lines.push((Style::Heading, foot));
        let drawn: Vec<String> = lines.iter().map(|line| screen::drawn(line, width, self.colours)).collect();
        terminal.show(&drawn)
    }
}
