//! The path and the query of a request. Pure. A path has one meaning or is refused: it is decoded once, and what
//! another decoding or another reading of separators would change does not pass.

use super::limits::MAX_QUERY_PAIRS;
use super::refused::Refused;

/// A decoded path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub path: String,
    pub query: Vec<(String, String)>,
}

impl Target {
    /// Takes the target of a request line apart. Only a path of this server will do: no URL, no `*`.
    pub(super) fn parse(target: &str) -> Result<Self, Refused> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Refused::Target);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decode_path(path).ok_or(Refused::Target)?;
        let query = decode_query(query).ok_or(Refused::Target)?;
        Ok(Self { path, query })
    }
}

fn decode_path(raw: &str) -> Option<String> {
    let mut path = String::with_capacity(raw.len());
    let mut segments = raw.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let segment = percent_decode(segment.bytes())?;
        let is_last = segments.peek().is_none();
        let is_empty_inside = segment.is_empty() && !is_last;
        let changes = segment.contains(|c: char| matches!(c, '/' | '\\' | '%') || c.is_control());
        if is_empty_inside || changes || segment == "." || segment == ".." {
            return None;
        }
        path.push('/');
        path.push_str(&segment);
    }
    Some(path)
}

/// Pairs as a form sends them: `+` is a blank.
fn decode_query(raw: &str) -> Option<Vec<(String, String)>> {
    let decode = |part: &str| {
        let bytes = part.bytes().map(|byte| if byte == b'+' { b' ' } else { byte });
        percent_decode(bytes).filter(|text| !text.contains(char::is_control))
    };
    let mut pairs = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MAX_QUERY_PAIRS {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, decode(value)?));
    }
    Some(pairs)
}

/// Decodes once; `None` for an escape that is none, and for what is not UTF-8.
fn percent_decode(mut bytes: impl Iterator<Item = u8>) -> Option<String> {
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()?)? * 16 + hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> Option<String> {
        Target::parse(target).ok().map(|target| target.path)
    }

    fn query(query: &str) -> Option<Vec<(String, String)>> {
        Target::parse(&format!("/?{query}")).ok().map(|target| target.query)
    }

    #[test]
    fn a_path_is_decoded() {
        for (raw, decoded) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a%20b", "/a b"),
            ("/%C3%A9", "/é"),
            ("/...", "/..."),
            ("/a..b", "/a..b"),
            ("/a+b", "/a+b"),
            ("/a?b/../c", "/a"),
        ] {
            assert_eq!(path(raw).as_deref(), Some(decoded), "{raw}");
        }
    }

    #[test]
    fn a_path_that_could_mean_another_one_is_refused() {
        for raw in [
            "",
            "a",
            "*",
            "?a",
            "http://host/a",
            "//host/a",
            "/a//b",
            "/..",
            "/../a",
            "/a/..",
            "/a/./b",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a/%2e",
            "/%252e%252e/a",
            "/a%2fb",
            "/..%2fa",
            "/a%5c..",
            "/a\\..\\b",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/a%c2%85",
            "/a%ff",
            "/%c0%ae%c0%ae/a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a#b",
            "/a b",
            "/é",
        ] {
            assert_eq!(Target::parse(raw), Err(Refused::Target), "{raw}");
        }
    }

    #[test]
    fn a_query_is_decoded_into_pairs() {
        let pairs = query("a=1&b=x%26y+z&&c&=d&e=f=g&a=2").unwrap();
        let expected = [("a", "1"), ("b", "x&y z"), ("c", ""), ("", "d"), ("e", "f=g"), ("a", "2")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(query(""), Some(Vec::new()));
        assert_eq!(query("p=../%2e%2e/%25"), Some(vec![("p".to_owned(), "../../%".to_owned())]));
    }

    #[test]
    fn a_query_with_odd_bytes_or_too_many_pairs_is_refused() {
        for bad in ["a=%", "a=%1", "a=%g0", "%ff=a", "a=%00", "a=%0d%0aX", "a#b"] {
            assert_eq!(query(bad), None, "{bad}");
        }
        assert_eq!(query(&"a&".repeat(MAX_QUERY_PAIRS)).unwrap().len(), MAX_QUERY_PAIRS);
        assert_eq!(query(&"a&".repeat(MAX_QUERY_PAIRS + 1)), None);
    }

    proptest! {
        #[test]
        fn what_passes_is_a_plain_path(
            raw in "/?([./%]|%2[eEfF5]|%5[cC]|%25|%00|\\\\|[a-z?&=]){0,24}"
        ) {
            if let Ok(target) = Target::parse(&raw) {
                prop_assert!(target.path.starts_with('/') && !target.path.contains("//"));
                prop_assert!(!target.path.contains(['\\', '%', '\0']));
                prop_assert!(target.path.split('/').all(|segment| segment != ".." && segment != "."));
                // Decoding it again changes nothing.
                prop_assert_eq!(decode_path(&target.path), Some(target.path));
            }
        }

        #[test]
        fn no_text_makes_it_panic(raw in any::<String>()) {
            let _ = Target::parse(&raw);
        }
    }
}
