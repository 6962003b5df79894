//! Every sample of tests/data/damaged ends as its expected.json says, through inspection and through training.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use flip::command::data::InspectArgs;
use flip::data::decode::Transform;
use flip::data::load::{LabelFrom, LimitsConfig, Loader, LoaderOptions, Passes, Share};
use flip::data::source::webdataset::WebDataset;
use flip::data::source::{Order, Source};
use flip::data::storage::StallTimeout;
use flip::data::text::Tokenizer;
use flip::data::{AugmentConfig, Cursor, DataError, WebDatasetConfig};
use flip::log::Progress;

/// Shards that a careful reader counts as damaged; of `trailing-garbage.tar` either is right.
const DAMAGED: [&str; 6] = [
    "truncated-in-picture.tar",
    "truncated-in-header.tar",
    "truncated-in-json.tar",
    "not-a-tar.tar",
    "bad-header.tar",
    "huge-size.tar",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/damaged")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

/// Every shard in the order of expected.json.
fn all_shards() -> String {
    let expected = expected();
    let names: Vec<&str> =
        expected["shards"].as_array().unwrap().iter().map(|shard| shard["file"].as_str().unwrap()).collect();
    folder().join(format!("{{{}}}", names.join(","))).display().to_string()
}

fn inspected() -> Value {
    let mut out = Vec::new();
    inspect(all_shards(), true, &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn inspect(pattern: String, json: bool, out: &mut Vec<u8>) {
    let args = InspectArgs { pattern, json, samples: true, ..InspectArgs::default() };
    let progress = Progress::lines(Duration::from_secs(3600));
    flip::command::data::inspect(&args, &progress, out).unwrap();
}

/// (shard, key, occurrence)
fn name(sample: &Value) -> (String, String, u64) {
    let text = |field: &str| sample[field].as_str().unwrap().to_owned();
    (text("shard"), text("key"), sample["occurrence"].as_u64().unwrap())
}

/// Keys that this loader reads otherwise: by the convention it follows, text before the first dot is the key.
fn key_here(key: &str) -> &str {
    match key {
        "photo.final.v2" => "photo",
        key => key,
    }
}

#[test]
fn every_sample_ends_as_expected() {
    let inspected = inspected();
    let got: HashMap<_, &Value> =
        inspected["samples"].as_array().unwrap().iter().map(|sample| (name(sample), sample)).collect();
    assert_eq!(got.len(), inspected["samples"].as_array().unwrap().len(), "a name occurs twice");
    let mut wrong = Vec::new();
    for sample in expected()["samples"].as_array().unwrap() {
        let (shard, key, occurrence) = name(sample);
        let what = format!("{shard} {key} ({})", sample["kind"].as_str().unwrap());
        let accepted: Vec<&str> =
            sample["accept"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        // What lies behind the damage of a shard is never seen; that is how it is skipped.
        let found = got.get(&(shard, key_here(&key).to_owned(), occurrence));
        let outcome = found.map_or("skip", |found| found["outcome"].as_str().unwrap());
        if !accepted.contains(&outcome) {
            wrong.push(format!("{what}: {outcome}: {found:?}"));
            continue;
        }
        let Some(found) = found else { continue };
        if outcome == "skip" {
            let reason = found["reason"].as_str().unwrap();
            // Where any reading is accepted, the reason depends on the reading.
            if accepted == ["skip"] && Some(reason) != sample["reason"].as_str() {
                wrong.push(format!("{what}: skipped as {reason}, expected {}", sample["reason"]));
            }
            continue;
        }
        for (field, expected) in [("caption", &sample["caption"]), ("caption", &sample["true_caption"])] {
            if expected.is_string() && found[field] != *expected {
                wrong.push(format!("{what}: {field} {}, expected {expected}", found[field]));
            }
        }
        let size = |value: &Value| (value["width"].as_u64(), value["height"].as_u64());
        let turned = sample["kind"] == "jpeg_exif_rotated" && size(found) == (Some(48), Some(96));
        if sample["width"].is_number() && size(found) != size(sample) && !turned {
            wrong.push(format!("{what}: size {:?}, expected {:?}", size(found), size(sample)));
        }
        if let Some(mean) = sample["mean_rgb"].as_array() {
            let tolerance = sample["tolerance"].as_f64().unwrap();
            for (got, want) in found["mean_rgb"].as_array().unwrap().iter().zip(mean) {
                if (got.as_f64().unwrap() - want.as_f64().unwrap()).abs() > tolerance {
                    wrong.push(format!("{what}: mean {}, expected {mean:?}", found["mean_rgb"]));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shard_is_counted() {
    let inspected = inspected();
    let shards = inspected["shards"].as_array().unwrap();
    let expected = expected();
    let bounds = expected["shards"].as_array().unwrap();
    assert_eq!(shards.len(), bounds.len());
    for (shard, bounds) in shards.iter().zip(bounds) {
        assert_eq!(shard["file"], bounds["file"]);
        let loaded = shard["loaded"].as_u64().unwrap();
        let least = bounds["min_loaded"].as_u64().unwrap();
        let most = bounds["max_loaded"].as_u64().unwrap();
        assert!((least..=most).contains(&loaded), "{shard}: expected {least} to {most}");
        let file = shard["file"].as_str().unwrap();
        assert_eq!(shard["damaged"].as_bool().unwrap(), DAMAGED.contains(&file), "{shard}");
        assert_eq!(shard["reason"].is_string(), DAMAGED.contains(&file), "{shard}");
    }
}

/// The loader gives up good samples nowhere that it need not: the careful choice where either is accepted.
#[test]
fn careful_choices() {
    let inspected = inspected();
    let reasons: BTreeMap<_, _> = inspected["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| (name(sample), sample["reason"].as_str().unwrap_or("load").to_owned()))
        .collect();
    for (shard, key, occurrence, reason) in [
        ("images.tar", "images-008", 1, "load"),
        ("images.tar", "images-010", 1, "load"),
        ("images.tar", "images-016", 1, "load"),
        ("images.tar", "images-019", 1, "load"),
        ("images.tar", "images-038", 1, "load"),
        ("images.tar", "images-040", 1, "load"),
        ("images.tar", "images-048", 1, "load"),
        ("captions.tar", "captions-002", 1, "caption_encoding"),
        ("captions.tar", "captions-009", 1, "caption_empty"),
        ("captions.tar", "captions-011", 1, "caption_encoding"),
        ("captions.tar", "captions-018", 1, "caption_encoding"),
        ("captions.tar", "captions-019", 1, "caption_missing"),
        ("json.tar", "json-009", 1, "load"),
        ("names.tar", "names-003", 1, "load"),
        ("names.tar", "names-004", 1, "load"),
        ("names.tar", "names-004", 2, "key_duplicate"),
        ("names.tar", "names-006", 2, "load"),
        ("names.tar", "names-009", 1, "load"),
        ("names.tar", "names-011", 1, "caption_missing"),
    ] {
        assert_eq!(reasons[&(shard.into(), key.into(), occurrence)], reason, "{shard} {key}");
    }
}

#[test]
fn the_table_for_people_cannot_steer_a_terminal() {
    let mut out = Vec::new();
    inspect(all_shards(), false, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.contains("shard_header") && text.contains("image_too_large"), "{text}");
}

fn options(source: WebDataset, order: Order, passes: Passes, workers: usize) -> LoaderOptions {
    let tokenizer = Tokenizer::train(["an image of an apple".to_string()].into_iter(), 60).unwrap();
    LoaderOptions {
        source: Arc::new(source),
        order,
        passes,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Cursor::default(),
        batch: 16,
        keep_partial: true,
        transform: Transform::Train { size: 32, augment: AugmentConfig::default() },
        patches: None,
        tokenizer: Arc::new(tokenizer),
        context: 16,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers,
        stall_timeout: StallTimeout::default(),
        seed: 1,
    }
}

fn open(shards: &str) -> WebDataset {
    let config = serde_json::json!({ "shards": shards });
    WebDataset::open(&serde_json::from_value::<WebDatasetConfig>(config).unwrap()).unwrap()
}

#[test]
fn training_gets_what_inspection_promises() {
    let inspected = inspected();
    let mut promised: Vec<String> = inspected["samples"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|sample| sample["outcome"] == "load")
        .map(|sample| sample["key"].as_str().unwrap().to_owned())
        .collect();
    promised.sort();
    for (order, workers) in [(Order::Stored, 1), (Order::Shuffled { seed: 3 }, 3)] {
        let source = open(&all_shards());
        let total = source.samples().unwrap();
        let mut loader = Loader::start(options(source, order, Passes::Once, workers)).unwrap();
        let mut keys = Vec::new();
        while let Some(batch) = loader.next().unwrap() {
            assert_eq!(batch.pixels.len(), batch.keys.len() * 32 * 32 * 3);
            keys.extend(batch.keys);
        }
        keys.sort();
        assert_eq!(keys, promised);
        let skipped = loader.skipped();
        assert_eq!(skipped.total() + keys.len() as u64, total);
        // A web page in place of an archive is called that, not one with a damaged header.
        for (reason, least) in
            [("image_too_large", 3), ("shard_truncated", 4), ("shard_header", 1), ("shard_other", 1)]
        {
            assert!(skipped.counts.get(reason).is_some_and(|&count| count >= least), "{reason}: {skipped}");
        }
    }
}

#[test]
fn a_compressed_shard_under_the_name_of_a_plain_one_is_read() {
    let inspected = inspected();
    let of = |shard: &&Value| shard["file"] == "compressed.tar";
    assert_eq!(inspected["shards"].as_array().unwrap().iter().find(of).unwrap()["loaded"], 3);
}

/// Packed or not, the good shard gives the same batches.
#[test]
fn packed_shards_load_identically() {
    let good = std::fs::read(folder().join("good.tar")).unwrap();
    let packed = tempfile::tempdir().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &good).unwrap();
    let batches = |name: &str, bytes: &[u8]| {
        let path = packed.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = open(&path.display().to_string());
        let mut loader =
            Loader::start(options(source, Order::Shuffled { seed: 2 }, Passes::Once, 2)).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = loader.next().unwrap() {
            batches.push((batch.keys, batch.pixels, batch.tokens, batch.cursor));
        }
        assert_eq!(loader.skipped().total(), 0);
        batches
    };
    let plain = batches("good.tar", &good);
    assert_eq!(plain[0].0.len(), 8);
    assert!(batches("good.tar.gz", &gzip.finish().unwrap()) == plain);
    assert!(batches("good.tar.zst", &zstd::encode_all(&good[..], 3).unwrap()) == plain);
}

#[test]
fn a_set_without_a_usable_sample_is_reported() {
    let bad = folder().join("all-bad.tar").display().to_string();
    let nothing = folder().join("{empty,zero-bytes,not-a-tar}.tar").display().to_string();
    for shards in [&bad, &nothing] {
        for passes in [Passes::Endless, Passes::Once] {
            let began = Instant::now();
            let mut loader =
                Loader::start(options(open(shards), Order::Shuffled { seed: 1 }, passes, 2)).unwrap();
            let error = loader.next().unwrap_err();
            assert!(matches!(error, DataError::NothingUsable { .. }), "{error}");
            assert!(began.elapsed() < Duration::from_secs(20));
            assert!(loader.next().is_err());
        }
    }
    let mut loader = Loader::start(options(open(&bad), Order::Stored, Passes::Endless, 2)).unwrap();
    let message = loader.next().unwrap_err().to_string();
    assert!(message.contains("2 image_empty") && message.contains("all-bad-001"), "{message}");
}

/// Any byte of an archive may be wrong: its samples load or are skipped, and nothing else happens.
#[test]
fn changed_bytes_never_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("changed.tar");
    // A plain counter as the source of changes: small, and the same on every machine.
    let mut state = 1u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for name in ["names.tar", "good.tar", "json.tar"] {
        let whole = std::fs::read(folder().join(name)).unwrap();
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..1 + draw(4) {
                // Half of the changes hit headers.
                let at =
                    if draw(2) == 0 { draw(bytes.len() / 512) * 512 + draw(300) } else { draw(bytes.len()) };
                bytes[at] = draw(256) as u8;
            }
            bytes.truncate(bytes.len() - if draw(4) == 0 { draw(5000) } else { 0 });
            std::fs::write(&path, &bytes).unwrap();
            let mut out = Vec::new();
            inspect(path.display().to_string(), true, &mut out);
            assert!(serde_json::from_slice::<Value>(&out).unwrap()["shards"].is_array());
        }
    }
}

/// The bombs declare up to 2^62 pixels, the chunk bomb unpacks to 48 MiB, the huge member is a tebibyte.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_bounded() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    inspected();
    assert!(peak() < 200, "{} MiB", peak());
}
