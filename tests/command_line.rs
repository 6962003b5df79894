//! What `flip run` answers to a person who got something wrong: exit code 2, a message that says what to do, and
//! no folder that looks like a run.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn flip(folder: &Path, arguments: &[&str]) -> Output {
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart.ron");
    Command::new(env!("CARGO_BIN_EXE_flip"))
        .current_dir(folder)
        .args(["run", quickstart, "--out", "run"])
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str], because: &str) {
    let done = flip(folder, arguments);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains(because), "{said}");
    assert!(!folder.join("run/recipe.ron").exists(), "the folder was taken: {said}");
}

#[test]
fn a_logging_file_with_a_mistake_is_refused_at_the_start() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("mine.ron"), "(level: Inf)").unwrap();
    refused(there.path(), &["--logging", "mine.ron"], "mine.ron:1:9: ");
    refused(there.path(), &["--logging", "absent.ron"], "absent.ron");
    fs::create_dir(there.path().join("run")).unwrap();
    fs::write(there.path().join("run/logging.ron"), "(levl: Info)").unwrap();
    refused(there.path(), &[], "logging.ron:1:2: ");
}

#[test]
fn what_this_build_cannot_do_is_refused_at_the_start() {
    let there = tempfile::tempdir().unwrap();
    // No machine has as many.
    refused(there.path(), &["--set", "device=Cuda(4096)"], "device: Cuda(4096) is not available: ");
    let why = match flip::device::gpus() {
        Err(why) => format!("device: Cuda(0) is not available: {why}; use device: Auto or Cpu"),
        Ok(_) => {
            "device: Cuda(0): compute: Fused computes in bfloat16 on a GPU, not in 32 bits; set".to_owned()
        }
    };
    refused(there.path(), &["--set", "device=Cuda(0)"], &why);
}

#[test]
fn what_is_not_there_is_named_with_the_override_that_changes_it() {
    let there = tempfile::tempdir().unwrap();
    refused(
        there.path(),
        &["--set", "data.train=WebDataset(shards: \"absent-{0..3}.tar\")"],
        "data.train.shards: absent-{0..3}.tar matches nothing; set it with --set data.train.shards=...",
    );
    refused(
        there.path(),
        &["--set", "model.text.tokenizer=WordPiece(\"absent.txt\")"],
        "absent.txt is not there; set it with --set model.text.tokenizer.WordPiece=...",
    );
    refused(
        there.path(),
        &["--set", "stages.1.0.data=Folder(path: \"absent\")"],
        "set it with --set stages.1.0.data.path=...",
    );
    refused(there.path(), &["--resume"], "holds no run to resume");
}

#[test]
fn a_file_is_no_run_folder() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("run"), "").unwrap();
    refused(there.path(), &[], "run is not a folder");
}
