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
fn a_batch_that_no_memory_holds_is_an_error_before_the_start() {
    let there = tempfile::tempdir().unwrap();
    let sets = ["--set", "stages.0.batch=16777216", "--set", "model.image.width=65536", "--set"];
    let sets = [&sets[..], &["model.image.heads=64"]].concat();
    refused(there.path(), &sets, "stages[0]: needs about");
}

/// Runs `flip` with a limit of ten seconds, so that what hangs or fills memory is seen.
fn flip_in_time(arguments: &[&str]) -> (Option<i32>, String) {
    let done =
        Command::new("timeout").arg("10").arg(env!("CARGO_BIN_EXE_flip")).args(arguments).output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn numbers_beyond_every_use_are_refused_with_their_bounds() {
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart.ron");
    for (arguments, because) in [
        (&["data", "bench", "x.tar", "--batch=18446744073709551615"][..], "from 1 to 1048576"),
        (&["data", "bench", "x.tar", "--threads=1000000000"], "from 1 to 1024"),
        (&["data", "bench", "x.tar", "--seconds=NaN"], "from 0 to 86400"),
        (&["tokenizer", "train", "x.tar", "--vocab-size=4294967296"], "from 1 to 1048576"),
        (&["bench", quickstart, "--batch=18446744073709551615"], "from 2 to 1048576"),
        (
            &[
                "bench",
                quickstart,
                "--batch=1048576",
                "--set=model.image.width=65536",
                "--set=model.image.heads=64",
            ],
            "a step: about",
        ),
        (&["data", "mask", "--images=18446744073709551615"], "from 1 to 64"),
        (
            &["export", "x", "--to", "onnx", "--out", "y", "--inline-mib=18446744073709551615"],
            "from 0 to 2047",
        ),
        (&["import", "x", "--out", "y", "--image-size=18446744073709551615"], "from 1 to 8192"),
        (&["sweep", quickstart, "--seeds=1000000000"], "from 1 to 10000"),
        (&["validate", quickstart, "--set", "data.workers=1000000000"], "1024"),
        (&["validate", quickstart, "--set", "threads=1000000000"], "1024"),
        (&["validate", quickstart, "--set", "stages.0.batch=18446744073709551615"], "16777216"),
    ] {
        let (code, said) = flip_in_time(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(because), "{arguments:?}: {said}");
    }
}

#[test]
fn endless_files_and_plans_are_refused_at_once() {
    let there = tempfile::tempdir().unwrap();
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart.ron");
    let study = there.path().join("study.ron");
    let axis: String = (0..100).map(|i| format!("{},", i + 2)).collect();
    let axis = axis.trim_end_matches(',');
    let text = format!(
        "Study(name: \"many\", recipe: {quickstart:?}, axes: [Values(\"stages.0.batch={axis}\"), \
         Values(\"model.embed_dim={axis}\")], seeds: 80)"
    );
    fs::write(&study, text).unwrap();
    let study = study.display().to_string();
    let seeds = study.replace("study.ron", "seeds.ron");
    fs::write(&seeds, format!("Study(name: \"many\", recipe: {quickstart:?}, seeds: 1000000000)")).unwrap();
    let deep = study.replace("study.ron", "deep.ron");
    fs::write(&deep, "(".repeat(100_000)).unwrap();
    for (file, because) in [
        ("/dev/zero", "more than 1048576 bytes"),
        (&study, "expected at most 10000 runs, got 800000 (100 x 100 x 80)"),
        (&seeds, "10000"),
        (&deep, "64"),
    ] {
        for command in ["validate", "sweep"] {
            let (code, said) = flip_in_time(&[command, file]);
            assert_eq!(code, Some(2), "{command} {file}: {said}");
            assert!(said.contains(because), "{command} {file}: {said}");
        }
    }
    // The search of a whole disk ends with the patience of `validate`.
    let whole_disk = "data.train=WebDataset(shards: \"/**/*.nothing\")";
    assert_eq!(flip_in_time(&["validate", quickstart, "--set", whole_disk]).0, Some(0));
    let nested = format!("data.train=WebDataset(shards: \"{}a{}\")", "{".repeat(20_000), "}".repeat(20_000));
    for (shards, because) in [
        (nested, "more than 32 braces"),
        ("data.train=WebDataset(shards: \"{0..9999999}\")".into(), "more than 1000000 paths"),
        (format!("data.train=WebDataset(shards: \"{}\")", "{0..99}".repeat(12)), "more than 1000000 paths"),
        (format!("data.train=WebDataset(shards: \"{}\")", "/**".repeat(6)), "6 times `**`"),
    ] {
        let (code, said) = flip_in_time(&["validate", quickstart, "--set", &shards]);
        assert_eq!(code, Some(2), "{shards}: {said}");
        assert!(said.contains(because), "{shards}: {said}");
    }
}

#[test]
fn a_file_is_no_run_folder() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("run"), "").unwrap();
    refused(there.path(), &[], "run is not a folder");
}
