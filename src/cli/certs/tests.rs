use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: CertsCommand,
}

fn parse(args: &[&str]) -> Result<CertsCommand, clap::Error> {
    Cli::try_parse_from([&["certs"], args].concat()).map(|cli| cli.command)
}

fn lines(args: &[&str]) -> Result<Vec<String>, CertsError> {
    let mut lines = Vec::new();
    execute(parse(args).unwrap(), &mut lines).map(|()| lines)
}

#[test]
fn a_malformed_argument_is_a_usage_error() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
    let f = &"0".repeat(63);
    for wrong in [
        &["init"][..],
        &["init", "--dir", "d", "--name", "a b"],
        &["init", "--dir", "d", "--days", "0"],
        &["init", "--dir", "d", "--days", "36501"],
        &["issue", "--dir", "d"],
        &["issue", "--dir", "d", "a.b"],
        &["issue", "--dir", "d", "a", "--server"],
        &["issue", "--dir", "d", "a", "--name", "localhost"],
        &["issue", "--dir", "d", "--name", "localhost"],
        &["revoke", "--dir", "d"],
        &["revoke", "--dir", "d", "--agent", "a b"],
        &["revoke", "--dir", "d", "--agent", "a", "--serial", "1"],
        &["revoke", "--dir", "d", "--serial", "xy"],
        &["revoke", "--dir", "d", "--fingerprint", f],
    ] {
        assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
    for right in [
        &["issue", "--dir", "d", "a", "b", "--days", "7"][..],
        &["issue", "--dir", "d", "--server"],
        &["issue", "--dir", "d", "--server", "--name", "a.example", "--name", "::1"],
    ] {
        parse(right).unwrap();
    }
}

#[test]
fn the_whole_life_of_a_certificate() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("certs");
    let dir = path.to_str().unwrap();
    let missing = lines(&["show", "--dir", dir]).unwrap_err().to_string();
    assert!(missing.contains(dir), "{missing}");

    let said = lines(&["init", "--dir", dir]).unwrap();
    assert!(said[0].starts_with("created CA: "), "{said:?}");
    assert!(said[1].starts_with("issued server: "), "{said:?}");
    let server = std::fs::read(certs::server_files(&path).cert).unwrap();
    let said = lines(&["init", "--dir", dir]).unwrap();
    assert!(said[0].starts_with("kept CA: ") && said[1].starts_with("kept server: "));
    assert_eq!(std::fs::read(certs::server_files(&path).cert).unwrap(), server);

    let said = lines(&["issue", "--dir", dir, "beta", "alpha", "--days", "7"]).unwrap();
    assert!(said[0].starts_with("issued agent beta: "), "{said:?}");
    let said = lines(&["issue", "--dir", dir, "alpha"]).unwrap();
    assert!(said[0].starts_with("renewed agent alpha: "), "{said:?}");
    let said = lines(&["issue", "--dir", dir, "--server", "--name", "a.example"]).unwrap();
    assert!(said[0].starts_with("renewed server: "), "{said:?}");
    // Renewing keeps the names it has.
    lines(&["issue", "--dir", dir, "--server"]).unwrap();

    let cert = path.join("agents/beta.pem");
    let file = ["revoke", "--dir", dir, "--file", cert.to_str().unwrap()];
    assert!(lines(&file).unwrap()[0].starts_with("revoked "));
    assert!(lines(&file).unwrap()[0].starts_with("was revoked already: "));

    let shown = lines(&["show", "--dir", dir]).unwrap();
    let column = |name: &str| shown[0].find(name).unwrap();
    let starts: Vec<_> = shown.iter().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["FILE", "ca.pem", "server.pem", "agents/alpha.pem", "agents/beta.pem"]);
    assert!(shown[1][column("IDENTITY")..].starts_with("CN=MAS CA "));
    assert!(shown[2][column("IDENTITY")..].starts_with("a.example "));
    assert!(shown[3][column("STATUS")..].starts_with("ok "));
    assert!(shown[4][column("STATUS")..].starts_with("revoked "));

    let json = lines(&["show", "--dir", dir, "--json"]).unwrap().concat();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[2]["sans"][0], "URI:spiffe://mas/agent/alpha");
    assert_eq!((&json[0]["is_ca"], &json[2]["revoked"]), (&true.into(), &false.into()));

    // Revoking the agent covers what it is issued later.
    let agent = ["revoke", "--dir", dir, "--agent", "alpha"];
    assert_eq!(lines(&agent).unwrap(), ["revoked agent alpha"]);
    let said = lines(&["issue", "--dir", dir, "alpha"]).unwrap();
    assert!(said[1].contains("alpha is revoked"), "{said:?}");
    let shown = lines(&["show", "--dir", dir]).unwrap();
    assert!(shown[3][column("STATUS")..].starts_with("revoked "));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    assert_eq!(printable("a\u{1b}[31m\n"), "a\u{fffd}[31m\u{fffd}");
}
