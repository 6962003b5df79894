//! Every evaluator in every place that a recipe has for it: in the course of training, as a stage, and in a recipe
//! that does nothing else. The same weights give the same numbers in all three.

mod process;

use std::path::Path;

use process::{done, flip};
use serde_json::Value;

const EVALUATORS: &str = r#"
    ZeroShot(name: "scenes", classes: Source()),
    Retrieval(name: "scenes"),
    HeldOutLoss(name: "scenes", batch: 50),
    NearestNeighbours(name: "scenes", train: Scenes(size: 32, split: HeldOut, samples: 150), k: 5),
    LinearProbe(name: "scenes", train: Scenes(size: 32, split: HeldOut, samples: 150), penalty: C(1.0)),
    FewShot(name: "scenes", train: Scenes(size: 32, split: HeldOut, samples: 150), shots: [1, 2], draws: 2),
    ZeroShot(name: "masked", classes: Source(), image_mask: Random(0.5)),
    Retrieval(name: "masked", image_mask: Block(0.75)),
"#;
const KINDS: [&str; 8] = [
    "zero_shot",
    "retrieval",
    "held_out_loss",
    "nearest_neighbours",
    "linear_probe",
    "few_shot",
    "zero_shot",
    "retrieval",
];
const DATA: &str = r#"data: (
    train: Scenes(size: 32, split: Train),
    validation: Scenes(size: 32, split: HeldOut, samples: 200),
    workers: 2,
)"#;

fn run(folder: &Path, name: &str, recipe: &str) -> Vec<Value> {
    let path = folder.join(name).with_extension("ron");
    std::fs::write(&path, recipe).unwrap();
    done(flip(folder, &["run", path.to_str().unwrap(), "--out", name]));
    let rows = std::fs::read(folder.join(name).join("eval.json")).unwrap();
    serde_json::from_slice::<Vec<Value>>(&rows).unwrap()
}

#[test]
fn every_evaluator_says_the_same_during_training_as_a_stage_and_alone() {
    let there = tempfile::tempdir().unwrap();
    let trained = run(
        there.path(),
        "trained",
        &format!(
            r#"(
    name: "trained",
    model: (
        image: (size: 32, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 200), vocab_size: 300, context: 12, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),
    {DATA},
    stages: [
        Pretrain(
            length: Steps(8), batch: 16, image_mask: Random(0.5),
            schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(2)),
            evaluate: (every: Steps(4), evaluators: [{EVALUATORS}]),
        ),
        Evaluate([{EVALUATORS}]),
    ],
)"#
        ),
    );
    let alone = run(
        there.path(),
        "alone",
        &format!(
            r#"(name: "alone", init: Checkpoint("trained"), {DATA}, stages: [Evaluate([{EVALUATORS}])])"#
        ),
    );
    let of = |rows: &[Value], stage: u64, step: u64| -> Vec<Value> {
        let here = |row: &&Value| (row["stage"].as_u64(), row["step"].as_u64()) == (Some(stage), Some(step));
        rows.iter().filter(here).map(|row| row["metrics"].clone()).collect()
    };
    let kinds: Vec<&str> = alone.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, KINDS);
    let (during, end) = (of(&trained, 0, 4), of(&trained, 0, 8));
    let (stage, alone) = (of(&trained, 1, 0), of(&alone, 0, 0));
    assert_eq!((during.len(), end.len(), stage.len(), alone.len()), (8, 8, 8, 8));
    assert_ne!(during, end);
    assert!(end[6] != end[0] && end[7] != end[1], "masks change what is measured");
    assert_eq!(end, stage);
    assert_eq!(stage, alone);
}
