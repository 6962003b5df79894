//! Sources in a loader: every sample once an epoch over any number of shards, workers and ranks; shards behind a
//! server that breaks; stalls that end; mixes that resume.

#[cfg(feature = "remote")]
mod answers;
mod lanes;
mod machine;
mod pages;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use flip::data::decode::Transform;
use flip::data::load::{LabelFrom, LimitsConfig, Loader, LoaderOptions, Passes, Share};
use flip::data::source::{Order, Source};
use flip::data::storage::StallTimeout;
use flip::data::text::Tokenizer;
use flip::data::{open_source, AugmentConfig, Batch, Cursor, DataError, SourceConfig};
use serde_json::{json, Value};

fn source(config: &Value) -> Arc<dyn Source> {
    open_source(&serde_json::from_value::<SourceConfig>(config.clone()).unwrap(), 0).unwrap()
}

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let letters = ('a'..='z').map(|c| format!("{c}{c}{c}"));
    TOKENIZER.get_or_init(|| Arc::new(Tokenizer::train(letters, 200).unwrap())).clone()
}

fn options(source: Arc<dyn Source>) -> LoaderOptions {
    LoaderOptions {
        source,
        order: Order::Shuffled { seed: 5 },
        passes: Passes::Once,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Cursor::default(),
        batch: 7,
        keep_partial: true,
        transform: Transform::Train { size: 8, augment: AugmentConfig::default() },
        patches: None,
        tokenizer: tokenizer(),
        context: 8,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers: 2,
        stall_timeout: StallTimeout { warning: Duration::from_secs(5), limit: Duration::from_secs(30) },
        seed: 5,
    }
}

/// A shard of small images with captions, keys `SHARD-NUMBER`; every seventh has no caption.
fn shard(number: usize, samples: usize) -> Vec<u8> {
    shard_without(number, samples, |sample| sample % 7 == 6)
}

/// The same where others have no caption.
fn shard_without(number: usize, samples: usize, mute: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([60 * x as u8, 60 * y as u8, number as u8]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: String, body: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        builder.append_data(&mut header, name, body).unwrap();
    };
    for sample in 0..samples {
        add(format!("{number}-{sample}.png"), png.get_ref());
        if !mute(sample) {
            add(format!("{number}-{sample}.txt"), b"an image");
        }
    }
    builder.into_inner().unwrap()
}

fn good(samples: usize) -> usize {
    samples - samples / 7
}

fn write_shards(folder: &Path, sizes: &[usize]) -> String {
    for (i, &samples) in sizes.iter().enumerate() {
        std::fs::write(folder.join(format!("{i}.tar")), shard(i, samples)).unwrap();
    }
    folder.join("*.tar").display().to_string()
}

fn batches(options: LoaderOptions) -> Result<Vec<Batch>, DataError> {
    let mut loader = Loader::start(options)?;
    let mut batches = Vec::new();
    while let Some(batch) = loader.next()? {
        batches.push(batch);
    }
    Ok(batches)
}

fn keys(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| batch.keys.iter().cloned()).collect()
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

#[test]
fn every_sample_once_an_epoch_whatever_the_shards_workers_and_ranks() {
    for shards in [1, 2, 3, 7] {
        let folder = tempfile::tempdir().unwrap();
        let sizes: Vec<usize> = (0..shards).map(|i| 5 + 4 * i).collect();
        let pattern = write_shards(folder.path(), &sizes);
        let source = source(&json!({"WebDataset": {"shards": pattern, "shuffle_shards": 2}}));
        let expected: usize = sizes.iter().map(|&samples| good(samples)).sum();
        let whole = keys(&batches(options(source.clone())).unwrap());
        assert_eq!(whole.len(), expected);
        for ranks in [1, 2, 3] {
            for workers in [1, 2, 8] {
                for epoch in [0, 1] {
                    let mut of_ranks = Vec::new();
                    for rank in 0..ranks {
                        let share = Share { rank, ranks };
                        let start = Cursor::epoch(epoch);
                        let own = keys(
                            &batches(LoaderOptions { share, workers, start, ..options(source.clone()) })
                                .unwrap(),
                        );
                        if epoch == 0 {
                            // The global order, with what is for others left out.
                            let place = |key: &String| whole.iter().position(|known| known == key).unwrap();
                            assert!(own.iter().map(place).is_sorted());
                        }
                        of_ranks.extend(own);
                    }
                    assert_eq!(sorted(of_ranks), sorted(whole.clone()), "{shards} shards, {ranks} ranks");
                }
            }
        }
    }
}

/// The same for every way to order and to combine: wide and narrow windows, shards drawn with replacement, mixes.
#[test]
fn ranks_and_workers_share_out_windows_resampled_sets_and_mixes() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write_shards(folder.path(), &[5, 9, 13, 17, 21, 25, 29]);
    image::RgbImage::new(3, 3).save(folder.path().join("x.png")).unwrap();
    let rows: Vec<String> = (0..11).map(|i| format!("x.png,caption {i}")).collect();
    let table = folder.path().join("pairs.csv");
    std::fs::write(&table, format!("path,text\n{}\n", rows.join("\n"))).unwrap();
    let shards = |shuffle_shards: usize, resampled: bool| {
        let config = json!({"shards": pattern, "shuffle_shards": shuffle_shards, "resampled": resampled});
        json!({ "WebDataset": config })
    };
    let rows = json!({"Table": {"files": table, "image": {"Path": "path"}, "caption": "text"}});
    let good: usize = [5, 9, 13, 17, 21, 25, 29].into_iter().map(good).sum();
    for (config, once) in [
        (shards(1, false), Some(good)),
        (shards(3, false), Some(good)),
        (shards(100, false), Some(good)),
        (shards(3, true), None),
        (json!({"Mix": [[shards(2, false), 3.0], [rows, 1.0]]}), None),
        (json!({"Mix": [[shards(2, true), 1.0], [shards(3, false), 2.5], [rows, 1.0]]}), None),
    ] {
        let source = source(&config);
        for order in [Order::Shuffled { seed: 5 }, Order::Stored] {
            let options = || LoaderOptions { order, ..options(source.clone()) };
            let sample = |batch: &Batch| batch.keys.iter().cloned().zip(batch.captions.clone()).collect();
            let samples = |options| -> Vec<_> {
                let mut samples: Vec<_> =
                    batches(options).unwrap().iter().flat_map::<Vec<_>, _>(sample).collect();
                samples.sort();
                samples
            };
            let whole = samples(options());
            if let Some(once) = once {
                assert_eq!(whole.len(), once);
                assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "a sample twice: {config}");
            }
            for (ranks, workers) in [(1, 8), (2, 1), (3, 2), (8, 1)] {
                let shares = (0..ranks).map(|rank| Share { rank, ranks });
                let mut of_ranks: Vec<_> =
                    shares.flat_map(|share| samples(LoaderOptions { share, workers, ..options() })).collect();
                of_ranks.sort();
                assert_eq!(of_ranks, whole, "{ranks} ranks, {workers} workers, {order:?}, {config}");
            }
        }
    }
}

#[test]
fn resuming_at_sample_1_000_003_of_ten_million_takes_under_a_second_and_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("shard");
    std::fs::write(&large, shard_without(0, 10_000, |_| false)).unwrap();
    for i in 0..1000 {
        std::os::unix::fs::symlink(&large, folder.path().join(format!("{i:04}.tar"))).unwrap();
    }
    let shards = folder.path().join("*.tar").display().to_string();
    let config = json!({"WebDataset": {"shards": shards, "shuffle_shards": 4}});
    let endless =
        |start, batch| LoaderOptions { start, batch, passes: Passes::Endless, ..options(source(&config)) };
    // The 25th of 250 windows of 40,000 samples ends at sample 1,000,000: a batch that goes on into the next one.
    let start = Cursor { window: 24, position: 39_900, ..Cursor::default() };
    let mut whole = Loader::start(endless(start, 1)).unwrap();
    let there = Cursor { window: 25, position: 3, ..Cursor::default() };
    while whole.next().unwrap().unwrap().cursor != there {}

    let began = Instant::now();
    let mut resumed = Loader::start(endless(there, 1)).unwrap();
    let first = resumed.next().unwrap().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds < 1.0, "{seconds} s");
    let rest = std::iter::from_fn(|| resumed.next().unwrap());
    for batch in std::iter::once(first).chain(rest).take(300) {
        let expected = whole.next().unwrap().unwrap();
        assert_eq!((batch.keys, batch.cursor), (expected.keys, expected.cursor));
        assert!(batch.pixels == expected.pixels);
    }
}

#[test]
fn a_run_may_go_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing is broken, so that ranks stay together.
    let pattern = write_shards(folder.path(), &[6, 6, 6, 6]);
    let source = source(&json!({"WebDataset": {"shards": pattern, "shuffle_shards": 4}}));
    let ranked = |ranks: u64, start: Cursor, steps: usize| -> (Vec<String>, Cursor) {
        let mut taken = Vec::new();
        let mut last = start;
        for rank in 0..ranks {
            let share = Share { rank, ranks };
            let batch = 6 / ranks as usize;
            let options =
                LoaderOptions { share, start, batch, passes: Passes::Endless, ..options(source.clone()) };
            let mut loader = Loader::start(options).unwrap();
            for _ in 0..steps {
                let batch = loader.next().unwrap().unwrap();
                taken.extend(batch.keys);
                // Ranks take turns, so the last of them is furthest.
                let further =
                    |a: Cursor, b: Cursor| (a.epoch, a.window, a.position) > (b.epoch, b.window, b.position);
                last = if further(batch.cursor, last) { batch.cursor } else { last };
            }
        }
        (taken, last)
    };
    let (mut taken, cursor) = ranked(2, Cursor::default(), 2);
    let (more, cursor) = ranked(3, cursor, 1);
    taken.extend(more);
    taken.extend(ranked(1, cursor, 1).0);
    let expected: Vec<String> = (0..4).flat_map(|i| (0..6).map(move |j| format!("{i}-{j}"))).collect();
    assert_eq!(sorted(taken), sorted(expected));
}

/// Parts of a batch resume each from a cursor of its own, so that broken samples, which part them, lose nothing.
#[test]
fn parts_that_resume_take_every_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write_shards(folder.path(), &[9, 13, 17, 21]);
    let source = source(&json!({"WebDataset": {"shards": pattern, "shuffle_shards": 2}}));
    let whole = sorted(keys(&batches(options(source.clone())).unwrap()));
    assert!(whole.len() < 60, "some are broken");
    for stop in [1, 2, 5] {
        let mut taken = Vec::new();
        for rank in 0..3 {
            let share = Share { rank, ranks: 3 };
            let mut loader =
                Loader::start(LoaderOptions { share, batch: 2, ..options(source.clone()) }).unwrap();
            let mut cursor = Cursor::default();
            for _ in 0..stop {
                let batch = loader.next().unwrap().unwrap();
                taken.extend(batch.keys);
                cursor = batch.cursor;
            }
            let rest = LoaderOptions { share: share.resumed(), start: cursor, ..options(source.clone()) };
            taken.extend(keys(&batches(rest).unwrap()));
        }
        assert_eq!(sorted(taken), whole, "stopped after {stop} batches");
    }
}

#[test]
fn a_mix_keeps_its_shares_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write_shards(folder.path(), &[20, 30]);
    let table = folder.path().join("pairs.csv");
    image::RgbImage::new(3, 3).save(folder.path().join("x.png")).unwrap();
    let rows: Vec<String> = (0..11).map(|i| format!("x.png,caption {i}")).collect();
    std::fs::write(&table, format!("path,text\n{}\n", rows.join("\n"))).unwrap();
    let source = source(&json!({"Mix": [
        [{"WebDataset": {"shards": pattern}}, 3.0],
        [{"Table": {"files": table, "image": {"Path": "path"}, "caption": "text"}}, 1.0],
    ]}));
    let endless = |start, workers| {
        Loader::start(LoaderOptions {
            start,
            workers,
            batch: 8,
            passes: Passes::Endless,
            ..options(source.clone())
        })
        .unwrap()
    };
    let mut loader = endless(Cursor::default(), 3);
    let all: Vec<Batch> = (0..30).map(|_| loader.next().unwrap().unwrap()).collect();
    let of_table = keys(&all).iter().filter(|key| *key == "x.png").count();
    // Three of four places, of which six of seven are usable.
    assert!((63..=69).contains(&of_table), "{of_table} of 240");
    for stop in [1, 9, 22] {
        let mut resumed = endless(all[stop - 1].cursor, 1);
        for expected in &all[stop..] {
            let batch = resumed.next().unwrap().unwrap();
            assert_eq!((batch.keys, batch.cursor), (expected.keys.clone(), expected.cursor));
            assert!(batch.pixels == expected.pixels);
        }
    }
    let once = batches(LoaderOptions { order: Order::Stored, ..options(source) }).unwrap();
    assert_eq!(keys(&once).len(), good(20) + good(30) + 11);
}

/// A file system that never answers: a source that sleeps.
#[test]
fn a_stalled_file_system_is_an_error_and_the_loader_can_be_dropped() {
    struct Asleep;
    impl Source for Asleep {
        fn samples(&self) -> Option<u64> {
            Some(10)
        }
        fn ticket(&self, cursor: Cursor, _: Order) -> Result<Option<flip::data::source::Ticket>, DataError> {
            let after = Cursor { position: cursor.position + 1, ..cursor };
            let item = (0, cursor.position);
            let ticket =
                flip::data::source::Ticket { epoch: cursor.epoch, index: cursor.position, item, after };
            Ok((cursor.position < 10).then_some(ticket))
        }
        fn load(&self, _: &flip::data::source::Ticket) -> Result<flip::data::Raw, flip::data::LoadError> {
            std::thread::sleep(Duration::from_secs(30));
            unreachable!("the test is over by then")
        }
        fn name(&self) -> String {
            "/nfs/*.tar".into()
        }
    }
    let stall_timeout =
        StallTimeout { warning: Duration::from_millis(50), limit: Duration::from_millis(300) };
    let began = Instant::now();
    let mut loader = Loader::start(LoaderOptions { stall_timeout, ..options(Arc::new(Asleep)) }).unwrap();
    let message = loader.next().unwrap_err().to_string();
    assert!(
        message.starts_with("/nfs/*.tar: nothing from a sample to be read and decoded for "),
        "{message}"
    );
    assert!(message.contains("data.storage.stall_limit_s"), "{message}");
    drop(loader);
    assert!(began.elapsed() < Duration::from_secs(5));

    // Before the limit, as at the end of a stage: its threads are left behind all the same.
    let stall_timeout = StallTimeout { limit: Duration::from_secs(300), ..stall_timeout };
    let loader = Loader::start(LoaderOptions { stall_timeout, ..options(Arc::new(Asleep)) }).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    drop(loader);
    assert!(began.elapsed() < Duration::from_secs(15));
}
