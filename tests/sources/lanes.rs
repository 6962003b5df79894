//! Lanes: every sample once an epoch, whichever ranks walk them, and each byte read by one of them.

use flip::data::source::filter::{Filter, FilterConfig};
use flip::data::source::{counting, Files, Lane, ShardIndex};
use flip::data::Storage;
use proptest::prelude::*;

use super::*;

/// An index of shards, written beside them.
fn index(folder: &Path, pattern: &str) -> ShardIndex {
    let storage = Storage::default();
    let files = Files::from(pattern).locate(&storage).unwrap();
    let index = ShardIndex::new(counting::count(&files, &storage, |_| ()).unwrap());
    index.write(&folder.join("index.json")).unwrap();
    index
}

/// A row of a lane: its epoch, its key, and where the lane stands behind it.
type Row = (u64, String, Cursor);

/// The rows of each lane of a part, so many, from these places on. A batch has one row a lane.
fn rows(options: LoaderOptions, lanes: Vec<(Lane, Cursor)>, steps: usize) -> Vec<Vec<Row>> {
    let mut of_lanes = vec![Vec::new(); lanes.len()];
    let (batch, passes) = (lanes.len(), Passes::Endless);
    let mut loader = Loader::start(LoaderOptions { lanes, batch, passes, ..options }).unwrap();
    for _ in 0..steps {
        let batch = loader.next().unwrap().unwrap();
        for ((rows, key), cursor) in of_lanes.iter_mut().zip(batch.keys).zip(batch.cursors) {
            rows.push((cursor.epoch, key, cursor));
        }
    }
    of_lanes
}

/// The rows of all lanes, which so many parts have among them.
fn all(
    source: &Arc<dyn Source>,
    filter: &Option<Arc<Filter>>,
    starts: &[Cursor],
    parts: usize,
    steps: usize,
) -> Vec<Vec<Row>> {
    let of = starts.len();
    let lane = |number: usize| (Lane { number: number as u32, of: of as u32 }, starts[number]);
    let own = |part: usize| (part * of / parts..(part + 1) * of / parts).map(lane).collect();
    let options = || LoaderOptions { filter: filter.clone(), ..options(source.clone()) };
    (0..parts).flat_map(|part| rows(options(), own(part), steps)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn lanes_take_every_usable_sample_once_whatever_the_parts_and_resume_with_others(
        sizes in prop::collection::vec(1usize..24, 2..7), stride in 1usize..4, of in 1usize..7,
        parts in 1usize..4, indexed: bool, filtered: bool, stop in 1usize..9,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let pattern = write_shards(folder.path(), &sizes);
        index(folder.path(), &pattern);
        // Some samples are broken, and some that are not are left out.
        let sizes_of = |mute: bool| -> Vec<String> {
            let samples = sizes.iter().enumerate().flat_map(|(shard, &samples)| (0..samples).map(move |sample| (shard, sample)));
            let usable = samples.filter(|(shard, sample)| sample % 7 != 6 && !(mute && *shard == 1 && sample % 3 == 0));
            sorted(usable.map(|(shard, sample)| format!("{shard}-{sample}")).collect())
        };
        let mut config = json!({"shards": pattern, "shuffle_shards": stride});
        if indexed {
            config["index"] = json!(folder.path().join("index.json"));
        }
        let samples: usize = sizes.iter().sum();
        prop_assume!(if indexed { samples } else { sizes.len() } >= of);
        let source = source(&json!({ "WebDataset": config }));
        let list = folder.path().join("left-out.jsonl");
        let left_out = (0..sizes[1]).filter(|sample| sample % 3 == 0);
        let entry = |sample: usize| json!({"shard": folder.path().join("1.tar"), "key": format!("1-{sample}")}).to_string();
        std::fs::write(&list, left_out.map(entry).collect::<Vec<_>>().join("\n")).unwrap();
        let config = FilterConfig { exclude: filtered.then_some(list), ..FilterConfig::default() };
        let filter = Some(Arc::new(Filter::open(&config, source.as_ref()).unwrap()));
        let expected = sizes_of(filtered);
        prop_assume!(!expected.is_empty());

        let parts = parts.min(of);
        let starts = vec![Cursor::default(); of];
        // Longer than any lane's epoch.
        let steps = samples + 1;
        let whole = all(&source, &filter, &starts, 1, steps);
        let of_epoch = |epoch: u64| -> Vec<String> {
            let rows = whole.iter().flatten().filter(|(of, ..)| *of == epoch);
            sorted(rows.map(|(_, key, _)| key.clone()).collect())
        };
        prop_assert_eq!(of_epoch(0), expected.clone());
        prop_assert_eq!(&all(&source, &filter, &starts, parts, steps), &whole);
        let stop = stop.min(steps - 1);
        let places: Vec<Cursor> = whole.iter().map(|rows| rows[stop - 1].2).collect();
        let rest = all(&source, &filter, &places, parts, steps - stop);
        for (rest, whole) in rest.iter().zip(&whole) {
            prop_assert_eq!(&rest[..], &whole[stop..]);
        }
    }
}

#[test]
fn a_lane_without_a_usable_sample_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for shard in 0..4 {
        let broken = shard_without(shard, 5, |_| true);
        std::fs::write(folder.path().join(format!("{shard}.tar")), broken).unwrap();
    }
    let source = source(&json!({"WebDataset": {"shards": folder.path().join("*.tar")}}));
    let lanes: Vec<_> = (0..2).map(|number| (Lane { number, of: 4 }, Cursor::default())).collect();
    let limits = LimitsConfig { broken_share: 1.0, ..LimitsConfig::default() };
    let (batch, passes) = (2, Passes::Endless);
    let mut loader =
        Loader::start(LoaderOptions { lanes, batch, passes, limits, ..options(source) }).unwrap();
    let told = loader.next().unwrap_err().to_string();
    assert!(told.contains("no usable sample in a whole pass") && told.contains("caption_missing"), "{told}");
}

#[test]
fn lanes_of_a_mix_keep_its_shares_and_ask_for_its_sources_at_other_times() {
    let folder = tempfile::tempdir().unwrap();
    for (shard, samples) in [20, 30, 25, 27].into_iter().enumerate() {
        let whole = shard_without(shard, samples, |_| false);
        std::fs::write(folder.path().join(format!("{shard}.tar")), whole).unwrap();
    }
    let pattern = folder.path().join("*.tar").display().to_string();
    let table = folder.path().join("pairs.csv");
    image::RgbImage::new(3, 3).save(folder.path().join("x.png")).unwrap();
    let rows: Vec<String> = (0..40).map(|i| format!("x.png,caption {i}")).collect();
    std::fs::write(&table, format!("path,text\n{}\n", rows.join("\n"))).unwrap();
    let source = source(&json!({"Mix": [
        [{"WebDataset": {"shards": pattern}}, 3.0],
        [{"Table": {"files": table, "image": {"Path": "path"}, "caption": "text"}}, 1.0],
    ]}));
    let whole = all(&source, &None, &[Cursor::default(); 4], 1, 48);
    assert_eq!(whole, all(&source, &None, &[Cursor::default(); 4], 4, 48));
    let of_table: Vec<usize> =
        whole.iter().map(|rows| rows.iter().filter(|(_, key, _)| key == "x.png").count()).collect();
    assert!(of_table.iter().all(|count| (11..=13).contains(count)), "{of_table:?} of 48 each");
    let first: Vec<usize> =
        whole.iter().map(|rows| rows.iter().position(|(_, key, _)| key == "x.png").unwrap()).collect();
    assert!(first.windows(2).any(|pair| pair[0] != pair[1]), "{first:?}");
}

#[test]
fn places_that_the_index_has_and_the_shard_has_not_are_skipped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write_shards(folder.path(), &[3, 4]);
    let index = index(folder.path(), &pattern);
    let more = index.shards().iter().map(|shard| {
        let mut shard = shard.clone();
        shard.samples += 2;
        shard
    });
    ShardIndex::new(more.collect()).write(&folder.path().join("index.json")).unwrap();
    let source =
        source(&json!({"WebDataset": {"shards": pattern, "index": folder.path().join("index.json")}}));
    assert_eq!(source.samples(), Some(11));
    let lanes = vec![(Lane::WHOLE, Cursor::default())];
    let (batch, batches, passes) = (7, Some(1), Passes::Endless);
    let mut loader =
        Loader::start(LoaderOptions { lanes, batch, batches, passes, ..options(source) }).unwrap();
    let keys = loader.next().unwrap().unwrap().keys;
    assert_eq!(sorted(keys), ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2", "1-3"]);
    let skip = &loader.skipped().first[0];
    assert_eq!((skip.reason, loader.skipped().total() <= 4), ("sample_absent", true));
    assert!(skip.detail.contains("the index says"), "{}", skip.detail);
}

#[cfg(feature = "remote")]
mod served {
    use std::collections::BTreeMap;

    use super::*;
    use crate::remote::of_data;
    use crate::server::{Fault, Server};

    /// Eight shards of one length behind a server; each rank has a cache of its own and trains for an epoch.
    fn read_times(ranks: usize, indexed: bool) -> f64 {
        const SHARDS: usize = 8;
        const SAMPLES: usize = 40;
        let folder = tempfile::tempdir().unwrap();
        let files: BTreeMap<String, Vec<u8>> = (0..SHARDS)
            .map(|number| (format!("/{number}.tar"), shard_without(number, SAMPLES, |_| false)))
            .collect();
        let stored: usize = files.values().map(Vec::len).sum();
        for (name, bytes) in &files {
            std::fs::write(folder.path().join(&name[1..]), bytes).unwrap();
        }
        index(folder.path(), &folder.path().join("*.tar").display().to_string());
        let server = Server::start(files, Fault::None);
        let mut config = json!({"shards": format!("{}/{{0..7}}.tar", server.url()), "shuffle_shards": 2});
        if indexed {
            config["index"] = json!(folder.path().join("index.json"));
        }
        let of_rank = |rank: usize| -> Vec<String> {
            let cache = tempfile::tempdir().unwrap();
            let train = json!({ "WebDataset": config });
            let (source, _) = of_data(train, json!({"cache": cache.path()}));
            let steps = SHARDS * SAMPLES / ranks / 4;
            let lane = Lane { number: rank as u32, of: ranks as u32 };
            let mut loader = Loader::start(LoaderOptions {
                lanes: vec![(lane, Cursor::default())],
                batch: 4,
                batches: Some(steps as u64),
                passes: Passes::Endless,
                ..options(source.unwrap())
            })
            .unwrap();
            (0..steps).flat_map(|_| loader.next().unwrap().unwrap().keys).collect()
        };
        let of_rank = &of_rank;
        let taken: Vec<String> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || of_rank(rank))).collect();
            ranks.into_iter().flat_map(|rank| rank.join().unwrap()).collect()
        });
        let mut distinct = sorted(taken.clone());
        distinct.dedup();
        assert_eq!((taken.len(), distinct.len()), (SHARDS * SAMPLES, SHARDS * SAMPLES));
        server.seen().bytes as f64 / stored as f64
    }

    #[test]
    fn every_byte_is_fetched_by_one_rank() {
        for indexed in [false, true] {
            for ranks in [1, 2, 4, 8] {
                let times = read_times(ranks, indexed);
                assert!((1.0..=1.02).contains(&times), "{ranks} ranks, indexed {indexed}: {times} times");
            }
        }
    }
}
