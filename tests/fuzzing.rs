//! Changed inputs of every kind are read or refused: no panic, under 2 GiB of memory and 20 seconds each.
//!
//! Every test run takes a few of each kind. Ten thousand, or as many as `FLIP_MUTATED_INPUTS` says, of all kinds or of
//! that of `FLIP_MUTATED_KIND`:
//!
//!     cargo test --release --test fuzzing -- --ignored --nocapture ten_thousand_mutated_inputs

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[path = "fuzz/change.rs"]
mod change;
#[path = "fuzz/child.rs"]
mod child;
#[path = "fuzz/kinds.rs"]
mod kinds;
#[path = "fuzz/target.rs"]
mod target;

use change::change;
use kinds::KINDS;

/// Changed inputs of an ordinary test run.
const CHANGED: usize = 400;
/// Of a kind, in processes of their own.
const FEW: u64 = 12;

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut inputs = Vec::new();
    for folder in [folder.join("fuzz/corpus/shard"), folder.join("data/damaged")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json" && extension != "md") {
                inputs.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    inputs.sort();
    inputs
}

#[test]
fn shards_and_images_of_any_bytes_load_or_are_skipped() {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let inputs = corpus();
    assert!(inputs.len() > 10);
    for (_, bytes) in &inputs {
        target::run(scratch.path(), bytes);
    }
    let seconds: u64 = std::env::var("FLIP_FUZZ_SECONDS").map_or(0, |text| text.parse().unwrap());
    let began = Instant::now();
    let mut round = 0;
    while round < CHANGED as u64 || began.elapsed() < Duration::from_secs(seconds) {
        let mut rng = ChaCha8Rng::seed_from_u64(round);
        let (path, input) = &inputs[rng.gen_range(0..inputs.len())];
        let (_, other) = &inputs[rng.gen_range(0..inputs.len())];
        let bytes = change(&mut rng, input, other);
        let ran = std::panic::catch_unwind(|| target::run(scratch.path(), &bytes));
        assert!(ran.is_ok(), "round {round} of {}", path.display());
        round += 1;
    }
    println!("{round} changed inputs in {:.0} s", began.elapsed().as_secs_f64());
}

fn without_findings(each: u64, wanted: impl Fn(&str) -> bool) {
    let mut findings = Vec::new();
    for kind in KINDS.iter().filter(|kind| wanted(kind.name)) {
        let began = Instant::now();
        findings.extend(child::run(kind, each));
        println!("{each} {}: {:.0} s", kind.name, began.elapsed().as_secs_f64());
    }
    assert!(findings.is_empty(), "{} findings\n{findings:#?}", findings.len());
}

#[test]
fn a_few_mutated_inputs_of_every_kind_are_read_or_refused() {
    without_findings(FEW, |_| true);
}

#[test]
#[ignore = "takes long: see the top of this file"]
fn ten_thousand_mutated_inputs() {
    let only = std::env::var("FLIP_MUTATED_KIND").ok();
    let inputs = std::env::var("FLIP_MUTATED_INPUTS").map_or(10_000, |text| text.parse().unwrap());
    let kinds = if only.is_some() { 1 } else { KINDS.len() as u64 };
    without_findings(u64::div_ceil(inputs, kinds), |kind| only.as_ref().is_none_or(|only| kind == only));
}

/// Not a test of its own: the process that [`child::run`] starts.
#[test]
#[ignore = "started by the tests of mutated inputs"]
fn a_batch_of_mutated_inputs() {
    child::run_batch();
}
