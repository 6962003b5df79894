//! `init` in a recipe: runs that start from the weights of another run or of an import.

use std::path::{Path, PathBuf};

use flip::data::text::{Tokenizer, TokenizerConfig, TrainTokenizerConfig};
use flip::trained::{tokenizer_of, Weights};
use tempfile::{tempdir, TempDir};

use crate::command::{failed, flip, said, vocabulary};
use crate::support::*;

/// One update, whose learning rate is zero: the weights stay as they are, and everything around them happens.
const RECIPE: &str = r#"(
    name: "start",
    init: Checkpoint("imported"),
    data: (train: Scenes(size: 32, split: Train)),
    stages: [
        Pretrain(
            length: Steps(1), batch: 4, image_mask: Random(0.5),
            schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(1)),
        ),
    ],
)"#;

/// An imported open_clip model with a tokenizer, and a recipe that starts from it.
fn imported() -> (TempDir, PathBuf) {
    let there = tempdir().unwrap();
    let source = there.path().join("source");
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    vocabulary(&source);
    said(flip(&[&"import", &source, &"--out", &there.path().join("imported")]));
    let recipe = there.path().join("recipe.ron");
    std::fs::write(&recipe, RECIPE).unwrap();
    (there, recipe)
}

fn run(recipe: &Path, out: &Path, more: &[&str]) -> std::process::Output {
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &recipe, &"--out", &out];
    arguments.extend(more.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
    flip(&arguments)
}

#[test]
fn a_run_starts_from_an_import_and_goes_on_without_it() {
    let (there, recipe) = imported();
    let out = there.path().join("run");
    said(run(&recipe, &out, &[]));
    let (before, after) =
        (Weights::open(&there.path().join("imported")).unwrap(), Weights::open(&out).unwrap());
    assert_eq!(after.samples, Some(4));
    let mut config = before.config.clone();
    config.text.tokenizer = after.config.text.tokenizer.clone();
    assert_eq!(after.config, config);
    let sorted = |weights: &Weights| {
        let mut tensors = weights.tensors.clone();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    };
    assert_eq!(sorted(&after), sorted(&before));
    assert!(out.join("tokenizer.json").is_file());
    let card = said(flip(&[&"card", &out]));
    for line in [
        "pairs seen: 4.",
        "began with the weights of `",
        "Data: `Scenes(",
        "| 0 pretrain | `Steps(1)` | 4 |",
        "init: Checkpoint(",
    ] {
        assert!(card.contains(line), "{line}: {card}");
    }

    // A run, and a checkpoint of it, are starts too; a run that goes on needs its start no more.
    let again = there.path().join("again");
    let start = format!("init=Checkpoint({:?})", out.display().to_string());
    said(run(&recipe, &again, &["--set", &start]));
    assert_eq!(sorted(&Weights::open(&again).unwrap()), sorted(&before));
    let checkpoint = Weights::open(&again).unwrap().checkpoint;
    let start = format!("init.Checkpoint={}", checkpoint.display());
    said(run(&recipe, &there.path().join("third"), &["--set", &start]));

    std::fs::remove_dir_all(there.path().join("imported")).unwrap();
    said(run(&out.join("recipe.ron"), &out, &["--resume"]));
    let message = failed(run(&recipe, &there.path().join("fourth"), &[]), 2);
    assert!(message.contains("recipe.ron:3:11: init: ") && message.contains("no such folder"), "{message}");
}

#[test]
fn positions_follow_the_image_size() {
    let (there, recipe) = imported();
    let out = there.path().join("run");
    let message = failed(run(&recipe, &out, &["--set", "model.image.size=45"]), 2);
    assert!(message.contains("model.image.size") && message.contains("40 would do"), "{message}");
    said(run(&recipe, &out, &["--set", "model.image.size=48"]));
    let weights = Weights::open(&out).unwrap();
    let positions = weights.tensors.iter().find(|tensor| tensor.name == "image.positions").unwrap();
    assert_eq!(positions.shape, [37, 64]);
}

#[test]
fn weights_of_another_model_are_refused_by_option_and_by_tensor() {
    let (there, recipe) = imported();
    let out = there.path().join("run");
    let sets = ["--set", "model.text.causal=false", "--set", "model.image.activation=QuickGelu"];
    let message = failed(run(&recipe, &out, &sets), 2);
    for line in
        ["model.text.causal: the weights to start from were made with true", "GeluExact, got QuickGelu"]
    {
        assert!(message.contains(line), "{message}");
    }
    assert!(!out.exists());
    let message =
        failed(run(&recipe, &out, &["--set", "model.image.depth=4", "--set", "model.text.context=12"]), 1);
    for line in [
        "image.blocks.3.norm1.scale: missing",
        "text.positions: expected shape [12, 48], got [16, 48]",
        "imported/checkpoints/stage0-step00000000",
    ] {
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn the_tokenizer_has_to_be_that_of_the_weights() {
    let (there, recipe) = imported();
    let words = there.path().join("other.txt");
    std::fs::write(&words, "[PAD]\n[UNK]\nother").unwrap();
    let file = there.path().join("other.json");
    Tokenizer::open(&TokenizerConfig::WordPiece(words)).unwrap().save(&file).unwrap();
    let set = format!("model.text.tokenizer=Json({:?})", file.display().to_string());
    let message = failed(run(&recipe, &there.path().join("run"), &["--set", &set]), 1);
    assert!(
        message.contains("is not that of") && message.contains("token \"other\" has no id there"),
        "{message}"
    );
    // A vocabulary that would be trained is that of the weights instead.
    let imported = there.path().join("imported");
    let train = TokenizerConfig::Train(TrainTokenizerConfig { captions: 50 });
    let tokenizer = tokenizer_of(&imported, &train).unwrap().unwrap();
    assert_eq!(tokenizer.differs(&Tokenizer::load(&imported.join("tokenizer.json")).unwrap()), None);
}

#[test]
fn starts_that_are_none_are_told_with_what_to_do() {
    let (there, recipe) = imported();
    let out = there.path().join("run");
    let start = |folder: &str| format!("init.Checkpoint={}", there.path().join(folder).display());
    let message = failed(run(&recipe, &out, &["--set", &start("source")]), 2);
    assert!(message.contains("flip import"), "{message}");
    let message = failed(run(&recipe, &there.path().join("imported"), &["--restart"]), 2);
    assert!(message.contains("lies in the folder of the run itself"), "{message}");
    assert!(there.path().join("imported/model.ron").exists());
    let model = there.path().join("imported/model.ron");
    let text = std::fs::read_to_string(&model).unwrap();
    std::fs::write(&model, text.replace("patch: 8", "patch: 0")).unwrap();
    let message = failed(run(&recipe, &out, &[]), 2);
    assert!(
        message.contains("model.ron: not a model that can be built") && message.contains("image.patch"),
        "{message}"
    );
    std::fs::write(&model, "(image: 3)").unwrap();
    let message = failed(run(&recipe, &out, &[]), 2);
    assert!(message.contains("model.ron: not the description of a model"), "{message}");
}
