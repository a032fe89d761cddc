//! From the paths that are written to the files that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{Written, paths, tokens, without_tests};

/// How many `use` lines one path is followed through.
const MAX_HOPS: usize = 8;

/// A file: its path from the project's folder, and what is in it.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// One file imports another, at a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) line: usize,
    /// The line as it is written.
    pub(super) text: String,
}

/// A file as a module: its place in the tree, and the paths in it.
struct Module {
    file: usize,
    paths: Vec<Written>,
    names: BTreeMap<String, Vec<String>>,
}

/// Where a path leads.
#[derive(Debug, PartialEq)]
enum Target {
    Item(usize),
    Module(Vec<String>),
    Elsewhere,
}

/// The module that a file is: its crate (`lib`, or the program), then the names down to it.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod").trim_end_matches("/main");
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    if segments[0] == "bin" {
        segments.remove(0);
        segments[0] = format!("bin {}", segments[0]);
    } else if segments[0] == "lib" {
        segments.truncate(1);
    } else {
        segments.insert(0, "lib".to_owned());
    }
    segments
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

struct Tree {
    modules: BTreeMap<Vec<String>, Module>,
}

impl Tree {
    fn read(sources: &[Source]) -> Self {
        let mut modules = BTreeMap::new();
        let mut test_only = Vec::new();
        for (file, source) in sources.iter().enumerate() {
            let module = module_of(&source.path);
            let (tokens, tests) = without_tests(&tokens(&source.text));
            test_only.extend(tests.into_iter().map(|name| [module.clone(), vec![name]].concat()));
            let paths = paths(&tokens);
            let named = |written: &Written| Some((written.name.clone()?, written.segments.clone()));
            let names = paths.iter().filter_map(named).collect();
            modules.insert(module, Module { file, paths, names });
        }
        modules.retain(|module, _| !test_only.iter().any(|test| module.starts_with(test)));
        Self { modules }
    }

    /// Follows a path that is written in a module. `hops` ends a circle of `use` lines.
    fn follow(&self, module: &[String], segments: &[String], hops: usize) -> Target {
        let Some((first, rest)) = segments.split_first().filter(|_| hops > 0) else {
            return Target::Elsewhere;
        };
        let start = match first.as_str() {
            "crate" => Target::Module(module[..1].to_vec()),
            "mas" if module[0] != "lib" => Target::Module(vec!["lib".to_owned()]),
            "self" => Target::Module(module.to_vec()),
            "super" => Target::Module(parent(module)),
            _ => self.step(module, first, rest.is_empty(), hops, Target::Elsewhere),
        };
        rest.iter().enumerate().fold(start, |target, (n, segment)| match target {
            Target::Module(module) if segment == "super" => Target::Module(parent(&module)),
            Target::Module(module) => {
                let own =
                    self.modules.get(&module).map_or(Target::Elsewhere, |module| Target::Item(module.file));
                self.step(&module, segment, n + 1 == rest.len(), hops, own)
            }
            target => target,
        })
    }

    /// One name in a module: a module below it, what a `use` made of it, or else `own`.
    fn step(&self, module: &[String], name: &str, is_last: bool, hops: usize, own: Target) -> Target {
        let below = [module, &[name.to_owned()]].concat();
        let is_module = self.modules.contains_key(&below);
        let used = self.modules.get(module).and_then(|module| module.names.get(name));
        match used {
            // A `use` of the same name counts where a module cannot be meant.
            Some(path) if (!is_module || is_last) && path.as_slice() != [name] => {
                self.follow(module, path, hops - 1)
            }
            _ if is_module => Target::Module(below),
            _ => own,
        }
    }
}

/// Which file imports which, each pair once for each line.
pub(super) fn imports(sources: &[Source]) -> Vec<Import> {
    let tree = Tree::read(sources);
    let mut found = BTreeSet::new();
    for (name, module) in &tree.modules {
        for written in &module.paths {
            // What begins with an item that a `use` names is that `use`'s import.
            let begins = module.names.get(&written.segments[0]).filter(|_| !written.is_use);
            if begins.is_some_and(|path| matches!(tree.follow(name, path, MAX_HOPS), Target::Item(_))) {
                continue;
            }
            let file = match tree.follow(name, &written.segments, MAX_HOPS) {
                Target::Item(file) => file,
                Target::Module(module) if written.is_glob => tree.modules[&module].file,
                Target::Module(_) | Target::Elsewhere => continue,
            };
            if file != module.file {
                let text = sources[module.file].text.lines().nth(written.line - 1).unwrap_or("");
                found.insert(Import {
                    from: sources[module.file].path.clone(),
                    to: sources[file].path.clone(),
                    line: written.line,
                    text: text.trim().to_owned(),
                });
            }
        }
    }
    found.into_iter().collect()
}
