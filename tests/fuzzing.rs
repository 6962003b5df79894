//! A short run of the fuzz target of tests/fuzz: its corpus, and seeded changes of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[path = "fuzz/target.rs"]
mod target;

/// Changed inputs of an ordinary test run.
const CHANGED: usize = 400;

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

/// Cuts, overwrites, repeats and joins: where archives, headers and scans are likely to break.
fn change(rng: &mut ChaCha8Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.gen_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = match rng.gen_range(0..3) {
            // Headers of archives.
            0 => (rng.gen_range(0..bytes.len().div_ceil(512)) * 512 + rng.gen_range(0..300))
                .min(bytes.len() - 1),
            _ => rng.gen_range(0..bytes.len()),
        };
        let end = (at + rng.gen_range(1..64)).min(bytes.len());
        match rng.gen_range(0..7) {
            0 => bytes[at] ^= 1 << rng.gen_range(0..8),
            1 => bytes[at] = rng.gen(),
            2 => bytes[at..end].fill([0, 0xff, 0x7f][rng.gen_range(0..3)]),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                bytes.drain(at..end);
            }
            _ if !other.is_empty() => {
                let from = rng.gen_range(0..other.len());
                let piece = &other[from..(from + rng.gen_range(1..2048)).min(other.len())];
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            _ => {}
        }
    }
    bytes
}

#[test]
fn shards_and_pictures_of_any_bytes_load_or_are_skipped() {
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
