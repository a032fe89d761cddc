//! What docs/clients.md promises, held by the Rust library against a real server: a test for each behaviour, under its name.

mod calls;
mod connection;
mod end;
mod handlers;
mod servers;

use std::collections::BTreeSet;
use std::path::Path;

use mas_agent::{Agent, Builder, Credentials};
use serde::{Deserialize, Serialize};

use crate::support::{Server, World};

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
struct Number {
    n: i64,
}

fn credentials(world: &World, name: &str) -> Credentials {
    let (cert, key) = world.certificate(name);
    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    Credentials::from_pem(ca, cert, key).unwrap()
}

fn agent(world: &World, server: &Server, name: &str) -> Builder {
    Agent::builder(&server.addr, credentials(world, name))
}

/// How a test names what it holds.
const CALL: &str = "behaviours";

/// The behaviours that the test it stands in holds, by their names in docs/clients.md.
fn behaviours<const N: usize>(names: [&str; N]) {
    assert!(N > 0 && names.iter().all(|name| name.contains('.')));
}

/// The first words in `**` of the paragraphs that name a behaviour.
fn promised(text: &str) -> BTreeSet<String> {
    let named = text.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    named.map(|(name, _)| name.to_owned()).collect()
}

/// The quoted names in calls of `behaviours` below a folder.
fn held(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            held(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for call in text.split(&format!("{CALL}([")).skip(1) {
                let names = call.split("])").next().unwrap_or_default();
                found.extend(names.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_behaviour_that_is_promised_has_a_test_and_no_test_holds_another() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promised = promised(&std::fs::read_to_string(root.join("docs/clients.md")).unwrap());
    assert!(promised.len() > 30, "{promised:?}");
    let mut tested = BTreeSet::new();
    held(&root.join("tests/integration/client"), &mut tested);
    held(&root.join("sdk/rust/src"), &mut tested);
    let missing: Vec<_> = promised.difference(&tested).collect();
    let unknown: Vec<_> = tested.difference(&promised).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "without a test: {missing:?}; not promised: {unknown:?}"
    );
}
