//! Checkpoints of the official FLIP code, whole and damaged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flip::exchange::{import, Format, ImportOptions, Imported};
use flip::model::{ImagePool, ModelConfig, TextPool};
use flip::parameter::NamedTensor;
use tempfile::{tempdir, TempDir};

use crate::support::*;

/// The fixture's widths are none of the paper's.
fn options() -> ImportOptions {
    ImportOptions { image_heads: Some(4), text_heads: Some(2), ..Default::default() }
}

fn imported(folder: &Path) -> Imported {
    import(folder, &options()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(folder: &Path) -> String {
    match import(folder, &options()) {
        Ok(_) => panic!("imported"),
        Err(error) => error.to_string(),
    }
}

fn checkpoint(name: &str) -> PathBuf {
    fixture("checkpoints/flip_t5x").join(name)
}

/// A copy to damage.
fn copy() -> (TempDir, PathBuf) {
    let there = tempdir().unwrap();
    let to = there.path().join("checkpoint_8");
    fs::create_dir(&to).unwrap();
    let from = checkpoint("small_chunks/checkpoint_8");
    for entry in fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_file() {
            fs::copy(entry.path(), to).unwrap();
            continue;
        }
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(entry.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    (there, to)
}

/// What the fixture's parameters are in our terms, written down by hand.
fn expected(config: &ModelConfig) -> Vec<NamedTensor> {
    let params = read(&fixture("fixtures/flip_jax_tiny/params.safetensors"));
    let (_, tensors) = model(config);
    tensors.into_iter().map(|ours| NamedTensor { data: theirs(&params, &ours.name), ..ours }).collect()
}

fn theirs(params: &File, ours: &str) -> Vec<f32> {
    let get = |name: String| params.get(&name).unwrap_or_else(|| panic!("{name}")).1.clone();
    let (tower, part) = ours.split_once('.').unwrap_or((ours, ""));
    let prefix = if tower == "image" { "img" } else { "txt" };
    let Some((i, part)) = part.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return get(match part {
            "" => "logit_scale".into(),
            "patch.weight" => "img_encoder/embedding/kernel".into(),
            "patch.bias" => "img_encoder/embedding/bias".into(),
            "class_token" => "img_encoder/cls".into(),
            "tokens" => "txt_encoder/token_embedding/embedding".into(),
            "positions" => "txt_encoder/posembed_encoder/pos_embedding".into(),
            "norm.scale" => format!("{prefix}_encoder/Transformer/encoder_norm/scale"),
            "norm.shift" => format!("{prefix}_encoder/Transformer/encoder_norm/bias"),
            "projection" => format!("{prefix}_mlp1/kernel"),
            other => panic!("{other}"),
        });
    };
    let block = format!("{prefix}_encoder/Transformer/encoderblock_0{i}");
    let attention = format!("{block}/MultiHeadDotProductAttention_0");
    if let Some(kind) = part.strip_prefix("attention.qkv.") {
        let kind = if kind == "weight" { "kernel" } else { kind };
        let thirds = ["query", "key", "value"].map(|third| get(format!("{attention}/{third}/{kind}")));
        let width = params[&format!("{block}/LayerNorm_0/bias")].1.len();
        let rows = thirds[0].len() / width;
        return (0..rows)
            .flat_map(|row| {
                thirds.iter().flat_map(move |third| third[row * width..(row + 1) * width].to_vec())
            })
            .collect();
    }
    get(match part {
        "norm1.scale" => format!("{block}/LayerNorm_0/scale"),
        "norm1.shift" => format!("{block}/LayerNorm_0/bias"),
        "norm2.scale" => format!("{block}/LayerNorm_1/scale"),
        "norm2.shift" => format!("{block}/LayerNorm_1/bias"),
        "attention.out.weight" => format!("{attention}/out/kernel"),
        "attention.out.bias" => format!("{attention}/out/bias"),
        "mlp.up.weight" => format!("{block}/MlpBlock_0/Dense_0/kernel"),
        "mlp.up.bias" => format!("{block}/MlpBlock_0/Dense_0/bias"),
        "mlp.down.weight" => format!("{block}/MlpBlock_0/Dense_1/kernel"),
        "mlp.down.bias" => format!("{block}/MlpBlock_0/Dense_1/bias"),
        other => panic!("{other}"),
    })
}

#[test]
fn both_checkpoints_come_in_bit_for_bit() {
    for (name, step) in
        [("checkpoint_7", "step 7"), ("small_chunks", "step 8"), ("small_chunks/checkpoint_8", "step 8")]
    {
        let imported = imported(&checkpoint(name));
        assert_eq!(imported.format, Format::FlipT5x);
        let (image, text) = (&imported.config.image, &imported.config.text);
        assert_eq!((image.size, image.patch, image.width, image.depth, image.mlp_ratio), (32, 8, 48, 3, 4.0));
        assert_eq!((text.context, text.vocab_size, text.width, text.depth), (12, 97, 32, 2));
        assert_eq!(
            (image.pool, text.pool, imported.config.embed_dim),
            (ImagePool::Mean, TextPool::First, 24)
        );
        assert!(imported.notes[0].contains(step), "{:?}", imported.notes);
        let expected = expected(&imported.config);
        assert_eq!(imported.tensors.len(), expected.len());
        for (got, expected) in imported.tensors.iter().zip(&expected) {
            assert_eq!((&got.name, &got.shape), (&expected.name, &expected.shape), "{name}");
            let bits = |tensor: &NamedTensor| tensor.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(got), bits(expected), "{name}: {}", got.name);
        }
    }
    // The folder above both: the larger step of those directly in it.
    assert!(imported(&checkpoint("")).notes[0].contains("step 7"));
}

#[test]
fn it_embeds_as_the_official_code_does() {
    let model = filled(&imported(&checkpoint("checkpoint_7")));
    let batch = read(&fixture("fixtures/flip_jax_tiny/batch.safetensors"));
    let expected = read(&fixture("fixtures/flip_jax_tiny/expected.safetensors"));
    assert_close("images", &embed_pixels(&model, &batch["image"].1), &expected["eval/z_img"].1, 1e-5);
    assert_close("texts", &embed_ids(&model, &batch["txt"].1), &expected["eval/z_txt"].1, 1e-5);
}

#[test]
fn heads_that_no_tensor_shows_are_asked_for() {
    let message = refusal(&checkpoint("checkpoint_7"));
    assert!(message.contains("image_heads") && message.contains("text_heads"), "{message}");
    let options = ImportOptions { image_heads: Some(5), ..options() };
    let message = import(&checkpoint("checkpoint_7"), &options).unwrap_err().to_string();
    assert!(message.contains("image.heads") && message.contains("48"), "{message}");
}

const KERNEL: &str = "target.img_encoder.Transformer.encoderblock_00.MlpBlock_0.Dense_0.kernel";
const TENSOR: &str = "img_encoder/Transformer/encoderblock_00/MlpBlock_0/Dense_0/kernel";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn damaged_chunks_are_named_and_never_zeros() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 8] = [
        ("chunk 1.3 is missing", |chunk| fs::remove_file(chunk).unwrap()),
        ("chunk 1.3", |chunk| {
            let bytes = fs::read(chunk).unwrap();
            fs::write(chunk, &bytes[..bytes.len() - 20]).unwrap();
        }),
        // Only the checksum.
        ("chunk 1.3", |chunk| {
            let mut bytes = fs::read(chunk).unwrap();
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
            fs::write(chunk, bytes).unwrap();
        }),
        ("chunk 1.3", |chunk| fs::write(chunk, b"not gzip at all, but long enough to hold a chunk").unwrap()),
        ("chunk 1.3: 0 bytes cannot hold", |chunk| fs::write(chunk, b"").unwrap()),
        ("chunk 1.3 holds fewer", |chunk| fs::write(chunk, gzip(&[7; 4600])).unwrap()),
        ("chunk 1.3 holds more", |chunk| fs::write(chunk, gzip(&[7; 5000])).unwrap()),
        ("element", |chunk| fs::write(chunk, gzip(&f32::NAN.to_le_bytes().repeat(24 * 48))).unwrap()),
    ];
    for (wanted, damage) in cases {
        let (_there, folder) = copy();
        damage(&folder.join(KERNEL).join("1.3"));
        let message = refused(&folder);
        assert!(message.contains(wanted) && message.contains(TENSOR), "{wanted}: {message}");
    }
}

#[test]
fn damaged_arrays_are_named() {
    let zarray =
        fs::read_to_string(checkpoint("small_chunks/checkpoint_8").join(KERNEL).join(".zarray")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&zarray).unwrap();
    let cases = [
        ("/shape/0", serde_json::json!(49), "shape"),
        ("/shape", serde_json::json!([48]), "shape"),
        ("/dtype", "<f8".into(), "<f8"),
        ("/dtype", ">f4".into(), ">f4"),
        ("/order", "F".into(), "order"),
        ("/zarr_format", 3.into(), "zarr_format"),
        ("/compressor/id", "blosc".into(), "blosc"),
        ("/chunks/0", 0.into(), "chunks"),
        ("/chunks/0", 12.into(), "chunk 2.0 is missing"),
        ("/chunks/0", 1_000_000_000.into(), "truncated?"),
        ("/chunks", serde_json::json!([24, 48, 1]), "chunks"),
        ("/filters", serde_json::json!([{ "id": "delta" }]), "filters"),
        ("/dimension_separator", "/".into(), "dimension_separator"),
        ("/shape", "wide".into(), "malformed"),
    ];
    for (place, value, wanted) in cases {
        let (_there, folder) = copy();
        let mut changed = metadata.clone();
        *changed.pointer_mut(place).unwrap() = value;
        fs::write(folder.join(KERNEL).join(".zarray"), changed.to_string()).unwrap();
        let message = refused(&folder);
        assert!(message.contains(wanted) && message.contains(TENSOR), "{place}: {message}");
    }
    let (_there, folder) = copy();
    fs::remove_dir_all(folder.join(KERNEL)).unwrap();
    let message = refused(&folder);
    assert!(message.contains(TENSOR) && message.contains(".zarray"), "{message}");
    // A file that nobody asked for does no harm.
    let (_there, folder) = copy();
    fs::write(folder.join(KERNEL).join("9.9"), "?").unwrap();
    imported(&folder);
}

#[test]
fn a_damaged_index_is_an_error() {
    let (_there, folder) = copy();
    let index = folder.join("checkpoint");
    let whole = fs::read(&index).unwrap();
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&index, &whole[..length]).unwrap();
        let message = refused(&folder);
        assert!(message.contains("not a whole msgpack index"), "{length}: {message}");
    }
    fs::write(&index, [&whole[..], b"\0"].concat()).unwrap();
    assert!(refused(&folder).contains("1 bytes follow"));
    // Whatever a flipped byte makes of it, there is an answer.
    for at in (0..whole.len()).step_by(61) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&index, bytes).unwrap();
        let _ = import(&folder, &options());
    }
    fs::remove_file(&index).unwrap();
    let message = refused(&folder);
    assert!(message.contains("checkpoint_<step>"), "{message}");
}

/// Replaces every occurrence; both of the same length, as msgpack has lengths in front.
fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| *w == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{from} is not in the index");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn an_index_that_asks_for_something_else_is_an_error() {
    let cases = [
        // Out of the folder.
        ("target.img_encoder.cls/", "../../../../etc/passwd.", "beside the index"),
        ("target.img_encoder.cls/", "/arget.img_encoder.cls/", "beside the index"),
        // Names that no longer fit: one missing, one left over.
        ("img_mlp1", "img_mlp7", "img_mlp1/kernel"),
        ("float32", "float64", "float64"),
        ("version", "Version", "expected version 2 or 3"),
        ("optimizer", "0ptimizer", "no `optimizer`"),
        ("zarr", "n5__", "expected the driver zarr"),
    ];
    for (from, to, wanted) in cases {
        let (_there, folder) = copy();
        let index = folder.join("checkpoint");
        fs::write(&index, replace(&fs::read(&index).unwrap(), from, to)).unwrap();
        let message = refused(&folder);
        assert!(message.contains(wanted), "{from}: {message}");
    }
    let (_there, folder) = copy();
    let index = folder.join("checkpoint");
    fs::write(&index, replace(&fs::read(&index).unwrap(), "txt_mlp1", "txt_mlp7")).unwrap();
    let message = refused(&folder);
    assert!(message.contains("txt_mlp1/kernel: missing"), "{message}");
    assert!(message.contains("txt_mlp7/kernel: expected no such"), "{message}");
}

#[test]
fn positions_that_are_not_those_computed_here_are_refused() {
    let (_there, folder) = copy();
    let chunk = folder.join("target.img_encoder.posembed_encoder.pos_embedding/0.0.0");
    let bytes: Vec<u8> = (0..17 * 48).flat_map(|i| (i as f32).to_le_bytes()).collect();
    fs::write(chunk, gzip(&bytes)).unwrap();
    let message = refused(&folder);
    assert!(
        message.contains("img_encoder/posembed_encoder/pos_embedding") && message.contains("sin-cos"),
        "{message}"
    );
}
