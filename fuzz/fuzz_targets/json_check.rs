//! The strict check of a payload: it never panics, what it lets through is an object to another parser too,
//! within the depth, without a key twice, and it lets through what that parser writes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mas_fuzz::json::{JsonError, check_object};
use serde_json::Value;

const MAX_DEPTH: usize = 16;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed: Result<Value, _> = serde_json::from_str(text);
    match check_object(text, MAX_DEPTH) {
        Ok(()) => {
            let value = parsed.expect("the check let through what is no JSON");
            assert!(value.is_object() && depth(&value) <= MAX_DEPTH);
            assert_eq!(check_object(&value.to_string(), MAX_DEPTH), Ok(()));
            assert_eq!(check_object(text, depth(&value) - 1), Err(JsonError::Invalid));
        }
        Err(JsonError::NotAnObject) => assert!(!parsed.expect("no JSON, so no other value").is_object()),
        // Too deep, or a key twice, when it is JSON at all; then what the parser made of it is either too
        // deep as well or shorter than the text.
        Err(JsonError::Invalid) => {}
    }
});
