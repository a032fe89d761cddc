//! Attributes of spans, points and resources.

use crate::otlp::KeyValue;

/// An attribute.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let mut attribute = KeyValue { key: key.to_owned(), ..KeyValue::default() };
    attribute.value.mut_or_insert_default().set_string_value(value.to_owned());
    attribute
}

/// An attribute that is a number.
pub(super) fn number(key: &str, value: u64) -> KeyValue {
    let mut attribute = KeyValue { key: key.to_owned(), ..KeyValue::default() };
    attribute.value.mut_or_insert_default().set_int_value(i64::try_from(value).unwrap_or(i64::MAX));
    attribute
}
