//! Server-sent events: where they come from, and their bytes. Pure.

use std::time::Instant;

/// A comment, which readers skip: it shows that the stream lives.
pub(super) const HEARTBEAT: &[u8] = b":\n\n";

/// Where the events of one stream come from. It is asked on the thread of the stream's connection, and dropped when
/// the stream ends.
pub trait EventSource: Send {
    /// Waits for the next event, until then at the latest. That is never more than a quarter of a second ahead, so
    /// that the end of a stream is seen; a source that needs no waiting is asked again at once.
    fn next(&mut self, until: Instant) -> Next;
}

/// What a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// An event. Line ends and NUL are left out of `id` and `name`; `data` may have several lines.
    Event {
        /// What a client sends as `Last-Event-ID` when it connects again.
        id: Option<String>,
        /// Its kind; `message` where there is none.
        name: Option<String>,
        /// What it says.
        data: String,
    },
    /// Nothing yet.
    Idle,
    /// There will be no more.
    End,
}

/// The bytes of an event.
pub(super) fn encode(id: Option<&str>, name: Option<&str>, data: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    let mut line = |field: &str, value: &str| {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b": ");
        out.extend(value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\0')));
        out.push(b'\n');
    };
    if let Some(id) = id {
        line("id", id);
    }
    if let Some(name) = name {
        line("event", name);
    }
    // CR LF, CR and LF all end a line for a reader.
    data.replace("\r\n", "\n").split(['\r', '\n']).for_each(|part| line("data", part));
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(id: Option<&str>, name: Option<&str>, data: &str) -> String {
        String::from_utf8(encode(id, name, data)).unwrap()
    }

    #[test]
    fn an_event_is_written_line_by_line() {
        assert_eq!(text(None, None, "a"), "data: a\n\n");
        assert_eq!(text(Some("7"), Some("seen"), "a\nb"), "id: 7\nevent: seen\ndata: a\ndata: b\n\n");
        assert_eq!(text(None, None, "a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n");
        assert_eq!(text(None, None, ""), "data: \n\n");
    }

    #[test]
    fn what_would_begin_another_field_does_not() {
        let event = text(Some("1\nevent: x"), Some("a\r\rdata: y\0"), "z\r\rid: 9");
        assert_eq!(event, "id: 1event: x\nevent: adata: y\ndata: z\ndata: \ndata: id: 9\n\n");
    }

    proptest! {
        #[test]
        fn no_text_ends_an_event_early(id in "[a\r\n\0:]{0,9}", name in "[a\r\n\0:]{0,9}", data in "[a\r\n: ]{0,20}") {
            let event = text(Some(&id), Some(&name), &data);
            let lines: Vec<&str> = event.strip_suffix("\n\n").unwrap().split(['\r', '\n']).collect();
            prop_assert!(lines[0].starts_with("id: ") && lines[1].starts_with("event: "));
            prop_assert!(lines[2..].iter().all(|line| line.starts_with("data: ")));
            let read = lines[2..].iter().map(|line| &line[6..]).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(read, data.replace("\r\n", "\n").replace('\r', "\n"));
        }
    }
}
