//! `flip embed` on the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::{tempdir, TempDir};

use crate::command::{failed, flip, said, vocabulary};
use crate::support::*;

const DIM: usize = 40;
/// Drawings of the validation shard.
const DRAWINGS: usize = 120;

/// An imported model.
fn imported() -> (TempDir, PathBuf) {
    let there = tempdir().unwrap();
    let source = there.path().join("source");
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    vocabulary(&source);
    let run = there.path().join("run");
    said(flip(&[&"import", &source, &"--out", &run]));
    (there, run)
}

fn shard() -> PathBuf {
    fixture("pictograms/pictograms-val-00000.tar")
}

/// Rows of a NumPy file.
fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes[128..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn keys(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path.with_extension("keys.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn shards_folders_and_files_give_the_same_rows_in_every_format() {
    let (there, run) = imported();
    let images = there.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let mut archive = tar::Archive::new(std::fs::File::open(shard()).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        entry.unpack_in(&images).unwrap();
    }
    let of_shards = there.path().join("shards.safetensors");
    let summary = said(flip(&[&"embed", &run, &"--images", &shard(), &"--out", &of_shards]));
    assert!(summary.contains(&format!("{DRAWINGS} rows of {DIM}")), "{summary}");
    let (shape, values) = &read(&of_shards)["embeddings"];
    assert_eq!(shape, &[DRAWINGS, DIM]);
    let names = keys(&of_shards);

    let of_folder = there.path().join("folder.npy");
    said(flip(&[&"embed", &run, &"--images", &images, &"--out", &of_folder]));
    let rows = npy(&of_folder);
    let by_name: std::collections::HashMap<String, &[f32]> = keys(&of_folder)
        .iter()
        .zip(rows.chunks(DIM))
        .map(|(key, row)| (Path::new(key).file_stem().unwrap().to_string_lossy().into_owned(), row))
        .collect();
    assert_eq!(by_name.len(), DRAWINGS);
    for (name, row) in names.iter().zip(values.chunks(DIM)) {
        assert_close(name, by_name[name], row, 1e-6);
    }

    let table = there.path().join("shards.parquet");
    said(flip(&[&"embed", &run, &"--images", &shard(), &"--out", &table]));
    assert!(std::fs::metadata(&table).unwrap().len() as usize > 4 * values.len());
    assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 8, "nothing unfinished is left");

    // An image that is none is left out and counted.
    let broken = there.path().join("broken.png");
    std::fs::write(&broken, "no image").unwrap();
    let whole = ["png", "jpg"].map(|ending| images.join(format!("{}.{ending}", names[0])));
    let whole = whole.iter().find(|path| path.exists()).unwrap();
    let out = there.path().join("one.npy");
    let summary = said(flip(&[&"embed", &run, &"--images", &broken, whole, &"--out", &out]));
    assert_close("one", &npy(&out), &values[..DIM], 1e-6);
    assert!(summary.contains("1 rows") && summary.contains("image_decode"), "{summary}");
}

/// Embeds `what` at once, and again killed twice on the way; both leave the same.
fn goes_on_after_kills(run: &Path, what: [&std::ffi::OsStr; 2], rows: usize) {
    let there = tempdir().unwrap();
    let whole = there.path().join("whole.npy");
    said(flip(&[&"embed", &run, &what[0], &what[1], &"--out", &whole]));
    assert_eq!(keys(&whole).len(), rows);

    let out = there.path().join("killed.npy");
    let journal = there.path().join("killed.npy.journal");
    let mut kills = 0;
    for _ in 0..2 {
        let before = std::fs::read_to_string(&journal).unwrap_or_default().lines().count();
        let mut child = Command::new(env!("CARGO_BIN_EXE_flip"))
            .args(["embed".as_ref(), run.as_os_str(), what[0], what[1], "--out".as_ref()])
            .arg(&out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let marked = || std::fs::read_to_string(&journal).unwrap_or_default().lines().count() > before.max(1);
        while child.try_wait().unwrap().is_none() && !marked() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    println!("{}: killed {kills} times", what[0].to_string_lossy());
    let finished = out.exists();
    if !finished {
        let summary = said(flip(&[&"embed", &run, &what[0], &what[1], &"--out", &out]));
        assert!(summary.contains("going on behind row"), "{summary}");
    }
    assert_eq!(keys(&out), keys(&whole));
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap(), "other bytes");
    assert!(!journal.exists());
    let again = failed(flip(&[&"embed", &run, &what[0], &what[1], &"--out", &out]), 2);
    assert!(again.contains("is there already"), "{again}");
}

#[test]
fn killed_commands_go_on_without_repeating_or_losing_a_row() {
    let (there, run) = imported();
    let texts = there.path().join("texts.jsonl");
    let lines: String = (0..60_000)
        .map(|i| format!("{{\"text\": \"word{} word{}\", \"key\": {i}}}\n", i % 95, i % 7))
        .collect();
    std::fs::write(&texts, lines).unwrap();
    goes_on_after_kills(&run, ["--texts".as_ref(), texts.as_os_str()], 60_000);

    const SHARDS: usize = 100;
    for number in 0..SHARDS {
        std::fs::hard_link(shard(), there.path().join(format!("{number:03}.tar")))
            .or_else(|_| std::fs::copy(shard(), there.path().join(format!("{number:03}.tar"))).map(drop))
            .unwrap();
    }
    let pattern = there.path().join(format!("{{000..{:03}}}.tar", SHARDS - 1));
    goes_on_after_kills(&run, ["--images".as_ref(), pattern.as_os_str()], SHARDS * DRAWINGS);
}

#[test]
fn what_cannot_be_embedded_is_told_before_anything_is_made() {
    let (there, run) = imported();
    let out = there.path().join("e.npy");
    let refused = |arguments: &[&dyn AsRef<std::ffi::OsStr>], expected: &str| {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"embed", &run];
        all.extend(arguments);
        let message = failed(flip(&all), 2);
        assert!(message.contains(expected), "{message}");
    };
    refused(&[&"--images", &"nowhere.png", &"--out", &out], "no such file or folder");
    refused(&[&"--images", &run, &"--out", &out], "no jpg, jpeg, png");
    refused(&[&"--texts", &"nowhere.txt", &"--out", &out], "nowhere.txt");
    refused(&[&"--images", &shard(), &"--out", &"e.csv"], ".safetensors, .npy or .parquet");
    assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 2);
}
