//! Whom a request says it is for, and which page sent it. Pure. A page of another site can make a browser send
//! requests here, also by giving its own name this server's address; the names tell.

use std::net::{IpAddr, Ipv6Addr};

use super::refused::Refused;

/// Longest name of a host, in bytes.
const MAX_NAME_BYTES: usize = 253;
const LOCALHOST: &str = "localhost";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(String),
}

/// A host, and a port where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    host: Host,
    port: Option<u16>,
}

/// The hosts that a server answers for, besides `localhost` and its own addresses.
#[derive(Debug, Default)]
pub struct Hosts(Vec<Host>);

impl Hosts {
    /// Takes names and addresses, without ports. The error is the first one that is neither.
    pub fn new(hosts: &[String]) -> Result<Self, String> {
        let parse = |text: &String| match Authority::parse(text) {
            Some(Authority { host, port: None }) => Ok(host),
            _ => text.parse().map(Host::Address).map_err(|_| text.clone()),
        };
        hosts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request for that host may be answered by a connection to that local address. Ports are not
    /// compared: a tunnel has another one.
    pub(super) fn allows(&self, authority: &Authority, local: IpAddr) -> bool {
        let own = match &authority.host {
            Host::Address(address) => *address == local.to_canonical(),
            Host::Name(name) => name == LOCALHOST,
        };
        own || self.0.contains(&authority.host)
    }
}

impl Authority {
    /// Reads `name`, `name:port`, an address, or an address in brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address = IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical();
                let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
                (Host::Address(address), port)
            }
            None => {
                let (name, port) = match text.split_once(':') {
                    Some((name, port)) => (name, Some(port)),
                    None => (text, None),
                };
                (Host::parse(name)?, port)
            }
        };
        let port = match port {
            None => None,
            Some(port) => Some(parse_port(port)?),
        };
        Some(Self { host, port })
    }

    fn is(&self, other: &Self, default_port: u16) -> bool {
        let port = |authority: &Self| authority.port.unwrap_or(default_port);
        self.host == other.host && port(self) == port(other)
    }
}

impl Host {
    fn parse(name: &str) -> Option<Self> {
        if let Ok(address) = name.parse() {
            return Some(Self::Address(address));
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_name = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_of_name);
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

/// Digits alone: `parse` would take a sign.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Refuses what a page of another origin has sent. `origin` and `site` are the request's `Origin` and
/// `Sec-Fetch-Site`; what is no browser sends neither.
pub(super) fn check_origin<'a>(
    host: Option<&Authority>,
    mut origins: impl Iterator<Item = &'a [u8]>,
    mut sites: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Refused> {
    let is_own = |origin: &[u8]| host.is_some_and(|host| is_of_host(origin, host));
    let is_same = |site: &[u8]| site == b"same-origin" || site == b"none";
    if origins.all(is_own) && sites.all(is_same) { Ok(()) } else { Err(Refused::Origin) }
}

fn is_of_host(origin: &[u8], host: &Authority) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    let (authority, default_port) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, 80),
        Some(("https", authority)) => (authority, 443),
        _ => return false,
    };
    Authority::parse(authority).is_some_and(|origin| origin.is(host, default_port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allows(hosts: &[&str], host: &str, local: &str) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let authority = Authority::parse(host).unwrap();
        Hosts::new(&hosts).unwrap().allows(&authority, local.parse().unwrap())
    }

    #[test]
    fn a_server_answers_for_itself_and_for_names_that_it_was_given() {
        assert!(allows(&[], "127.0.0.1:8080", "127.0.0.1"));
        assert!(allows(&[], "[::1]", "::1"));
        assert!(allows(&[], "[::1]:80", "::1"));
        assert!(allows(&[], "127.0.0.1", "::ffff:127.0.0.1"));
        assert!(allows(&[], "[::ffff:127.0.0.1]", "127.0.0.1"));
        assert!(allows(&[], "LocalHost:1", "10.0.0.1"));
        assert!(allows(&["Admin.Example"], "admin.example:8443", "10.0.0.1"));
        assert!(allows(&["192.0.2.1", "::1"], "192.0.2.1", "10.0.0.1"));
        assert!(allows(&["192.0.2.1", "::1"], "[::1]", "10.0.0.1"));
    }

    #[test]
    fn a_server_does_not_answer_for_others() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.2",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0.0.0.0",
            "[::]",
            "admin.example.evil",
        ] {
            assert!(!allows(&["admin.example"], host, "127.0.0.1"), "{host}");
        }
    }

    #[test]
    fn what_names_no_host_is_none() {
        for bad in [
            "", ":80", "a:", "a:b", "a:+1", "a:65536", "a:1:2", "a b", "a/b", "u@a", "[::1", "::1", "[a]",
            "[::1]80", "[::1]:", "a,b", "é", "a\0",
        ] {
            assert_eq!(Authority::parse(bad), None, "{bad}");
        }
        assert_eq!(Authority::parse(&"a".repeat(MAX_NAME_BYTES + 1)), None);
        assert_eq!(Hosts::new(&["a".to_owned(), "a:1".to_owned()]).unwrap_err(), "a:1");
        assert_eq!(Hosts::new(&["https://a".to_owned()]).unwrap_err(), "https://a");
    }

    fn check(host: &str, origins: &[&str], sites: &[&str]) -> bool {
        let host = Authority::parse(host);
        let origins = origins.iter().map(|text| text.as_bytes());
        check_origin(host.as_ref(), origins, sites.iter().map(|text| text.as_bytes())).is_ok()
    }

    #[test]
    fn a_page_of_the_same_origin_may_send() {
        assert!(check("a:8443", &[], &[]));
        assert!(check("a:8443", &["https://a:8443"], &["same-origin"]));
        assert!(check("a", &["https://a"], &["none"]));
        assert!(check("a:443", &["https://a"], &[]));
        assert!(check("a", &["http://a:80"], &[]));
        assert!(check("[::1]:1", &["http://[::1]:1"], &[]));
    }

    #[test]
    fn a_page_of_another_origin_may_not_send() {
        for origin in [
            "https://b:8443",
            "https://a",
            "https://a:8444",
            "https://a.b:8443",
            "null",
            "",
            "a:8443",
            "file://",
            "https://a:8443/",
            "https://u@a:8443",
            "ftp://a:8443",
        ] {
            assert!(!check("a:8443", &[origin], &[]), "{origin}");
            assert!(!check("a:8443", &["https://a:8443", origin], &[]), "{origin}");
        }
        assert!(!check("", &["https://a"], &[]), "without a host there is no same origin");
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!check("a:8443", &["https://a:8443"], &[site]), "{site}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?[\\[\\]:.0-9a-f@]{0,20}|.{0,20}") {
            let host = Authority::parse(&text);
            let _ = check_origin(host.as_ref(), std::iter::once(text.as_bytes()), std::iter::empty());
        }
    }
}
