//! What each answer of a server means for a shard and for an image: the file's fault, or the network's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::remote::{of_data, used};
use super::server::{Fault, Server};
use super::*;

const PASSING: [u16; 9] = [401, 403, 408, 425, 429, 500, 502, 503, 504];

/// A shard behind a server, and its cache.
struct Case {
    server: Server,
    cache: tempfile::TempDir,
}

impl Case {
    fn new(fault: Fault) -> Self {
        let files: BTreeMap<String, Vec<u8>> = [("/0.tar".to_owned(), shard(0, 10))].into();
        Case { server: Server::start(files, fault), cache: tempfile::tempdir().unwrap() }
    }

    /// Samples that are loaded, and those left out by reason; or why the run ends.
    fn read(&self, attempts: u64) -> Result<(usize, BTreeMap<&'static str, u64>), String> {
        self.read_within(attempts, 1.0)
    }

    fn read_within(
        &self,
        attempts: u64,
        cache_gib: f64,
    ) -> Result<(usize, BTreeMap<&'static str, u64>), String> {
        let train = json!({"WebDataset": {"shards": format!("{}/0.tar", self.server.url())}});
        let storage = json!({"cache": self.cache.path(), "attempts": attempts, "cache_gib": cache_gib});
        let mut loader = Loader::start(options(of_data(train, storage).0.unwrap())).unwrap();
        let mut seen = 0;
        loop {
            match loader.next() {
                Ok(Some(batch)) => seen += batch.keys.len(),
                Ok(None) => return Ok((seen, loader.skipped().counts.clone())),
                Err(DataError::NothingUsable { skipped, .. }) => {
                    return Err(format!("nothing usable: {skipped}"))
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn cached(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.cache.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "whole")).collect()
    }
}

fn whole() -> Result<(usize, BTreeMap<&'static str, u64>), String> {
    Ok((good(10), [("caption_missing", 1)].into()))
}

#[test]
fn answers_of_a_network_in_trouble_pass_by_or_end_the_run() {
    for status in PASSING {
        assert_eq!(Case::new(Fault::Status(status, 1)).read(3), whole(), "{status}");
        let told = Case::new(Fault::Status(status, 1000)).read(2).unwrap_err();
        assert!(told.contains(&status.to_string()) && told.contains("given up after 2 attempts"), "{told}");
        assert!(told.contains("/0.tar"), "{told}");
    }
}

#[test]
fn answers_that_cannot_change_end_the_run_at_once() {
    for status in [400, 405, 414, 451] {
        let case = Case::new(Fault::Status(status, 1000));
        let told = case.read(8).unwrap_err();
        assert!(told.contains(&format!("the server answers {status}")), "{told}");
        assert_eq!(case.server.seen().connections, 1);
    }
}

#[test]
fn a_shard_that_is_not_there_is_missing_and_one_that_was_there_is_not() {
    for status in [404, 410] {
        let told = Case::new(Fault::Status(status, 1000)).read(2).unwrap_err();
        assert!(told.starts_with("nothing usable: 1 shard_missing"), "{told}");
    }
    // A cache for one shard: each has to be fetched again in the next pass.
    let files: BTreeMap<String, Vec<u8>> = (0..6).map(|i| (format!("/{i}.tar"), shard(0, 10))).collect();
    let room = files["/0.tar"].len() as f64 * 1.5 / f64::from(1 << 30);
    let server = Server::start(files, Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let train =
        json!({"WebDataset": {"shards": format!("{}/{{0..5}}.tar", server.url()), "shuffle_shards": 1}});
    let (source, _) = of_data(train, json!({"cache": cache.path(), "attempts": 2, "cache_gib": room}));
    let mut loader =
        Loader::start(LoaderOptions { passes: Passes::Endless, ..options(source.unwrap()) }).unwrap();
    for _ in 0..8 {
        loader.next().unwrap();
    }
    server.set(Fault::Status(404, 1000));
    let told = loop {
        match loader.next() {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(told.contains("404 Not Found, and had it before; given up after 2 attempts"), "{told}");
    assert_eq!(loader.skipped().counts.get("shard_missing"), None);
}

#[test]
fn a_page_in_place_of_a_shard_is_asked_for_again_and_never_kept() {
    assert_eq!(Case::new(Fault::Page(1)).read(3), whole());
    let case = Case::new(Fault::Page(1000));
    let told = case.read(2).unwrap_err();
    assert!(told.contains("the file is an HTML page") && told.contains("fetched 2 times"), "{told}");
    assert!(told.contains(&format!("is not kept in the cache ({}", case.cache.path().display())), "{told}");
    assert_eq!(case.cached(), Vec::<PathBuf>::new());
    case.server.set(Fault::None);
    assert_eq!(case.read(2), whole());
}

#[test]
fn half_a_shard_and_none_at_all_without_a_length_are_never_kept() {
    let first = |bytes, cut| Case::new(Fault::Lengthless { cut, bytes });
    let half = shard(0, 10).len() / 2;
    // In the middle of a member, and just between two, where only the end of the archive is missed.
    for bytes in [half + 100, half] {
        assert_eq!(first(bytes, 0).read(2), whole());
        assert_eq!(first(bytes, 1).read(2), whole(), "{bytes}");
    }
    let case = first(half + 100, 1000);
    let (loaded, skipped) = case.read(2).unwrap();
    assert!((1..good(10)).contains(&loaded) && skipped["shard_truncated"] == 1, "{loaded} {skipped:?}");
    assert_eq!((case.cached(), case.server.seen().connections), (Vec::<PathBuf>::new(), 2));
    assert_eq!(first(0, 1).read(2), whole());
    let told = first(0, 1000).read(2).unwrap_err();
    assert!(told.contains("the server sent nothing, and did not say that the file is empty"), "{told}");
}

#[test]
fn a_file_without_a_length_takes_no_more_than_the_cache_has() {
    let case = Case::new(Fault::Endless);
    let limit = 4 << 20;
    std::thread::scope(|scope| {
        let read = scope.spawn(|| case.read_within(2, f64::from(limit) / f64::from(1 << 30)));
        while !read.is_finished() {
            assert!(used(case.cache.path()) <= limit as u64);
            std::thread::sleep(Duration::from_millis(2));
        }
        let told = read.join().unwrap().unwrap_err();
        assert!(told.contains("in a cache of 4194304 bytes; raise data.storage.cache_gib"), "{told}");
    });
    assert_eq!(used(case.cache.path()), 0);
}

#[test]
fn a_file_that_changes_within_a_second_is_not_put_together_of_both() {
    let case = Case::new(Fault::Changing);
    assert_eq!(case.read(3), whole());
    assert_eq!((case.server.seen().connections, case.server.seen().continued), (2, 0));
}

#[test]
fn an_image_behind_a_url_is_missing_or_the_network_failed_as_the_recipe_says() {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let read = |fault, dead_links: &str| {
        let server = Server::start([("/a.png".to_owned(), png.get_ref().clone())].into(), fault);
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("pairs.tsv");
        std::fs::write(&table, format!("URL\tTEXT\n{}/a.png\tone\n", server.url())).unwrap();
        let train = json!({"Table": {"files": table, "image": {"Url": "URL"}, "caption": "TEXT"}});
        let (source, _) = of_data(train, json!({"attempts": 2, "dead_links": dead_links}));
        let mut loader = Loader::start(options(source.unwrap())).unwrap();
        loader
            .next()
            .map(|batch| batch.map_or(0, |batch| batch.keys.len()))
            .map_err(|error| error.to_string())
    };
    for status in PASSING {
        assert_eq!(read(Fault::Status(status, 1), "Stop"), Ok(1), "{status}");
        let told = read(Fault::Status(status, 1000), "Stop").unwrap_err();
        assert!(told.contains(&status.to_string()) && told.contains("`dead_links: Skip`"), "{told}");
        let told = read(Fault::Status(status, 1000), "Skip").unwrap_err();
        assert!(told.contains("no usable sample") && told.contains("1 url_unreachable"), "{told}");
    }
    for status in [404, 410] {
        let told = read(Fault::Status(status, 1000), "Stop").unwrap_err();
        assert!(told.contains("no usable sample") && told.contains("1 image_missing"), "{told}");
    }
}
