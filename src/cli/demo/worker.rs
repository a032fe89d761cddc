//! The demo's worker: one process of two. It adds numbers and reports what it was given.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::exit::Exit;
use mas_agent::Agent;

/// How long a slow task takes: long enough to be killed in the middle.
const SLOW: Duration = Duration::from_secs(2);

/// Messages after which a flood gives up: far more than its limit.
const MAX_FLOOD: u32 = 2000;

/// A request to add.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Add {
    pub a: i64,
    pub b: i64,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sum {
    pub sum: i64,
}

/// Something to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub number: u32,
    pub slow: bool,
}

/// What a worker says of a task: begun, or done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub number: u32,
    pub instance: String,
    pub pid: u32,
}

/// The process: connects by its environment, works until it is told to stop.
pub fn run() -> Exit {
    match serve() {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("demo worker: {error}");
            Exit::Failed
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let instance = std::env::var("MAS_INSTANCE_ID")?;
    let agent = Agent::builder_from_env()?
        .on("add", |message, add: Add| {
            let sum = add.a.checked_add(add.b).ok_or_else(|| mas_agent::HandlerError::reject("overflow"))?;
            message.reply("sum", &Sum { sum })?;
            Ok(())
        })
        .on("echo", |message, data: serde_json::Value| {
            message.reply("echo", &data)?;
            Ok(())
        })
        .on("fail", |_, _: serde_json::Value| Err(mas_agent::HandlerError::reject("handler_error:Demo")))
        .on("ignored", |_, _: serde_json::Value| Ok(()))
        .on("flood", |message, _: serde_json::Value| {
            let mut sent = 0;
            let refusal = loop {
                match message.send("planner", "noise", &serde_json::json!({})) {
                    Ok(_) => sent += 1,
                    Err(error) => break error.detail().unwrap_or("no detail").to_owned(),
                }
                if sent == MAX_FLOOD {
                    break String::new();
                }
            };
            message.reply("flooded", &serde_json::json!({"sent": sent, "refusal": refusal}))?;
            Ok(())
        })
        .on("task", move |message, task: Task| {
            let report = Report { number: task.number, instance: instance.clone(), pid: std::process::id() };
            if task.slow {
                message.send("planner", "begun", &report)?;
                std::thread::sleep(SLOW);
            }
            message.send("planner", "done", &report)?;
            Ok(())
        })
        .connect()?;
    let _ = signals.forever().next();
    agent.shutdown();
    Ok(())
}
