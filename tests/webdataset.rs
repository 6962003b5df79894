//! The loader over real shards: order, resuming, labels, ends, and threads that always come to an end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flip::data::decode::Transform;
use flip::data::load::{LabelFrom, LimitsConfig, Loader, LoaderOptions, Passes, Patches, Share};
use flip::data::source::filter::{Filter, FilterConfig};
use flip::data::source::{Order, Source, Ticket};
use flip::data::storage::StallTimeout;
use flip::data::text::Tokenizer;
use flip::data::{open_source, AugmentConfig, Batch, Cursor, DataError, SourceConfig};
use flip::data::{Image, LoadError, Raw, Skip};

const CONTEXT: usize = 12;
const SIZE: usize = 16;

fn pictograms(file: &str) -> Arc<dyn Source> {
    let shards = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictograms").join(file);
    open(&shards.display().to_string(), 4)
}

fn open(shards: &str, shuffle_shards: usize) -> Arc<dyn Source> {
    let config = serde_json::json!({"WebDataset": {"shards": shards, "shuffle_shards": shuffle_shards}});
    open_source(&serde_json::from_value::<SourceConfig>(config).unwrap(), 0).unwrap()
}

fn tokenizer() -> Arc<Tokenizer> {
    let letters = ('a'..='z').map(|c| format!("{c}{c}{c}"));
    Arc::new(Tokenizer::train(letters, 200).unwrap())
}

fn options(source: Arc<dyn Source>) -> LoaderOptions {
    LoaderOptions {
        source,
        order: Order::Shuffled { seed: 5 },
        passes: Passes::Endless,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Cursor::default(),
        batch: 24,
        keep_partial: false,
        transform: Transform::Train { size: SIZE, augment: AugmentConfig::default() },
        patches: None,
        tokenizer: tokenizer(),
        context: CONTEXT,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers: 2,
        stall_timeout: StallTimeout::default(),
        seed: 5,
    }
}

/// Copies of one small sample: `sizes[i]` samples in shard i, every seventh without caption.
fn write_shards(folder: &Path, sizes: &[usize]) {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([60 * x as u8, 60 * y as u8, 9]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    for (i, &samples) in sizes.iter().enumerate() {
        let mut builder = tar::Builder::new(std::fs::File::create(folder.join(format!("{i}.tar"))).unwrap());
        let mut add = |name: String, body: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            builder.append_data(&mut header, name, body).unwrap();
        };
        for sample in 0..samples {
            let key = format!("{i}-{sample}");
            add(format!("{key}.png"), png.get_ref());
            add(format!("{key}.cls"), format!("{sample}\n").as_bytes());
            if sample % 7 != 6 {
                add(format!("{key}.txt"), b"an image");
            }
        }
        builder.finish().unwrap();
    }
}

fn take(loader: &mut Loader, batches: usize) -> Vec<Batch> {
    (0..batches).map(|_| loader.next().unwrap().unwrap()).collect()
}

fn rest(mut loader: Loader) -> Vec<Batch> {
    std::iter::from_fn(|| loader.next().unwrap()).collect()
}

fn assert_same(got: &[Batch], want: &[Batch]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.keys, want.keys);
        assert_eq!(got.cursor, want.cursor);
        assert_eq!(got.tokens, want.tokens);
        assert_eq!(got.lengths, want.lengths);
        assert_eq!(got.labels, want.labels);
        assert!(got.pixels == want.pixels, "pixels differ");
    }
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers() {
    let source = pictograms("pictograms-00000.tar");
    let batches = |workers| {
        let mut loader = Loader::start(LoaderOptions { workers, ..options(source.clone()) }).unwrap();
        take(&mut loader, 30)
    };
    let one = batches(1);
    assert_eq!(one[0].pixels.len(), 24 * SIZE * SIZE * 3);
    assert_eq!(one[0].tokens.len(), 24 * CONTEXT);
    assert!(one[29].cursor.epoch == 2, "30 batches of 24 reach the third epoch of 300");
    for workers in [2, 8] {
        assert_same(&batches(workers), &one);
    }
}

#[test]
fn a_loader_goes_on_where_another_stopped() {
    let source = pictograms("pictograms-{00000,val-00000}.tar");
    let mut whole = Loader::start(options(source.clone())).unwrap();
    let all = take(&mut whole, 40);
    for (stop, workers) in [(1, 1), (17, 2), (18, 8), (30, 2)] {
        let mut first = Loader::start(LoaderOptions { workers, ..options(source.clone()) }).unwrap();
        let start = take(&mut first, stop).pop().unwrap().cursor;
        drop(first);
        for workers in [1, 2, 8] {
            let options = LoaderOptions { start, workers, ..options(source.clone()) };
            let mut second = Loader::start(options).unwrap();
            assert_same(&take(&mut second, 40 - stop), &all[stop..]);
        }
    }
}

#[test]
fn every_sample_once_an_epoch_with_fewer_shards_than_workers() {
    for shards in [1, 2, 3, 7] {
        let folder = tempfile::tempdir().unwrap();
        let sizes: Vec<usize> = (0..shards).map(|i| 5 + 4 * i).collect();
        write_shards(folder.path(), &sizes);
        let good: usize = sizes.iter().map(|&n| n - n / 7).sum();
        for workers in [1, 2, 8] {
            for window in [1, 2, 100] {
                let source = open(&folder.path().join("*.tar").display().to_string(), window);
                let passes = Passes::Once;
                let options =
                    LoaderOptions { workers, passes, keep_partial: true, batch: 7, ..options(source) };
                let mut loader = Loader::start(options).unwrap();
                let mut keys = Vec::new();
                while let Some(batch) = loader.next().unwrap() {
                    keys.extend(batch.keys);
                }
                assert_eq!(loader.next().unwrap().map(|batch| batch.keys), None);
                assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
                assert_eq!(keys.len(), good);
                let missing = (sizes.iter().sum::<usize>() - good) as u64;
                assert_eq!(loader.skipped().total(), missing);
                assert_eq!(loader.skipped().counts.get("caption_missing").copied().unwrap_or(0), missing);
            }
        }
    }
}

#[test]
fn a_single_pass_ends_with_a_partial_batch_or_leaves_it_out() {
    let source = pictograms("pictograms-val-00000.tar");
    let sizes = |keep_partial| -> Vec<usize> {
        let passes = Passes::Once;
        let order = Order::Stored;
        let options = LoaderOptions { passes, order, keep_partial, batch: 50, ..options(source.clone()) };
        rest(Loader::start(options).unwrap()).iter().map(|batch| batch.keys.len()).collect()
    };
    assert_eq!(sizes(true), [50, 50, 20]);
    assert_eq!(sizes(false), [50, 50]);
}

#[test]
fn stored_order_is_that_of_the_archive_and_labels_are_read() {
    let source = pictograms("pictograms-val-00000.tar");
    let options = LoaderOptions {
        order: Order::Stored,
        passes: Passes::Once,
        batch: 120,
        transform: Transform::centre(SIZE),
        patches: None,
        label: LabelFrom::JsonField("label_name".into()),
        ..options(source.clone())
    };
    let batch = Loader::start(options).unwrap().next().unwrap().unwrap();
    let mut cursor = Cursor::default();
    for (row, key) in batch.keys.iter().enumerate() {
        let ticket = source.ticket(cursor, Order::Stored).unwrap().unwrap();
        let raw = source.load(&ticket).unwrap();
        assert_eq!((&raw.key, &raw.captions), (key, &batch.captions[row]));
        let label = raw.meta.unwrap().unwrap()["label_name"].as_i64().unwrap();
        // -1 says that the sample belongs to none of the classes.
        assert_eq!(batch.labels[row], (label >= 0).then_some(label));
        cursor = ticket.after;
    }
    assert_eq!(batch.cursor, cursor);
    assert!(batch.labels.iter().flatten().count() > 3);

    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3]);
    let source = open(&folder.path().join("0.tar").display().to_string(), 1);
    let options =
        LoaderOptions { order: Order::Stored, label: LabelFrom::Source, batch: 3, ..self::options(source) };
    let batch = Loader::start(options).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.labels, [Some(0), Some(1), Some(2)]);
}

/// A source of one-pixel images that does what a test needs.
struct Made {
    samples: u64,
    load: fn(u64) -> Result<Raw, Skip>,
}

fn raw(index: u64) -> Result<Raw, Skip> {
    Ok(Raw {
        key: index.to_string(),
        image: Image::Rgb { width: 1, height: 1, pixels: vec![index as u8; 3] },
        captions: vec!["aa".into(), "bb".into(), "cc".into()],
        meta: Ok(None),
        label: None,
        label_set: None,
    })
}

impl Source for Made {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn ticket(&self, cursor: Cursor, _: Order) -> Result<Option<Ticket>, DataError> {
        let index = cursor.position;
        let after = Cursor { position: index + 1, ..cursor };
        let ticket = Ticket { epoch: cursor.epoch, index, item: (0, index), after };
        Ok((index < self.samples).then_some(ticket))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        (self.load)(ticket.index).map_err(LoadError::Skip)
    }
}

#[test]
fn one_of_several_captions_is_drawn_in_training_and_the_first_taken_in_evaluation() {
    let source = Arc::new(Made { samples: 300, load: raw });
    let tokens = |order| {
        let options = LoaderOptions { order, batch: 300, ..options(source.clone()) };
        let batch = Loader::start(options).unwrap().next().unwrap().unwrap();
        assert!(batch.captions.iter().all(|captions| captions.len() == 3));
        batch.tokens.chunks(CONTEXT).map(|row| row.to_vec()).collect::<Vec<_>>()
    };
    let stored = tokens(Order::Stored);
    let first = tokenizer().encode("aa", CONTEXT).unwrap().0;
    assert!(stored.iter().all(|row| *row == first));
    let drawn = tokens(Order::Shuffled { seed: 1 });
    let share = drawn.iter().filter(|row| **row == first).count();
    assert!((60..140).contains(&share), "{share} of 300");
    assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn slow_samples_do_not_change_the_order() {
    let load = |index: u64| {
        std::thread::sleep(Duration::from_millis(if index.is_multiple_of(8) { 12 } else { 0 }));
        raw(index)
    };
    let options =
        LoaderOptions { passes: Passes::Once, workers: 8, ..options(Arc::new(Made { samples: 240, load })) };
    let mut loader = Loader::start(options).unwrap();
    let keys: Vec<String> = take(&mut loader, 10).into_iter().flat_map(|batch| batch.keys).collect();
    assert_eq!(keys, (0..240).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(loader.waited() > Duration::ZERO);
}

#[test]
fn a_panic_of_a_worker_is_an_error() {
    let load = |index: u64| if index == 100 { panic!("sample {index} is impossible") } else { raw(index) };
    let mut loader = Loader::start(options(Arc::new(Made { samples: 1000, load }))).unwrap();
    assert_eq!(take(&mut loader, 4).len(), 4);
    let message = loader.next().unwrap_err().to_string();
    assert!(message.contains("sample 100 is impossible"), "{message}");
    assert!(loader.next().is_err());
}

#[test]
fn an_epoch_without_samples_is_an_error() {
    let mut loader = Loader::start(options(Arc::new(Made { samples: 0, load: raw }))).unwrap();
    assert!(matches!(loader.next(), Err(DataError::NothingUsable { .. })));
}

#[test]
fn skips_are_counted_where_they_lie() {
    let load = |index: u64| match index % 3 {
        0 => Err(Skip { reason: "image_decode", sample: index.to_string(), detail: "third".into() }),
        _ => raw(index),
    };
    let source = Arc::new(Made { samples: 3000, load });
    let mut loader = Loader::start(options(source)).unwrap();
    assert_eq!(loader.skipped().total(), 0);
    // 24 good samples of three thirds: those up to number 35 belong to the first batch.
    take(&mut loader, 1);
    assert_eq!(loader.skipped().counts["image_decode"], 12);
    take(&mut loader, 9);
    assert_eq!(loader.skipped().total(), 120);
    assert_eq!(loader.skipped().first.len(), 10);
    assert_eq!(loader.skipped().first[1].sample, "3");
}

#[test]
fn dropping_a_loader_ends_its_threads_at_once() {
    let source = pictograms("pictograms-00000.tar");
    for (batch, taken) in [(1 << 16, 0), (8, 0), (8, 2)] {
        let mut loader = Loader::start(LoaderOptions { batch, ..options(source.clone()) }).unwrap();
        take(&mut loader, taken);
        let began = Instant::now();
        drop(loader);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn empty_plans_are_refused() {
    let source = pictograms("pictograms-00000.tar");
    let empty = Transform::centre(0);
    for options in [
        LoaderOptions { batch: 0, ..options(source.clone()) },
        LoaderOptions { context: 0, ..options(source.clone()) },
        LoaderOptions { transform: empty, ..options(source.clone()) },
    ] {
        assert!(matches!(Loader::start(options), Err(DataError::Invalid(_))));
    }
}

#[test]
fn patches_are_those_of_whole_images_whatever_the_workers_and_after_resuming() {
    let source = pictograms("pictograms-00000.tar");
    let (side, grid) = (4, SIZE / 4);
    // Another three patches for every sample.
    let keep = |epoch: u64, index: u64| (0..3).map(|i| ((index * 7 + epoch + i * 5) % 16) as u32).collect();
    let patches = Patches { side, kept: 3, keep: Arc::new(keep) };
    let mut whole = Loader::start(options(source.clone())).unwrap();
    let whole = take(&mut whole, 20);
    for (workers, from) in [(1, 0), (8, 0), (2, 13)] {
        let start = if from == 0 { Cursor::default() } else { whole[from - 1].cursor };
        let options =
            LoaderOptions { workers, start, patches: Some(patches.clone()), ..options(source.clone()) };
        let mut loader = Loader::start(options).unwrap();
        for (batch, whole) in take(&mut loader, 20 - from).iter().zip(&whole[from..]) {
            assert_eq!(batch.keys, whole.keys);
            assert_eq!(batch.patches.len(), 24 * 3);
            let images = whole.pixels.chunks_exact(SIZE * SIZE * 3);
            let rows = batch.patches.chunks_exact(3).zip(batch.pixels.chunks_exact(3 * side * side * 3));
            for (image, (ids, pixels)) in images.zip(rows) {
                for (&id, patch) in ids.iter().zip(pixels.chunks_exact(side * side * 3)) {
                    let (row, column) = (id as usize / grid, id as usize % grid);
                    for (y, line) in patch.chunks_exact(3 * side).enumerate() {
                        let first = ((row * side + y) * SIZE + column * side) * 3;
                        assert_eq!(line, &image[first..first + 3 * side]);
                    }
                }
            }
        }
    }
    let misfit = Patches { side: 5, kept: 1, keep: Arc::new(|_, _| vec![0]) };
    let refused = Loader::start(LoaderOptions { patches: Some(misfit), ..options(source) });
    assert!(matches!(refused, Err(DataError::Invalid(_))));
}

#[test]
fn too_many_broken_samples_stop_the_run_and_filtered_ones_do_not() {
    let broken = |index: u64| match index % 5 {
        0..=2 => Err(Skip { reason: "image_decode", sample: index.to_string(), detail: "broken".into() }),
        _ => raw(index),
    };
    let until_end = |source, broken_share, filter| {
        let limits = LimitsConfig { broken_share, ..LimitsConfig::default() };
        let options = LoaderOptions { passes: Passes::Once, limits, filter, ..options(source) };
        let mut loader = Loader::start(options).unwrap();
        loop {
            match loader.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(loader.skipped().clone()),
                Err(error) => return Err(error),
            }
        }
    };
    let source = Arc::new(Made { samples: 4000, load: broken });
    assert_eq!(until_end(source.clone(), 0.61, None).unwrap().broken(), 2400);
    let message = until_end(source, 0.5, None).unwrap_err().to_string();
    assert!(message.contains("broken_share") && message.contains("image_decode"), "{message}");
    // The reasons are those of all samples that are counted, not of the last few.
    let number = |what: &str| -> u64 {
        let before = &message[..message.find(what).unwrap()];
        before.rsplit([' ', ',']).find(|word| !word.is_empty()).unwrap().parse().unwrap()
    };
    assert_eq!(number(" of the first "), number(" image_decode"), "{message}");

    let filter = FilterConfig { min_side: std::num::NonZeroU64::new(2), ..FilterConfig::default() };
    let large = |index: u64| {
        let mut raw = raw(index)?;
        if index.is_multiple_of(10) {
            raw.image = Image::Rgb { width: 2, height: 2, pixels: vec![0; 12] };
        }
        Ok(raw)
    };
    let source = Arc::new(Made { samples: 4000, load: large });
    let filter = Some(Arc::new(Filter::open(&filter, source.as_ref()).unwrap()));
    let skipped = until_end(source, 0.01, filter).unwrap();
    assert_eq!((skipped.counts["filter_size"], skipped.broken()), (3600, 0));
}

#[test]
fn limits_on_bytes_are_held() {
    let limits = LimitsConfig { caption_bytes: 1, ..LimitsConfig::default() };
    let mut loader =
        Loader::start(LoaderOptions { limits, ..options(Arc::new(Made { samples: 30, load: raw })) })
            .unwrap();
    let message = loader.next().unwrap_err().to_string();
    assert!(message.contains("30 caption_too_long"), "{message}");
    let limits = LimitsConfig { image_bytes: 10, ..LimitsConfig::default() };
    let source = pictograms("pictograms-00000.tar");
    let mut loader = Loader::start(LoaderOptions { limits, ..options(source) }).unwrap();
    let message = loader.next().unwrap_err().to_string();
    assert!(message.contains("image_too_large"), "{message}");
}
