//! The gate as a whole, with clients at the level of bytes on one side and a stand-in for the server on the other: it
//! never panics, passes what a client said and nothing else, cuts what its own reader says must be cut and nobody else,
//! passes on every answer, puts on record what it did, and keeps nothing of a connection that is over.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use mas_fuzz::play::{Stage, play};

thread_local! {
    /// The gate is opened once. A panic of any of its threads ends the process: that is the fuzzer's own hook.
    static STAGE: RefCell<Stage> = RefCell::new(Stage::set());
}

fuzz_target!(|input: &[u8]| STAGE.with_borrow_mut(|stage| play(stage, input)));
