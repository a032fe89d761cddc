//! A request taken in as its bytes come. Pure: however they are split, the result is the same.

use std::sync::Arc;

use super::refused::Refused;
use super::request::{Head, Peer, Request, Rules};
use super::scan::Scan;

/// A request that is arriving.
pub struct Intake<'a> {
    rules: &'a Rules,
    scan: Scan,
    /// The head as it came.
    bytes: Vec<u8>,
    head: Option<Head>,
    body: Vec<u8>,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// More of the head.
    Head,
    /// More of the body.
    Body {
        /// Whether the client waits to be told that it is wanted.
        asks_first: bool,
    },
    /// Nothing.
    Nothing,
}

impl<'a> Intake<'a> {
    /// Nothing has arrived yet.
    pub fn new(rules: &'a Rules) -> Self {
        Self { rules, scan: Scan::default(), bytes: Vec::new(), head: None, body: Vec::new() }
    }

    /// Takes bytes up to the end of the request; returns how many. After an error it must not be used any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let mut taken = 0;
        let mut rest = bytes.iter();
        while self.head.is_none() {
            let Some(byte) = rest.next() else { return Ok(taken) };
            taken += 1;
            self.bytes.push(*byte);
            if self.scan.step(*byte)? {
                self.head = Some(Head::parse(&self.bytes, self.rules)?);
            }
        }
        let rest = rest.as_slice();
        let body = rest.get(..self.missing().min(rest.len())).unwrap_or_default();
        self.body.extend_from_slice(body);
        Ok(taken + body.len())
    }

    /// What is still missing.
    pub fn wants(&self) -> Wants {
        match &self.head {
            None => Wants::Head,
            Some(_) if self.missing() == 0 => Wants::Nothing,
            Some(head) => Wants::Body { asks_first: head.asks_first && self.body.is_empty() },
        }
    }

    /// Whether the answer must not have a body, as far as can be told.
    pub fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }

    /// The request; `None` while something is missing.
    pub fn finish(self, peer: Arc<Peer>) -> Option<Request> {
        if self.wants() != Wants::Nothing {
            return None;
        }
        Some(Request { head: self.head?, body: self.body, peer })
    }

    fn missing(&self) -> usize {
        self.head.as_ref().map_or(0, |head| head.body_bytes.saturating_sub(self.body.len()))
    }
}

#[cfg(test)]
mod tests;
