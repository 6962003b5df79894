//! The accuracy of an imported model beside that which open_clip reaches with the same weights, templates and
//! preprocessing, on a folder of CLIP_benchmark made from pictograms. Needs the Python packages of peers.py.

use std::path::Path;

use flip::data::cut::{Cutter, View};
use flip::data::source::{Picture, MAX_PIXELS};
use flip::data::transform::Transform;
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

    // The embeddings, from the same files: what is left of the differences of decoding and resizing.
    let embedded = there.join("ours.safetensors");
    said(flip(&[
        &"embed",
        &run,
        &"--images",
        &fixture("pictograms/pictograms-val-00000.tar"),
        &"--out",
        &embedded,
    ]));
    let (ours, theirs) = (&read(&embedded)["embeddings"], &read(&there.join("expected"))["images"]);
    assert_eq!(ours.0, theirs.0);
    let cosines = ours.1.chunks(ours.0[1]).zip(theirs.1.chunks(ours.0[1]));
    let cosines = cosines.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    println!("lowest cosine of an embedding here and there: {:.6}", cosines.fold(1.0, f32::min));

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

fn metric(metrics: &Value, name: &str) -> f64 {
    let listed = metrics.as_array().into_iter().flatten();
    let found = listed.filter(|pair| pair[0] == name).map(|pair| &pair[1]).next();
    found.unwrap_or(&metrics[name]).as_f64().unwrap_or_else(|| panic!("{name} of {metrics}"))
}

/// Decoding, resizing and cutting, byte by byte.
fn pixels_agree(there: &Path) {
    let bytes = std::fs::read(there.join("pictures.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let (mut cutter, transform) = (Cutter::default(), Transform::Evaluate { size: 96 });
    // [decoded exactly, decoded from JPEG]: largest difference, sum of differences, values.
    let mut seen = [(0u8, 0u64, 0u64); 2];
    for (name, tensor) in expected.iter() {
        let picture = Picture::Encoded(std::fs::read(there.join("pictures").join(name)).unwrap());
        let ours = cutter.cut(picture, MAX_PIXELS, &transform, View::Whole, 0, (0, 0)).unwrap();
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
    let (largest, ..) = seen[0];
    assert!(largest <= 2, "resizing differs by {largest}");
}
