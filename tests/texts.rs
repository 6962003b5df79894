//! Texts beside images as other tools write them: metadata with NaN, keys that repeat from shard to shard, captions
//! in the json or nowhere. Nothing of it trains on something else without a word.

use std::io::Cursor as Bytes;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use flip::data::decode::Transform;
use flip::data::load::{LabelFrom, LimitsConfig, Loader, LoaderOptions, Passes, Share, Skipped};
use flip::data::source::exclude::Entry;
use flip::data::source::filter::{Filter, FilterConfig, ScoreConfig};
use flip::data::source::webdataset::WebDataset;
use flip::data::source::{Order, Source};
use flip::data::storage::StallTimeout;
use flip::data::text::Tokenizer;
use flip::data::{CaptionMember, CaptionUse, Cursor, WebDatasetConfig};

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Bytes::new(Vec::new());
    let image = image::RgbImage::from_pixel(12, 12, image::Rgb([shade, 100, 50]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A shard of these members; the body of an image is its shade.
fn write_shard(path: &Path, members: &[(&str, &str)]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, body) in members {
        let body = if name.ends_with("png") { png(body.parse().unwrap()) } else { body.as_bytes().to_vec() };
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &body[..]).unwrap();
    }
    builder.into_inner().unwrap();
}

fn config(folder: &Path, pattern: &str) -> WebDatasetConfig {
    WebDatasetConfig::new(folder.join(pattern).display().to_string().as_str())
}

fn options(source: Arc<dyn Source>) -> LoaderOptions {
    LoaderOptions {
        source,
        order: Order::Stored,
        passes: Passes::Once,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Cursor::default(),
        batch: 100,
        keep_partial: true,
        transform: Transform::centre(8),
        patches: None,
        tokenizer: Arc::new(Tokenizer::train(["a cat".to_string()].into_iter(), 30).unwrap()),
        context: 8,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers: 2,
        stall_timeout: StallTimeout::default(),
        seed: 0,
    }
}

/// Keys, labels and captions of the samples that load, and the skipped ones.
type Loaded = (Vec<String>, Vec<Option<i64>>, Vec<Vec<String>>, Skipped);

fn load(options: LoaderOptions) -> Loaded {
    let mut loader = Loader::start(options).unwrap();
    let (mut keys, mut labels, mut captions) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(batch) = loader.next().unwrap() {
        keys.extend(batch.keys);
        labels.extend(batch.labels);
        captions.extend(batch.captions);
    }
    (keys, labels, captions, loader.skipped().clone())
}

/// Python's `json.dumps` writes NaN and Infinity. One of them costs its own field and no other.
#[test]
fn a_nan_in_the_json_costs_no_other_field_and_bad_json_is_a_reason_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let metas = [
        r#"{"similarity": 0.31, "punsafe": 0.1, "label": 0}"#,
        r#"{"similarity": 0.32, "punsafe": NaN, "label": 1}"#,
        r#"{"similarity": 0.1, "label": 0}"#,
        r#"{"similarity": NaN, "label": 1}"#,
        r#"{"similarity": "0.35", "label": 0}"#,
        r#"{"similarity": 0.33, "x": -Infinity, "label": 2.0}"#,
        r#"{"similarity": 0.9, "label": 1"#,
    ];
    let names: Vec<String> = (0..metas.len()).map(|i| format!("{i:03}")).collect();
    let files: Vec<(String, &str)> = (names.iter().zip(metas))
        .flat_map(|(name, meta)| {
            [(format!("{name}.png"), "7"), (format!("{name}.txt"), "a cat"), (format!("{name}.json"), meta)]
        })
        .collect();
    let members: Vec<(&str, &str)> = files.iter().map(|(name, body)| (name.as_str(), *body)).collect();
    write_shard(&folder.path().join("nan.tar"), &members);
    let source: Arc<dyn Source> = Arc::new(WebDataset::open(&config(folder.path(), "nan.tar")).unwrap());

    let score = ScoreConfig { field: "similarity".into(), min: Some(0.3), max: None };
    let filter = FilterConfig { score: Some(score), ..FilterConfig::default() };
    let filter = Arc::new(Filter::open(&filter, source.as_ref()).unwrap());
    let (keys, _, _, skipped) = load(LoaderOptions { filter: Some(filter), ..options(source.clone()) });
    assert_eq!(keys, ["000", "001", "005"]);
    let reasons: Vec<(&str, u64)> = skipped.counts.into_iter().collect();
    assert_eq!(reasons, [("filter_score", 1), ("filter_score_missing", 2), ("json_invalid", 1)]);

    let label = LabelFrom::JsonField("label".into());
    let (keys, labels, _, skipped) = load(LoaderOptions { label, ..options(source.clone()) });
    assert_eq!(keys, names[..6]);
    assert_eq!(labels, [Some(0), Some(1), Some(0), Some(1), Some(0), Some(2)]);
    assert!(skipped.to_string().starts_with("1 json_invalid; first: "), "{skipped}");
    assert!(skipped.first[0].sample.ends_with("nan.tar: 006"), "{skipped}");

    // Who asks for no field gets all of them.
    assert_eq!(load(options(source)).0, names);
}

fn inspect(folder: &Path, pattern: &str) -> Vec<Entry> {
    let output = flip(folder, &["data", "inspect", pattern, "--duplicates", "twice.txt"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = std::fs::read_to_string(folder.join("twice.txt")).unwrap();
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn flip(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flip")).args(arguments).current_dir(folder).output().unwrap()
}

/// Sets that are packed apart have the same keys. An image of B that is in A too leaves A's of the same key alone.
#[test]
fn the_list_of_duplicates_leaves_out_what_repeats_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write_shard(
        &folder.path().join("A/00000.tar"),
        &[("0.png", "1"), ("0.txt", "one"), ("1\nbreak.png", "2"), ("1\nbreak.txt", "two")],
    );
    write_shard(
        &folder.path().join("B/00000.tar"),
        &[
            ("0.png", "2"),
            ("0.txt", "two again"),
            ("1\nbreak.png", "3"),
            ("1\nbreak.txt", "three"),
            ("0.png", "4"),
            ("0.txt", "four"),
            ("2.png", "1"),
            ("2.txt", "one again"),
            ("1\nbreak.png", "3"),
            ("1\nbreak.txt", "three again"),
        ],
    );
    let entry = |key: &str, occurrence| Entry { shard: "B/00000.tar".into(), key: key.into(), occurrence };
    assert_eq!(
        inspect(folder.path(), "{A,B}/00000.tar"),
        [entry("0", 1), entry("2", 1), entry("1\nbreak", 2)]
    );
    let source: Arc<dyn Source> = Arc::new(WebDataset::open(&config(folder.path(), "*/*.tar")).unwrap());
    let filter = FilterConfig { exclude: Some(folder.path().join("twice.txt")), ..FilterConfig::default() };
    let filter = Arc::new(Filter::open(&filter, source.as_ref()).unwrap());
    let (_, _, captions, skipped) = load(LoaderOptions { filter: Some(filter), ..options(source) });
    assert_eq!(captions.concat(), ["one", "two", "three", "four"]);
    assert_eq!(skipped.counts["filter_excluded"], 3);
}

/// As MetaCLIP and other sets have them.
#[test]
fn captions_are_read_from_a_field_of_the_json_where_the_recipe_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_shard(
        &folder.path().join("json.tar"),
        &[
            ("1.json", r#"{"caption": "a cat", "texts": [["alt", "the alt"], ["title", "the title"]]}"#),
            ("1.png", "1"),
            ("2.json", r#"{"caption": ["a dog", "the dog"], "texts": []}"#),
            ("2.png", "2"),
            ("3.json", r#"{"caption": 3, "width": NaN}"#),
            ("3.png", "3"),
            ("4.png", "4"),
            ("5.json", "{"),
            ("5.png", "5"),
            ("6.json", r#"{"caption": " "}"#),
            ("6.png", "6"),
        ],
    );
    let of = |member: CaptionMember, wanted| {
        let config = WebDatasetConfig { caption: member, ..config(folder.path(), "json.tar") };
        load(options(Arc::new(WebDataset::open(&config).unwrap().captions(wanted))))
    };
    let (keys, _, captions, skipped) = of(CaptionMember::Json("caption".into()), CaptionUse::Needed);
    assert_eq!(keys, ["1", "2"]);
    assert_eq!(captions, [vec!["a cat".to_owned()], vec!["a dog".to_owned(), "the dog".to_owned()]]);
    let details: Vec<String> =
        skipped.first.iter().map(|skip| format!("{}: {}", skip.reason, skip.detail)).collect();
    let invalid =
        details.iter().position(|told| told.starts_with("json_invalid: EOF")).expect("a broken json");
    assert_eq!(invalid, 2);
    assert_eq!(
        details[0],
        "caption_missing: no text in the field \"caption\" of its json; its fields are \"caption\", \"width\""
    );
    assert_eq!(details[1], "caption_missing: no json member; its members end in .png");
    assert!(details[3].starts_with("caption_empty: "), "{details:?}");
    let (_, _, captions, _) = of(CaptionMember::Json("texts".into()), CaptionUse::Needed);
    assert_eq!(captions, [["the alt", "the title"]]);
    assert_eq!(of(CaptionMember::Txt, CaptionUse::Unused).0.len(), 6);
}

/// Keys with a dot, captions under other endings or in the json: a vocabulary cannot be learned, and the reason and
/// what is there instead are said.
#[test]
fn why_no_caption_was_found_is_said_with_the_endings_that_were() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str, members: &[(&str, &str)]| {
        let path = folder.path().join(name);
        write_shard(&path, members);
        let output = flip(folder.path(), &["tokenizer", "train", name]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let dots = told(
        "dots.tar",
        &[("img_1.5.png", "1"), ("img_1.5.txt", "one"), ("img_1.6.png", "2"), ("img_1.6.txt", "two")],
    );
    assert!(dots.contains("1 image_missing; first: ") && dots.contains("dots.tar: img_1: no jpg"), "{dots}");
    let endings =
        "its members end in .5.png, .5.txt, .6.png, .6.txt; a key ends at the first dot of a file name";
    assert!(dots.contains(endings), "{dots}");
    let json = told("json.tar", &[("a.png", "1"), ("a.json", r#"{"caption": "from json"}"#)]);
    assert!(json.contains("1 caption_missing") && json.contains("no txt member"), "{json}");
    assert!(json.contains("its members end in .png, .json"), "{json}");
    let none = told("none.tar", &[]);
    assert!(none.contains("no usable sample in a whole pass over none.tar: it has no samples"), "{none}");
    let hostile = told("hostile.tar", &[("a.\u{1b}[31mred", "x")]);
    assert!(!hostile.contains('\u{1b}'), "{hostile:?}");
}

#[test]
fn a_table_is_not_inspected_as_shards() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pairs.csv", "pairs.parquet", "pairs.jsonl.gz"] {
        std::fs::write(folder.path().join(name), "path,title\n").unwrap();
        let output = flip(folder.path(), &["data", "inspect", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("{name} is a table")) && said.contains("Table(files:"), "{said}");
    }
}

/// Classes need labels, not captions; and two pairs in a batch of sixteen are said to be few.
#[test]
fn classification_needs_no_captions_and_a_set_smaller_than_a_batch_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write_shard(
        &folder.path().join("cls.tar"),
        &[("a.png", "1"), ("a.cls", "1"), ("b.png", "200"), ("b.cls", "0"), ("c.png", "9"), ("c.cls", "1")],
    );
    write_shard(
        &folder.path().join("train.tar"),
        &[("a.png", "1"), ("a.txt", "a cat"), ("b.png", "200"), ("b.txt", "a dog")],
    );
    write("empty.tar", "");
    write("names.txt", "\u{feff}cat\r\ndog\r\n");
    write("templates.txt", "\u{feff}a {c}\r\n");
    write(
        "r.ron",
        r#"(
    name: "r",
    model: (
        image: (size: 32, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 10), vocab_size: 60, context: 12, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),
    data: (train: WebDataset(shards: ["train.tar", "empty.tar"]), workers: 2),
    stages: [
        Pretrain(
            length: Steps(2), batch: 16, image_mask: Random(0.5),
            schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(1)),
        ),
        Evaluate([
            ZeroShot(
                name: "cls", data: WebDataset(shards: "cls.tar"),
                classes: Lines(names: "names.txt", templates: "templates.txt"),
            ),
            NearestNeighbours(
                name: "cls", data: WebDataset(shards: "cls.tar"), train: WebDataset(shards: "cls.tar"), k: 1,
            ),
        ]),
    ],
)"#,
    );
    let output = flip(folder.path(), &["run", "r.ron", "--out", "run"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let rows: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("run/eval.json")).unwrap()).unwrap();
    assert_eq!((rows[0]["n"].as_u64(), rows[1]["n"].as_u64()), (Some(3), Some(3)), "{rows}");
    assert!(said.contains("a whole pass has 2 usable samples, and a batch 16"), "{said}");
    assert!(said.contains("empty.tar: holds no sample; it has 0 bytes"), "{said}");
}
