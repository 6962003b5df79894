//! What a broken recipe is told: `tests/data/recipe_errors/NAME.ron` (with `NAME.sets`, an override a line,
//! where there is one) against `NAME.expected`. `FLIP_BLESS=1` rewrites what is expected.

use std::path::{Path, PathBuf};

use flip::recipe;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recipe_errors")
}

fn errors_of(name: &str) -> String {
    let text = std::fs::read_to_string(folder().join(name).with_extension("ron")).unwrap();
    let sets = std::fs::read_to_string(folder().join(name).with_extension("sets")).unwrap_or_default();
    let sets: Vec<String> = sets.lines().map(str::to_owned).collect();
    match recipe::read_text(&format!("{name}.ron"), &text, &sets) {
        Ok(_) => panic!("{name} is accepted"),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn broken_recipes_are_explained() {
    let bless = std::env::var_os("FLIP_BLESS").is_some();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ron") {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    names.sort();
    assert!(names.len() >= 60, "only {} broken recipes", names.len());
    let mut different = Vec::new();
    for name in &names {
        let errors = errors_of(name);
        let expected = folder().join(name).with_extension("expected");
        if bless {
            std::fs::write(&expected, &errors).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != errors {
            different.push(format!("--- {name} says:\n{errors}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
