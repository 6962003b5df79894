//! The average of the weights.

use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;

use crate::process::{done, flip};
use crate::runs::*;

fn of(rest: &str) -> String {
    recipe(&format!(
        "Pretrain(length: Steps(9), batch: 8, micro_batch: 2, image_mask: Random(0.5), {rest}
            schedule: Constant(lr: Absolute(3e-3), warmup: Steps(2)),
            evaluate: (every: Steps(6), evaluators: [HeldOutLoss(name: \"loss\", batch: 20)])),
         Evaluate([ZeroShot(name: \"held out\", classes: Source()), HeldOutLoss(name: \"loss\", batch: 20)]),
         Unmask(length: Steps(4), batch: 8, {rest} schedule: Constant(lr: Absolute(1e-3))),"
    ))
}

/// Name and values of each tensor of a file of a checkpoint.
fn tensors(path: &Path) -> Vec<(String, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| {
        data.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect()
    };
    let mut all: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The formula in double precision, over the weights of every step, through both stages.
#[test]
fn the_average_follows_its_formula_through_stages() {
    let place = Place::new();
    let keep = ["checkpoints.every=Steps(1)", "checkpoints.keep=50"];
    for (ema, decay) in [
        ("ema: (decay: 0.8),", (|_| 0.8) as fn(f64) -> f64),
        ("ema: (decay: 0.8, warmup: true),", |t| 0.8f64.min((1.0 + t) / (10.0 + t))),
    ] {
        let run = place.whole(ema, &of(ema), &keep, 1);
        let mut names: Vec<_> =
            std::fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 13);
        // The first update has a learning rate of 0: it leaves the weights that the average begins with.
        let mut expected = tensors(&names[0].join("model.safetensors"));
        for (t, name) in names.iter().enumerate() {
            let d = decay(t as f64);
            for ((_, average), (_, weights)) in
                expected.iter_mut().zip(tensors(&name.join("model.safetensors")))
            {
                average
                    .iter_mut()
                    .zip(weights)
                    .for_each(|(average, weight)| *average += (1.0 - d) * (weight - *average));
            }
            for ((name, got), (_, expected)) in tensors(&name.join("ema.safetensors")).iter().zip(&expected) {
                for (got, expected) in got.iter().zip(expected) {
                    assert!((got - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{name} after {t}");
                }
            }
        }
    }
}

#[test]
fn training_is_the_same_with_an_average_and_it_survives_stops_and_other_ranks() {
    let (place, text) = (Place::new(), of("ema: (decay: 0.9),"));
    let plain = place.whole("plain", &of(""), &[], 1);
    let whole = place.whole("whole", &text, &[], 1);
    let ema = |run: &Path| std::fs::read(checkpoint(run).join("ema.safetensors")).unwrap();
    let model = |run: &Path| std::fs::read(checkpoint(run).join("model.safetensors")).unwrap();
    assert!(model(&plain) == model(&whole), "the average changes what is trained");
    assert!(!checkpoint(&plain).join("ema.safetensors").exists());
    assert!(ema(&whole) != model(&whole));
    let files = left(&whole);
    for (lines, ranks, sets) in
        [(vec![4, 11], vec![1, 4, 2], vec![]), (vec![9], vec![2, 1], vec!["ranks.shard=Optimizer"])]
    {
        let name = format!("{lines:?}{ranks:?}");
        let run = place.stopped(&name, &text, &sets, &lines, &ranks);
        assert_left(&files, &run, &name);
        assert!(ema(&run) == ema(&whole), "{name}");
    }
    let bf16 = place.whole("bf16", &text, &["precision=Bf16"], 1);
    let masters = ["precision=Bf16", "ranks.shard=Masters"];
    let sharded = place.stopped("masters", &text, &masters, &[5], &[4, 2]);
    assert_left(&left(&bf16), &sharded, "masters");
    assert!(ema(&sharded) == ema(&bf16), "masters");
}

#[test]
fn the_average_is_evaluated_embedded_and_exported() {
    let place = Place::new();
    let run = place.whole("run", &of("ema: (decay: 0.9),"), &[], 1);
    let rows: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("eval.json")).unwrap()).unwrap();
    let value = |name: &str, metric: &str| {
        let row = rows.as_array().unwrap().iter().rev().find(|row| row["dataset"] == name);
        row.unwrap_or_else(|| panic!("{name}: {rows}"))["metrics"][metric].as_f64().unwrap()
    };
    assert!(value("loss", "loss") != value("loss (ema)", "loss"));
    assert!(rows.as_array().unwrap().iter().any(|row| row["dataset"] == "held out (ema)"));

    // What is exported as the average embeds as a model that starts from it.
    let there = run.parent().unwrap();
    let texts = there.join("texts.txt");
    std::fs::write(&texts, "a red circle\na blue square\n").unwrap();
    let embed = |more: &[&str], out: &str| -> Command {
        flip(there, &[&["embed", "run", "--texts", "texts.txt", "--out", out], more].concat())
    };
    done(embed(&[], "model.npy"));
    done(embed(&["--ema"], "ema.npy"));
    let read = |name: &str| std::fs::read(there.join(name)).unwrap();
    assert!(read("model.npy") != read("ema.npy"));
    done(flip(there, &["export", "run", "--ema", "--to", "onnx", "--out", "onnx"]));
    assert!(there.join("onnx/text.onnx").exists());
    let plain = place.whole("none", &of(""), &[], 1);
    let refused = flip(there, &["export", plain.to_str().unwrap(), "--ema", "--to", "onnx", "--out", "no"]);
    let told = crate::process::ends_with(1, refused);
    assert!(told.contains("has no average of the weights"), "{told}");
}
