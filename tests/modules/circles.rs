//! No circle between files.
//!
//! A file depends on the file that defines an item which it names: in a `use`, or in a path. Re-exports are followed to
//! the definition, so a `mod.rs` that declares its children and passes their names on depends on none of them, and they
//! may name what it defines itself. What is compiled for tests alone does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::names::Crate;

/// Circles that are there: the folder that each lies in, files in circles there, and the reason. The numbers may only
/// become smaller, and a folder without circles leaves the list.
const KNOWN: &[(&str, usize, &str)] = &[
    ("command", 4, "two pairs: packing and its loose files, a sweep and its forecast"),
    ("exchange", 4, "the ONNX graph is built by the towers that it holds"),
    ("kernel", 8, "operations define their contract beside the dispatch to the code for each processor"),
    ("ranks", 2, "mod.rs defines the ranks of a run and makes them of its parts"),
    ("recipe", 8, "reading a recipe resolves its files, one of which may be another recipe"),
    ("report", 7, "the sweep page defines what it shows beside the parts that show it"),
];

type Edges = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// Groups of files that reach each other, each sorted.
fn circles(edges: &Edges) -> Vec<Vec<PathBuf>> {
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = edges
        .keys()
        .map(|from| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(file) = next.pop() {
                next.extend(edges.get(file).into_iter().flatten().filter(|&to| seen.insert(to)));
            }
            (from, seen)
        })
        .collect();
    let mut groups = BTreeSet::new();
    for (from, seen) in &reached {
        if seen.contains(from) {
            let back = |to: &&&PathBuf| reached.get(**to).is_some_and(|seen| seen.contains(from));
            groups.insert(seen.iter().filter(back).map(|&file| file.clone()).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

fn describe(group: &[PathBuf], edges: &Edges) -> String {
    let inner = |from: &PathBuf| -> Vec<String> {
        let own = edges[from].iter().filter(|to| group.contains(to));
        own.map(|to| format!("  {} -> {}", from.display(), to.display())).collect()
    };
    let lines: Vec<String> = group.iter().flat_map(inner).collect();
    format!("{} files reach each other:\n{}", group.len(), lines.join("\n"))
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let short = |path: &PathBuf| path.strip_prefix(&src).unwrap().to_path_buf();
    let edges = Crate::read(&src.join("lib.rs")).edges();
    let edges: Edges = edges.iter().map(|(from, to)| (short(from), to.iter().map(short).collect())).collect();
    assert!(edges.len() > 200, "only {} files were read", edges.len());
    let found = circles(&edges);
    let mut wrong = Vec::new();
    for (folder, most, _) in KNOWN {
        let inside = found.iter().filter(|group| group.iter().all(|file| file.starts_with(folder)));
        match inside.map(Vec::len).sum() {
            0 => wrong
                .push(format!("no files of {folder} are in a circle: take it out of the list of this test")),
            files if files > *most => {
                wrong.push(format!("{files} files of {folder} are in circles, not {most}"))
            }
            _ => {}
        }
    }
    let is_known = |group: &&Vec<PathBuf>| {
        KNOWN.iter().any(|(folder, ..)| group.iter().all(|file| file.starts_with(folder)))
    };
    if !wrong.is_empty() || !found.iter().all(|group| is_known(&group)) {
        wrong.extend(found.iter().map(|group| describe(group, &edges)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn circles_are_found_and_trees_are_none() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges = Edges::new();
        for (from, to) in pairs {
            edges.entry(from.into()).or_default().insert(to.into());
            edges.entry(to.into()).or_default();
        }
        edges
    };
    assert!(circles(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&edges(&[("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "f"), ("f", "d")]));
    let names: Vec<Vec<&str>> =
        found.iter().map(|group| group.iter().map(|file| file.to_str().unwrap()).collect()).collect();
    assert_eq!(names, [vec!["b", "c"], vec!["d", "e", "f"]]);
}
