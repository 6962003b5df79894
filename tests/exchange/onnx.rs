//! ONNX graphs: what lies on the disk, and, where an ONNX runtime is found, what it makes of them.

use std::path::Path;

use dfdx::prelude::Cpu;
use flip::exchange::{export, import, ExchangeError, Format, ImportOptions, Outgoing};
use flip::model::{Flip, GraphDevice, ModelConfig, Precision};
use flip::parameter::NamedTensor;
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::peers::peers;
use crate::support::*;

/// Batches that are asked for, one after the other.
const ROWS: usize = 1 + 3 + 17;

/// FLIP's published architecture in small.
fn flip_config() -> ModelConfig {
    serde_json::from_value(json!({
        "image": { "size": 48, "patch": 8, "width": 64, "depth": 3, "heads": 4 },
        "text": {
            "tokenizer": { "WordPiece": "vocab.txt" }, "vocab_size": 90, "context": 12, "width": 48, "depth": 2,
            "heads": 3,
        },
        "embed_dim": 40,
    }))
    .unwrap()
}

/// The options that neither FLIP's nor open_clip's architecture has.
fn mixed_config() -> ModelConfig {
    let mut config = flip_config();
    let options = json!({ "pool": "Mean", "activation": "QuickGelu" });
    let mut text = serde_json::to_value(&config.text).unwrap();
    text.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    config.text = serde_json::from_value(text).unwrap();
    config
}

/// open_clip's ViT-B-32.
fn vit_b_32() -> ModelConfig {
    serde_json::from_value(json!({
        "image": {
            "size": 224, "patch": 32, "width": 768, "depth": 12, "heads": 12, "positions": "Learned", "pre_norm": true,
            "pool": "ClassToken", "patch_bias": false, "activation": "GeluExact", "norm_eps": 1e-5,
        },
        "text": {
            "tokenizer": { "ClipBpe": "bpe_simple_vocab_16e6.txt.gz" }, "vocab_size": 49408, "context": 77,
            "width": 512, "depth": 12, "heads": 8, "causal": true, "pool": "EndOfText", "activation": "GeluExact",
            "norm_eps": 1e-5,
        },
        "embed_dim": 512, "normalisation": "MaxEps",
    }))
    .unwrap()
}

fn export_onnx(config: &ModelConfig, tensors: &[NamedTensor], folder: &Path, inline: Option<usize>) {
    let outgoing = Outgoing { config, tensors, tokenizer: None, card: None, stored: None, inline };
    export(&outgoing, Format::Onnx, folder).unwrap();
}

/// Writes inputs and what the model makes of them beside its graphs.
fn expect(model: &Flip<f32, Cpu>, folder: &Path) {
    let config = model.config();
    let (size, context, dim) = (config.image.size, config.text.context, config.embed_dim);
    let (planes, ids) = inputs(config, ROWS);
    let expected = File::from([
        ("images".into(), (vec![ROWS, dim], embed_planes(model, &planes))),
        ("texts".into(), (vec![ROWS, dim], embed_ids(model, &ids))),
        ("image".into(), (vec![ROWS, 3, size, size], planes)),
        ("text".into(), (vec![ROWS, context], ids)),
    ]);
    write(&folder.join("expected"), &expected);
}

#[test]
fn graphs_agree_in_an_onnx_runtime() {
    let root = tempdir().unwrap();
    for (name, config, inline) in [
        ("flip", flip_config(), None),
        ("flip_in_two_files", flip_config(), Some(0)),
        ("mixed", mixed_config(), None),
        ("vit_b_32", vit_b_32(), Some(100 << 20)),
    ] {
        let (model, tensors) = model(&config);
        let folder = root.path().join(name);
        export_onnx(&config, &tensors, &folder, inline);
        expect(&Cpu::fuse(model, Precision::F32.into()).unwrap(), &folder);
    }
    let source = root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    let imported = import(&source, &ImportOptions::default()).unwrap();
    std::fs::remove_dir_all(&source).unwrap();
    let folder = root.path().join("open_clip_tiny");
    export_onnx(&imported.config, &imported.tensors, &folder, None);
    expect(&fused(&imported), &folder);
    peers("onnx", root.path());
}

#[test]
fn large_weights_lie_beside_the_graph_and_small_ones_inside() {
    let root = tempdir().unwrap();
    let config = flip_config();
    let (_, tensors) = model(&config);
    let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or(0);
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    export_onnx(&config, &tensors, &one, None);
    export_onnx(&config, &tensors, &two, Some(1 << 10));
    for tower in ["image", "text"] {
        let weights: usize = tensors
            .iter()
            .filter(|tensor| tensor.name.starts_with(tower))
            .map(|tensor| 4 * tensor.data.len())
            .sum();
        let graph = format!("{tower}.onnx");
        assert!(size(&one.join(&graph)) > weights as u64);
        assert!(!one.join(format!("{graph}.data")).exists());
        assert!(size(&two.join(&graph)) < weights as u64 / 2);
        assert!(size(&two.join(format!("{graph}.data"))) > weights as u64 / 2);
    }
    let about: Value =
        serde_json::from_slice(&std::fs::read(one.join("preprocessor_config.json")).unwrap()).unwrap();
    assert_eq!(about["size"]["shortest_edge"], 48);
}

#[test]
fn graphs_are_not_read_and_wrong_tensors_are_named() {
    let root = tempdir().unwrap();
    let config = flip_config();
    let (_, mut tensors) = model(&config);
    let options = ImportOptions { format: Some(Format::Onnx), ..Default::default() };
    assert!(matches!(import(root.path(), &options), Err(ExchangeError::WriteOnly(Format::Onnx))));
    tensors.pop();
    let outgoing = outgoing(&config, &tensors);
    let message = export(&outgoing, Format::Onnx, &root.path().join("out")).unwrap_err().to_string();
    assert!(message.contains("logit_scale: missing"), "{message}");
    assert!(std::fs::read_dir(root.path()).unwrap().next().is_none());
}
