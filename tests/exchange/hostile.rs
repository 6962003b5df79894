//! Files that are truncated, flipped, lying, or not what they are called.

use std::fs;
use std::path::PathBuf;

use flip::data::text::Tokenizer;
use flip::exchange::{import, ImportOptions};
use serde_json::{json, Value};
use tempfile::{tempdir, TempDir};

use crate::support::*;

fn folder() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |_| {});
    let weights = folder.path().join("open_clip_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    (folder, weights, whole)
}

/// A file of this header and so many bytes of values.
fn with_header(header: &str, values: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + values, 0);
    bytes
}

#[test]
fn every_truncation_is_refused() {
    let (folder, weights, whole) = folder();
    for length in (0..20).chain((20..whole.len()).step_by(4999)).chain([whole.len() - 1]) {
        fs::write(&weights, &whole[..length]).unwrap();
        let message = refusal(folder.path());
        assert!(message.contains("open_clip_model.safetensors"), "{length}: {message}");
    }
    fs::write(&weights, [&whole[..], b"more"].concat()).unwrap();
    assert!(refusal(folder.path()).contains("values where there are"));
}

#[test]
fn no_flipped_bit_of_a_header_panics() {
    let (folder, weights, whole) = folder();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in (0..header).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&weights, bytes).unwrap();
        let _ = import(folder.path(), &ImportOptions::default());
    }
}

#[test]
fn headers_that_lie_are_refused_without_making_room() {
    let (folder, weights, _) = folder();
    let f32_at = |shape: Value, from: u64, to: u64| json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, to] });
    let huge = u64::MAX / 8;
    let headers = [
        json!({ "a": f32_at(json!([2]), 0, 8), "b": f32_at(json!([2]), 4, 12) }),
        json!({ "a": f32_at(json!([2]), 4, 12) }),
        json!({ "a": f32_at(json!([3]), 0, 8) }),
        json!({ "a": f32_at(json!([1u64 << 40]), 0, 1u64 << 42) }),
        json!({ "a": f32_at(json!([huge, huge]), 0, 8) }),
        json!({ "a": f32_at(json!([2]), 8, 0) }),
        json!({ "a": f32_at(json!([-2]), 0, 8) }),
        json!({ "a": { "dtype": "F33", "shape": [2], "data_offsets": [0, 8] } }),
        json!({ "a": 1 }),
        json!([]),
    ];
    for header in headers {
        fs::write(&weights, with_header(&header.to_string(), 8)).unwrap();
        let message = refusal(folder.path());
        assert!(message.contains("open_clip_model.safetensors"), "{header}: {message}");
    }
    // Lengths that the file does not have.
    for length in [9, 1 << 30, u64::MAX] {
        fs::write(&weights, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
        assert!(refusal(folder.path()).contains("does not fit into 10"));
    }
    // Nested deeper than any stack.
    fs::write(&weights, with_header(&"[".repeat(1 << 20), 0)).unwrap();
    assert!(refusal(folder.path()).contains("malformed"));
    // A twin.
    let twin = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    fs::write(&weights, with_header(twin, 8)).unwrap();
    refusal(folder.path());
}

#[test]
fn values_that_are_no_numbers_are_named() {
    let (folder, weights, _) = folder();
    let whole = read(&weights);
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut file = whole.clone();
        file.get_mut("visual.ln_post.bias").unwrap().1[5] = value;
        write(&weights, &file);
        let message = refusal(folder.path());
        assert!(message.contains(&format!("visual.ln_post.bias: element 5 is {shown}")), "{message}");
    }
}

#[test]
fn configurations_that_lie_are_refused_without_making_room() {
    let cases: &[(&str, Value)] = &[
        ("width", json!(1 << 20)),
        ("width", json!(u64::MAX)),
        ("layers", json!(1 << 20)),
        ("mlp_ratio", json!(1e300)),
        ("mlp_ratio", json!(-1)),
        ("image_size", json!(1 << 19)),
        ("patch_size", json!(0)),
        ("head_width", json!(0)),
    ];
    for (key, value) in cases {
        let (folder, ..) = folder();
        open_clip_folder(folder.path(), |config| config["model_cfg"]["vision_cfg"][key] = value.clone());
        refusal(folder.path());
    }
    let (folder, ..) = folder();
    let config = folder.path().join("open_clip_config.json");
    let deep = "{\"a\":".repeat(100_000);
    for text in ["", "{", "[]", "null", "{\"model_cfg\": 3}", "{}", deep.as_str(), "\u{feff}{}"] {
        fs::write(&config, text).unwrap();
        let message = refusal(folder.path());
        assert!(message.contains("open_clip_config.json"), "{message}");
    }
    fs::write(&config, b"{\"model_cfg\": \"\xff\xfe\"}").unwrap();
    assert!(refusal(folder.path()).contains("open_clip_config.json"));
}

#[test]
fn no_flipped_byte_of_a_tokenizer_panics_and_every_truncation_is_refused() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    let captions = ["a red circle", "two blue squares"].map(String::from);
    Tokenizer::train(captions.into_iter(), 40).unwrap().save(&file).unwrap();
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 7);
        fs::write(&file, bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::load(&file) {
            let _ = tokenizer.encode("a red circle, naïve", 8);
        }
        fs::write(&file, &whole[..at]).unwrap();
        let message = Tokenizer::load(&file).err().expect("refused").to_string();
        assert!(message.contains("tokenizer.json"), "{at}: {message}");
    }
}

#[test]
fn places_without_a_checkpoint_say_what_was_looked_for() {
    let folder = tempdir().unwrap();
    let message = refusal(folder.path());
    for file in ["open_clip_config.json", "config.json", "checkpoint_<step>/checkpoint"] {
        assert!(message.contains(file), "{message}");
    }
    assert!(refusal(&folder.path().join("nowhere")).contains("no such file or folder"));

    open_clip_folder(folder.path(), |_| {});
    let weights = folder.path().join("open_clip_model.safetensors");
    fs::rename(&weights, folder.path().join("one.safetensors")).unwrap();
    import(folder.path(), &ImportOptions::default()).unwrap();
    import(&folder.path().join("one.safetensors"), &ImportOptions::default()).unwrap();
    fs::copy(folder.path().join("one.safetensors"), folder.path().join("two.safetensors")).unwrap();
    assert!(refusal(folder.path()).contains("2 safetensors files"));
    import(&folder.path().join("two.safetensors"), &ImportOptions::default()).unwrap();
    for name in ["one.safetensors", "two.safetensors"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert!(refusal(folder.path()).contains("no weights here"));
    fs::write(folder.path().join("open_clip_pytorch_model.bin"), "").unwrap();
    assert!(refusal(folder.path()).contains("bytes are too few for a safetensors file"));
    fs::write(folder.path().join("more.pt"), "").unwrap();
    fs::remove_file(folder.path().join("open_clip_pytorch_model.bin")).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refusal(folder.path()).contains("2 files of weights"));
}
