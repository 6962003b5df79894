//! What images go through before an encoder: followed, and written again. Expected values are open_clip's and transformers' own,
//! by tests/data/preprocessing/make.py, which runs where FLIP_PYTHON names a Python that has both.

use std::path::Path;
use std::process::Command;

use flip::data::decode::{CropDecoder, Draw, ImageLimits, View};
use flip::data::Image;
use flip::exchange::{export, import, Format, ImportOptions, Outgoing};
use flip::model::ModelConfig;
use safetensors::SafeTensors;
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::support::*;

const IMAGES: [(usize, usize); 5] = [(40, 30), (24, 61), (12, 12), (7, 5), (200, 9)];

/// A model of images of 12 pixels that both tools can hold.
fn small() -> ModelConfig {
    serde_json::from_value(json!({
        "image": {
            "size": 12, "patch": 4, "width": 8, "depth": 1, "heads": 2, "positions": "Learned", "pre_norm": true,
            "pool": "ClassToken", "patch_bias": false,
        },
        "text": {
            "tokenizer": { "WordPiece": "vocab.txt" }, "vocab_size": 30, "context": 7, "width": 8, "depth": 1, "heads": 2,
            "causal": true, "pool": "EndOfText",
        },
        "embed_dim": 8, "normalisation": "MaxEps", "logit_scale": { "clip": "AfterUpdate" },
    }))
    .unwrap()
}

/// A folder of the tool of `format` with a model, whose files may be changed.
fn folder_of(config: &ModelConfig, format: Format, folder: &Path) {
    let (_, tensors) = model(config);
    let outgoing =
        Outgoing { config, tensors: &tensors, tokenizer: None, card: None, stored: None, inline: None };
    export(&outgoing, format, folder).unwrap();
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The configuration that a folder comes in with.
fn config_of(folder: &Path) -> ModelConfig {
    import(folder, &ImportOptions::default()).unwrap().config
}

/// The square of an image, as an evaluation of the model sees it, and the normalised pixels of it.
fn seen(config: &ModelConfig, (width, height): (usize, usize)) -> (Vec<u8>, Vec<f32>) {
    let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (x, y, c))));
    let pixels = places.map(|(x, y, c)| ((x * 37 + y * 91 + c * 53 + x * y * 11) % 256) as u8).collect();
    let image = Image::Rgb { width: width as u32, height: height as u32, pixels };
    let transform = config.image.eval_transform();
    let square = CropDecoder::default()
        .decode_crop(image, ImageLimits::default(), &transform, View::Whole, Draw::default())
        .unwrap();
    let norm = config.image.pixels;
    let numbers = square
        .iter()
        .enumerate()
        .map(|(i, &byte)| ((f64::from(byte) / 255.0 - norm.mean[i % 3]) / norm.std[i % 3]) as f32);
    let numbers = numbers.collect();
    (square, numbers)
}

#[test]
fn every_way_of_open_clip_to_a_square_gives_its_bytes_and_is_written_again() {
    let bytes = std::fs::read(fixture("preprocessing/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let root = tempdir().unwrap();
    for mode in ["shortest", "longest", "squash"] {
        for interpolation in ["bicubic", "bilinear"] {
            let folder = root.path().join(format!("{mode}-{interpolation}"));
            folder_of(&small(), Format::OpenClip, &folder);
            let path = folder.join("open_clip_config.json");
            let mut file = json_of(&path);
            file["preprocess_cfg"] = json!({
                "size": [12, 12], "mode": "RGB", "mean": [0.5, 0.4, 0.3], "std": 0.25, "interpolation": interpolation,
                "resize_mode": mode, "fill_color": 9,
            });
            write_json(&path, &file);
            let config = config_of(&folder);
            for (width, height) in IMAGES {
                let name = format!("open_clip/{mode}/{interpolation}/{width}x{height}");
                let (square, _) = seen(&config, (width, height));
                assert!(square == expected.tensor(&name).unwrap().data(), "{name}");
            }
            let again = root.path().join(format!("{mode}-{interpolation}-again"));
            folder_of(&config, Format::OpenClip, &again);
            let written = &json_of(&again.join("open_clip_config.json"))["preprocess_cfg"];
            let same = json!({
                "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25], "interpolation": interpolation, "resize_mode": mode,
                "fill_color": 9,
            });
            assert_eq!(written, &same);
            assert_eq!(config_of(&again).image, config.image);
        }
    }
}

#[test]
fn the_image_processors_of_transformers_are_followed_in_either_file_and_written_again() {
    let expected = read(&fixture("preprocessing/expected.transformers"));
    let cases = json_of(&fixture("preprocessing/cases.json"));
    let root = tempdir().unwrap();
    for (name, settings) in cases.as_object().unwrap() {
        for nested in [false, true] {
            let folder = root.path().join(format!("{name}-{nested}"));
            folder_of(&small(), Format::Transformers, &folder);
            let plain = folder.join("preprocessor_config.json");
            if nested {
                // What lies in the other file does not count then.
                write_json(&plain, &json!({ "do_resize": false }));
                let both = json!({ "image_processor": settings, "processor_class": "CLIPProcessor" });
                write_json(&folder.join("processor_config.json"), &both);
            } else {
                write_json(&plain, settings);
            }
            let config = config_of(&folder);
            for (width, height) in IMAGES {
                let name = format!("transformers/{name}/{width}x{height}");
                let (_, numbers) = seen(&config, (width, height));
                assert_close(&name, &numbers, &expected[&name].1, 1e-6);
            }
            let again = root.path().join(format!("{name}-{nested}-again"));
            folder_of(&config, Format::Transformers, &again);
            let written = config_of(&again).image;
            assert_eq!(written.resizing, config.image.resizing);
            // JSON is read to the last bit but one.
            for (a, b) in [
                (written.pixels.mean, config.image.pixels.mean),
                (written.pixels.std, config.image.pixels.std),
            ] {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15), "{a:?} is not {b:?}");
            }
        }
    }
}

#[test]
fn preprocessing_that_cannot_be_followed_is_refused_by_name() {
    let root = tempdir().unwrap();
    let folder = root.path().join("transformers");
    folder_of(&small(), Format::Transformers, &folder);
    let path = folder.join("preprocessor_config.json");
    let whole = json_of(&path);
    let cases: &[(&str, Value, &str)] = &[
        ("resample", 1.into(), "resample: 1: expected 2 (bilinear) or 3 (bicubic)"),
        ("size", json!({ "shortest_edge": 14 }), "size: the short side becomes 14: the model takes 12 x 12"),
        (
            "size",
            json!({ "height": 12, "width": 14 }),
            "size: expected shortest_edge, or as much height as width",
        ),
        ("size", json!({ "shortest_edge": 12, "longest_edge": 20 }), "size: expected shortest_edge"),
        ("crop_size", json!({ "height": 10, "width": 10 }), "crop_size: cut to 10"),
        ("do_center_crop", false.into(), "do_center_crop: false"),
        ("do_resize", false.into(), "do_resize: false"),
        ("do_pad", true.into(), "do_pad: true"),
        ("rescale_factor", 0.into(), "rescale_factor: expected a positive number"),
        ("image_processor_type", "FuyuImageProcessor".into(), "image_processor_type"),
        ("do_flip", true.into(), "do_flip: an option that this program does not know"),
    ];
    for (key, value, named) in cases {
        let mut changed = whole.clone();
        changed[*key] = value.clone();
        write_json(&path, &changed);
        let message = refusal(&folder);
        assert!(message.contains(named) && message.contains("preprocessor_config.json"), "{key}: {message}");
    }
    let folder = root.path().join("open_clip");
    folder_of(&small(), Format::OpenClip, &folder);
    let path = folder.join("open_clip_config.json");
    let whole = json_of(&path);
    for (key, value) in [
        ("mode", json!("L")),
        ("interpolation", json!("lanczos")),
        ("resize_mode", json!("crop")),
        ("fill_color", json!(300)),
        ("mean", json!([0.5, 0.5])),
        ("gamma", json!(2.2)),
    ] {
        let mut changed = whole.clone();
        changed["preprocess_cfg"][key] = value;
        write_json(&path, &changed);
        let message = refusal(&folder);
        assert!(message.contains(&format!("preprocess_cfg.{key}: ")), "{message}");
    }
}

#[test]
fn transformers_is_told_of_no_way_that_it_does_not_have() {
    let mut config = small();
    config.image.resizing.mode = flip::data::decode::ResizeMode::Longest;
    let found = flip::exchange::obstacles(&config, Format::Transformers);
    assert_eq!(found.iter().map(|obstacle| obstacle.field).collect::<Vec<_>>(), ["image.resizing.mode"]);
    assert!(flip::exchange::obstacles(&config, Format::OpenClip).is_empty());
}

/// The recorded values are those of the tools that are installed.
#[test]
fn recorded_squares_are_those_of_the_tools() {
    let Some(python) = std::env::var_os("FLIP_PYTHON") else {
        println!("skipped: FLIP_PYTHON names no Python");
        return;
    };
    let folder = tempdir().unwrap();
    let script = fixture("preprocessing/make.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["expected.safetensors", "expected.transformers"] {
        let of = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(of(folder.path()) == of(&fixture("preprocessing")), "{file} differs");
    }
}
