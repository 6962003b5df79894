//! Images that are not all there are left out on every path, and what Pillow loads is loaded.
//!
//! tests/data/cut_images/make.py says how the expectations came about.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flip::data::decode::image_file::decode;
use flip::data::decode::ImageLimits;
use flip::data::decode::MAX_PIXELS;
use flip::data::decode::{CropDecoder, Draw, Transform, View};
use flip::data::load::LimitsConfig;
use flip::data::AugmentConfig;
use flip::data::{Defect, Image};

const SIZE: usize = 32;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cut_images")
}

/// How an image ends when it is decoded as a whole, cut for evaluation, and cut for training in several ways.
fn outcomes(bytes: &[u8]) -> BTreeMap<String, Result<(), Defect>> {
    let mut decoder = CropDecoder::default();
    let mut outcomes = BTreeMap::new();
    outcomes.insert("whole".into(), decode(bytes, ImageLimits::default()).map(|_| ()));
    let train = Transform::Train { size: SIZE, augment: AugmentConfig::default() };
    for (path, transform) in [("evaluation", Transform::centre(SIZE)), ("training", train)] {
        for (view_name, view) in [("all", View::Whole), ("one patch", View::Patches { patch: 8, ids: &[1] })]
        {
            for draw in 0..3 {
                let image = Image::Encoded(bytes.to_vec());
                let cut = decoder.decode_crop(
                    image,
                    ImageLimits::default(),
                    &transform,
                    view,
                    Draw { seed: 5, epoch: 0, index: draw },
                );
                outcomes.insert(format!("{path}, {view_name}, draw {draw}"), cut.map(|_| ()));
            }
        }
    }
    outcomes
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn what_is_cut_off_is_skipped_on_every_path_and_what_pillow_loads_is_loaded() {
    let expected = std::fs::read_to_string(folder().join("expected.tsv")).unwrap();
    let (mut wrong, mut reasons) = (Vec::new(), BTreeSet::new());
    let mut lines = 0;
    for line in expected.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[name, what, at, removed, inserted, _, expected] = &fields[..] else { panic!("{line}") };
        let mut bytes = std::fs::read(folder().join(name)).unwrap();
        let at: usize = at.parse().unwrap();
        let removed: usize = removed.parse().unwrap();
        bytes.splice(at..at + removed, unhex(inserted));
        if expected == "load" && what.ends_with("missing") {
            let whole = std::fs::read(folder().join(name)).unwrap();
            let [cut, whole] = [&bytes, &whole].map(|bytes| decode(bytes, ImageLimits::default()));
            assert!(cut == whole, "{name}: {what}: not every pixel is there");
        }
        for (path, outcome) in outcomes(&bytes) {
            let got = if outcome.is_ok() { "load" } else { "skip" };
            if got != expected {
                wrong.push(format!("{name}: {what}: {path}: {got}, expected {expected}: {outcome:?}"));
            }
            reasons.extend(outcome.err().map(|defect| defect.reason));
        }
        lines += 1;
    }
    assert!(lines > 900);
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(reasons, BTreeSet::from(["image_decode", "image_truncated"]));
}

/// A progressive image whose last scan comes again and again: it refines what is refined already.
fn of_scans(scans: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(folder().join("progressive.jpg")).unwrap();
    let marker = |wanted: u8| move |two: &&[u8]| two[0] == 0xff && two[1] == wanted;
    let there = bytes.windows(2).filter(marker(0xda)).count();
    let last = bytes.windows(2).rposition(|two| two == [0xff, 0xda]).unwrap();
    let scan = bytes[last..bytes.len() - 2].to_vec();
    let end = bytes.len() - 2;
    bytes.splice(end..end, scan.repeat(scans - there));
    bytes
}

#[test]
fn images_of_many_scans_are_skipped_before_they_cost_time() {
    let most = ImageLimits::default().scans as usize;
    for (path, outcome) in outcomes(&of_scans(most)) {
        assert!(outcome.is_ok(), "{path}: {outcome:?}");
    }
    let began = Instant::now();
    for (path, outcome) in outcomes(&of_scans(3000)) {
        let defect = outcome.unwrap_err();
        assert_eq!(defect.reason, "image_scans", "{path}");
        assert_eq!(defect.detail, "more than 100 scans (data.limits.jpeg_scans)");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    let fewer = LimitsConfig { jpeg_scans: 20, ..LimitsConfig::default() }.of_images(MAX_PIXELS);
    assert!(decode(&of_scans(20), fewer).is_ok());
    assert_eq!(decode(&of_scans(21), fewer).unwrap_err().reason, "image_scans");
}

/// Largest memory of this process so far, MiB.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[cfg(target_os = "linux")]
#[test]
fn a_packed_profile_of_half_a_gigabyte_takes_no_memory() {
    let png = std::fs::read(folder().join("plain.png")).unwrap();
    let mut profile = flate2::write::ZlibEncoder::new(b"name\0\0".to_vec(), flate2::Compression::fast());
    for _ in 0..512 {
        profile.write_all(&[0; 1 << 20]).unwrap();
    }
    let profile = profile.finish().unwrap();
    let mut chunk = (profile.len() as u32).to_be_bytes().to_vec();
    chunk.extend_from_slice(b"iCCP");
    chunk.extend_from_slice(&profile);
    let mut sum = flate2::Crc::new();
    sum.update(&chunk[4..]);
    chunk.extend_from_slice(&sum.sum().to_be_bytes());
    // Behind the header.
    let mut bytes = png.clone();
    bytes.splice(33..33, chunk);
    let before = peak();
    for (path, outcome) in outcomes(&bytes) {
        assert!(outcome.is_ok(), "{path}: {outcome:?}");
    }
    assert!(peak() < before + 100, "{} MiB after {before}", peak());
}

#[test]
fn a_description_in_many_pieces_takes_no_time() {
    let mut bytes = std::fs::read(folder().join("progressive.jpg")).unwrap();
    let mut piece = b"\xff\xe1\0\0http://ns.adobe.com/xmp/extension/\0".to_vec();
    // Its name, its length, the place of this piece.
    piece.extend_from_slice(&[b'a'; 32]);
    piece.extend_from_slice(&60_000u32.to_be_bytes());
    piece.extend_from_slice(&0u32.to_be_bytes());
    let length = piece.len() as u16 - 2;
    piece[2..4].copy_from_slice(&length.to_be_bytes());
    bytes.splice(2..2, piece.repeat(60_000));
    let began = Instant::now();
    for (path, outcome) in outcomes(&bytes) {
        assert!(outcome.is_ok(), "{path}: {outcome:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
