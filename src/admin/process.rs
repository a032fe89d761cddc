//! What Linux says of this process.

use std::fs;

/// Clock ticks of a second in `/proc`, on every Linux that Rust runs on.
const TICKS_PER_S: f64 = 100.0;
/// What `/proc/self/status` counts memory in.
const KIB: u64 = 1024;
/// Where this process' descriptors are listed.
const FDS: &str = "/proc/self/fd";

/// One look at it; what cannot be read is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// CPU time, in seconds.
    pub(super) cpu_s: Option<f64>,
    /// Resident memory, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open descriptors.
    pub(super) open_fds: Option<u64>,
    /// How many there may be.
    pub(super) max_fds: Option<u64>,
    /// When it started, Unix seconds.
    pub(super) start_s: Option<f64>,
}

/// How many descriptors are open. Linux 6.2 and newer say it at once, before it they are counted.
fn open_fds() -> Option<u64> {
    let folder = fs::metadata(FDS).ok()?;
    match folder.len() {
        0 => fs::read_dir(FDS).ok().map(|fds| fds.count() as u64),
        known => Some(known),
    }
}

impl Process {
    /// Looks.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self { open_fds: open_fds(), ..Self::parse(&status, &stat, &boot, &limits) }
    }

    fn parse(status: &str, stat: &str, boot: &str, limits: &str) -> Self {
        let kib = |name: &str| number(status, name).map(|kib| kib * KIB);
        // Behind the program's name, which may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let boot_s = number(boot, "btime").map(|seconds| seconds as f64);
        Self {
            cpu_s: ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS_PER_S),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            threads: number(status, "Threads:"),
            open_fds: None,
            max_fds: number(limits, "Max open files"),
            start_s: boot_s.zip(ticks(19)).map(|(boot_s, ticks)| boot_s + ticks / TICKS_PER_S),
        }
    }
}

/// The first number behind a line's name.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        let status = "Name:\tmas) server\nVmSize:\t  2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n";
        let stat = "7 (mas) server) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 7 0 1000 1 1";
        let limits = "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n";
        let process = Process::parse(status, stat, "cpu 1\nbtime 1700000000\n", limits);
        assert_eq!(
            process,
            Process {
                cpu_s: Some(3.0),
                resident_bytes: Some(1024 * 1024),
                virtual_bytes: Some(2048 * 1024),
                threads: Some(7),
                open_fds: None,
                max_fds: Some(1024),
                start_s: Some(1_700_000_010.0),
            }
        );
        assert_eq!(Process::parse("", "", "", ""), Process::default());
        let own = Process::read();
        assert!(own.resident_bytes > Some(0) && own.open_fds > Some(0) && own.start_s > Some(0.0), "{own:?}");
    }
}
