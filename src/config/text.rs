//! The text of `mas.yaml`.

use std::io;
use std::path::Path;

use crate::files;

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Editors on Windows begin a file with it; as in other tools it is no part of the document.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads it.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = files::read_text(path, MAX_FILE_BYTES)?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text = text.split_off(BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}
