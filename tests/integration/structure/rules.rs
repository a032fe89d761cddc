//! What imports must not do: lead back to their file, or upward.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::imports::Import;

/// The files that can be reached from one, each with the import that reaches it first.
fn reached<'a>(imports: &'a [Import], from: &str) -> BTreeMap<&'a str, &'a Import> {
    let (mut found, mut next) = (BTreeMap::new(), VecDeque::from([from]));
    while let Some(file) = next.pop_front() {
        for import in imports.iter().filter(|import| import.from == file) {
            found.entry(import.to.as_str()).or_insert_with(|| {
                next.push_back(&import.to);
                import
            });
        }
    }
    found
}

/// One shortest circle for each group of files that all reach one another.
pub(super) fn circles(imports: &[Import]) -> Vec<String> {
    let files: BTreeSet<&str> = imports.iter().map(|import| import.from.as_str()).collect();
    let reach: BTreeMap<&str, _> = files.iter().map(|&file| (file, reached(imports, file))).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for &file in &files {
        if seen.contains(file) || !reach[file].contains_key(file) {
            continue;
        }
        let together = |other: &&str| reach[file].contains_key(*other) && reach[*other].contains_key(file);
        let group: Vec<&str> = files.iter().copied().filter(together).collect();
        seen.extend(group.iter().copied());
        let shortest = group.iter().map(|&start| circle(&reach[start], start)).min_by_key(Vec::len);
        found.push(described(imports, &shortest.unwrap_or_default(), group.len()));
    }
    found
}

/// The way from a file back to it.
fn circle<'a>(reached: &BTreeMap<&str, &'a Import>, start: &str) -> Vec<&'a Import> {
    let mut way = vec![reached[start]];
    while way[way.len() - 1].from != start {
        way.push(reached[way[way.len() - 1].from.as_str()]);
    }
    way.reverse();
    way
}

/// The circle as arrows, then every line that makes one of them.
fn described(imports: &[Import], circle: &[&Import], group: usize) -> String {
    let mut files: Vec<&str> = circle.iter().map(|import| import.from.as_str()).collect();
    files.extend(files.first().copied());
    let mut text = files.join(" -> ");
    if group > circle.len() {
        text.push_str(&format!(" (the shortest circle among {group} files)"));
    }
    let arrows = circle
        .iter()
        .flat_map(|arrow| imports.iter().filter(|import| import.from == arrow.from && import.to == arrow.to));
    for import in arrows {
        text.push_str(&format!("\n    {}", at_line(import)));
    }
    text
}

fn at_line(import: &Import) -> String {
    format!("{}:{}: {}", import.from, import.line, import.text)
}

/// Layers from the lowest to the highest; each is a list of files and folders that do not know each other.
pub(super) type Layers<'a> = &'a [&'a [&'a str]];

/// The imports among the files of the layers that do not point to a lower layer, or stay in their file or folder.
pub(super) fn not_downward(imports: &[Import], layers: Layers<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for import in imports {
        let (Some(from), Some(to)) = (place(&import.from, layers), place(&import.to, layers)) else {
            continue;
        };
        if from == to || to.0 < from.0 {
            continue;
        }
        let way = if to.0 > from.0 { "upward" } else { "sideways" };
        found.push(format!("{} -> {} points {way}\n    {}", from.1, to.1, at_line(import)));
    }
    found
}

/// The layer of a file, and the entry there that names it most closely.
fn place<'a>(file: &str, layers: Layers<'a>) -> Option<(usize, &'a str)> {
    let entries = layers
        .iter()
        .enumerate()
        .flat_map(|(layer, entries)| entries.iter().map(move |entry| (layer, *entry)));
    entries.filter(|(_, entry)| is_within(file, entry)).max_by_key(|(_, entry)| entry.len())
}

/// Whether the file is the one that `entry` names, or in the folder that it names.
pub(super) fn is_within(file: &str, entry: &str) -> bool {
    file.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The files that have no layer.
pub(super) fn without_layer<'a>(files: impl Iterator<Item = &'a str>, layers: Layers<'_>) -> Vec<&'a str> {
    files.filter(|file| place(file, layers).is_none()).collect()
}
