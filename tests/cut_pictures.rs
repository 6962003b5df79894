//! Pictures that are not all there are left out on every path, and what Pillow loads is loaded.
//!
//! tests/data/cut_pictures/make.py says how the expectations came about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flip::data::cut::{Cutter, View};
use flip::data::limits::{LimitsConfig, PictureLimits};
use flip::data::picture::decode;
use flip::data::source::{Defect, Picture, MAX_PIXELS};
use flip::data::transform::Transform;
use flip::data::AugmentConfig;

const SIZE: usize = 32;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cut_pictures")
}

/// How a picture ends when it is decoded as a whole, cut for evaluation, and cut for training in several ways.
fn outcomes(bytes: &[u8]) -> BTreeMap<String, Result<(), Defect>> {
    let mut cutter = Cutter::default();
    let mut outcomes = BTreeMap::new();
    outcomes.insert("whole".into(), decode(bytes, PictureLimits::default()).map(|_| ()));
    let train = Transform::Train { size: SIZE, augment: AugmentConfig::default() };
    for (path, transform) in [("evaluation", Transform::Evaluate { size: SIZE }), ("training", train)] {
        for (view_name, view) in [("all", View::Whole), ("one patch", View::Patches { patch: 8, ids: &[1] })]
        {
            for draw in 0..3 {
                let picture = Picture::Encoded(bytes.to_vec());
                let cut = cutter.cut(picture, PictureLimits::default(), &transform, view, 5, (0, draw));
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
            let [cut, whole] = [&bytes, &whole].map(|bytes| decode(bytes, PictureLimits::default()));
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

/// A progressive picture whose last scan comes again and again: it refines what is refined already.
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
fn pictures_of_many_scans_are_skipped_before_they_cost_time() {
    let most = PictureLimits::default().scans as usize;
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
    let fewer = LimitsConfig { jpeg_scans: 20, ..LimitsConfig::default() }.of_pictures(MAX_PIXELS);
    assert!(decode(&of_scans(20), fewer).is_ok());
    assert_eq!(decode(&of_scans(21), fewer).unwrap_err().reason, "image_scans");
}
