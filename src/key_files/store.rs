//! The file of the store keys (`gateway.audit.store_key_path`): made on the first start, mode 0600, the same for all
//! servers on one Redis, and never in Redis.
//!
//! ```text
//! mas store keys 1
//! {64 hexadecimal digits} from {Unix milliseconds}
//! taking over on {host}
//! ```
//!
//! A line per key, oldest first; the newest whose time has come makes tags, all of them check. The last line stands there
//! until the first start, on that host, has taken over what it found in Redis.

use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use super::error::KeyError;
use super::files::{KeyLock, PRIVATE, Stamp, lock, read_private, write_whole};
use crate::audit::StoreKeys;
use crate::audit::attest::{KEY_BYTES, MAX_STORE_KEYS};
use crate::ids::{hex, unhex};

const HEAD: &str = "mas store keys 1";
/// What the last line begins with; the host follows.
const TAKING_OVER: &str = "taking over on ";
/// Where the system says how this host is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Where the file is.
#[derive(Debug, Clone)]
pub struct StoreKeyFile {
    path: PathBuf,
}

/// What is in it.
#[derive(Clone)]
struct Content {
    /// From when on each makes tags (Unix milliseconds), oldest first.
    keys: Vec<([u8; KEY_BYTES], u64)>,
    /// The host whose first start has not ended.
    taking_over: Option<String>,
}

/// Keys that were read.
#[derive(Debug)]
pub struct LoadedKeys {
    /// For tags.
    pub keys: StoreKeys,
    /// What is in Redis is not taken over yet: this log is new.
    pub taking_over: bool,
    /// When the next key begins to make tags (Unix milliseconds), if there is one.
    pub next_ms: Option<u64>,
}

impl Content {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let _ = lines.next().filter(|line| *line == HEAD)?;
        let mut content = Self { keys: Vec::new(), taking_over: None };
        for line in lines {
            if content.taking_over.is_some() {
                return None;
            }
            if let Some(host) = line.strip_prefix(TAKING_OVER) {
                content.taking_over = Some(host.to_owned());
                continue;
            }
            let (key, from_ms) = line.split_once(" from ")?;
            let from_ms: u64 = from_ms.parse().ok()?;
            // Each begins after the one before it.
            if content.keys.last().is_some_and(|(_, before_ms)| *before_ms >= from_ms) {
                return None;
            }
            content.keys.push((unhex(key)?.try_into().ok()?, from_ms));
        }
        (!content.keys.is_empty() && content.keys.len() <= MAX_STORE_KEYS).then_some(content)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (key, from_ms) in &self.keys {
            text.push_str(&format!("{} from {from_ms}\n", hex(key)));
        }
        if let Some(host) = &self.taking_over {
            text.push_str(&format!("{TAKING_OVER}{host}\n"));
        }
        text
    }

    fn loaded(&self, now_ms: u64) -> Option<LoadedKeys> {
        let begun = self.keys.iter().filter(|(_, from_ms)| *from_ms <= now_ms).count().max(1);
        let keys: Vec<[u8; KEY_BYTES]> = self.keys.iter().map(|(key, _)| *key).collect();
        let keys = StoreKeys::new(&keys, begun)?;
        let next_ms = self.keys.get(begun).map(|(_, from_ms)| *from_ms);
        Some(LoadedKeys { keys, taking_over: self.taking_over.is_some(), next_ms })
    }
}

impl StoreKeyFile {
    /// The file at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which state it is in; `None` where there is none.
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.path)
    }

    /// Makes the directory and takes the lock, for at most a second of waiting.
    pub fn lock(&self) -> Result<KeyLock, KeyError> {
        lock(&self.path)
    }

    /// That there is no file.
    pub fn missing(&self) -> KeyError {
        let problem = "is missing; the first start of a server makes it";
        KeyError::StoreKeys { path: self.path.clone(), problem }
    }

    fn read(&self) -> Result<Option<Content>, KeyError> {
        let Some(text) = read_private(&self.path)? else {
            return Ok(None);
        };
        let content = Content::parse(&text).ok_or_else(|| self.unreadable())?;
        if content.taking_over.as_ref().is_some_and(|host| *host != host_name()) {
            // Here it would take over what is there now.
            let problem = "was copied before the first start had ended on its host; copy it again";
            return Err(KeyError::StoreKeys { path: self.path.clone(), problem });
        }
        Ok(Some(content))
    }

    fn unreadable(&self) -> KeyError {
        KeyError::StoreKeys { path: self.path.clone(), problem: "is no file of store keys" }
    }

    fn loaded(&self, content: &Content, now_ms: u64) -> Result<LoadedKeys, KeyError> {
        content.loaded(now_ms).ok_or_else(|| self.unreadable())
    }

    /// The keys; `None` where there are none.
    pub fn load(&self, now_ms: u64) -> Result<Option<LoadedKeys>, KeyError> {
        self.read()?.map(|content| self.loaded(&content, now_ms)).transpose()
    }

    /// The keys; where there are none, a new one, which begins a log.
    pub fn load_or_create(&self, _lock: &KeyLock, now_ms: u64) -> Result<LoadedKeys, KeyError> {
        if let Some(content) = self.read()? {
            return self.loaded(&content, now_ms);
        }
        let content = Content { keys: vec![(self.fresh()?, 0)], taking_over: Some(host_name()) };
        self.write(&content)?;
        self.loaded(&content, now_ms)
    }

    /// What was in Redis is taken over.
    pub fn taken_over(&self, _lock: &KeyLock) -> Result<(), KeyError> {
        match self.read()? {
            Some(content) if content.taking_over.is_some() => {
                self.write(&Content { taking_over: None, ..content })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds a key that makes tags from `from_ms` (Unix milliseconds) on.
    pub fn rotate(&self, _lock: &KeyLock, from_ms: u64) -> Result<LoadedKeys, KeyError> {
        let mut content = self.read()?.ok_or_else(|| self.missing())?;
        let newest_ms = content.keys.last().map_or(0, |(_, from_ms)| *from_ms);
        if from_ms <= newest_ms || content.keys.len() >= MAX_STORE_KEYS {
            return Err(KeyError::Refused { path: self.path.clone() });
        }
        content.keys.push((self.fresh()?, from_ms));
        self.write(&content)?;
        self.loaded(&content, from_ms)
    }

    fn write(&self, content: &Content) -> Result<(), KeyError> {
        write_whole(&self.path, &content.to_text(), PRIVATE)
    }

    fn fresh(&self) -> Result<[u8; KEY_BYTES], KeyError> {
        let mut key = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut key).map_err(|_| KeyError::NoRandom { path: self.path.clone() })?;
        Ok(key)
    }
}

/// How this host is called.
pub fn host_name() -> String {
    std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> (tempfile::TempDir, StoreKeyFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = StoreKeyFile::new(&dir.path().join("keys/store.key"));
        (dir, file)
    }

    #[test]
    fn the_first_start_makes_a_key_and_takes_over_until_it_says_so() {
        let (_dir, file) = file();
        assert!(file.load(0).unwrap().is_none());
        let lock = file.lock().unwrap();
        let made = file.load_or_create(&lock, 0).unwrap();
        assert!(made.taking_over && made.next_ms.is_none());
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // A start that was interrupted is still the first one.
        assert!(file.load_or_create(&lock, 0).unwrap().taking_over);
        file.taken_over(&lock).unwrap();
        let again = file.load(0).unwrap().unwrap();
        assert!(!again.taking_over);
        assert_eq!(again.keys.name(), made.keys.name());
    }

    #[test]
    fn a_key_makes_tags_when_its_time_has_come_and_checks_before() {
        let (_dir, file) = file();
        let lock = file.lock().unwrap();
        let first = file.load_or_create(&lock, 0).unwrap().keys;
        let second = file.rotate(&lock, 1000).unwrap().keys;
        let before = file.load(999).unwrap().unwrap();
        assert_eq!((before.keys.newest_name(), before.next_ms), (first.newest_name(), Some(1000)));
        assert_eq!(before.keys.check("k", &[], &second.tag("k", &[])), Ok(()));
        let after = file.load(1000).unwrap().unwrap();
        assert_eq!((after.keys.newest_name(), after.next_ms), (second.newest_name(), None));
        assert_eq!(after.keys.check("k", &[], &first.tag("k", &[])), Ok(()));
        assert_eq!(after.keys.name(), first.name());
        assert!(matches!(file.rotate(&lock, 1000), Err(KeyError::Refused { .. })));
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_something_else_is_refused() {
        let (_dir, file) = file();
        let lock = file.lock().unwrap();
        drop(file.load_or_create(&lock, 0).unwrap());
        let good = std::fs::read_to_string(file.path()).unwrap();
        let elsewhere = good.replace(TAKING_OVER, "taking over on another-");
        for bad in ["", "mas store keys 1\n", "mas store keys 2\n", "taking over on x\n", &elsewhere] {
            std::fs::write(file.path(), bad).unwrap();
            assert!(matches!(file.load(0), Err(KeyError::StoreKeys { .. })), "{bad:?}");
        }
        for bad in [good.replace(" from 0", ""), good.replace(" from 0", " from x"), format!("{good}more\n")]
        {
            std::fs::write(file.path(), &bad).unwrap();
            assert!(matches!(file.load(0), Err(KeyError::StoreKeys { .. })), "{bad:?}");
        }
        std::fs::write(file.path(), &good).unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(file.load(0), Err(KeyError::Exposed { .. })));
    }
}
