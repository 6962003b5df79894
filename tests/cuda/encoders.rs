//! Whole encoders, the loss and the update on a GPU against the composed graph and the encoders of the processor.

use std::sync::Arc;

use dfdx::prelude::Cpu;
use flip::kernel::backend::{Backend, Memory, Size, Weights};
use flip::kernel::transformer::Gradients;
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{
    gpu_bytes, gpu_lacks, gpu_rates, sizes, Encoders, Flip, GraphDevice, ImageInput, ModelConfig,
    PatchValues, Precision, Recompute, TextInput,
};
use flip::parameter::{Flat, NamedTensor};
use flip::seed::{rng, Purpose};
use rand::Rng;

use crate::emulator::{sent, Emulator};
use crate::{down, each_gpu, on_plain};

pub const FLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 32, depth: 2, heads: 2),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 32, depth: 1, heads: 1),
    embed_dim: 24,
)"#;

pub const OPEN_CLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 32, depth: 2, heads: 2, positions: Learned, pre_norm: true,
            pool: ClassToken, patch_bias: false, activation: GeluExact, norm_eps: 1e-5),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 32, depth: 1, heads: 1,
           causal: true, pool: EndOfText, activation: QuickGelu, norm_eps: 1e-5),
    embed_dim: 24,
    normalisation: MaxEps,
    logit_scale: (clip: AfterUpdate),
)"#;

/// The bfloat16 column of the fixtures, as tests/fused.rs has it for the processor: embeddings, loss, gradients relative
/// to the tensor's length, and the gradient of key biases, which is zero but for rounding.
pub const FEATURE: f32 = 2e-2;
pub const LOSS: f64 = 5e-2;
pub const GRADIENT: f64 = 0.15;
pub const ZERO: f64 = 3e-3;

pub fn case(config: &ModelConfig, batch: usize, grid: usize, mask: ImageMask) -> (ImageInput, TextInput) {
    let mut rng = rng(7, Purpose::Bench, 0, 0);
    let kept = mask.draw(grid, batch, 3, 5, 0);
    let values = kept.ids.len() * config.image.patch.pow(2) * 3;
    let patches = PatchValues::Bytes((0..values).map(|_| rng.gen()).collect());
    let context = config.text.context;
    let tokens = (0..batch * context).map(|_| rng.gen_range(0..config.text.vocab_size as u32)).collect();
    (ImageInput { patches, kept, grid }, TextInput { tokens, kept: Kept::all(batch, context) })
}

pub fn composed(config: &ModelConfig) -> Flip<f32, Cpu> {
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

/// A model on a GPU: its parameters with their copies and gradients, and its encoders.
struct Model<B: Backend> {
    names: Vec<String>,
    sizes: Vec<Size>,
    masters: Vec<B::Buffer<f32>>,
    copies: Vec<Option<B::Copy>>,
    gradients: Vec<B::Buffer<f32>>,
    encoders: Encoders<B>,
}

impl<B: Backend> Model<B> {
    fn new(gpu: &B, of: &Flip<f32, Cpu>, recompute: Recompute) -> Self {
        let (parameters, all) = (of.parameters(), of.export().unwrap());
        let sizes = sizes(parameters);
        let copy = |(&size, tensor): (&Size, &NamedTensor)| {
            let mut copy = gpu.new_copy(size).unwrap()?;
            gpu.fill_copy_from_host(&mut copy, &tensor.data).unwrap();
            Some(copy)
        };
        Model {
            names: all.iter().map(|tensor| tensor.name.clone()).collect(),
            masters: all.iter().map(|tensor| gpu.upload(&tensor.data).unwrap()).collect(),
            copies: sizes.iter().zip(&all).map(copy).collect(),
            gradients: all.iter().map(|tensor| gpu.zeros(tensor.data.len()).unwrap()).collect(),
            encoders: Encoders::new(gpu, of.config(), parameters, recompute).unwrap(),
            sizes,
        }
    }

    /// Calls `run` with the encoders, the weights and the gradients.
    fn with<R>(
        &mut self,
        gpu: &B,
        run: impl FnOnce(&mut Encoders<B>, &Weights<B>, &mut Gradients) -> Result<R, B::Error>,
    ) -> R {
        let Model { sizes, masters, copies, gradients, encoders, .. } = self;
        let masters = masters.iter().map(|master| Some(gpu.view(master))).collect();
        let weights = Weights { backend: gpu, sizes, masters, copies };
        let views = gradients.iter_mut().map(|gradient| Some(gpu.view_mut(gradient))).collect();
        run(encoders, &weights, &mut Gradients(views)).unwrap()
    }

    fn clear(&mut self, gpu: &B) {
        self.gradients.iter_mut().for_each(|gradient| gpu.clear(gpu.view_mut(gradient)).unwrap());
    }

    /// Gradients of the encoders with their names.
    fn gradients(&self, gpu: &B) -> Vec<(String, Vec<f32>)> {
        let all = self.names.iter().zip(&self.gradients).filter(|(name, _)| *name != "logit_scale");
        all.map(|(name, gradient)| (name.clone(), gpu.download(gradient).unwrap())).collect()
    }
}

/// Embeddings and loss of one step, the gradients left in the model.
fn step<B: Backend>(
    gpu: &B,
    model: &mut Model<B>,
    (images, texts): (&ImageInput, &TextInput),
    width: usize,
    scale: f64,
) -> ([Vec<f32>; 2], f64) {
    let n = images.kept.batch * width;
    let zeros = || gpu.zeros::<f32>(n).unwrap();
    let (mut z_images, mut z_texts, mut dimages, mut dtexts) = (zeros(), zeros(), zeros(), zeros());
    let loss = model.with(gpu, |encoders, weights, gradients| {
        let image =
            encoders.encode_images(weights, images, gpu.view_mut(&mut z_images), true, None)?.unwrap();
        let text = encoders.encode_texts(weights, texts, gpu.view_mut(&mut z_texts), true)?.unwrap();
        let dz = [gpu.view_mut(&mut dimages), gpu.view_mut(&mut dtexts)];
        let z = [gpu.view(&z_images), gpu.view(&z_texts)];
        let loss = gpu.contrastive(&mut encoders.state, dz, z, scale as f32, width)?;
        encoders.backward(weights, image, gpu.view(&dimages), gradients)?;
        encoders.backward(weights, text, gpu.view(&dtexts), gradients)?;
        Ok(loss.loss)
    });
    ([gpu.download(&z_images).unwrap(), gpu.download(&z_texts).unwrap()], loss)
}

pub fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn compare<B: Backend>(gpu: &B, recipe: &str, batch: usize, grid: usize, mask: ImageMask) {
    let config: ModelConfig = ron::from_str(recipe).unwrap();
    assert_eq!(gpu_lacks(&config), None);
    let (images, texts) = case(&config, batch, grid, mask);
    let oracle = composed(&config);
    let fused = Cpu::fuse(composed(&config), Precision::Bf16.into()).unwrap();
    let wanted = [oracle.embed_images(&images).unwrap(), oracle.embed_texts(&texts).unwrap()];
    let (one_image, one_text) = (std::slice::from_ref(&images), std::slice::from_ref(&texts));
    let theirs = oracle.loss_and_gradients(one_image, one_text).unwrap();
    let same = fused.loss_and_gradients(one_image, one_text).unwrap();
    let scale = oracle.logit_scale().exp();

    let mut runs = Vec::new();
    // Twice with one: the second pass has the arena of the first, with its contents.
    for (recompute, passes) in [(Recompute::None, 1), (Recompute::Blocks, 2)] {
        let mut model = Model::new(gpu, &oracle, recompute);
        let mut last = None;
        for _ in 0..passes {
            model.clear(gpu);
            last = Some(step(gpu, &mut model, (&images, &texts), config.embed_dim, scale));
        }
        let (z, loss) = last.unwrap();
        for (what, (z, wanted)) in ["image", "text"].into_iter().zip(z.iter().zip(&wanted)) {
            let most = z.iter().zip(wanted).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(most <= FEATURE, "{what} embeddings are off by {most:e}");
        }
        assert!((loss - theirs.loss).abs() <= LOSS, "loss {loss} for {}", theirs.loss);
        runs.push((z, loss, model.gradients(gpu)));
    }
    assert!(
        runs[0] == runs[1],
        "neither blocks that are recomputed nor an arena that was used change anything"
    );

    let (mut from_graph, mut from_processor) = (0.0f64, 0.0f64);
    for (name, ours) in &runs[0].2 {
        let of = |model: &Flip<f32, Cpu>, gradients: &Flat<f32, Cpu>| -> Vec<f64> {
            let place = model.parameters().iter().position(|parameter| parameter.name == *name).unwrap();
            gradients.read(place).unwrap().into_iter().map(f64::from).collect()
        };
        for (most, wanted) in [
            (&mut from_graph, of(&oracle, &theirs.gradients)),
            (&mut from_processor, of(&fused, &same.gradients)),
        ] {
            // Where the class token is pooled, its position's gradient outweighs those of all patches.
            let class = if name == "image.positions" { config.image.width } else { 0 };
            let keys = name.ends_with("qkv.bias");
            for part in [0..class, class..ours.len()].into_iter().filter(|part| !part.is_empty()) {
                let (ours, wanted) = (&ours[part.clone()], &wanted[part]);
                let apart = length(ours.iter().zip(wanted).map(|(&a, b)| f64::from(a) - b));
                let norm = length(wanted.iter().copied());
                let allowed = GRADIENT * norm + if keys { ZERO * (wanted.len() as f64).sqrt() } else { 0.0 };
                assert!(apart <= allowed, "{name}: {apart:e} apart, length {norm:e}");
                if !keys {
                    *most = most.max(apart / norm);
                }
            }
        }
    }
    println!("gradients off by {from_graph:.1e} from the graph, {from_processor:.1e} from the processor");
}

pub fn half() -> ImageMask {
    ImageMask::Random(Ratio::try_from(0.5).unwrap())
}

#[test]
fn flip_in_both_passes() {
    each_gpu!(gpu => { compare(gpu, FLIP, 4, 4, half()) });
    on_plain!(gpu => { compare(gpu, FLIP, 3, 2, ImageMask::Keep) });
}

#[test]
fn open_clip_in_both_passes() {
    each_gpu!(gpu => { compare(gpu, OPEN_CLIP, 4, 4, half()) });
    on_plain!(gpu => { compare(gpu, OPEN_CLIP, 3, 3, ImageMask::Keep) });
}

/// The norm of the gradients that a step leaves.
#[test]
fn the_norm_is_that_of_all_gradients() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = case(&config, 4, 4, half());
    each_gpu!(gpu => {
        let mut model = Model::new(gpu, &composed(&config), Recompute::None);
        step(gpu, &mut model, (&images, &texts), config.embed_dim, 10.0);
        let views: Vec<_> = model.gradients.iter().map(|gradient| gpu.view(gradient)).collect();
        let squares = gpu.sum_of_squares(&mut model.encoders.state, &views).unwrap();
        let want: f64 = model.gradients(gpu).iter().flat_map(|(_, g)| g).map(|&g| f64::from(g).powi(2)).sum();
        assert!((squares - want).abs() <= 1e-5 * want, "{squares} for {want}");
    });
}

/// Gradients of a batch that is encoded in parts, each once more for its backward pass, are those of the batch at once.
#[test]
fn micro_batches_add_up() {
    let config: ModelConfig = ron::from_str(OPEN_CLIP).unwrap();
    let parts = [2, 3].map(|batch| case(&config, batch, 4, half()));
    let joined = |of: fn(&Kept) -> &Vec<u32>, kept: [&Kept; 2]| kept.map(|kept| of(kept).clone()).concat();
    let whole = |kept: [&Kept; 2]| Kept { ids: joined(|kept| &kept.ids, kept), batch: 5, ..kept[0].clone() };
    let bytes = parts.each_ref().map(|(image, _)| match &image.patches {
        PatchValues::Bytes(bytes) => bytes.clone(),
        PatchValues::Floats(_) => unreachable!("the cases are of bytes"),
    });
    let images = ImageInput {
        patches: PatchValues::Bytes(bytes.concat()),
        kept: whole([&parts[0].0.kept, &parts[1].0.kept]),
        grid: 4,
    };
    let texts = TextInput {
        tokens: parts.each_ref().map(|(_, text)| text.tokens.clone()).concat(),
        kept: whole([&parts[0].1.kept, &parts[1].1.kept]),
    };
    let width = config.embed_dim;
    each_gpu!(gpu => {
        let [mut whole, mut apart] = [0, 1].map(|_| Model::new(gpu, &composed(&config), Recompute::None));
        let (z, _) = step(gpu, &mut whole, (&images, &texts), width, 10.0);
        let [mut z_images, mut z_texts, mut dimages, mut dtexts, mut unused] =
            [0; 5].map(|_| gpu.zeros::<f32>(5 * width).unwrap());
        apart.with(gpu, |encoders, weights, _| {
            for (at, (image, text)) in [0, 2].into_iter().zip(&parts) {
                let rows = (at * width, image.kept.batch * width);
                let to = gpu.view_mut(&mut z_images).into_part(rows.0, rows.1);
                assert!(encoders.encode_images(weights, image, to, false, None)?.is_none());
                let to = gpu.view_mut(&mut z_texts).into_part(rows.0, rows.1);
                assert!(encoders.encode_texts(weights, text, to, false)?.is_none());
            }
            Ok(())
        });
        for (side, z) in [&z_images, &z_texts].into_iter().zip(&z) {
            assert!(down(gpu, side) == *z, "a row does not depend on those beside it");
        }
        apart.with(gpu, |encoders, weights, gradients| {
            let dz = [gpu.view_mut(&mut dimages), gpu.view_mut(&mut dtexts)];
            gpu.contrastive(&mut encoders.state, dz, [gpu.view(&z_images), gpu.view(&z_texts)], 10.0, width)?;
            for (at, (image, text)) in [0, 2].into_iter().zip(&parts) {
                let n = image.kept.batch * width;
                let to = gpu.view_mut(&mut unused).into_part(0, n);
                let pass = encoders.encode_images(weights, image, to, true, None)?.unwrap();
                encoders.backward(weights, pass, gpu.view(&dimages).part(at * width, n), gradients)?;
                let to = gpu.view_mut(&mut unused).into_part(0, n);
                let pass = encoders.encode_texts(weights, text, to, true)?.unwrap();
                encoders.backward(weights, pass, gpu.view(&dtexts).part(at * width, n), gradients)?;
            }
            Ok(())
        });
        for ((name, a), (_, b)) in whole.gradients(gpu).into_iter().zip(apart.gradients(gpu)) {
            let apart = length(a.iter().zip(&b).map(|(a, b)| f64::from(a - b)));
            let norm = length(a.iter().map(|&a| f64::from(a)));
            // Only the order of sums in f32 differs.
            assert!(apart <= 1e-5 * norm + 1e-7, "{name}: {apart:e} apart, length {norm:e}");
        }
    });
}

/// The second step takes no memory, and the arenas are as large as was said.
#[test]
fn memory_is_taken_once_and_as_much_as_was_said() {
    let gpu = match Emulator::counting() {
        Ok(gpu) => gpu,
        Err(why) => return println!("skipped: {why}"),
    };
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = case(&config, 3, 4, half());
    for recompute in [Recompute::None, Recompute::Blocks] {
        let mut model = Model::new(&gpu, &composed(&config), recompute);
        let mut took = Vec::new();
        for _ in 0..2 {
            let before = gpu.taken();
            step(&gpu, &mut model, (&images, &texts), config.embed_dim, 10.0);
            // What `step` itself takes: embeddings of both sides and their gradients.
            took.push(gpu.taken() - before - 4);
        }
        assert!(took[0] > 0 && took[1] == 0, "{took:?} pieces");
        let said = gpu_bytes(&config, recompute, (3, 3), 8, config.text.context);
        assert_eq!(model.encoders.arena_bytes(), said.arenas);
    }
}

/// Stored bytes of an image's patches.
struct Held(Arc<ImageInput>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match &self.0.patches {
            PatchValues::Bytes(bytes) => bytes,
            PatchValues::Floats(_) => unreachable!("the cases are of bytes"),
        }
    }
}

/// Images that were sent ahead are not sent again; others are, and nothing else changes.
#[test]
fn images_travel_once() {
    let Ok(gpu) = &Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let mut model = Model::new(gpu, &composed(&config), Recompute::None);
    let [one, other] = [3, 5].map(|batch| Arc::new(case(&config, batch, 4, half()).0));
    let mut z = gpu.zeros::<f32>(5 * config.embed_dim).unwrap();
    let mut encode = |model: &mut Model<Emulator>, input: &ImageInput| {
        let before = sent()[0];
        let n = input.kept.batch * config.embed_dim;
        model.with(gpu, |encoders, weights, _| {
            encoders.encode_images(weights, input, gpu.view_mut(&mut z).into_part(0, n), false, None)
        });
        (sent()[0] - before, down(gpu, &z)[..n].to_vec())
    };
    let pixels = |input: &Arc<ImageInput>| Held(input.clone()).as_ref().len();
    let whole = [&one, &other].map(|input| encode(&mut model, input));
    model.encoders.prefetch(gpu, Arc::new(Held(one.clone()))).unwrap();
    // While some are on their way, no others can be.
    model.encoders.prefetch(gpu, Arc::new(Held(other.clone()))).unwrap();
    assert_eq!(sent()[1], pixels(&one));
    assert_eq!(encode(&mut model, &one), (whole[0].0 - pixels(&one), whole[0].1.clone()));
    assert!(encode(&mut model, &one) == whole[0], "they were read once");
    model.encoders.prefetch(gpu, Arc::new(Held(one.clone()))).unwrap();
    assert!(encode(&mut model, &other) == whole[1], "these were not sent");
    assert!(encode(&mut model, &one) == whole[0], "these had to make room");
    // The same bytes somewhere else are others.
    model.encoders.prefetch(gpu, Arc::new(Held(Arc::new(ImageInput::clone(&one))))).unwrap();
    assert!(encode(&mut model, &one) == whole[0]);
}

/// Every kernel that `flip bench` times can be launched at the sizes of a model.
#[test]
fn every_kernel_has_a_rate() {
    let Ok(gpu) = &Emulator::counting() else { return println!("skipped: no C++ compiler") };
    for recipe in [FLIP, OPEN_CLIP] {
        let config: ModelConfig = ron::from_str(recipe).unwrap();
        let rates = gpu_rates(gpu, &config, (2, 8), 1000, |launch| launch().map(|()| 1e-3)).unwrap();
        assert!(rates.iter().all(|rate| rate.ms == 1.0 && rate.gb_per_s > 0.0), "{rates:?}");
        let of_products = rates.iter().filter(|rate| rate.tflop_per_s.is_some()).count();
        assert_eq!((rates.len(), of_products), (16, 8));
        // What AdamW reads and writes of 1,000 parameters in a millisecond.
        let adamw = rates.iter().find(|rate| rate.kernel == "adamw").unwrap();
        assert!((adamw.gb_per_s - 34e-3).abs() < 1e-9, "{adamw:?}");
    }
}

/// ViT-L/16 at the paper's batch of 65,536 and half of the patches, on one card of 80 GB: what is held all the time, and
/// the arenas of a micro-batch.
#[test]
fn the_papers_batch_fits_on_one_card() {
    let config: ModelConfig = ron::from_str(
        r#"(
            image: (size: 224, patch: 16, width: 1024, depth: 24, heads: 16),
            text: (tokenizer: Train((captions: 1)), vocab_size: 30523, context: 32, width: 768, depth: 12, heads: 12),
            embed_dim: 768,
        )"#,
    )
    .unwrap();
    assert_eq!(gpu_lacks(&config), None);
    let masters = 16.0 * config.parameter_counts().total() as f64;
    for (recompute, pairs) in [(Recompute::None, 256), (Recompute::Blocks, 2048)] {
        let held = gpu_bytes(&config, recompute, (65_536, pairs), 98, 32);
        let all = masters + (held.copies + held.arenas + held.loss) as f64;
        println!(
            "{recompute:?}, {pairs} pairs: {:.1} GB, of which arenas {:.1}, loss {:.1}",
            all / 1e9,
            held.arenas as f64 / 1e9,
            held.loss as f64 / 1e9
        );
        assert!(all < 75e9, "{held:?}");
    }
}

#[test]
fn sizes_without_a_kernel_are_named() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let lacks = |change: fn(&mut ModelConfig)| {
        let mut config = config.clone();
        change(&mut config);
        gpu_lacks(&config).unwrap_or_default()
    };
    assert_eq!(lacks(|_| ()), "");
    assert!(lacks(|config| config.image.heads = 4).starts_with("model.image needs heads of a width in"));
    assert!(lacks(|config| config.text.width = 36).contains("not 36"));
    assert!(lacks(|config| config.text.mlp_ratio = 2.1).contains("widths that 8 divides"));
    assert!(lacks(|config| config.embed_dim = 13).contains("multiple of 8, not 13"));
}

const SIGLIP: &str = r#"(
    image: (size: 32, patch: 8, width: 32, depth: 2, heads: 2, positions: Learned, class_token: false, pool: Attention,
            projection: None),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 32, depth: 1, heads: 1, pool: Last,
           projection: Biased),
    embed_dim: 32,
)"#;

#[test]
fn attention_pools_in_both_passes() {
    each_gpu!(gpu => { compare(gpu, SIGLIP, 4, 4, half()) });
    on_plain!(gpu => { compare(gpu, SIGLIP, 3, 3, ImageMask::Keep) });
}

#[test]
fn means_of_patches_and_towers_without_a_class_token_in_both_passes() {
    let clipa = OPEN_CLIP.replace("pool: ClassToken", "pool: Patches, projection: Biased");
    each_gpu!(gpu => { compare(gpu, &clipa, 4, 4, half()) });
    let gap = OPEN_CLIP.replace("pool: ClassToken", "pool: Mean, class_token: false");
    on_plain!(gpu => { compare(gpu, &gap, 3, 3, ImageMask::Keep) });
}
