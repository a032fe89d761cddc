//! A network namespace with a server in it: one link to Redis, one to the agents, and each direction of
//! both can be silenced. Needs root and iproute2.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Networks of eight addresses that are tried for one that is free.
const NETWORKS: u32 = 256;

/// Which of a server's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Redis,
    Agents,
}

/// Which way nothing gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the server sends is lost.
    Out,
    /// What is sent to the server is lost.
    In,
    Both,
}

pub struct Network {
    name: String,
    /// First three numbers of the addresses, and where its eight addresses begin.
    base: (u8, u8),
}

fn run(program: &str, args: &str) -> Result<(), String> {
    let output = Command::new(program).args(args.split_whitespace()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} {args}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

impl Network {
    /// Makes it, or says why that is not possible here.
    pub fn make() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
        let in_use =
            Command::new("ip").args(["-o", "addr"]).output().map_err(|error| format!("ip: {error}"))?;
        let in_use = String::from_utf8_lossy(&in_use.stdout).into_owned();
        let is_free = |base: &(u8, u8)| !in_use.contains(&format!(" 10.213.{}.{}/", base.0, base.1 + 1));
        let first = pid.wrapping_mul(8) + number;
        let base = (first..first + NETWORKS)
            .map(|index| ((index >> 5 & 0xff) as u8, ((index & 0x1f) * 8) as u8))
            .find(is_free)
            .ok_or("no network is free")?;
        let name = format!("mas{pid}n{number}");
        run("ip", &format!("netns add {name}"))?;
        let network = Self { name, base };
        for link in [Link::Redis, Link::Agents] {
            let (outer, inner) = (network.outer(link), network.inner(link));
            run("ip", &format!("link add {outer} type veth peer name {inner} netns {}", network.name))?;
            run("ip", &format!("addr add {}/30 dev {outer}", network.near(link)))?;
            run("ip", &format!("link set {outer} up"))?;
            run("ip", &format!("-n {} addr add {}/30 dev {inner}", network.name, network.far(link)))?;
            run("ip", &format!("-n {} link set {inner} up", network.name))?;
        }
        run("ip", &format!("-n {} link set lo up", network.name))?;
        Ok(network)
    }

    fn outer(&self, link: Link) -> String {
        format!("{}{}", self.name, if link == Link::Redis { "r" } else { "a" })
    }

    fn inner(&self, link: Link) -> &'static str {
        if link == Link::Redis { "redis" } else { "agents" }
    }

    fn address(&self, link: Link, host: u8) -> String {
        let (net, base) = self.base;
        let base = base + if link == Link::Redis { 0 } else { 4 };
        format!("10.213.{net}.{}", base + host)
    }

    /// The address on this side.
    pub fn near(&self, link: Link) -> String {
        self.address(link, 1)
    }

    /// The server's own address.
    pub fn far(&self, link: Link) -> String {
        self.address(link, 2)
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn discipline(&self, what: &str, link: Link, way: Way) {
        // `blackhole` drops what the device should send.
        let kind = if what == "add" { "root blackhole" } else { "root" };
        if way != Way::Out {
            run("tc", &format!("qdisc {what} dev {} {kind}", self.outer(link))).unwrap();
        }
        if way != Way::In {
            run("tc", &format!("-n {} qdisc {what} dev {} {kind}", self.name, self.inner(link))).unwrap();
        }
    }

    pub fn silence(&self, link: Link, way: Way) {
        self.discipline("add", link, way);
    }

    pub fn heal(&self, link: Link, way: Way) {
        self.discipline("del", link, way);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for link in [Link::Redis, Link::Agents] {
            // Where it was never made there is nothing to remove.
            let _ = run("ip", &format!("link del {}", self.outer(link)));
        }
        let _ = run("ip", &format!("netns del {}", self.name));
    }
}
