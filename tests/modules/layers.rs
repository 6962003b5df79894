//! Modules of src/ depend on each other in one direction: data flows recipe -> data -> model -> train -> evaluate, and
//! nothing imports upward. Every `crate::module` in the sources is held against the list below.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and those that it may name, beside itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["command", "huge_pages"]),
    ("huge_pages", &[]),
    ("guide", &[]),
    ("terminal", &[]),
    ("outside", &[]),
    (
        "command",
        &[
            "checkpoint",
            "data",
            "device",
            "duration",
            "evaluator",
            "exchange",
            "interpreter",
            "kernel",
            "log",
            "mask",
            "model",
            "optimizer",
            "parameter",
            "ranks",
            "recipe",
            "record",
            "report",
            "seed",
            "train",
            "search",
            "sweep",
            "trained",
            "embeddings",
            "whole_file",
        ],
    ),
    ("search", &["data", "embeddings", "evaluator", "kernel", "log", "model", "trained", "whole_file"]),
    ("embeddings", &[]),
    ("sweep", &["interpreter", "log", "recipe", "record", "report", "train", "whole_file"]),
    (
        "interpreter",
        &[
            "checkpoint",
            "data",
            "device",
            "log",
            "model",
            "parameter",
            "ranks",
            "recipe",
            "record",
            "report",
            "train",
            "trained",
        ],
    ),
    ("trained", &["checkpoint", "data", "exchange", "model", "parameter", "recipe", "record", "train"]),
    (
        "recipe",
        &[
            "checkpoint",
            "data",
            "device",
            "duration",
            "evaluator",
            "log",
            "mask",
            "model",
            "optimizer",
            "parameter",
            "ranks",
            "record",
            "train",
        ],
    ),
    (
        "train",
        &[
            "checkpoint",
            "data",
            "duration",
            "evaluator",
            "log",
            "mask",
            "model",
            "optimizer",
            "parameter",
            "pause",
            "ranks",
            "record",
            "report",
            "seed",
        ],
    ),
    ("evaluator", &["data", "kernel", "mask", "record", "seed", "whole_file"]),
    ("exchange", &["data", "model", "parameter", "whole_file"]),
    ("model", &["data", "kernel", "mask", "parameter", "ranks", "seed"]),
    ("optimizer", &["duration", "kernel", "model", "parameter", "ranks"]),
    ("data", &["seed", "whole_file"]),
    ("mask", &["seed"]),
    ("checkpoint", &["duration", "parameter", "whole_file"]),
    ("parameter", &[]),
    ("pause", &[]),
    ("kernel", &[]),
    ("ranks", &[]),
    ("log", &[]),
    ("report", &["record", "whole_file"]),
    ("record", &["whole_file"]),
    ("device", &[]),
    ("duration", &[]),
    ("seed", &[]),
    ("whole_file", &[]),
];

/// Leaves that every module may name.
const EVERYWHERE: &[&str] = &["outside", "terminal"];

/// Modules that may name dfdx.
const GRAPH: &[&str] = &["model", "parameter", "optimizer", "interpreter", "command", "trained"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Modules that a source names: `crate::x` and each branch of `crate::{x, y}`; comments do not count.
fn named(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let names: Vec<String> = match rest.strip_prefix('{') {
            None => vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()],
            Some(group) => {
                let group = group.split("};").next().unwrap_or_default();
                group
                    .split(',')
                    .map(|name| {
                        name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
                    })
                    .collect()
            }
        };
        modules.extend(names.into_iter().filter(|name| !name.is_empty()));
    }
    modules
}

#[test]
fn no_module_imports_upward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the sources were not found under {}", src.display());
    let mut wrong = Vec::new();
    for file in files {
        let module = module(&file, &src);
        // A module's own tests may use the modules that build on it.
        if module == "lib" || file.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(&src).unwrap().display().to_string();
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("src/{shown}: the module `{module}` is not in the list of this test"));
            continue;
        };
        for other in named(&text) {
            if other != module && !allowed.contains(&other.as_str()) && !EVERYWHERE.contains(&other.as_str())
            {
                wrong.push(format!("src/{shown}: `{module}` may not name `{other}`"));
            }
        }
        if text.contains("dfdx::") && !GRAPH.contains(&module.as_str()) {
            wrong.push(format!("src/{shown}: dfdx may not be named in `{module}`"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_terminal_module_writes_to_standard_output_and_error() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        // A build script talks to cargo that way.
        if module(&file, &src) == "terminal" || file.ends_with("src/kernel/cuda/build.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for way in ["println!", "eprintln!", "print!", "eprint!", "dbg!", "::stdout()", "::stderr()"] {
                let own = way == "::stdout()" && code.contains("terminal::stdout()");
                if code.contains(way) && !own {
                    let shown = file.strip_prefix(&src).unwrap().display();
                    wrong.push(format!(
                        "src/{shown}:{}: {way} (say! and say_error! survive a closed stream)",
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_groups_and_paths() {
    let seen = named("use crate::{a, b::C};\nlet x = crate::d::e(); // crate::not_this\n");
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b", "d"]);
}
