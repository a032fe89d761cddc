//! The dashboard: three files that are built from `dashboard/`, and embedded. A browser asks nobody else for anything.

use std::sync::LazyLock;

use ::http::StatusCode;
use ::http::header::{CACHE_CONTROL, HeaderValue};
use sha2::{Digest, Sha256};

use super::http::{Content, ETag};
use crate::ids::hex;

/// One file.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// The files.
const FILES: [File; 3] = [
    File { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("index.html") },
    File { path: "/app.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("app.js") },
    File { path: "/app.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("app.css") },
];

/// A browser asks each time whether it has the newest one, and is mostly told so.
static TAGS: LazyLock<[Option<ETag>; FILES.len()]> =
    LazyLock::new(|| FILES.map(|file| ETag::new(&hex(&Sha256::digest(file.bytes)))));

/// The file under a path.
pub(super) fn content(path: &str) -> Option<Content> {
    let (file, tag) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.path == path)?;
    let content = Content::new(StatusCode::OK, HeaderValue::from_static(file.content_type), file.bytes)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(match tag {
        Some(tag) => content.with_etag(tag.clone()),
        None => content,
    })
}
