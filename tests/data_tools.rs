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

fn write_image(path: &Path, shade: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(9, 7, image::Rgb([shade, 10, 20])).save(path).unwrap();
}

/// A folder of four images, two of them the same, one without a caption.
fn loose(folder: &Path) {
    for (name, shade, caption) in [
        ("b/2.png", 1, Some("the second")),
        ("a/1.png", 0, Some("the first")),
        ("c.png", 1, Some("the second again")),
        ("d.png", 3, None),
    ] {
        let path = folder.join(name);
        write_image(&path, shade);
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
    let twice = std::fs::read_to_string(folder.path().join("twice.txt")).unwrap();
    assert_eq!(twice.lines().count(), 1);
    let twice: Value = serde_json::from_str(&twice).unwrap();
    assert_eq!(twice["shard"], "packed/00001.tar");
    assert!(twice["key"].as_str().unwrap().starts_with("000000002-"), "{twice}");
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
    for told in ["image_missing: pairs.csv: line 3: loose/nothing.png", "caption_empty: pairs.csv: line 4: "]
    {
        assert!(said.contains(told), "{said}");
    }
    let report = inspected("packed/*.tar", folder.path());
    assert_eq!(report["samples"][0]["caption"], "one, with a comma");

    std::fs::write(folder.path().join("wrong.tsv"), "a\tb\n1\t2\n").unwrap();
    let why = refused(&["data", "pack", "wrong.tsv", "--out", "other"], folder.path());
    assert!(why.contains("no column of paths") && why.contains("wrong.tsv"), "{why}");
    let why = refused(&["data", "pack", "nowhere", "--out", "other"], folder.path());
    assert!(why.contains("nowhere"), "{why}");
}

/// A comma outside of quotes and a byte of Latin-1 are faults of their rows: the caption is not cut, and the rest is
/// packed as training would read it.
#[test]
fn packing_a_table_reads_it_as_training_does() {
    let folder = tempfile::tempdir().unwrap();
    loose(&folder.path().join("loose"));
    let csv =
        b"\xef\xbb\xbffilepath,title\nloose/c.png,a cat, a dog\nloose/c.png,caf\xe9\nloose/c.png,last\n";
    std::fs::write(folder.path().join("pairs.csv"), csv).unwrap();
    let said = done(&["data", "pack", "pairs.csv", "--out", "packed", "--left-out", "list"], folder.path());
    assert!(said.contains("1 samples in 1 shards") && said.contains("2 left out"), "{said}");
    let list = std::fs::read_to_string(folder.path().join("list")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("row_columns: pairs.csv: line 2: expected 2 columns, got 3"), "{list}");
    assert!(lines[1].starts_with("caption_encoding: pairs.csv: line 3: "), "{list}");
    assert_eq!(inspected("packed/*.tar", folder.path())["samples"][0]["caption"], "last");

    let tsv = "title\tfilepath\n\"open\tloose/c.png\nplain\tloose/d.png\n\"shut\" x\tloose/c.png\n";
    std::fs::write(folder.path().join("pairs.tsv"), tsv).unwrap();
    done(&["data", "pack", "pairs.tsv", "--out", "tabs"], folder.path());
    let report = inspected("tabs/*.tar", folder.path());
    let captions: Vec<&str> =
        report["samples"].as_array().unwrap().iter().map(|s| s["caption"].as_str().unwrap()).collect();
    assert_eq!(captions, ["\"open", "plain", "\"shut\" x"]);
}

#[test]
fn packing_names_what_it_leaves_out_and_makes_keys_that_no_other_set_has() {
    let folder = tempfile::tempdir().unwrap();
    for (set, shade) in [("A", 1), ("B", 2)] {
        loose(&folder.path().join(set));
        write_image(&folder.path().join(set).join("a/1.png"), 100 + shade);
        std::fs::write(folder.path().join(set).join("._c.png"), "resource fork").unwrap();
        std::fs::write(folder.path().join(set).join("d.TXT"), "upper case").unwrap();
        std::fs::write(folder.path().join(set).join("e.txt"), "alone").unwrap();
        std::fs::write(folder.path().join(set).join("f.heic"), "another format").unwrap();
        let said = done(&["data", "pack", set, "--out", &format!("packed{set}")], folder.path());
        assert!(said.contains("4 samples in 1 shards") && said.contains("1 left out"), "{said}");
        assert!(said.contains(&format!("image_missing: {set}/e.txt: no image of its name")), "{said}");
        assert!(said.contains("files of other kinds: 1 .heic"), "{said}");
    }
    let keys = |pattern: &str| -> Vec<String> {
        let report = inspected(pattern, folder.path());
        report["samples"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap().to_owned()).collect()
    };
    let (a, b) = (keys("packedA/*.tar"), keys("packedB/*.tar"));
    assert_ne!(a[0], b[0], "two images of one number");
    assert_eq!(a[1], b[1], "one image at the same place");
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
    let tokenizer = flip::data::text::Tokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 300);
}

#[test]
fn an_index_counts_what_inspect_counts_and_takes_over_what_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    loose(&folder.path().join("loose"));
    done(&["data", "pack", "loose", "--out", "packed", "--per-shard", "2"], folder.path());
    let said = done(&["data", "index", "packed/{00000..00001}.tar", "--out", "index.json"], folder.path());
    assert!(said.starts_with("2 shards, 3 samples, ") && said.contains("index: \"index.json\""), "{said}");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap()
    };
    let index = read("index.json");
    let report = inspected("packed/*.tar", folder.path());
    for (number, shard) in index["shards"].as_array().unwrap().iter().enumerate() {
        let path = folder.path().join(shard["url"].as_str().unwrap());
        assert_eq!(shard["bytes"], std::fs::metadata(path).unwrap().len());
        assert_eq!(shard["samples"], report["shards"][number]["loaded"]);
    }

    // What img2dataset wrote beside a shard is believed, and its headers are not read.
    std::fs::write(folder.path().join("packed/00001_stats.json"), r#"{"count": 9, "successes": 7}"#).unwrap();
    let out = done(&["data", "index", "packed/*.tar", "--out", "stats.json", "--json"], folder.path());
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&summary["samples"], &summary["shards"]), (&Value::from(9), &Value::from(2)));
    assert_ne!(summary["hash"], index["hash"]);

    let wids =
        r#"{"wids_version": 1, "shardlist": [{"url": "packed/00000.tar", "nsamples": 2, "filesize": 7}]}"#;
    std::fs::write(folder.path().join("wids.json"), wids).unwrap();
    done(&["data", "index", "wids.json", "--out", "of-wids.json"], folder.path());
    assert_eq!(read("of-wids.json")["shards"][0]["samples"], 2);
    assert!(refused(&["data", "index", "none/*.tar"], folder.path()).contains("matches no shard"));
}
