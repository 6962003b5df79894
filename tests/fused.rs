//! The fused encoders and loss against the composed graph, their twin: embeddings, loss, every gradient, on both
//! architectures, masks, smaller images and micro-batches.

use std::num::NonZeroUsize;

use dfdx::prelude::*;
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{
    arena_bytes, Flip, Fusion, GraphDevice, ImageInput, ModelConfig, PatchValues, Precision, Recompute,
    TextInput,
};
use flip::optimizer::{clip_factor, global_norm, AdamW, AdamWConfig};
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
    for place in 0..flip.parameters().len() {
        let mut values = flip.masters().read(place).unwrap();
        values.iter_mut().for_each(|value| *value += rng.gen_range(-0.05..0.05));
        flip.masters_mut().write(place, &values).unwrap();
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
        for (place, a) in fused.parameters().iter().enumerate() {
            let of_fused = ours.gradients.read(place).unwrap();
            let of_composed = theirs.gradients.read(place).unwrap();
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
fn the_last_token_stands_for_a_caption() {
    let recipe = OPEN_CLIP.replace("EndOfText", "Last");
    compare(&recipe, &[6], 4, half(), Precision::F32);
    compare(&recipe, &[3, 3], 4, half(), Precision::Bf16);
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
    fused.import(&other.export().unwrap()).unwrap();
    let after = fused.embed_images(&case.images[0]).unwrap();
    assert_ne!(before, after);
    let expected = other.embed_images(&case.images[0]).unwrap();
    assert!(after.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
}

/// A step of a model, and the model after the update that follows.
fn stepped(fusion: Fusion, case: &Case, config: &ModelConfig) -> (f64, Vec<Vec<f32>>, Vec<f32>) {
    let mut model = Cpu::fuse(composed(config), fusion).unwrap();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mut last = (0.0, Vec::new(), Vec::new());
    for _ in 0..3 {
        let step = model.loss_and_gradients(&case.images, &case.texts).unwrap();
        let of = |place: usize| step.gradients.read(place).unwrap();
        last = (step.loss, (0..model.parameters().len()).map(of).collect(), Vec::new());
        optimizer.update(&mut model, step.gradients, 1e-2, 0.5).unwrap();
    }
    last.2 = model.export().unwrap().into_iter().flat_map(|tensor| tensor.data).collect();
    last
}

#[test]
fn neither_threads_nor_recomputed_blocks_change_a_bit() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        for micro_batches in [&[6][..], &[3, 3, 2]] {
            let case = case(&config, micro_batches, 4, half());
            let fusion =
                |recompute, threads| Fusion { precision, recompute, threads: NonZeroUsize::new(threads) };
            let expected = stepped(fusion(Recompute::None, 1), &case, &config);
            assert!(expected == stepped(fusion(Recompute::None, 3), &case, &config));
            assert!(expected == stepped(fusion(Recompute::Blocks, 2), &case, &config));
        }
    }
}

#[test]
fn a_fused_update_is_the_composed_one() {
    let config: ModelConfig = ron::from_str(OPEN_CLIP).unwrap();
    let case = case(&config, &[6], 4, half());
    let mut models = [composed(&config), Cpu::fuse(composed(&config), Precision::F32.into()).unwrap()];
    let after = models.each_mut().map(|model| {
        let mut optimizer = AdamW::new(&AdamWConfig::default());
        for k in 0..4 {
            let step = model.loss_and_gradients(&case.images, &case.texts).unwrap();
            let norm = global_norm(model, &step.gradients).unwrap();
            let factor = clip_factor(norm, 0.5);
            assert!(factor < 1.0, "clipping takes part");
            optimizer.update(model, step.gradients, 1e-3 * k as f64, factor).unwrap();
        }
        let moments = optimizer.export(model.parameters()).unwrap();
        (model.export().unwrap(), moments)
    });
    for (a, b) in after[0].0.iter().zip(&after[1].0) {
        // Adam turns the rounding noise that is the gradient of key biases into whole steps.
        if !a.name.ends_with("qkv.bias") {
            let apart = a.data.iter().zip(&b.data).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart <= 1e-5, "{}: {apart:e} apart", a.name);
        }
    }
    for (a, b) in after[0].1.iter().zip(&after[1].1) {
        assert_eq!(a.name, b.name);
        let apart = length(a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a - b)));
        let norm = length(a.data.iter().map(|&a| f64::from(a)));
        assert!(apart <= 1e-4 * norm + 1e-6, "{}: {apart:e} apart, length {norm:e}", a.name);
    }
}

#[test]
fn arenas_are_as_large_as_was_said() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let case = case(&config, &[6], 4, half());
    for precision in [Precision::F32, Precision::Bf16] {
        for recompute in [Recompute::None, Recompute::Blocks] {
            let model = Cpu::fuse(composed(&config), Fusion { precision, recompute, threads: None }).unwrap();
            model.loss_and_gradients(&case.images, &case.texts).unwrap();
            let said = arena_bytes(&config, precision, recompute, 6, 8, config.text.context);
            assert_eq!(model.arena_bytes(), said);
        }
    }
}

/// Steps on a GPU, updates included, beside the same steps on the processor; says why where there is no GPU.
#[test]
fn steps_on_a_gpu_are_those_of_the_processor() {
    match flip::device::gpus() {
        Err(why) => println!("skipped: {why}"),
        #[cfg(not(feature = "cuda"))]
        Ok(gpus) => panic!("{gpus:?} without the feature `cuda`"),
        #[cfg(feature = "cuda")]
        Ok(gpus) => {
            println!("{}", gpus[0]);
            let device = dfdx::tensor::Cuda::default();
            for (recipe, micro_batches) in [(FLIP, &[6][..]), (OPEN_CLIP, &[6]), (OPEN_CLIP, &[3, 3, 2])] {
                // Heads and widths that there are kernels for.
                let recipe = recipe.replace("width: 24, depth: 3, heads: 3", "width: 48, depth: 3, heads: 3");
                let recipe = recipe.replace("width: 24", "width: 32").replace("width: 20", "width: 32");
                let recipe = recipe.replace("embed_dim: 13", "embed_dim: 16");
                let config: ModelConfig = ron::from_str(&recipe).unwrap();
                let case = case(&config, micro_batches, 4, half());
                let mut here = Cpu::fuse(composed(&config), Precision::Bf16.into()).unwrap();
                let mut there = Flip::<f32, dfdx::tensor::Cuda>::new(&device, &config, 0).unwrap();
                there.import(&here.export().unwrap()).unwrap();
                let mut there = dfdx::tensor::Cuda::fuse(there, Precision::Bf16.into()).unwrap();
                let case = [case];
                let wanted = losses(&mut here, &case, false);
                for (step, (a, b)) in losses(&mut there, &case, false).iter().zip(&wanted).enumerate() {
                    assert!((a - b).abs() <= 5e-2, "step {step} of {micro_batches:?}: {a} for {b}");
                }
                // Images that travel in the step before change nothing, to the last bit.
                let cases = [200, 300].map(|pairs| self::case(&config, &[pairs, 4], 4, half()));
                let again = || {
                    let mut model = Flip::<f32, dfdx::tensor::Cuda>::new(&device, &config, 0).unwrap();
                    model.import(&here.export().unwrap()).unwrap();
                    dfdx::tensor::Cuda::fuse(model, Precision::Bf16.into()).unwrap()
                };
                assert_eq!(losses(&mut again(), &cases, true), losses(&mut again(), &cases, false));
            }
        }
    }
}

/// The losses of four steps, on the cases in turn; where `ahead`, each is told of the images of the next.
#[cfg(feature = "cuda")]
fn losses<D: GraphDevice>(model: &mut Flip<f32, D>, cases: &[Case], ahead: bool) -> Vec<f64> {
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let images: Vec<_> = cases.iter().map(|case| std::sync::Arc::new(vec![case.images.clone()])).collect();
    let steps = (0..4).map(|k| {
        let (now, next) = (k % cases.len(), (k + 1) % cases.len());
        if ahead {
            model.prefetch(&images[now], Some(&images[next]));
        }
        let step = model.loss_and_gradients(&images[now][0], &cases[now].texts).unwrap();
        let norm = global_norm(model, &step.gradients).unwrap();
        optimizer.update(model, step.gradients, 1e-4, clip_factor(norm, 10.0)).unwrap();
        step.loss
    });
    steps.collect()
}

/// Towers of SigLIP, CLIPA and timm in small.
const SIGLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 24, depth: 2, heads: 3, positions: Learned, class_token: false, pool: Attention,
            projection: None, activation: GeluTanh),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 20, depth: 2, heads: 2, pool: Last,
           projection: Biased),
    embed_dim: 24,
)"#;

#[test]
fn attention_pools_without_a_class_token() {
    for grid in [4, 3] {
        compare(SIGLIP, &[6], grid, ImageMask::Keep, Precision::F32);
    }
    compare(SIGLIP, &[3, 3, 2], 4, half(), Precision::F32);
    let fixed = SIGLIP.replace("Learned", "SinCos").replace("projection: None", "projection: Biased");
    compare(&fixed, &[5], 4, half(), Precision::F32);
    compare(SIGLIP, &[6], 4, half(), Precision::Bf16);
}

#[test]
fn patches_are_pooled_before_the_norm_and_towers_have_no_class_token() {
    let clipa = OPEN_CLIP.replace("pool: ClassToken", "pool: Patches, projection: Biased");
    let clipa = clipa.replace("EndOfText", "Token(7)");
    compare(&clipa, &[6], 4, half(), Precision::F32);
    compare(&clipa, &[3, 3], 3, ImageMask::Keep, Precision::Bf16);
    let gap = OPEN_CLIP.replace("pool: ClassToken", "pool: Mean, class_token: false");
    compare(&gap, &[6], 4, half(), Precision::F32);
    compare(&gap, &[3, 2], 3, ImageMask::Keep, Precision::F32);
}
