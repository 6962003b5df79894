//! `flip import`, `flip embed` and `flip export` on the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flip::exchange::{export, Format, Outgoing};
use flip::trained::Weights;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::*;

pub fn flip(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flip")).args(arguments.iter().map(|a| a.as_ref())).output().unwrap()
}

/// What a successful command printed.
pub fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a command that ended with this code.
pub fn failed(output: Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

/// A WordPiece vocabulary of 97 words.
pub fn vocabulary(folder: &Path) -> PathBuf {
    let words = ["[PAD]".into(), "[UNK]".into()].into_iter().chain((0..95).map(|i| format!("word{i}")));
    let path = folder.join("vocab.txt");
    std::fs::write(&path, words.collect::<Vec<String>>().join("\n")).unwrap();
    path
}

#[test]
fn a_flip_checkpoint_becomes_a_run_that_embeds() {
    let there = tempdir().unwrap();
    let run = there.path().join("run");
    let source = fixture("checkpoints/flip_t5x/checkpoint_7");
    let vocabulary = vocabulary(there.path());
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 10] = [
        &"import",
        &source,
        &"--out",
        &run,
        &"--tokenizer",
        &vocabulary,
        &"--image-heads",
        &"4",
        &"--text-heads",
        &"2",
    ];
    let message = failed(flip(&arguments[..6]), 2);
    assert!(message.contains("image_heads"), "{message}");
    let summary = said(flip(&arguments));
    for word in ["FLIP (t5x) checkpoint", "step 7", "images of 32 px", "12 tokens"] {
        assert!(summary.contains(word), "{summary}");
    }
    // Not over a run that is there.
    assert!(failed(flip(&arguments), 2).contains("already holds a model or a run"));

    let texts = there.path().join("texts.txt");
    std::fs::write(&texts, "word1 word2\nword3\n").unwrap();
    let embedded = there.path().join("texts.safetensors");
    said(flip(&[&"embed", &run, &"--texts", &texts, &"--out", &embedded]));
    let (shape, values) = &read(&embedded)["embeddings"];
    assert_eq!(shape, &[2, 24]);
    assert!(values.chunks(24).all(|row| (row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));

    let out = there.path().join("out");
    let message = failed(flip(&[&"export", &run, &"--to", &"transformers", &"--out", &out]), 2);
    assert!(message.contains("model.image.pool") && message.contains("model.text.causal"), "{message}");
    assert!(!out.exists());
}

#[test]
fn an_open_clip_checkpoint_goes_through_a_run_unchanged() {
    let there = tempdir().unwrap();
    let (source, run, out) =
        (there.path().join("source"), there.path().join("run"), there.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    let summary = said(flip(&[&"import", &source, &"--out", &run]));
    assert!(summary.contains("note: no tokenizer lies beside the weights"), "{summary}");
    let summary = said(flip(&[&"export", &run, &"--to", &"open-clip", &"--out", &out]));
    assert!(summary.contains("stage0-step00000000"), "{summary}");
    let weights = "open_clip_model.safetensors";
    assert_same(&read(&out.join(weights)), &read(&source.join(weights)));
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for line in [
        "library_name: open_clip",
        "local-dir:out",
        "imported from a checkpoint of open\\_clip",
        "Not evaluated.",
    ] {
        assert!(card.contains(line), "{card}");
    }
    assert!(failed(flip(&[&"export", &run, &"--to", &"open-clip", &"--out", &out]), 2)
        .contains("is there already"));

    let nowhere = there.path().join("nowhere");
    let elsewhere = there.path().join("elsewhere");
    assert!(failed(flip(&[&"import", &nowhere, &"--out", &elsewhere]), 2).contains("no such file or folder"));
    std::fs::write(source.join(weights), "short").unwrap();
    let other = there.path().join("other");
    assert!(failed(flip(&[&"import", &source, &"--out", &other]), 1).contains("too few"));
    assert!(!other.exists());
}

#[test]
fn tokenizer_files_go_along() {
    let there = tempdir().unwrap();
    let (source, run) = (there.path().join("source"), there.path().join("run"));
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    vocabulary(&source);
    said(flip(&[&"import", &source, &"--out", &run]));
    let weights = Weights::open(&run).unwrap();
    assert_eq!(weights.samples, None);
    let tokenizer = run.join("tokenizer.json");
    for format in [Format::OpenClip, Format::Transformers] {
        let out = there.path().join(format.to_string());
        let outgoing = Outgoing {
            config: &weights.config,
            tensors: &weights.tensors,
            tokenizer: Some(&tokenizer),
            card: None,
            stored: None,
            inline: None,
        };
        export(&outgoing, format, &out).unwrap();
        let json = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap()
        };
        assert_eq!(json("tokenizer.json")["model"]["type"], "WordPiece");
        let about = json("tokenizer_config.json");
        assert_eq!((&about["pad_token"], &about["unk_token"]), (&"[PAD]".into(), &"[UNK]".into()));
        assert_eq!(about["model_max_length"], 16);
        if format == Format::OpenClip {
            assert!(json("open_clip_config.json")["model_cfg"]["text_cfg"]["hf_tokenizer_name"].is_string());
        }
    }
    // A tokenizer with more tokens than the model has rows is another model's.
    let words: Vec<String> = (0..200).map(|i| format!("word{i}")).collect();
    std::fs::write(source.join("vocab.txt"), format!("[PAD]\n[UNK]\n{}", words.join("\n"))).unwrap();
    let message = failed(flip(&[&"import", &source, &"--out", &there.path().join("other")]), 2);
    assert!(message.contains("202 tokens and the model 120"), "{message}");
}
