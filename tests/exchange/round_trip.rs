//! In and out again: number types and shapes stay, and what open_clip has no encoder of its own for goes there through timm.

use std::path::Path;
use std::process::Command;

use flip::exchange::{export, import, obstacles, Format, ImportOptions};
use flip::model::ModelConfig;
use half::{bf16, f16};
use safetensors::tensor::{serialize_to_file, Dtype, TensorView};
use safetensors::SafeTensors;
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::command::{flip, said};
use crate::support::*;

/// Types and shapes of a file.
fn types(path: &Path) -> Vec<(String, Dtype, Vec<usize>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> =
        file.iter().map(|(name, view)| (name.to_string(), view.dtype(), view.shape().to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The fixture of open_clip in half precision, but for the norms, and with a vector of one logit scale.
fn half_precision(folder: &Path) {
    open_clip_folder(folder, |config| config["model_cfg"]["nonscalar_logit_scale"] = true.into());
    let path = folder.join("open_clip_model.safetensors");
    let stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = read(&path)
        .into_iter()
        .map(|(name, (shape, values))| {
            let shape = if name == "logit_scale" { vec![1] } else { shape };
            let (dtype, bytes) = match &name {
                name if name.contains("ln_") => {
                    (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect())
                }
                name if name.contains("mlp") => {
                    let brain = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                    (Dtype::BF16, brain.collect())
                }
                _ => (Dtype::F16, values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
            };
            (name, dtype, shape, bytes)
        })
        .collect();
    let views = stored
        .iter()
        .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, &path).unwrap();
}

#[test]
fn number_types_and_the_shape_of_the_logit_scale_stay_unless_asked() {
    let root = tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    std::fs::create_dir(path("source")).unwrap();
    half_precision(&path("source"));
    said(flip(&[&"import", &path("source"), &"--out", &path("run")]));
    said(flip(&[&"export", &path("run"), &"--to", &"open-clip", &"--out", &path("out")]));
    let file = "open_clip_model.safetensors";
    assert_eq!(types(&path("out").join(file)), types(&path("source").join(file)));
    let bytes = |folder: &str| std::fs::read(path(folder).join(file)).unwrap();
    let (out, source) = (bytes("out"), bytes("source"));
    let (out, source) = (SafeTensors::deserialize(&out).unwrap(), SafeTensors::deserialize(&source).unwrap());
    for (name, view) in source.iter() {
        assert!(out.tensor(name).unwrap().data() == view.data(), "{name} differs");
    }
    let config: Value =
        serde_json::from_slice(&std::fs::read(path("out").join("open_clip_config.json")).unwrap()).unwrap();
    assert_eq!(config["model_cfg"]["nonscalar_logit_scale"], true);

    let arguments = [
        &"export" as &dyn AsRef<_>,
        &path("run"),
        &"--to",
        &"open-clip",
        &"--numbers",
        &"bf16",
        &"--out",
        &path("asked"),
    ];
    said(flip(&arguments));
    assert!(types(&path("asked").join(file)).iter().all(|(_, dtype, _)| *dtype == Dtype::BF16));
}

/// Models that open_clip has no encoder of its own for.
fn through_timm() -> Vec<(&'static str, ModelConfig)> {
    let config = |image: Value, text: Value, more: Value| -> ModelConfig {
        let mut config = json!({
            "image": { "size": 32, "patch": 8, "width": 48, "depth": 2, "heads": 4 },
            "text": {
                "tokenizer": { "WordPiece": "vocab.txt" }, "vocab_size": 60, "context": 9, "width": 32, "depth": 2, "heads": 2,
            },
            "embed_dim": 24, "logit_scale": { "clip": "AfterUpdate" }, "normalisation": "MaxEps",
        });
        for (part, changes) in [("image", image), ("text", text)] {
            for (key, value) in changes.as_object().unwrap() {
                config[part][key] = value.clone();
            }
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    };
    vec![
        ("flip", config(json!({}), json!({}), json!({ "normalisation": "AddEps" }))),
        (
            "siglip",
            config(
                json!({
                    "positions": "Learned", "class_token": false, "pool": "Attention", "projection": "None",
                    "activation": "GeluExact",
                }),
                json!({ "pool": "Last", "projection": "Biased" }),
                json!({ "embed_dim": 48, "logit_bias": -10.0 }),
            ),
        ),
        (
            "biased",
            config(
                json!({ "positions": "Learned", "pool": "ClassToken", "projection": "Biased", "pre_norm": true, "patch_bias": false }),
                json!({ "pool": { "Token": 2 }, "causal": true }),
                json!({}),
            ),
        ),
        (
            "gap",
            config(
                json!({ "class_token": false, "patch_bias": false, "positions": "Learned" }),
                json!({}),
                json!({}),
            ),
        ),
    ]
}

#[test]
fn the_paper_s_and_siglip_s_encoders_go_to_open_clip_and_come_back() {
    let root = tempdir().unwrap();
    let mut written = Vec::new();
    for (name, config) in through_timm() {
        assert!(obstacles(&config, Format::OpenClip).is_empty(), "{name}");
        let (model, tensors) = model(&config);
        let folder = root.path().join(name);
        let outgoing = outgoing(&config, &tensors);
        let exported = export(&outgoing, Format::OpenClip, &folder).unwrap();
        assert!(exported.notes.iter().any(|note| note.contains("timm_model_name")), "{:?}", exported.notes);
        let back = import(&folder, &ImportOptions::default()).unwrap();
        let (planes, ids) = inputs(&config, 3);
        let (images, texts) = (embed_planes(&model, &planes), embed_ids(&model, &ids));
        let again = filled(&back);
        assert_close(name, &embed_planes(&again, &planes), &images, 2e-6);
        assert_close(name, &embed_ids(&again, &ids), &texts, 2e-6);
        let (side, context, width) = (config.image.size, config.text.context, config.embed_dim);
        let expected = File::from([
            ("images".into(), (vec![3, width], images)),
            ("texts".into(), (vec![3, width], texts)),
            ("image".into(), (vec![3, 3, side, side], planes)),
            ("text".into(), (vec![3, context], ids)),
        ]);
        write(&folder.join("expected"), &expected);
        written.push(folder);
    }
    // open_clip itself, where it is installed with timm.
    let Some(python) = std::env::var_os("FLIP_PYTHON") else {
        println!("skipped: FLIP_PYTHON names no Python");
        return;
    };
    let script = fixture("round_trip.py");
    let output = Command::new(python).arg(script).args(written).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    print!("{}", String::from_utf8_lossy(&output.stdout));
}
