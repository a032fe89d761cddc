//! A fault campaign: two servers on one Redis, agents that send, ask, reply, acknowledge and refuse, and
//! everything killed, stopped, filled up, cut off and cut, at random or at a chosen command. What everybody
//! saw goes into a history, and the checker holds the server's promises against it.
//!
//! The suite makes one fault of each kind; `MAS_TEST_FAULTS` says how many are made at random instead, and
//! `MAS_TEST_SEED` repeats a choice; `MAS_TEST_ONLY` leaves those whose name contains it.

mod actors;
mod arena;
mod checker;
mod compound;
mod crew;
mod desk;
pub mod disk;
mod failover;
mod faults;
mod history;
mod inflict;
mod network;
mod place;
mod process;

mod sabotage;
mod sending;
mod settled;
mod story;
mod waits;
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arena::Arena;
use faults::Fault;
use inflict::wait;

/// Pause between two faults, in milliseconds: from and up to.
const PAUSE_MS: (u64, u64) = (150, 450);
/// A fault that took longer is named with its time.
const LONG: Duration = Duration::from_secs(5);

/// The last that a failed campaign prints: which promises were broken. A panic's backtrace would come after it.
struct Broken(String);

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[test]
fn promises_hold_whatever_breaks() -> Result<(), Broken> {
    let seed = std::env::var("MAS_TEST_SEED").map_or(std::process::id().into(), |seed| seed.parse().unwrap());
    let mut arena = Arena::new(seed);
    for why in &arena.missing {
        println!("NOT RUN: {why}");
    }
    let faults: Vec<Fault> = match std::env::var("MAS_TEST_FAULTS") {
        Ok(count) => (0..count.parse().unwrap()).map(|_| arena.next_fault()).collect(),
        Err(_) => Fault::each(),
    };
    let only = std::env::var("MAS_TEST_ONLY").unwrap_or_default();
    let faults: Vec<Fault> = faults.into_iter().filter(|fault| fault.name().contains(&only)).collect();
    println!("{} faults, seed {seed}", faults.len());
    let mut inflicted = BTreeMap::<String, [usize; 2]>::new();
    let history = arena.run(|arena| {
        for (n, fault) in faults.iter().enumerate() {
            let began = Instant::now();
            let happened = arena.inflict(*fault);
            if began.elapsed() > LONG {
                println!("{}: {:.1} s", fault.name(), began.elapsed().as_secs_f64());
            }
            inflicted.entry(fault.name()).or_default()[usize::from(!happened)] += 1;
            if n % 50 == 49 {
                println!("{} faults", n + 1);
            }
            let (from, to) = PAUSE_MS;
            let pause = from + arena.random.below(to - from);
            wait(Duration::from_millis(pause));
        }
    });
    for (name, [happened, missed]) in &inflicted {
        println!(
            "{happened:5} {name}{}",
            if *missed > 0 { format!(" ({missed} not reached)") } else { String::new() }
        );
    }
    println!("{}", history.summary());
    let violations = checker::check(&history, &arena.world);

    if !violations.is_empty() {
        let kinds = checker::kinds(&violations);
        let texts = checker::texts(&violations);
        return Err(Broken(format!("{texts}\nseed {seed}: {} violations: {kinds:#?}", violations.len())));
    }
    assert!(history.accepted_count() > 100, "hardly anything was sent");
    Ok(())
}

/// Not a test by itself: the campaign starts it as the agents' process.
#[test]
fn agents_in_a_process() {
    process::live();
}
