//! Shards and tables behind a server that breaks off, falls silent or has something else by now.

use std::collections::BTreeMap;

use flip::data::DataConfig;

use super::server::{Fault, Server};
use super::*;

/// The source and the stall timeout of a recipe's `data`.
pub fn of_data(train: Value, storage: Value) -> (Result<Arc<dyn Source>, DataError>, StallTimeout) {
    let data: DataConfig = serde_json::from_value(json!({"train": train, "storage": storage})).unwrap();
    (data.open(&data.train, 0), data.storage.stall_timeout())
}

pub fn used(folder: &Path) -> u64 {
    // A file may make room between the listing and the look at it.
    let length = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.len());
    std::fs::read_dir(folder).unwrap().filter_map(length).sum()
}

#[test]
fn a_server_that_breaks_every_third_connection_loses_and_repeats_nothing() {
    let sizes = [40usize, 33, 25, 50, 17];
    let files: BTreeMap<String, Vec<u8>> =
        sizes.iter().enumerate().map(|(i, &samples)| (format!("/{i}.tar"), shard(i, samples))).collect();
    let server = Server::start(files.clone(), Fault::BreakEveryThird);
    let cache = tempfile::tempdir().unwrap();
    let url = format!("{}/{{0..4}}.tar", server.url());
    let train = json!({"WebDataset": {"shards": url, "shuffle_shards": 2}});
    let (remote, _) = of_data(train.clone(), json!({"cache": cache.path()}));
    let got = batches(options(remote.unwrap())).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let pattern = write_shards(folder.path(), &sizes);
    let local = source(&json!({"WebDataset": {"shards": pattern, "shuffle_shards": 2}}));
    let want = batches(options(local.clone())).unwrap();
    assert_eq!(keys(&got), keys(&want));
    assert!(got.iter().zip(&want).all(|(got, want)| got.pixels == want.pixels));
    let seen = server.seen();
    assert!(seen.broken >= 2, "{seen:?}");
    assert_eq!(seen.continued, seen.broken, "every broken transfer goes on where it stopped: {seen:?}");

    // The second pass comes from the cache.
    let (remote, _) = of_data(train, json!({"cache": cache.path()}));
    assert_eq!(keys(&batches(options(remote.unwrap())).unwrap()), keys(&want));
    assert_eq!(server.seen().connections, seen.connections);
    let bytes: usize = files.values().map(Vec::len).sum();
    assert_eq!(used(cache.path()), bytes as u64);
}

#[test]
fn an_object_store_is_listed_and_read_over_broken_connections() {
    let sizes = [20usize, 13, 31];
    let mut files: BTreeMap<String, Vec<u8>> = sizes
        .iter()
        .enumerate()
        .map(|(i, &samples)| (format!("/bucket/a/{i}.tar"), shard(i, samples)))
        .collect();
    files.insert("/bucket/a/notes.txt".into(), b"no shard".to_vec());
    files.insert("/bucket/a/deeper/9.tar".into(), shard(9, 9));
    let server = Server::start(files, Fault::BreakEveryThird);
    // Nothing else in this program reads these.
    for (name, value) in [
        ("AWS_ENDPOINT", server.url().as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_REGION", "none"),
    ] {
        std::env::set_var(name, value);
    }
    let cache = tempfile::tempdir().unwrap();
    let train = json!({"WebDataset": {"shards": "s3://bucket/a/*.tar"}});
    let (source, _) = of_data(train, json!({"cache": cache.path()}));
    let got = keys(&batches(LoaderOptions { order: Order::Stored, ..options(source.unwrap()) }).unwrap());
    let expected = sizes.iter().enumerate().flat_map(|(i, &samples)| {
        (0..samples).filter(|sample| sample % 7 != 6).map(move |sample| format!("{i}-{sample}"))
    });
    assert_eq!(got, expected.collect::<Vec<_>>());
    let seen = server.seen();
    assert!(seen.broken >= 1 && seen.continued == seen.broken, "{seen:?}");

    let train = json!({"WebDataset": {"shards": "s3://bucket/b/*.tar"}});
    let message = of_data(train, json!({})).0.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("s3://bucket/b/*.tar matches no shard"), "{message}");
}

#[test]
fn the_limit_of_the_cache_holds_while_every_shard_is_read() {
    let sizes = [30usize; 6];
    let files: BTreeMap<String, Vec<u8>> =
        sizes.iter().enumerate().map(|(i, &samples)| (format!("/{i}.tar"), shard(i, samples))).collect();
    let longest = files.values().map(Vec::len).max().unwrap();
    let server = Server::start(files, Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let limit = (longest * 5 / 2) as f64;
    let storage = json!({"cache": cache.path(), "cache_gib": limit / (1u64 << 30) as f64});
    let url = format!("{}/{{0..5}}.tar", server.url());
    let (remote, _) = of_data(json!({"WebDataset": {"shards": url, "shuffle_shards": 1}}), storage);
    let mut loader = Loader::start(options(remote.unwrap())).unwrap();
    let mut seen = 0;
    while let Some(batch) = loader.next().unwrap() {
        seen += batch.keys.len();
        assert!(used(cache.path()) as f64 <= limit, "{} of {limit}", used(cache.path()));
    }
    assert_eq!(seen, 6 * good(30));
}

#[test]
fn images_of_a_table_come_from_urls() {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let server = Server::start([("/a.png".to_owned(), png.into_inner())].into(), Fault::BreakEveryThird);
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("laion.tsv");
    let url = server.url();
    let text = format!("URL\tTEXT\n{url}/a.png?size=4\tone\n{url}/b.png\ttwo\n{url}/a.png\tthree\n");
    std::fs::write(&table, text).unwrap();
    let train = json!({"Table": {"files": table, "image": {"Url": "URL"}, "caption": "TEXT"}});
    let (source, _) = of_data(train, json!({}));
    let mut loader =
        Loader::start(LoaderOptions { order: Order::Stored, ..options(source.unwrap()) }).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!(batch.captions, [["one"], ["three"]]);
    let skip = &loader.next().map(|_| loader.skipped().first[0].clone()).unwrap();
    assert_eq!(skip.reason, "image_missing");
    assert!(skip.sample.ends_with("laion.tsv: line 3"), "{}", skip.sample);
    assert!(skip.detail.contains("/b.png: the server answers 404"), "{}", skip.detail);
}

#[test]
fn a_server_that_falls_silent_is_an_error_that_names_the_shard() {
    let server = Server::start([("/0.tar".to_owned(), shard(0, 30))].into(), Fault::Silent);
    let cache = tempfile::tempdir().unwrap();
    let storage = json!({
        "cache": cache.path(), "attempts": 1000, "stall_warning_s": 0.1, "stall_limit_s": 0.6
    });
    let train = json!({"WebDataset": {"shards": format!("{}/0.tar", server.url())}});
    let (source, stall_timeout) = of_data(train.clone(), storage);
    let began = Instant::now();
    let error = batches(LoaderOptions { stall_timeout, ..options(source.unwrap()) }).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10));
    let message = error.to_string();
    assert!(matches!(error, DataError::Stalled { .. }), "{message}");
    assert!(message.contains("/0.tar (the next shards to be indexed) for "), "{message}");

    // With few attempts and a long stall timeout, it is the transfer that is given up. In a cache of its own: the
    // thread that was left behind is still at the shard.
    let cache = tempfile::tempdir().unwrap();
    let storage = json!({"cache": cache.path(), "attempts": 2, "stall_warning_s": 0.1, "stall_limit_s": 20});
    let (source, stall_timeout) = of_data(train, storage);
    let message =
        batches(LoaderOptions { stall_timeout, ..options(source.unwrap()) }).unwrap_err().to_string();
    assert!(message.contains("silent for 0 s; given up after 2 attempts that came to nothing"), "{message}");
}

const RUN: &str = r#"
Recipe(
    name: "far", seed: 3, device: Cpu,
    model: (
        image: (size: 16, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 20), vocab_size: 270, context: 8, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),
    data: (
        train: WebDataset(shards: "URL/{0..5}.tar", shuffle_shards: 1),
        storage: (cache: "CACHE", attempts: 1000, stall_warning_s: 0.5, stall_limit_s: 3),
        workers: 2,
    ),
    stages: [Pretrain(length: Steps(20), batch: 8, image_mask: Keep, schedule: Constant(lr: Absolute(1e-3), warmup: Steps(0)))],
    checkpoints: (every: Steps(1000)),
    metrics: (every_steps: 1),
)
"#;

/// The run in its folder: whether it came to its end, and what it told.
fn run(folder: &Path, url: &str, out: &str, resume: bool) -> (bool, String) {
    let text =
        RUN.replace("URL", url).replace("CACHE", &folder.join(out).join("cache").display().to_string());
    let recipe = folder.join(format!("{out}.ron"));
    std::fs::write(&recipe, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flip"));
    command.arg("run").arg(&recipe).arg("--out").arg(folder.join(out).join("run"));
    if resume {
        command.arg("--resume");
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_run_whose_server_falls_silent_warns_then_stops_and_resumes_exactly() {
    let files = || (0..6).map(|i| (format!("/{i}.tar"), shard(i, 40))).collect();
    let folder = tempfile::tempdir().unwrap();
    let calm = Server::start(files(), Fault::None);
    let (done, told) = run(folder.path(), &calm.url(), "calm", false);
    assert!(done, "{told}");

    // Two shards for the vocabulary and at least two for training.
    let server = Server::start(files(), Fault::SilentAfter(4));
    let began = Instant::now();
    let (done, told) = run(folder.path(), &server.url(), "stalled", false);
    assert!(!done && began.elapsed() < Duration::from_secs(60), "{told}");
    let (warnings, error) = told.split_at(told.rfind("data.storage.stall_limit_s").expect(&told));
    assert!(warnings.contains(".tar (the next shards to be indexed) for "), "{told}");
    assert!(warnings.contains("is the storage stalled? The run stops after 3 s"), "{told}");
    assert!(error.contains("Resume when it answers again"), "{told}");

    server.set(Fault::None);
    let (done, told) = run(folder.path(), &server.url(), "stalled", true);
    assert!(done, "{told}");
    let metrics =
        |out: &str| std::fs::read_to_string(folder.path().join(out).join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics("calm").lines().count(), 20);
    assert_eq!(metrics("calm"), metrics("stalled"));
    // It went on from a checkpoint of the moment, not from the start: step 1000 would have been the first.
    let text = std::fs::read_dir(folder.path().join("stalled/run/checkpoints")).unwrap();
    let names: Vec<String> = text.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 2, "{names:?}");
}

#[test]
fn a_shard_that_the_server_lacks_is_counted_and_the_others_are_read() {
    let server = Server::start([("/1.tar".to_owned(), shard(1, 10))].into(), Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let train = json!({"WebDataset": {"shards": format!("{}/{{0..1}}.tar", server.url())}});
    let (source, _) = of_data(train, json!({"cache": cache.path()}));
    let mut loader = Loader::start(options(source.unwrap())).unwrap();
    let mut seen = 0;
    while let Some(batch) = loader.next().unwrap() {
        seen += batch.keys.len();
    }
    assert_eq!(seen, good(10));
    assert_eq!(loader.skipped().counts["shard_missing"], 1);
    let wild = json!({"WebDataset": {"shards": format!("{}/*.tar", server.url())}});
    let message = of_data(wild, json!({})).0.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("http has no listing"), "{message}");
}
