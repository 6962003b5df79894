//! The fused encoders and loss against the composed graph, their twin: embeddings, loss, every gradient, on both
//! architectures, masks, smaller pictures and micro-batches.

use dfdx::prelude::*;
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{Flip, GraphDevice, ImageInput, ModelConfig, PatchValues, Precision, TextInput};
use flip::seed::{rng, Purpose};
use rand::Rng;

const FLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 24, depth: 3, heads: 3),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 20, depth: 2, heads: 2),
    embed_dim: 13,
)"#;

const OPEN_CLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 24, depth: 2, heads: 2, positions: Learned, pre_norm: true,
            pool: ClassToken, patch_bias: false, activation: GeluExact, norm_eps: 1e-5),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 20, depth: 2, heads: 2,
           causal: true, pool: EndOfText, activation: QuickGelu, norm_eps: 1e-5),
    embed_dim: 13,
    normalisation: MaxEps,
    logit_scale: (clip: AfterUpdate),
)"#;

/// Gradients of either may differ by this much, relative to the tensor's length.
const F32_GRADIENT: f64 = 1e-5;
/// The bfloat16 column of the fixtures.
const BF16_GRADIENT: f64 = 0.15;
/// Key biases have a gradient of zero; what is there is rounding.
const F32_ZERO: f64 = 1e-6;
const BF16_ZERO: f64 = 3e-3;

struct Case {
    images: Vec<ImageInput>,
    texts: Vec<TextInput>,
}

/// Pairs in micro-batches of these sizes, over a grid of `grid` patches a side.
fn case(config: &ModelConfig, micro_batches: &[usize], grid: usize, mask: ImageMask) -> Case {
    let mut rng = rng(7, Purpose::Bench, 0, 0);
    let context = config.text.context;
    let mut first = 0;
    let mut case = Case { images: Vec::new(), texts: Vec::new() };
    for &batch in micro_batches {
        let kept = mask.draw(grid, batch, 3, 5, first);
        first += batch as u64;
        let values = kept.ids.len() * config.image.patch.pow(2) * 3;
        let patches = PatchValues::Bytes((0..values).map(|_| rng.gen()).collect());
        case.images.push(ImageInput { patches, kept, grid });
        let tokens = (0..batch * context).map(|_| rng.gen_range(0..config.text.vocab_size as u32)).collect();
        case.texts.push(TextInput { tokens, kept: Kept::all(batch, context) });
    }
    case
}

fn composed(config: &ModelConfig) -> Flip<f32, Cpu> {
    let mut flip = Flip::new(&Cpu::default(), config, 11).unwrap();
    // Nothing stays zero or one: a forgotten bias or scale must show.
    let mut rng = rng(13, Purpose::Bench, 1, 0);
    for parameter in flip.parameters_mut() {
        let mut values = parameter.to_host().data;
        values.iter_mut().for_each(|value| *value += rng.gen_range(-0.05..0.05));
        parameter.set(&values);
    }
    flip
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn compare(recipe: &str, micro_batches: &[usize], grid: usize, mask: ImageMask, precision: Precision) {
    let config: ModelConfig = ron::from_str(recipe).unwrap();
    let case = case(&config, micro_batches, grid, mask);
    let oracle = composed(&config);
    let fused = Cpu::fuse(composed(&config), precision.into()).unwrap();
    let (relative, zero, feature, loss) = match precision {
        Precision::F32 => (F32_GRADIENT, F32_ZERO, 1e-5, 2e-5),
        Precision::Bf16 => (BF16_GRADIENT, BF16_ZERO, 2e-2, 5e-2),
    };
    let close = |what: &str, ours: &[f32], theirs: &[f32]| {
        assert_eq!(ours.len(), theirs.len());
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() <= feature, "{what}[{i}]: fused {a}, composed {b}");
        }
    };
    for (image, text) in case.images.iter().zip(&case.texts) {
        close("image", &fused.embed_images(image).unwrap(), &oracle.embed_images(image).unwrap());
        close("text", &fused.embed_texts(text).unwrap(), &oracle.embed_texts(text).unwrap());
    }
    let theirs = oracle.loss_and_gradients(&case.images, &case.texts).unwrap();
    // Twice: the second pass uses the arenas of the first.
    for _ in 0..2 {
        let ours = fused.loss_and_gradients(&case.images, &case.texts).unwrap();
        assert!((ours.loss - theirs.loss).abs() <= loss, "loss {} for {}", ours.loss, theirs.loss);
        for (a, b) in fused.parameters().into_iter().zip(oracle.parameters()) {
            let of_fused = ours.gradients.get(&a.master).as_vec();
            let of_composed = theirs.gradients.get(&b.master).as_vec();
            let pairs = || of_fused.iter().zip(&of_composed).map(|(&x, &y)| (f64::from(x), f64::from(y)));
            let (apart, norm) = (length(pairs().map(|(x, y)| x - y)), length(pairs().map(|(_, y)| y)));
            let most = if a.name.ends_with("qkv.bias") {
                relative * norm + zero * (of_composed.len() as f64).sqrt()
            } else {
                relative * norm
            };
            assert!(apart <= most, "{} of {micro_batches:?}: {apart:e} apart, length {norm:e}", a.name);
        }
    }
}

fn half() -> ImageMask {
    ImageMask::Random(Ratio::try_from(0.5).unwrap())
}

#[test]
fn flip_in_single_precision() {
    compare(FLIP, &[6], 4, ImageMask::Keep, Precision::F32);
    compare(FLIP, &[6], 4, half(), Precision::F32);
    compare(FLIP, &[7], 2, ImageMask::Keep, Precision::F32);
    compare(FLIP, &[3, 3, 2], 4, half(), Precision::F32);
}

#[test]
fn open_clip_in_single_precision() {
    compare(OPEN_CLIP, &[6], 4, ImageMask::Keep, Precision::F32);
    compare(OPEN_CLIP, &[5], 4, half(), Precision::F32);
    compare(OPEN_CLIP, &[5], 3, ImageMask::Keep, Precision::F32);
    compare(OPEN_CLIP, &[3, 3, 2], 4, half(), Precision::F32);
}

#[test]
fn both_in_bfloat16() {
    compare(FLIP, &[6], 4, half(), Precision::Bf16);
    compare(OPEN_CLIP, &[6], 4, half(), Precision::Bf16);
}

#[test]
fn weights_that_change_are_read_anew() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let case = case(&config, &[4], 4, half());
    let mut fused = Cpu::fuse(composed(&config), Precision::F32.into()).unwrap();
    let before = fused.embed_images(&case.images[0]).unwrap();
    let other = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 99).unwrap();
    fused.import(&other.export()).unwrap();
    let after = fused.embed_images(&case.images[0]).unwrap();
    assert_ne!(before, after);
    let expected = other.embed_images(&case.images[0]).unwrap();
    assert!(after.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
}
