//! Every model configuration of open_clip 3.3: which come in, and by which option the rest is refused. tests/data/configurations has
//! them, and the table; where FLIP_PYTHON names a Python with open_clip and timm, each that comes in is held against open_clip
//! with random weights.

use std::path::{Path, PathBuf};
use std::process::Command;

use flip::exchange::{import, ImportOptions};
use serde_json::{json, Map, Value};
use tempfile::tempdir;

use crate::support::*;

/// Of unit embeddings.
const TOLERANCE: f32 = 1e-5;
/// Configurations that have to come in.
const LEAST: usize = 75;

fn configurations() -> Map<String, Value> {
    let text = std::fs::read(fixture("configurations/configurations.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// What becomes of a configuration: nothing where only the weights are missing, else the options that are in the way.
fn refused(configuration: &Value) -> Option<String> {
    let folder = tempdir().unwrap();
    write_json(&folder.path().join("open_clip_config.json"), &json!({ "model_cfg": configuration }));
    let message = refusal(folder.path());
    if message.contains("no weights here") {
        return None;
    }
    let options: Vec<&str> = message.lines().skip(1).map(str::trim).collect();
    assert!(!options.is_empty(), "{message}");
    Some(options.join("; "))
}

#[test]
fn most_configurations_come_in_and_the_others_are_refused_by_the_option() {
    let mut table = String::new();
    let mut in_all = 0;
    for (name, configuration) in configurations() {
        let outcome = match refused(&configuration) {
            None => {
                in_all += 1;
                "comes in".into()
            }
            Some(options) => format!("refused\t{options}"),
        };
        table += &format!("{name}\t{outcome}\n");
    }
    let path = fixture("configurations/table.tsv");
    if std::env::var_os("FLIP_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(&path).unwrap());
    assert!(in_all >= LEAST, "{in_all} of {}", table.lines().count());
}

fn python(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Option<String> {
    let python = std::env::var_os("FLIP_PYTHON")?;
    let script = fixture("configurations/make.py");
    let output =
        Command::new(python).arg(script).args(arguments.iter().map(|a| a.as_ref())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The largest difference of the embeddings of a small model from open_clip's.
fn difference(folder: &Path) -> f32 {
    let imported = import(folder, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let expected = read(&folder.join("expected"));
    let model = filled(&imported);
    let name = folder.display().to_string();
    let images = embed_planes(&model, &expected["image"].1);
    let images = assert_close(&name, &images, &expected["images"].1, TOLERANCE);
    let texts = embed_ids(&model, &expected["text"].1);
    images.max(assert_close(&name, &texts, &expected["texts"].1, TOLERANCE))
}

/// Two blocks of each, of the full width; see tests/data/configurations/make.py. `FLIP_CONFIGURATIONS`, with commas between, names
/// some alone.
#[test]
fn every_configuration_that_comes_in_embeds_as_open_clip_does() {
    let all = configurations();
    let names: Vec<&String> =
        all.iter().filter(|(_, c)| refused(c).is_none()).map(|(name, _)| name).collect();
    for some in names.chunks(4) {
        let root = tempdir().unwrap();
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"weights"];
        let path: PathBuf = root.path().into();
        arguments.push(&path);
        arguments.extend(some.iter().map(|name| *name as &dyn AsRef<std::ffi::OsStr>));
        let Some(failed) = python(&arguments) else {
            println!("skipped: FLIP_PYTHON names no Python");
            return;
        };
        assert!(failed.is_empty(), "{failed}");
        for name in some {
            println!("{name}: {:.1e}", difference(&root.path().join(name)));
        }
    }
}
