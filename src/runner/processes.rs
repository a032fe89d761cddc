//! Processes as the system lists them in `/proc`.

/// A process: its id, which another one may have later, and when it started, which makes it this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// In clock ticks since the system started.
    pub(super) started: u64,
    group: i32,
    zombie: bool,
}

/// One process; `None` where there is none with that id.
pub(super) fn one(pid: i32) -> Option<Process> {
    parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The processes of a group that have not ended.
pub(super) fn of_group(group: i32) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(one).filter(|process| process.group == group && !process.zombie).collect()
}

/// Reads a line of proc_pid_stat(5). The name, in parentheses, may hold anything.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Process { pid, started, group, zombie: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_and_a_name_with_parentheses_is_no_obstacle() {
        let own = one(std::process::id().cast_signed()).unwrap();
        assert!(own.started > 0 && of_group(own.group).contains(&own));
        assert!(one(-1).is_none());
        let line = "7 (a) b ) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2 3";
        let parsed = parse(7, line).unwrap();
        assert_eq!((parsed.group, parsed.started, parsed.zombie), (42, 987, false));
    }
}
