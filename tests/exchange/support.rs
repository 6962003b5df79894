//! Folders of checkpoints made by hand, small models, and their embeddings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dfdx::prelude::Cpu;
use flip::exchange::{Imported, Outgoing};
use flip::mask::Kept;
use flip::model::{
    gather_patches, Flip, GraphDevice, ImageInput, ModelConfig, PatchValues, Precision, TextInput,
};
use flip::parameter::NamedTensor;
use rand::Rng;
use safetensors::tensor::{serialize_to_file, Dtype, TensorView};
use safetensors::SafeTensors;
use serde_json::{json, Value};

/// Shape and values of a tensor.
pub type Values = (Vec<usize>, Vec<f32>);
pub type File = BTreeMap<String, Values>;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// Every tensor of a safetensors file of f32 or of integers.
pub fn read(path: &Path) -> File {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &TensorView| -> Vec<f32> {
        match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I32 => view.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            other => panic!("{other}"),
        }
    };
    file.iter().map(|(name, view)| (name.into(), (view.shape().to_vec(), values(&view)))).collect()
}

pub fn write(path: &Path, file: &File) {
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = file
        .iter()
        .map(|(name, (shape, data))| (name, &shape[..], data.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

pub fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// The same tensors bit for bit, names and shapes included; a single number may have any rank.
pub fn assert_same(got: &File, expected: &File) {
    let names = |file: &File| file.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(expected));
    for (name, (shape, data)) in expected {
        let (got_shape, got_data) = &got[name];
        assert!(got_shape == shape || data.len() == 1, "{name}: {got_shape:?} is not {shape:?}");
        assert!(got_data.iter().map(|x| x.to_bits()).eq(data.iter().map(|x| x.to_bits())), "{name} differs");
    }
}

/// open_clip's fixture as a folder of open_clip, under `options` of its model_cfg.
pub fn open_clip_folder(folder: &Path, change: impl FnOnce(&mut Value)) {
    let fixture = fixture("fixtures/open_clip_tiny");
    let mut config = json!({
        "model_cfg": {
            "embed_dim": 40,
            "vision_cfg": { "image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8 },
            "text_cfg": { "context_length": 16, "vocab_size": 120, "width": 48, "heads": 3, "layers": 2 },
        },
        "preprocess_cfg": { "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic" },
    });
    change(&mut config);
    write_json(&folder.join("open_clip_config.json"), &config);
    std::fs::copy(fixture.join("params.safetensors"), folder.join("open_clip_model.safetensors")).unwrap();
}

/// A model on its way out, with nothing beside it.
pub fn outgoing<'a>(config: &'a ModelConfig, tensors: &'a [NamedTensor]) -> Outgoing<'a> {
    Outgoing { config, tensors, tokenizer: None, card: None, stored: None, inline: None }
}

/// An untrained model with no parameter at zero or one, so that every one of them shows.
pub fn model(config: &ModelConfig) -> (Flip<f32, Cpu>, Vec<NamedTensor>) {
    let mut model = Flip::new(&Cpu::default(), config, 3).unwrap();
    let mut rng = flip::seed::rng(3, flip::seed::Purpose::Bench, 0, 0);
    let mut tensors = model.export().unwrap();
    for value in tensors.iter_mut().flat_map(|tensor| &mut tensor.data) {
        *value += rng.gen_range(-0.1..0.1);
    }
    model.import(&tensors).unwrap();
    (model, tensors)
}

pub fn filled(imported: &Imported) -> Flip<f32, Cpu> {
    let mut model = Flip::new(&Cpu::default(), &imported.config, 0).unwrap();
    model.import(&imported.tensors).unwrap();
    model
}

/// The same on the kernels, as a run computes.
pub fn fused(imported: &Imported) -> Flip<f32, Cpu> {
    Cpu::fuse(filled(imported), Precision::F32.into()).unwrap()
}

/// Embeddings of normalised images [n, 3, size, size].
pub fn embed_planes(model: &Flip<f32, Cpu>, images: &[f32]) -> Vec<f32> {
    let config = &model.config().image;
    let plane = config.size * config.size;
    let mut pixels = Vec::with_capacity(images.len());
    for image in images.chunks_exact(3 * plane) {
        for pixel in 0..plane {
            pixels.extend((0..3).map(|channel| image[channel * plane + pixel]));
        }
    }
    embed_pixels(model, &pixels)
}

/// Embeddings of normalised images [n, size, size, 3].
pub fn embed_pixels(model: &Flip<f32, Cpu>, pixels: &[f32]) -> Vec<f32> {
    let config = &model.config().image;
    let kept = Kept::all(pixels.len() / (config.size * config.size * 3), config.grid() * config.grid());
    let patches = gather_patches(pixels, config.size, config.patch, &kept);
    let input = ImageInput { patches: PatchValues::Floats(patches), kept, grid: config.grid() };
    model.embed_images(&input).unwrap()
}

/// Embeddings of captions, ids [n, context].
pub fn embed_ids(model: &Flip<f32, Cpu>, ids: &[f32]) -> Vec<f32> {
    let context = model.config().text.context;
    let tokens = ids.iter().map(|&id| id as u32).collect();
    model.embed_texts(&TextInput { tokens, kept: Kept::all(ids.len() / context, context) }).unwrap()
}

/// The largest difference; panics where it is above `most`.
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], most: f32) -> f32 {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest <= most, "{what}: off by {largest}, {most} is allowed");
    largest
}

/// Images and captions at random.
pub fn inputs(config: &ModelConfig, n: usize) -> (Vec<f32>, Vec<f32>) {
    let mut rng = flip::seed::rng(5, flip::seed::Purpose::Bench, 0, 0);
    let pixels = (0..n * 3 * config.image.size.pow(2)).map(|_| rng.gen_range(-2.0..2.0)).collect();
    let ids = (0..n * config.text.context).map(|_| rng.gen_range(0..config.text.vocab_size) as f32).collect();
    (pixels, ids)
}

/// The message of what must fail.
pub fn refusal(folder: &Path) -> String {
    match flip::exchange::import(folder, &Default::default()) {
        Ok(imported) => panic!("imported as {:?}", imported.config),
        Err(error) => error.to_string(),
    }
}
