//! The pages of files on disk that a rank touches: those of its own lanes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use flip::data::source::{counting, Files, Lane, ShardIndex};
use flip::data::Storage;

use super::*;

const PAGE: usize = 4096;

/// Takes a file out of the page cache.
fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open; the call reads and writes no memory of this process.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Pages of a file that are in the page cache, of all.
fn resident(path: &Path) -> (usize, usize) {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut pages = vec![0u8; length.div_ceil(PAGE)];
    // SAFETY: the file is mapped for reading as a whole, `pages` has a byte for each of its pages, and the map is given up
    // before the file is closed; nothing is read through it.
    unsafe {
        let map =
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        assert_eq!(libc::mincore(map, length, pages.as_mut_ptr()), 0);
        libc::munmap(map, length);
    }
    (pages.iter().filter(|page| **page & 1 == 1).count(), pages.len())
}

/// A shard of images of 100 KB each, as those of published sets.
fn write_large_shard(path: &Path, number: usize, samples: usize) {
    let mut state = number as u32 + 1;
    let noise = image::RgbImage::from_fn(200, 170, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(state >> 8) as u8, (state >> 16) as u8, (state >> 24) as u8])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    noise.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    for sample in 0..samples {
        for (ending, body) in [("png", png.get_ref().as_slice()), ("txt", b"an image")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            builder.append_data(&mut header, format!("{number}-{sample}.{ending}"), body).unwrap();
        }
    }
    builder.into_inner().unwrap();
}

#[test]
fn a_rank_touches_the_pages_of_its_own_samples() {
    const RANKS: u32 = 4;
    let folder = tempfile::tempdir().unwrap();
    // Of a shard that a lane's end cuts, the headers of the other lane's samples are read as well.
    let sizes = [80; 8];
    let paths: Vec<PathBuf> =
        (0..sizes.len()).map(|number| folder.path().join(format!("{number}.tar"))).collect();
    for ((number, path), samples) in paths.iter().enumerate().zip(sizes) {
        write_large_shard(path, number, samples);
    }
    let pattern = folder.path().join("*.tar").display().to_string();
    let (storage, index) = (Storage::default(), folder.path().join("index.json"));
    let files = Files::from(pattern.as_str()).locate(&storage).unwrap();
    ShardIndex::new(counting::count(&files, &storage, |_| ()).unwrap()).write(&index).unwrap();
    paths.iter().for_each(|path| forget(path));
    if paths.iter().any(|path| resident(path).0 > 0) {
        // Of a file system that lies in memory, every page is there.
        return;
    }
    let samples: usize = sizes.iter().sum();
    for number in 0..RANKS {
        let source = source(&json!({"WebDataset": {"shards": pattern, "index": index}}));
        let lane = Lane { number, of: RANKS };
        let own = lane.range(samples as u64);
        let (steps, batch) = ((own.end - own.start) as usize, 1);
        let mut loader = Loader::start(LoaderOptions {
            lanes: vec![(lane, Cursor::default())],
            batches: Some(steps as u64),
            batch,
            passes: Passes::Endless,
            ..options(source)
        })
        .unwrap();
        for _ in 0..steps {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
        let (touched, all) =
            paths.iter().map(|path| resident(path)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let times = f64::from(RANKS) * touched as f64 / all as f64;
        assert!(
            (0.9..=1.1).contains(&times),
            "rank {number} touches {times} times its even share of the pages"
        );
        paths.iter().for_each(|path| forget(path));
    }
}
