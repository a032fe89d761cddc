//! Commands whose answers have types: whoever writes a command gets a handle that reads its answer, so nothing depends
//! on writing and reading in the same order. Hot path.

use std::ops::Range;

use redis::Value;

use super::answers;
use super::connection::{Batch, Mark};
use super::essential::{self, OwnerGuard};
use crate::ids::ServerId;

/// The answer of one command of a batch, not read yet.
#[derive(Debug)]
#[must_use = "the answer of a command is read by its handle"]
pub struct Asked<T> {
    at: usize,
    read: fn(Value) -> T,
}

/// The answers of a batch; each is taken once, by its handle.
#[derive(Debug, Default)]
pub struct Answers(Vec<Value>);

/// The answer of one command within a transaction, not read yet.
#[derive(Debug)]
#[must_use = "the answer of a command is read by its handle"]
pub struct Effect<T> {
    at: usize,
    read: fn(Value) -> T,
}

/// The answers of an executed transaction's commands.
#[derive(Debug, Default)]
pub struct Effects(Vec<Value>);

/// What became of a transaction.
#[derive(Debug)]
pub enum Executed {
    /// It was carried out; single commands may have been refused.
    Done(Effects),
    /// A watched key had changed: nothing was carried out.
    Conflict,
    /// Redis refused it as a whole.
    Refused,
}

/// Commands of one transaction, in a batch.
pub struct Multi<'a> {
    batch: &'a mut Batch,
    effects: usize,
    /// Where the first command stands; for a script that Redis runs although its memory is full.
    essential_from: Option<Mark>,
}

/// The end of a transaction, not read yet.
#[derive(Debug)]
#[must_use = "whether a transaction was carried out is read by its handle"]
pub struct Exec(Asked<Executed>);

impl Batch {
    /// Starts a command; the handle reads its answer.
    pub fn ask<T>(&mut self, command: &str, read: fn(Value) -> T) -> Asked<T> {
        Asked { at: self.command(command), read }
    }
}

impl Answers {
    /// The answers of a batch.
    pub fn new(values: Vec<Value>) -> Self {
        Self(values)
    }

    /// The answer of one command.
    pub fn take<T>(&mut self, asked: Asked<T>) -> T {
        (asked.read)(self.0.get_mut(asked.at).map(std::mem::take).unwrap_or_default())
    }

    /// What became of a transaction.
    pub fn executed(&mut self, exec: Exec) -> Executed {
        self.take(exec.0)
    }

    /// The answers at these places.
    pub fn at(&self, places: Range<usize>) -> &[Value] {
        self.0.get(places).unwrap_or_default()
    }

    /// The first refusal among all answers.
    pub fn refusal(&self) -> Option<&Value> {
        self.0.iter().find(|answer| answers::error_code(answer).is_some())
    }
}

impl<'a> Multi<'a> {
    /// Begins a transaction in this batch.
    pub fn begin(batch: &'a mut Batch) -> Self {
        let _ = batch.command("MULTI");
        Self { batch, effects: 0, essential_from: None }
    }

    /// Begins a transaction that Redis carries out although its memory is full.
    pub fn begin_essential(batch: &'a mut Batch) -> Self {
        let essential_from = Some(batch.mark());
        Self { batch, effects: 0, essential_from }
    }

    /// Starts a command whose answer only matters when it is a refusal.
    pub fn effect(&mut self, command: &str) -> &mut Batch {
        let _ = self.batch.command(command);
        self.effects += 1;
        self.batch
    }

    /// Starts a command; the handle reads its answer. Its arguments follow on [`args`](Self::args).
    pub fn ask<T>(&mut self, command: &str, read: fn(Value) -> T) -> Effect<T> {
        let at = self.effects;
        let _ = self.effect(command);
        Effect { at, read }
    }

    /// Adds arguments to the command that was started last.
    pub fn args(&mut self) -> &mut Batch {
        self.batch
    }

    /// The number of commands so far.
    pub fn len(&self) -> usize {
        self.effects
    }

    /// Whether there is no command.
    pub fn is_empty(&self) -> bool {
        self.effects == 0
    }

    /// Ends the transaction. `server` must not be fenced, and `guards` must hold where nothing is watched.
    pub fn exec(self, server: &ServerId, guards: &[OwnerGuard]) -> Exec {
        Exec(match self.essential_from {
            None => self.batch.ask("EXEC", executed),
            Some(mark) => Asked { at: essential::wrap(self.batch, mark, server, guards), read: executed },
        })
    }
}

impl Effects {
    /// The number of commands.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there was no command.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer of one command.
    pub fn take<T>(&mut self, effect: Effect<T>) -> T {
        (effect.read)(self.0.get_mut(effect.at).map(std::mem::take).unwrap_or_default())
    }

    /// The code of the first refused command among these. A consumer group that exists already was wanted.
    pub fn refused(&self, commands: &Range<usize>) -> Option<&str> {
        let refused = |value| answers::error_code(value).filter(|code| *code != "BUSYGROUP");
        self.0.get(commands.clone())?.iter().find_map(refused)
    }
}

/// Reads the answer of EXEC, and of the script in its place.
fn executed(answer: Value) -> Executed {
    match answer {
        Value::Array(values) => Executed::Done(Effects(values)),
        Value::Nil => Executed::Conflict,
        _ => Executed::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_reads_its_own_answer() {
        let mut batch = Batch::new();
        let first = batch.ask("GET", |value| answers::text(&value).map(str::to_owned));
        let second = batch.ask("XLEN", |value| answers::int(&value));
        let mut answers = Answers::new(vec![Value::SimpleString("a".to_owned()), Value::Int(7)]);
        // In another order than they were asked.
        assert_eq!(answers.take(second), Some(7));
        assert_eq!(answers.take(first), Some("a".to_owned()));
    }

    #[test]
    fn a_transaction_numbers_its_own_commands() {
        let mut batch = Batch::new();
        let _ = batch.command("PING");
        let mut multi = Multi::begin(&mut batch);
        let _ = multi.effect("DEL").arg("k");
        let number = multi.ask("INCR", |value| answers::int(&value));
        let _ = multi.args().arg("n");
        assert_eq!(multi.len(), 2);
        let exec = multi.exec(&ServerId::new(), &[]);
        let queued = || Value::Okay;
        let results = Value::Array(vec![Value::Int(1), Value::Int(5)]);
        let mut answers = Answers::new(vec![queued(), queued(), queued(), queued(), results]);
        let Executed::Done(mut effects) = answers.executed(exec) else { panic!("executed") };
        assert_eq!(effects.refused(&(0..2)), None);
        assert_eq!(effects.take(number), Some(5));
    }
}
