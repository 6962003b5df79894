//! What is changed, and what is then done with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use flip::checkpoint;
use flip::command::data::InspectArgs;
use flip::command::Cli;
use flip::data::source::table::Table;
use flip::data::source::{pattern, Files, Order, Source};
use flip::data::storage::Storage;
use flip::data::text::{Tokenizer, TokenizerConfig};
use flip::data::Cursor;
use flip::data::Image;
use flip::log::Progress;
use flip::trained::Trained;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use sha2::{Digest, Sha256};

use super::target;

/// A file that is changed: its name, which says how it is read, and its bytes.
pub type Seed = (String, Vec<u8>);

/// Inputs that are read alike.
pub struct Kind {
    pub name: &'static str,
    /// Makes in a folder what takes long to make.
    pub prepare: fn(&Path),
    pub seeds: fn(&Path) -> Vec<Seed>,
    /// Reads a changed file in the folder. A panic is a finding, and so is what ends the process.
    pub run: fn(&Path, &str, &[u8]),
}

pub static KINDS: [Kind; 8] = [
    Kind { name: "shards", prepare: nothing, seeds: shards, run: run_shard },
    Kind { name: "images", prepare: nothing, seeds: images, run: run_image },
    Kind { name: "tables", prepare: prepare_tables, seeds: tables, run: run_table },
    Kind { name: "recipes", prepare: prepare_recipes, seeds: recipes, run: run_recipe },
    Kind { name: "studies", prepare: prepare_recipes, seeds: studies, run: run_study },
    Kind { name: "checkpoints", prepare: prepare_run, seeds: checkpoints, run: run_checkpoint },
    Kind { name: "tokenizers", prepare: nothing, seeds: tokenizers, run: run_tokenizer },
    Kind { name: "patterns", prepare: nothing, seeds: patterns, run: run_pattern },
];

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder that have one of these endings, by name.
fn files(folder: &Path, endings: &[&str]) -> Vec<Seed> {
    let mut files: Vec<Seed> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)))
        .map(|path| {
            (
                path.file_name().expect("a name").to_string_lossy().into_owned(),
                fs::read(&path).expect("bytes"),
            )
        })
        .collect();
    files.sort();
    files
}

fn nothing(_: &Path) {}

/// Runs a command of the program in this process.
fn flip(arguments: &[&str]) {
    if let Ok(command) = Cli::try_parse_from([&["flip"], arguments].concat()) {
        command.execute();
    }
}

fn write(path: &Path, bytes: &[u8]) -> String {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, bytes).expect("a file");
    path.display().to_string()
}

fn shards(_: &Path) -> Vec<Seed> {
    let mut shards = files(&project().join("tests/fuzz/corpus/shard"), &["tar"]);
    shards.extend(files(&project().join("tests/data/damaged"), &["tar"]));
    shards
}

fn run_shard(folder: &Path, _: &str, bytes: &[u8]) {
    let path = folder.join("changed.tar");
    target::run(&path, bytes);
    let pattern = path.display().to_string();
    let arguments = InspectArgs { pattern, json: true, samples: true, ..InspectArgs::default() };
    let progress = Progress::lines(Duration::from_secs(3600));
    let _ = flip::command::data::inspect(&arguments, &progress, &mut Vec::new());
}

fn images(_: &Path) -> Vec<Seed> {
    let mut images = files(&project().join("tests/fuzz/corpus/shard"), &["jpg"]);
    let more = files(&project().join("tests/data/cut_images"), &["jpg", "png", "gif", "bmp", "webp"]);
    images.extend(more);
    images
}

fn run_image(_: &Path, _: &str, bytes: &[u8]) {
    target::image(bytes);
}

fn prepare_tables(folder: &Path) {
    let schema =
        "message pairs { required binary image; required binary caption (STRING); required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let file = fs::File::create(folder.join("pairs.parquet")).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).expect("a writer");
    for group in 0..3 {
        let text = |what: &str| {
            (0..5).map(|row| ByteArray::from(format!("{what} {group} {row}").as_str())).collect()
        };
        let (images, captions): (Vec<ByteArray>, Vec<ByteArray>) = (text("image"), text("caption"));
        let mut rows = writer.next_row_group().expect("a row group");
        for values in [images, captions] {
            let mut column = rows.next_column().expect("a column").expect("one more");
            column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("written");
            column.close().expect("closed");
        }
        let mut column = rows.next_column().expect("a column").expect("one more");
        column.typed::<Int64Type>().write_batch(&[0, 1, 2, 3, 4], None, None).expect("written");
        column.close().expect("closed");
        rows.close().expect("closed");
    }
    writer.close().expect("closed");
}

fn tables(folder: &Path) -> Vec<Seed> {
    let mut tables = files(&project().join("tests/fuzz/corpus/table"), &["csv", "tsv", "jsonl"]);
    // Small, but one of four: as often as each of the others.
    tables.extend(files(folder, &["parquet"]));
    tables
}

fn run_table(folder: &Path, name: &str, bytes: &[u8]) {
    let path = write(&folder.join("changed").join(name), bytes);
    let image = if name.ends_with("parquet") { "Bytes" } else { "Path" };
    let config = serde_json::json!({
        "files": path, "image": { image: "image" }, "caption": "caption", "label": "label", "json": ["score"],
    });
    let config = serde_json::from_value(config).expect("a table");
    let Ok(table) = Table::open(&config, Arc::new(Storage::default())) else { return };
    let mut cursor = Cursor::default();
    while let Ok(Some(ticket)) = table.ticket(cursor, Order::Stored) {
        cursor = ticket.after;
        if let Ok(raw) = table.load(&ticket) {
            assert!(!raw.captions.is_empty(), "a row without a caption");
            assert!(matches!(raw.image, Image::Encoded(_)));
        }
    }
}

/// The recipes, so that studies find them.
fn prepare_recipes(folder: &Path) {
    for part in ["", "study"] {
        for (name, bytes) in files(&project().join("recipes").join(part), &["ron"]) {
            write(&folder.join("recipes").join(part).join(name), &bytes);
        }
    }
}

fn recipes(folder: &Path) -> Vec<Seed> {
    files(&folder.join("recipes"), &["ron"])
}

fn run_recipe(folder: &Path, _: &str, bytes: &[u8]) {
    flip(&["validate", &write(&folder.join("recipes/changed.ron"), bytes), "--json"]);
    fs::remove_file(folder.join("recipes/changed.ron")).expect("removed");
}

fn studies(folder: &Path) -> Vec<Seed> {
    files(&folder.join("recipes/study"), &["ron"])
}

fn run_study(folder: &Path, _: &str, bytes: &[u8]) {
    flip(&["validate", &write(&folder.join("recipes/study/changed.ron"), bytes)]);
    fs::remove_file(folder.join("recipes/study/changed.ron")).expect("removed");
}

const RECIPE: &str = r#"Recipe(
    name: "mutated", seed: 3, device: Cpu,
    model: (
        image: (size: 16, patch: 8, width: 8, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 50), vocab_size: 120, context: 6, width: 8, depth: 1, heads: 2),
        embed_dim: 8,
    ),
    data: (train: Scenes(size: 16, split: Train), validation: Scenes(size: 16, split: HeldOut, samples: 20), workers: 1),
    stages: [
        Pretrain(
            length: Steps(6), batch: 8, image_mask: Random(0.5), schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(2)),
            evaluate: (every: Steps(2), evaluators: [HeldOutLoss(name: "loss", batch: 10)]),
        ),
        Evaluate([HeldOutLoss(name: "loss", batch: 10)]),
    ],
    checkpoints: (every: Steps(4), keep: 9),
    metrics: (every_steps: 1),
)"#;
/// The checkpoint that runs go on from.
const HALFWAY: &str = "checkpoints/stage0-step00000004";

/// A run that has two steps left.
fn prepare_run(folder: &Path) {
    write(&folder.join("recipe.ron"), RECIPE.as_bytes());
    assert_eq!(program(folder, &["run", "recipe.ron", "--out", "run"]), Some(0), "a run");
    for entry in fs::read_dir(folder.join("run/checkpoints")).expect("checkpoints") {
        let path = entry.expect("an entry").path();
        if !path.ends_with(Path::new(HALFWAY).file_name().expect("a name")) {
            fs::remove_dir_all(path).expect("removed");
        }
    }
    assert!(folder.join("run").join(HALFWAY).is_dir());
}

/// Runs the program as a process; its exit code.
fn program(folder: &Path, arguments: &[&str]) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_flip"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a process") {
            return status.code();
        }
        if began.elapsed() > Duration::from_secs(15) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("over 15 s: {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn checkpoints(folder: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for part in ["", HALFWAY] {
        for (name, bytes) in files(&folder.join("run").join(part), &["json", "jsonl", "safetensors", "ron"]) {
            seeds.push((if part.is_empty() { name } else { format!("{part}/{name}") }, bytes));
        }
    }
    seeds
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

fn run_checkpoint(folder: &Path, name: &str, bytes: &[u8]) {
    let run = folder.join("changed");
    let _ = fs::remove_dir_all(&run);
    copy(&folder.join("run"), &run);
    write(&run.join(name), bytes);
    // Every other one has the right hash, as what another version or a person wrote would.
    if name.starts_with(HALFWAY) && !name.ends_with("manifest.json") && bytes.len().is_multiple_of(2) {
        let path = run.join(HALFWAY).join("manifest.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("JSON");
        let file = name.rsplit('/').next().expect("a name");
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest["files"][file] = serde_json::json!({ "bytes": bytes.len(), "sha256": hash });
        write(&path, manifest.to_string().as_bytes());
    }
    let _ = checkpoint::newest(&run.join("checkpoints"));
    if let Ok(trained) = Trained::open(&run) {
        let _ = trained.embed_text("a red square");
    }
    let shown = run.display().to_string();
    flip(&["card", &shown]);
    let code = program(folder, &["run", "recipe.ron", "--out", "changed", "--resume"]);
    assert!(matches!(code, Some(0..=2)), "resuming ended with {code:?}");
}

fn tokenizers(_: &Path) -> Vec<Seed> {
    let mut seeds = files(&project().join("tests/fuzz/corpus/tokenizer"), &["json", "txt", "gz"]);
    let captions = (0..40).map(|i| format!("a {} {} by the sea", ["red", "green", "blue"][i % 3], i / 3));
    let trained = Tokenizer::train(captions, 90).and_then(|trained| trained.to_json());
    seeds.push(("tokenizer.json".into(), trained.expect("a tokenizer").into_bytes()));
    seeds
}

fn run_tokenizer(folder: &Path, name: &str, bytes: &[u8]) {
    let into = folder.join("changed");
    let corpus = project().join("tests/fuzz/corpus/tokenizer");
    for part in ["vocab.json", "merges.txt"] {
        write(&into.join(part), &fs::read(corpus.join(part)).expect("bytes"));
    }
    let path = into.join(name);
    write(&path, bytes);
    let config = match name {
        "vocab.json" | "merges.txt" => TokenizerConfig::ClipBpe(into),
        "bpe.txt.gz" => TokenizerConfig::ClipBpe(path),
        "vocab.txt" => TokenizerConfig::WordPiece(path),
        _ => TokenizerConfig::Json(path),
    };
    let Ok(tokenizer) = Tokenizer::open(&config) else { return };
    for caption in
        ["a red square by the sea", "", "the cat's \u{732b} <|endoftext|> \u{1b}[2J", &"ab ".repeat(2000)]
    {
        if let Ok((ids, length)) = tokenizer.encode(caption, 12) {
            assert_eq!(ids.len(), 12);
            assert!(length <= 12);
        }
    }
}

fn patterns(_: &Path) -> Vec<Seed> {
    let patterns = [
        "data/{00000..00041}.tar",
        "data/{a,b,{c,d}}-{0..9..3}/*.tar",
        "data/**/part-[0-9]?.tar",
        "https://host.invalid/{000..999}/{a,b}.tar?part={0..9}",
        "s3://bucket/{0..12}/{x,y}.tar",
        "data/{9..0}-{1..2}-{1..2}-{1..2}-{1..2}-{1..2}.tar",
    ];
    patterns.iter().enumerate().map(|(i, text)| (i.to_string(), text.as_bytes().to_vec())).collect()
}

fn run_pattern(folder: &Path, _: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = pattern::expand(&text);
    // A list of patterns in a file, below a folder of the test's own.
    let here = folder.display();
    let inside: Vec<String> = text.lines().map(|line| format!("{here}/files/{line}")).collect();
    for pattern in inside.iter().take(4).filter(|line| !line.contains("..")) {
        let _ = Files::from(pattern.as_str()).locate(&Storage::default());
    }
}
