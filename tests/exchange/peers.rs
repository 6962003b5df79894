//! open_clip and transformers themselves, where a Python that has them is found: `python3`, or what the
//! environment variable FLIP_PYTHON names.

use std::path::Path;
use std::process::Command;

use dfdx::prelude::Cpu;
use flip::data::text::Tokenizer;
use flip::exchange::{export, import, Format, ImportOptions, Imported, Outgoing};
use flip::model::{Flip, ModelConfig};
use serde_json::json;
use tempfile::tempdir;

use crate::support::*;

/// Of unit embeddings.
const TOLERANCE: f32 = 1e-5;

/// Runs tests/peers.py; false, with the reason printed, where the packages are missing.
pub fn peers(command: &str, folder: &Path) -> bool {
    let python = std::env::var("FLIP_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers.py");
    let output = match Command::new(&python).arg(script).arg(command).arg(folder).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: {python}: {error}");
            return false;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) {
        println!("skipped: {python}: {said}");
        return false;
    }
    print!("{said}");
    assert!(output.status.success(), "peers.py {command}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn agrees(what: &str, model: &Flip<f32, Cpu>, expected: &File) {
    let images = embed_planes(model, &expected["image"].1);
    let images = assert_close(what, &images, &expected["images"].1, TOLERANCE);
    let texts = embed_ids(model, &expected["text"].1);
    let texts = assert_close(what, &texts, &expected["texts"].1, TOLERANCE);
    println!("{what}: largest difference of images {images:.2e}, of texts {texts:.2e}");
}

/// Ids of captions, for the other side to compare; `ends` where what follows the end token does not count.
fn write_ids(folder: &Path, tokenizer: &Tokenizer, captions: &[String], context: usize, ends: bool) {
    let ids: Vec<Vec<u32>> =
        captions.iter().map(|caption| tokenizer.encode(caption, context).unwrap().0).collect();
    let end = tokenizer.end_id().filter(|_| ends);
    write_json(&folder.join("ids.json"), &json!({ "captions": captions, "ids": ids, "ends_at": end }));
}

fn captions() -> Vec<String> {
    let long = "a red circle beside the small blue square ".repeat(20);
    ["a photo of a cat", "Two dogs, 3 cats & the parrot's cage!", "", "naïve café", &long]
        .map(String::from)
        .to_vec()
}

#[test]
fn models_of_full_size_agree_with_the_tools_themselves() {
    let root = tempdir().unwrap();
    if !peers("make", root.path()) {
        return;
    }
    for (peer, format) in [("open_clip", Format::OpenClip), ("transformers", Format::Transformers)] {
        let source = root.path().join(peer);
        let imported = import(&source, &ImportOptions::default()).unwrap();
        assert_eq!(imported.format, format);
        let expected = read(&source.join("expected"));
        agrees(&format!("{peer}, fused"), &fused(&imported), &expected);
        agrees(&format!("{peer}, composed"), &filled(&imported), &expected);
        go_out(root.path(), peer, &imported);
    }
    let source = root.path().join("open_clip");
    let larger = ImportOptions { image_size: Some(288), ..Default::default() };
    let larger = import(&source, &larger).unwrap();
    agrees("open_clip at 288 pixels, fused", &fused(&larger), &read(&source.join("expected_288")));
    drop(larger);
    flip_to_open_clip(root.path());
    assert!(peers("check", root.path()));
}

/// Exports to both tools, with the tokenizer where there is one.
fn go_out(root: &Path, peer: &str, imported: &Imported) {
    let tokenizer = imported.tokenizer.as_ref().map(|config| Tokenizer::open(config).unwrap());
    let file = root.join("tokenizer.json");
    if let Some(tokenizer) = &tokenizer {
        tokenizer.save(&file).unwrap();
    }
    let outgoing = Outgoing {
        config: &imported.config,
        tensors: &imported.tensors,
        tokenizer: tokenizer.as_ref().map(|_| file.as_path()),
        card: None,
        stored: None,
        inline: None,
    };
    for (name, format) in [("open_clip", Format::OpenClip), ("transformers", Format::Transformers)] {
        let folder = root.join(format!("{peer}_to_{name}"));
        export(&outgoing, format, &folder).unwrap();
        if let Some(tokenizer) = &tokenizer {
            write_ids(&folder, tokenizer, &captions(), imported.config.text.context, true);
        }
    }
}

/// FLIP's encoders but for the pooling, and a vocabulary of our own.
fn flip_to_open_clip(root: &Path) {
    let tokenizer = Tokenizer::train(captions().into_iter(), 120).unwrap();
    let config: ModelConfig = serde_json::from_value(json!({
        "image": { "size": 32, "patch": 8, "width": 48, "depth": 2, "heads": 4, "pool": "ClassToken" },
        "text": {
            "tokenizer": { "Train": { "captions": 5 } }, "vocab_size": tokenizer.vocab_size(), "context": 12,
            "width": 32, "depth": 2, "heads": 2,
        },
        "embed_dim": 24,
    }))
    .unwrap();
    let (model, tensors) = model(&config);
    let file = root.join("trained.json");
    tokenizer.save(&file).unwrap();
    let folder = root.join("flip_to_open_clip");
    let outgoing = Outgoing {
        config: &config,
        tensors: &tensors,
        tokenizer: Some(&file),
        card: None,
        stored: None,
        inline: None,
    };
    export(&outgoing, Format::OpenClip, &folder).unwrap();
    write_ids(&folder, &tokenizer, &captions(), config.text.context, false);

    let (planes, ids) = inputs(&config, 3);
    let expected = File::from([
        ("images".into(), (vec![3, 24], embed_planes(&model, &planes))),
        ("texts".into(), (vec![3, 24], embed_ids(&model, &ids))),
        ("image".into(), (vec![3, 3, 32, 32], planes)),
        ("text".into(), (vec![3, 12], ids)),
    ]);
    write(&folder.join("expected"), &expected);
}
