//! A private redis-server on a unix socket, with its append-only file in the world's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{Process, until};

pub struct Redis {
    dir: PathBuf,
    options: Vec<String>,
    process: Option<Process>,
    appendfsync: &'static str,
}

impl Redis {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// With further options, as on its command line.
    pub fn start_with(dir: &Path, options: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Self { dir: dir.to_path_buf(), options, process: None, appendfsync: "everysec" };
        redis.resume();
        redis
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    pub fn kill(&mut self) {
        self.process.take().expect("Redis runs").kill();
    }

    /// From now on nothing is answered before it is on disk. With `everysec` Redis puts a write off for up
    /// to two seconds while an fsync is under way: what it has answered can be lost with its process.
    pub fn fsync_always(&mut self) {
        self.appendfsync = "always";
        let _: String = self.query(&["CONFIG", "SET", "appendfsync", "always"]);
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("Redis runs").pid()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !process.has_ended())
    }

    /// Starts it again on the same data if it has ended; whether it had.
    pub fn revive(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(Process::has_ended);
        if ended {
            self.resume();
        }
        ended
    }

    /// Starts it again on the same data.
    pub fn resume(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"])
            .args(["--appendfsync", self.appendfsync])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.dir)
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(Process::start(&mut command));
        until("Redis answers", || {
            self.try_connect().is_ok_and(|mut c| redis::cmd("PING").query::<String>(&mut c).is_ok())
        });
    }

    /// Ends it and starts it with further options on the same data.
    pub fn restart_with(&mut self, options: &[&str]) {
        if self.process.is_some() {
            self.kill();
        }
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.resume();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("Redis runs").signal(signal);
    }

    /// SIGSTOP, and it stands still.
    pub fn halt(&self) {
        self.process.as_ref().expect("Redis runs").halt();
    }

    /// Goes on after [`halt`](Self::halt).
    pub fn proceed(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// A connection. A Redis whose role changes cuts its clients off, new ones too.
    pub fn connection(&self) -> redis::Connection {
        let give_up = std::time::Instant::now() + super::PATIENCE;
        loop {
            match self.try_connect() {
                Ok(connection) => return connection,
                Err(error) if error.is_connection_dropped() && std::time::Instant::now() < give_up => {
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                }
                Err(error) => panic!("no connection to Redis: {error}"),
            }
        }
    }

    /// The same as [`query`](Self::query) for what only reads: nothing where it is cut off meanwhile.
    pub fn try_read<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.try_connect().ok()?).ok()
    }

    pub fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.query(&["KEYS", "*"]);
        keys.sort();
        keys
    }

    /// Entries of a stream: id, field and value texts.
    pub fn entries(&self, stream: &str) -> Vec<(String, Vec<(String, String)>)> {
        self.query(&["XRANGE", stream, "-", "+"])
    }

    /// First halves of the ids of a stream's first and last entry; none where it is empty.
    pub fn entries_ids(&self, stream: &str) -> Vec<u64> {
        let end = |command: &str, from: &str, to: &str| {
            let entries: Vec<(String, redis::Value)> = self.query(&[command, stream, from, to, "COUNT", "1"]);
            entries.first().map(|(id, _)| id.split_once('-').unwrap().0.parse::<u64>().unwrap())
        };
        end("XRANGE", "-", "+").into_iter().chain(end("XREVRANGE", "+", "-")).collect()
    }

    /// Lines of a stream's pending entries list: entry, consumer, idle milliseconds, deliveries.
    pub fn pending(&self, stream: &str) -> Vec<(String, String, u64, u64)> {
        self.query(&["XPENDING", stream, "agents", "-", "+", "100000"])
    }

    /// What every key holds, in Redis' own form: a stream's includes its consumers and pending entries.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut connection = self.connection();
        let mut dump = |key: String| {
            let bytes = redis::cmd("DUMP").arg(&key).query::<Option<Vec<u8>>>(&mut connection).unwrap();
            Some((key, bytes?))
        };
        self.keys().into_iter().filter_map(&mut dump).collect()
    }

    pub fn len(&self, stream: &str) -> usize {
        self.query(&["XLEN", stream])
    }
}
