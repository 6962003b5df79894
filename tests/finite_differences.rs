//! The composed graph against central differences in double precision: every parameter of a model, both
//! architectures, masked, with more than one micro-batch and at another image size.

use dfdx::prelude::Cpu;
use flip::mask::Kept;
use flip::model::{Flip, ImageInput, ModelConfig, PatchValues, TextInput};
use flip::seed::{rng, Purpose};
use rand::Rng;
use serde_json::json;

/// Distance between the two points of a difference is twice this.
const STEP: f64 = 1e-5;
/// A central difference is off by STEP^2 / 6 times the third derivative, some tens here, and by rounding, some
/// 1e-15 / STEP: both below 1e-9 for gradients of order 1.
const TOLERANCE: f64 = 1e-8;
/// Coordinates tried per parameter.
const TRIES: usize = 4;
const BATCH: usize = 3;

fn flip_config() -> ModelConfig {
    serde_json::from_value(json!({
        "image": { "size": 12, "patch": 4, "width": 8, "depth": 2, "heads": 2 },
        "text": { "tokenizer": { "WordPiece": "unused" }, "vocab_size": 11, "context": 5, "width": 6,
                  "depth": 1, "heads": 3 },
        "embed_dim": 5,
    }))
    .unwrap()
}

fn open_clip_config(activation: &str) -> ModelConfig {
    serde_json::from_value(json!({
        "image": { "size": 12, "patch": 4, "width": 6, "depth": 1, "heads": 2, "mlp_ratio": 2.5,
                   "positions": "Learned", "pre_norm": true, "pool": "ClassToken", "patch_bias": false,
                   "activation": activation, "norm_eps": 1e-5 },
        "text": { "tokenizer": { "ClipBpe": "unused" }, "vocab_size": 11, "context": 5, "width": 8,
                  "depth": 2, "heads": 2, "causal": true, "pool": "EndOfText", "activation": activation,
                  "norm_eps": 1e-5 },
        "embed_dim": 5, "normalisation": "MaxEps", "logit_scale": { "clip": "AfterUpdate" },
    }))
    .unwrap()
}

/// `kept` different positions of `of`, in random order, for every row.
fn kept(rng: &mut impl Rng, batch: usize, kept: usize, of: usize) -> Kept {
    let ids = (0..batch).flat_map(|_| rand::seq::index::sample(rng, of, kept).into_iter().map(|i| i as u32));
    Kept { ids: ids.collect(), batch, kept, of }
}

fn inputs(config: &ModelConfig, grid: usize, seed: u64) -> (ImageInput, TextInput) {
    let mut rng = rng(seed, Purpose::Bench, 0, 0);
    let patches = kept(&mut rng, BATCH, 3, grid * grid);
    let values = patches.ids.len() * config.image.patch_values();
    let values = (0..values).map(|_| rng.gen_range(-1.0..1.0)).collect();
    let tokens = kept(&mut rng, BATCH, 4, config.text.context);
    let ids = tokens.ids.iter().map(|_| rng.gen_range(0..config.text.vocab_size as u32)).collect();
    (
        ImageInput { patches: PatchValues::Floats(values), kept: patches, grid },
        TextInput { tokens: ids, kept: tokens },
    )
}

/// A model whose parameters are all random, so that no gradient vanishes by chance.
fn random_model(config: &ModelConfig, seed: u64) -> Flip<f64, Cpu> {
    let mut model = Flip::new(&Cpu::default(), config, seed).unwrap();
    let mut rng = rng(seed, Purpose::Bench, 1, 0);
    for (place, parameter) in model.parameters().to_vec().iter().enumerate() {
        let centre = if parameter.name.ends_with("scale") { 1.0 } else { 0.0 };
        let values: Vec<f32> = (0..parameter.len()).map(|_| centre + rng.gen_range(-0.5f32..0.5)).collect();
        model.masters_mut().write_f32(place, &values).unwrap();
    }
    model
}

fn check(config: &ModelConfig, micro_batches: usize, grid: usize) {
    let mut model = random_model(config, 7);
    let (images, texts): (Vec<_>, Vec<_>) =
        (0..micro_batches).map(|k| inputs(config, grid, k as u64)).unzip();
    let step = model.loss_and_gradients(&images, &texts).unwrap();
    let gradients: Vec<Vec<f64>> =
        (0..model.parameters().len()).map(|place| step.gradients.read(place).unwrap()).collect();

    let mut rng = rng(1, Purpose::Bench, 2, 0);
    let mut worst: (f64, String) = (0.0, String::new());
    for (p, gradient) in gradients.iter().enumerate() {
        let mut coordinates: Vec<usize> = (0..TRIES).map(|_| rng.gen_range(0..gradient.len())).collect();
        // A row of the token table may not occur; the coordinate of the largest gradient does.
        let largest = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()));
        coordinates.extend(largest);
        for i in coordinates {
            let mut loss_at = |offset: f64| {
                let before = model.masters().read(p).unwrap();
                let mut moved = before.clone();
                moved[i] += offset;
                model.masters_mut().write(p, &moved).unwrap();
                let loss = model.loss_and_gradients(&images, &texts).unwrap().loss;
                model.masters_mut().write(p, &before).unwrap();
                loss
            };
            let difference = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            let error = (difference - gradient[i]).abs() / (1.0 + gradient[i].abs());
            let name = &model.parameters()[p].name;
            if error >= worst.0 {
                worst = (error, format!("{name}[{i}]: {} for {difference}", gradient[i]));
            }
            assert!(error < TOLERANCE, "{name}[{i}]: {} for {difference}, error {error:.1e}", gradient[i]);
        }
    }
    println!("worst {}: error {:.1e}, {:.1} % of tolerance", worst.1, worst.0, 100.0 * worst.0 / TOLERANCE);
}

#[test]
fn flip_in_one_pass() {
    check(&flip_config(), 1, 3);
}

#[test]
fn flip_in_two_micro_batches() {
    check(&flip_config(), 2, 3);
}

#[test]
fn open_clip_with_exact_gelu() {
    check(&open_clip_config("GeluExact"), 1, 3);
}

#[test]
fn open_clip_with_quick_gelu_at_a_smaller_image() {
    check(&open_clip_config("QuickGelu"), 1, 2);
}

#[test]
fn mean_pooled_text() {
    let mut config = flip_config();
    config.text.pool = flip::model::TextPool::Mean;
    check(&config, 1, 3);
}
