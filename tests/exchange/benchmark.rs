//! The accuracy of an imported model beside that which open_clip reaches with the same weights, templates and
//! preprocessing, on a folder of CLIP_benchmark made from pictograms. Needs the Python packages of peers.py.

use std::path::Path;

use flip::data::decode::ImageLimits;
use flip::data::decode::{CropDecoder, Draw, Transform, View};
use flip::data::Image;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::tempdir;

use crate::command::{flip, said};
use crate::peers::peers;
use crate::support::*;

const RECIPE: &str = r#"(
    name: "benchmark",
    init: Checkpoint("imported"),
    data: (train: ClipBenchmark(path: "group")),
    stages: [
        Evaluate([
            ZeroShot(name: "group", data: ClipBenchmark(path: "group"), classes: Source()),
            ZeroShot(name: "subgroup", data: ClipBenchmark(path: "subgroup"), classes: Source()),
        ]),
    ],
)"#;

#[test]
fn an_evaluation_only_recipe_finds_what_open_clip_finds() {
    let root = tempdir().unwrap();
    let there = root.path();
    if !peers("benchmark", there) {
        return;
    }
    let run = there.join("imported");
    said(flip(&[&"import", &there.join("model"), &"--out", &run]));

    // From the very same pixels, and from the same files: what is left are the differences of decoding and resizing.
    let theirs = &read(&there.join("expected"))["images"];
    let pixels = embedded(&run, &there.join("squares"), &there.join("of_squares.safetensors"));
    let apart = assert_close("embeddings of the same pixels", &pixels.1, &theirs.1, 1e-5);
    let files =
        embedded(&run, &fixture("pictograms/pictograms-val-00000.tar"), &there.join("of_files.safetensors"));
    assert_eq!((&pixels.0, &files.0), (&theirs.0, &theirs.0));
    let cosines = files.1.chunks(files.0[1]).zip(theirs.1.chunks(files.0[1]));
    let cosines = cosines.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    let lowest = cosines.fold(1.0, f32::min);
    println!("embeddings here and there: {apart:.1e} apart from the same pixels; lowest cosine from files {lowest:.6}");
    assert!(lowest > 0.999, "lowest cosine from files: {lowest}");

    let recipe = there.join("recipe.ron");
    std::fs::write(&recipe, RECIPE).unwrap();
    let out = there.join("run");
    said(flip(&[&"run", &recipe, &"--out", &out]));
    let json = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let (rows, expected) = (json(&out.join("eval.json")), json(&there.join("expected.json")));
    let n = expected["n"].as_f64().unwrap();
    for row in rows.as_array().unwrap() {
        let name = row["dataset"].as_str().unwrap();
        assert_eq!(row["n"].as_f64(), Some(n));
        let top1 = metric(&row["metrics"], "top1");
        let right = (top1 * n).round() as i64;
        let theirs = expected[name].as_i64().unwrap();
        println!("{name}: {right} of {n} right here ({:.2} %), {theirs} in open_clip", 100.0 * top1);
        assert!((right - theirs).abs() <= 1, "{name}: {right} right here, {theirs} in open_clip");
        assert!(right > 0);
    }
    pixels_agree(there);
}

/// What `flip embed` makes of images.
fn embedded(run: &Path, images: &Path, out: &Path) -> (Vec<usize>, Vec<f32>) {
    said(flip(&[&"embed", &run, &"--images", &images, &"--out", &out]));
    read(out).remove("embeddings").unwrap()
}

fn metric(metrics: &Value, name: &str) -> f64 {
    let listed = metrics.as_array().into_iter().flatten();
    let found = listed.filter(|pair| pair[0] == name).map(|pair| &pair[1]).next();
    found.unwrap_or(&metrics[name]).as_f64().unwrap_or_else(|| panic!("{name} of {metrics}"))
}

/// Decoding, resizing and cutting, byte by byte.
fn pixels_agree(there: &Path) {
    let bytes = std::fs::read(there.join("pictures.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let (mut decoder, transform) = (CropDecoder::default(), Transform::centre(96));
    // [decoded exactly, decoded from JPEG]: largest difference, sum of differences, values.
    let mut seen = [(0u8, 0u64, 0u64); 2];
    for (name, tensor) in expected.iter() {
        let image = Image::Encoded(std::fs::read(there.join("pictures").join(name)).unwrap());
        let ours = decoder
            .decode_crop(image, ImageLimits::default(), &transform, View::Whole, Draw::default())
            .unwrap();
        assert_eq!(ours.len(), tensor.data().len(), "{name}");
        let (largest, sum, values) = &mut seen[usize::from(name.ends_with("jpg"))];
        for (ours, theirs) in ours.iter().zip(tensor.data()) {
            *largest = (*largest).max(ours.abs_diff(*theirs));
            *sum += u64::from(ours.abs_diff(*theirs));
        }
        *values += ours.len() as u64;
    }
    for ((largest, sum, values), kind) in seen.into_iter().zip(["PNG", "JPEG"]) {
        let mean = sum as f64 / values.max(1) as f64;
        println!("{kind} to 96 pixels beside Pillow: largest difference {largest} of 255, mean {mean:.4}");
    }
    // Decoders of JPEG round differently. Resizing alone gives the same bytes, but for a tie now and then.
    let [(png, ..), (jpeg, sum, values)] = seen;
    assert!(png <= 1, "resizing differs by {png}");
    assert!(jpeg <= 6 && 2 * sum <= values, "JPEG differs by {jpeg}, {sum} over {values} values");
}
