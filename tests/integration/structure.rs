//! The structure of src/, read from its text: no circle of files, no import that points upward.
//!
//! A file imports another file when one of its paths, in a `use` or written out in the code, names an item of
//! it. A path is followed through modules, and through `use` and `pub use`, to the file that defines its item.
//! `mod x;` is no import, and a `use` that only names a module is none either: what is taken from the module
//! counts, wherever that is written. A `pub use` is an import of the file that it stands in.
//!
//! Limits. The text is not compiled, so an import can be missed, and in rare cases one is seen that is none:
//! - Code under `#[cfg(test)]` is skipped; every other condition is taken as true.
//! - Methods, fields and trait implementations name no file: calling a method is no import.
//! - What a glob brings, and what a macro makes, counts as defined in the module that it is named under.
//! - Names have no scopes: a `use` inside a function holds for its whole file, and a module that is written
//!   inside a file is taken for a part of that file.
//! - Paths in strings (`#[serde(with = "...")]`), in comments and in what `include!` brings are not seen, nor
//!   are modules in a file that `#[path]` names.

use std::fs;
use std::path::Path;

mod imports;
mod rules;
mod text;

use imports::{Import, Source, imports};
use rules::{Layers, circles, is_within, not_downward, without_layer};

/// Folders whose inner structure is not looked at until they have been redesigned; imports between one of them
/// and the rest are.
const NOT_YET: &[&str] = &[];

/// The worker loop: a folder may import itself and those before it, `mod.rs` all of them.
const SHARD: Layers<'static> = &[
    &["src/shard/desk"],
    &["src/shard/inbox"],
    &["src/shard/txn"],
    &["src/shard/worker"],
    &["src/shard/mod.rs"],
];

/// All of src/, from what imports nothing to the programs. What stands in one line does not import each other.
const LAYERS: Layers<'static> = &[
    &[
        "src/clock.rs",
        "src/disks.rs",
        "src/files.rs",
        "src/ids.rs",
        "src/json.rs",
        "src/otlp.rs",
        "src/protocol.rs",
        "src/refusal.rs",
        "src/policy/rate_limit.rs",
    ],
    &["src/content.rs"],
    &["src/audit", "src/certs", "src/dlp", "src/envelope.rs"],
    &["src/config", "src/identity.rs", "src/key_files", "src/quarantine.rs"],
    &["src/gate", "src/policy", "src/runner", "src/store"],
    &["src/shard"],
    &[
        "src/archive",
        "src/denylist.rs",
        "src/material.rs",
        "src/orders.rs",
        "src/rpc",
        "src/sink",
        "src/takeover.rs",
        "src/telemetry",
    ],
    &["src/checkpoint", "src/history"],
    &["src/operation"],
    &["src/admin"],
    &["src/cli", "src/server.rs"],
    &["src/bin", "src/lib.rs"],
];

/// Every file of src/.
fn sources() -> Vec<Source> {
    sources_of(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Every file of src/ in the folder of a crate.
fn sources_of(root: &Path) -> Vec<Source> {
    let (mut folders, mut found) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    found
}

/// The imports of src/ without those inside a folder that is not looked at yet.
fn looked_at() -> Vec<Import> {
    let inside =
        |import: &Import, folder: &str| is_within(&import.from, folder) && is_within(&import.to, folder);
    let mut found = imports(&sources());
    found.retain(|import| !NOT_YET.iter().any(|folder| inside(import, folder)));
    found
}

fn made_up(files: &[(&str, &str)]) -> Vec<Import> {
    let source = |&(path, text): &(&str, &str)| Source { path: path.to_owned(), text: text.to_owned() };
    imports(&files.iter().map(source).collect::<Vec<_>>())
}

fn arrows(imports: &[Import]) -> Vec<String> {
    let mut found: Vec<String> =
        imports.iter().map(|import| format!("{} -> {}", import.from, import.to)).collect();
    found.dedup();
    found
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let found = circles(&looked_at());
    assert!(found.is_empty(), "circles of files:\n\n{}\n", found.join("\n\n"));
}

#[test]
fn no_file_of_the_client_library_imports_one_that_imports_it() {
    let imports = imports(&sources_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/rust")));
    assert!(arrows(&imports).iter().any(|arrow| arrow == "src/agent.rs -> src/handle.rs"), "nothing is seen");
    let found = circles(&imports);
    assert!(found.is_empty(), "circles of files:\n\n{}\n", found.join("\n\n"));
}

#[test]
fn imports_point_downward() {
    let found = not_downward(&looked_at(), LAYERS);
    assert!(found.is_empty(), "imports against the layers of src/:\n\n{}\n", found.join("\n"));
}

#[test]
fn imports_of_the_worker_loop_point_downward() {
    let found = not_downward(&looked_at(), SHARD);
    assert!(found.is_empty(), "imports against the layers of src/shard:\n\n{}\n", found.join("\n"));
}

#[test]
fn every_file_has_a_layer() {
    let sources = sources();
    let files = || sources.iter().map(|source| source.path.as_str());
    assert_eq!(without_layer(files(), LAYERS), [""; 0]);
    if !NOT_YET.contains(&"src/shard") {
        assert_eq!(without_layer(files().filter(|file| is_within(file, "src/shard")), SHARD), [""; 0]);
    }
}

/// The other tests would pass if nothing were read.
#[test]
fn the_imports_of_src_are_seen() {
    let found = arrows(&looked_at());
    for expected in [
        "src/bin/mas-server/main.rs -> src/server.rs",
        "src/server.rs -> src/rpc/mod.rs",
        // By way of `pub use` in store/mod.rs.
        "src/checkpoint/uplink.rs -> src/store/connection.rs",
        // Written out in the code, by way of `use super::layers`.
        "src/dlp/passes.rs -> src/dlp/layers.rs",
    ] {
        assert!(found.iter().any(|arrow| arrow == expected), "{expected} is not seen");
    }
}

#[test]
fn a_circle_is_found_and_shown_with_its_lines() {
    let imports = made_up(&[
        ("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\n"),
        ("src/a.rs", "//! A.\nuse crate::b::{B,\n    Other};\nfn a() { crate::d::d() }\n"),
        ("src/b.rs", "pub struct B;\npub struct Other;\nfn b() -> u8 { super::c::c() }\n"),
        ("src/c.rs", "use crate::a::A as Renamed;\npub fn c() {}\n"),
        ("src/d.rs", "pub fn d() {}\n"),
    ]);
    let expected = "src/a.rs -> src/b.rs -> src/c.rs -> src/a.rs
    src/a.rs:2: use crate::b::{B,
    src/a.rs:3: Other};
    src/b.rs:3: fn b() -> u8 { super::c::c() }
    src/c.rs:1: use crate::a::A as Renamed;";
    assert_eq!(circles(&imports), [expected]);
}

#[test]
fn a_file_and_its_folder_can_make_a_circle() {
    let imports = made_up(&[
        ("src/lib.rs", "pub mod a;\n"),
        ("src/a/mod.rs", "mod b;\npub use b::B;\npub struct A;\n"),
        ("src/a/b.rs", "use super::A;\npub struct B(A);\n"),
    ]);
    assert_eq!(circles(&imports).len(), 1);
    // With the type in a file of its own there is none, also where it is named by way of the folder.
    let imports = made_up(&[
        ("src/lib.rs", "pub mod a;\n"),
        ("src/a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::A;\n"),
        ("src/a/b.rs", "use super::A;\npub struct B(A);\n"),
        ("src/a/c.rs", "pub struct A;\n"),
    ]);
    assert_eq!(circles(&imports), [""; 0]);
    assert_eq!(
        arrows(&imports),
        ["src/a/b.rs -> src/a/c.rs", "src/a/mod.rs -> src/a/b.rs", "src/a/mod.rs -> src/a/c.rs"]
    );
}

#[test]
fn two_circles_are_two_and_the_shortest_way_is_shown() {
    let imports = made_up(&[
        ("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\nmod e;\n"),
        ("src/a.rs", "use crate::b::B;\n"),
        ("src/b.rs", "use crate::c::C;\nuse crate::d::D;\n"),
        ("src/c.rs", "use crate::a::A;\nuse crate::b::B;\n"),
        ("src/d.rs", "use crate::e::E;\n"),
        ("src/e.rs", "use crate::d::D;\n"),
    ]);
    let found = circles(&imports);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("src/b.rs -> src/c.rs -> src/b.rs (the shortest circle among 3 files)\n"),
        "{found:?}"
    );
    assert!(found[1].starts_with("src/d.rs -> src/e.rs -> src/d.rs\n"), "{found:?}");
}

#[test]
fn what_is_no_import_makes_no_arrow() {
    let imports = made_up(&[
        ("src/lib.rs", "pub mod a;\npub mod b;\npub mod c;\n"),
        ("src/c.rs", "pub struct C;\n"),
        ("src/a.rs", "use crate::b;\nuse std::fmt;\nuse b::B;\n"),
        (
            "src/b.rs",
            r##"//! See [`crate::a::A`].
/* use crate::a::A; /* and again */ use crate::a::A; */
pub struct B; // use crate::a::A;
const TEXT: &str = "use crate::a::A; \" crate::a::A";
const RAW: &str = r#"" use crate::a::A; "#;
const QUOTE: char = '"';
const SLASH: char = '\\';
fn life<'a>(text: &'a str) -> &'a str { text }
pub(in crate::a) fn seen() {}
#[cfg(test)]
use crate::a::{A, Other};
#[cfg(test)]
#[allow(dead_code)]
fn only_in_tests() { if true { crate::a::a() } }
#[cfg(test)]
mod tests;
#[cfg(test)]
mod more { use crate::a::A; }
struct Fields { count: [u8; 2], #[cfg(test)] a: crate::a::A }
use crate::c::C;
"##,
        ),
        ("src/b/tests.rs", "use crate::a::A;\nuse super::*;\n"),
    ]);
    assert_eq!(arrows(&imports), ["src/a.rs -> src/b.rs", "src/b.rs -> src/c.rs"]);
}

#[test]
fn a_path_is_followed_to_the_file_that_defines_its_item() {
    let imports = made_up(&[
        ("src/lib.rs", "pub mod a;\npub mod user;\n"),
        ("src/a/mod.rs", "pub mod deep;\npub use self::deep::{item::Item, item as short};\nfn helper() {}\n"),
        ("src/a/deep/mod.rs", "pub mod item;\npub mod work;\n"),
        ("src/a/deep/item.rs", "pub struct Item;\npub fn make() {}\n"),
        ("src/a/deep/work.rs", "use super::super::helper;\n#[cfg(unix)]\nuse super::item::*;\n"),
        (
            "src/user.rs",
            "use crate::a::{self, short};\nfn f() { a::Item::new(); short::make(); Item2::x() }\n",
        ),
        ("src/bin/tool/main.rs", "mod part;\nuse mas::a::Item;\nfn main() { part::run() }\n"),
        ("src/bin/tool/part.rs", "use mas::a;\npub fn run() { a::deep::item::make::<a::deep::Unknown>() }\n"),
    ]);
    let expected = [
        "src/a/deep/work.rs -> src/a/deep/item.rs",
        "src/a/deep/work.rs -> src/a/mod.rs",
        "src/a/mod.rs -> src/a/deep/item.rs",
        "src/bin/tool/main.rs -> src/a/deep/item.rs",
        "src/bin/tool/main.rs -> src/bin/tool/part.rs",
        "src/bin/tool/part.rs -> src/a/deep/item.rs",
        "src/bin/tool/part.rs -> src/a/deep/mod.rs",
        "src/user.rs -> src/a/deep/item.rs",
    ];
    assert_eq!(arrows(&imports), expected);
}

#[test]
fn an_arrow_upward_is_found() {
    let layers: Layers<'_> = &[&["src/low.rs", "src/other.rs"], &["src/middle"], &["src/middle/top.rs"]];
    let files = [
        ("src/lib.rs", "mod low;\nmod middle;\nmod other;\nmod unplaced;\n"),
        ("src/low.rs", "use crate::other::O;\nfn f() { crate::middle::part::p() }\n"),
        ("src/middle/mod.rs", "mod part;\nmod top;\n"),
        ("src/middle/part.rs", "use crate::low::L;\nuse super::mine;\npub fn p() { super::top::t() }\n"),
        ("src/middle/top.rs", "use super::part::p;\nuse crate::low::L;\n"),
        ("src/other.rs", "use crate::unplaced::U;\n"),
        ("src/unplaced.rs", ""),
    ];
    let expected = [
        "src/low.rs -> src/middle points upward\n    src/low.rs:2: fn f() { crate::middle::part::p() }",
        "src/low.rs -> src/other.rs points sideways\n    src/low.rs:1: use crate::other::O;",
        "src/middle -> src/middle/top.rs points upward\n    src/middle/part.rs:3: pub fn p() { super::top::t() }",
    ];
    assert_eq!(not_downward(&made_up(&files), layers), expected);
    let paths = files.iter().map(|(path, _)| *path);
    assert_eq!(without_layer(paths, layers), ["src/lib.rs", "src/unplaced.rs"]);
}
