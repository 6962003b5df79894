//! `flip data` and `flip tokenizer` as a person uses them: on the binary, with files.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn flip(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flip")).args(arguments).current_dir(folder).output().unwrap()
}

fn done(arguments: &[&str], folder: &Path) -> String {
    let output = flip(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], folder: &Path) -> String {
    let output = flip(arguments, folder);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn pictograms() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/pictograms/pictograms-00000.tar")
        .display()
        .to_string()
}

fn write_picture(path: &Path, shade: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(9, 7, image::Rgb([shade, 10, 20])).save(path).unwrap();
}

/// A folder of four pictures, two of them the same, one without a caption.
fn loose(folder: &Path) {
    for (name, shade, caption) in [
        ("b/2.png", 1, Some("the second")),
        ("a/1.png", 0, Some("the first")),
        ("c.png", 1, Some("the second again")),
        ("d.png", 3, None),
    ] {
        let path = folder.join(name);
        write_picture(&path, shade);
        if let Some(caption) = caption {
            std::fs::write(path.with_extension("txt"), caption).unwrap();
        }
    }
}

fn inspected(pattern: &str, folder: &Path) -> Value {
    serde_json::from_str(&done(&["data", "inspect", pattern, "--json", "--samples"], folder)).unwrap()
}

#[test]
fn a_folder_is_packed_and_its_duplicates_are_found_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    loose(&folder.path().join("loose"));
    let said = done(&["data", "pack", "loose", "--out", "packed", "--per-shard", "2"], folder.path());
    assert!(said.contains("3 samples in 2 shards") && said.contains("1 left out"), "{said}");
    let report = inspected("packed/*.tar", folder.path());
    let captions: Vec<&str> =
        report["samples"].as_array().unwrap().iter().map(|s| s["caption"].as_str().unwrap()).collect();
    assert_eq!(captions, ["the first", "the second", "the second again"]);
    assert_eq!(report["summary"]["formats"]["png"], 3);
    assert_eq!(report["summary"]["duplicates"], 1);
    assert_eq!(report["summary"]["width"]["mean"], 9);

    done(
        &["data", "inspect", "packed/*.tar", "--duplicates", "twice.txt", "--sheet", "sheet.png"],
        folder.path(),
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("twice.txt")).unwrap(), "000000002\n");
    let sheet = image::open(folder.path().join("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 132 + 4, 136));

    let again = refused(&["data", "pack", "loose", "--out", "packed"], folder.path());
    assert!(again.contains("already there"), "{again}");
}

#[test]
fn a_table_is_packed_and_a_wrong_one_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    loose(&folder.path().join("loose"));
    let table = "caption,path\n\"one, with a comma\",loose/c.png\nnone,loose/nothing.png\n,loose/d.png\n";
    std::fs::write(folder.path().join("pairs.csv"), table).unwrap();
    let said = done(&["data", "pack", "pairs.csv", "--out", "packed"], folder.path());
    assert!(said.contains("1 samples in 1 shards") && said.contains("2 left out"), "{said}");
    let report = inspected("packed/*.tar", folder.path());
    assert_eq!(report["samples"][0]["caption"], "one, with a comma");

    std::fs::write(folder.path().join("wrong.tsv"), "a\tb\n1\t2\n").unwrap();
    let why = refused(&["data", "pack", "wrong.tsv", "--out", "other"], folder.path());
    assert!(why.contains("no column of paths") && why.contains("wrong.tsv"), "{why}");
    let why = refused(&["data", "pack", "nowhere", "--out", "other"], folder.path());
    assert!(why.contains("nowhere"), "{why}");
}

#[test]
fn masks_are_drawn_and_the_loader_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let said = done(
        &["data", "mask", &pictograms(), "--size", "64", "--patch", "8", "--ratio", "0.75"],
        folder.path(),
    );
    assert!(said.contains("Random; Centred"), "{said}");
    let masks = image::open(folder.path().join("masks.png")).unwrap();
    assert_eq!((masks.width(), masks.height()), (5 * 68 + 4, 4 * 68 + 4));

    let bench =
        ["data", "bench", &pictograms(), "--size", "32", "--patch", "8", "--mask", "0.5", "--batch", "8"];
    let told = done(&[&bench[..], &["--seconds", "0.1", "--threads", "2", "--json"]].concat(), folder.path());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["images_per_s"].as_f64().unwrap() > 1.0, "{told}");
    let why = refused(&["data", "bench", &pictograms(), "--size", "30"], folder.path());
    assert!(why.contains("multiple of --patch"), "{why}");
}

#[test]
fn a_tokenizer_is_trained_from_shards() {
    let folder = tempfile::tempdir().unwrap();
    let said = done(&["tokenizer", "train", &pictograms(), "--vocab-size", "300"], folder.path());
    assert!(said.contains("300 tokens from 300 captions"), "{said}");
    let tokenizer = flip::data::tokenizer::Tokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 300);
}
