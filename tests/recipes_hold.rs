//! The shipped recipes: each reads, validates quickly, and says of itself what is true; the schema is fresh.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flip::command::{schema, validate};
use flip::recipe;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> Vec<PathBuf> {
    let mut recipes = Vec::new();
    for folder in ["recipes", "recipes/bench"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ron") {
                recipes.push(path);
            }
        }
    }
    recipes.sort();
    assert!(recipes.len() >= 13, "{recipes:?}");
    recipes
}

#[test]
fn every_recipe_validates_in_under_a_second() {
    for path in shipped() {
        for json in [false, true] {
            let mut out = Vec::new();
            let started = Instant::now();
            let report =
                validate::validate(&path, &[], json, &mut out).unwrap_or_else(|error| panic!("{error}"));
            let took = started.elapsed();
            assert!(took < Duration::from_secs(1), "{} took {took:?}", path.display());
            assert!(report.valid && report.flops.is_some());
            let text = String::from_utf8(out).unwrap();
            println!("{text}{took:?}\n");
            if json {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value["parameters"]["total"], report.parameters.total);
            }
        }
    }
}
