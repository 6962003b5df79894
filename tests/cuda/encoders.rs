//! Whole encoders, the loss and the update on a machine against the composed graph and the encoders of the processor.

use std::sync::Arc;

use dfdx::prelude::Cpu;
use flip::kernel::cuda::Machine;
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{
    machine_bytes, machine_lacks, machine_rates, Flip, GraphDevice, ImageInput, MachineEncoders, ModelConfig,
    PatchValues, Precision, Recompute, TextInput,
};
use flip::parameter::{Flat, NamedTensor, Tower};
use flip::seed::{rng, Purpose};
use rand::Rng;

use crate::emulator::{sent, Emulator};
use crate::{down, each_machine, on_plain};

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

/// A tower's parameters with their gradients, in the memory of a machine.
struct Masters<M: Machine> {
    names: Vec<String>,
    values: Vec<M::Buffer<f32>>,
    gradients: Vec<M::Buffer<f32>>,
}

const TOWERS: [(Tower, &str); 2] = [(Tower::Image, "image."), (Tower::Text, "text.")];

impl<M: Machine> Masters<M> {
    fn new(machine: &M, all: &[NamedTensor], prefix: &str) -> Self {
        let own: Vec<_> = all.iter().filter(|tensor| tensor.name.starts_with(prefix)).collect();
        Masters {
            names: own.iter().map(|tensor| tensor.name.clone()).collect(),
            values: own.iter().map(|tensor| machine.upload(&tensor.data).unwrap()).collect(),
            gradients: own.iter().map(|tensor| machine.zeros(tensor.data.len()).unwrap()).collect(),
        }
    }

    fn load(&self, machine: &M, encoders: &mut MachineEncoders<M>, tower: Tower) {
        let copies = encoders.copies(tower);
        for (i, value) in self.values.iter().enumerate() {
            copies.load(machine, i, machine.view(value)).unwrap();
        }
    }
}

/// Embeddings, loss and the gradient of the scale of one step, the gradients left in `masters`.
fn step<M: Machine>(
    machine: &M,
    encoders: &mut MachineEncoders<M>,
    masters: &mut [Masters<M>; 2],
    (images, texts): (&ImageInput, &TextInput),
    width: usize,
    scale: f64,
) -> ([Vec<f32>; 2], f64) {
    let n = images.kept.batch * width;
    let zeros = || machine.zeros::<f32>(n).unwrap();
    let (mut z_images, mut z_texts, mut of_images, mut of_texts) = (zeros(), zeros(), zeros(), zeros());
    let to = machine.view_mut(&mut z_images);
    let image_pass = encoders.encode_images(machine, images, to, true).unwrap().unwrap();
    let to = machine.view_mut(&mut z_texts);
    let text_pass = encoders.encode_texts(machine, texts, to, true).unwrap().unwrap();
    let to = (machine.view_mut(&mut of_images), machine.view_mut(&mut of_texts));
    let z = (machine.view(&z_images), machine.view(&z_texts));
    let loss = encoders.loss.loss_and_gradients(machine, to, z, scale as f32, width).unwrap();
    let passes = [(image_pass, &of_images), (text_pass, &of_texts)];
    for (((tower, _), masters), (pass, of_z)) in TOWERS.into_iter().zip(masters).zip(passes) {
        let mut views: Vec<_> =
            masters.gradients.iter_mut().map(|gradient| machine.view_mut(gradient)).collect();
        encoders.send_back(machine, tower, pass, machine.view(of_z), &mut views).unwrap();
    }
    ([down(machine, &z_images), down(machine, &z_texts)], loss.loss)
}

pub fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn compare<M: Machine>(machine: &M, recipe: &str, batch: usize, grid: usize, mask: ImageMask) {
    let config: ModelConfig = ron::from_str(recipe).unwrap();
    assert_eq!(machine_lacks(&config), None);
    let (images, texts) = case(&config, batch, grid, mask);
    let oracle = composed(&config);
    let fused = Cpu::fuse(composed(&config), Precision::Bf16.into()).unwrap();
    let wanted = [oracle.embed_images(&images).unwrap(), oracle.embed_texts(&texts).unwrap()];
    let (one_image, one_text) = (std::slice::from_ref(&images), std::slice::from_ref(&texts));
    let theirs = oracle.loss_and_gradients(one_image, one_text).unwrap();
    let same = fused.loss_and_gradients(one_image, one_text).unwrap();
    let scale = oracle.logit_scale().exp();

    let all = oracle.export().unwrap();
    let mut runs = Vec::new();
    // Twice with one: the second pass has the arena of the first, and what is in it.
    for (recompute, passes) in [(Recompute::None, 1), (Recompute::Blocks, 2)] {
        let mut encoders = MachineEncoders::new(machine, &config, recompute).unwrap();
        let mut masters = TOWERS.map(|(_, prefix)| Masters::new(machine, &all, prefix));
        for ((tower, _), masters) in TOWERS.into_iter().zip(&masters) {
            masters.load(machine, &mut encoders, tower);
        }
        for _ in 1..passes {
            step(machine, &mut encoders, &mut masters, (&images, &texts), config.embed_dim, scale);
            masters = TOWERS.map(|(_, prefix)| Masters::new(machine, &all, prefix));
        }
        let input = (&images, &texts);
        let (z, loss) = step(machine, &mut encoders, &mut masters, input, config.embed_dim, scale);
        for (what, (z, wanted)) in ["image", "text"].into_iter().zip(z.iter().zip(&wanted)) {
            let most = z.iter().zip(wanted).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(most <= FEATURE, "{what} embeddings are off by {most:e}");
        }
        assert!((loss - theirs.loss).abs() <= LOSS, "loss {loss} for {}", theirs.loss);
        let mut gradients = Vec::new();
        for masters in &masters {
            for (name, gradient) in masters.names.iter().zip(&masters.gradients) {
                gradients.push((name.clone(), down(machine, gradient)));
            }
        }
        runs.push((z, loss, gradients));
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
    each_machine!(machine => { compare(machine, FLIP, 4, 4, half()) });
    on_plain!(machine => { compare(machine, FLIP, 3, 2, ImageMask::Keep) });
}

#[test]
fn open_clip_in_both_passes() {
    each_machine!(machine => { compare(machine, OPEN_CLIP, 4, 4, half()) });
    on_plain!(machine => { compare(machine, OPEN_CLIP, 3, 3, ImageMask::Keep) });
}

/// The norm of the gradients that a step leaves.
#[test]
fn the_norm_is_that_of_all_gradients() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = case(&config, 4, 4, half());
    let all = composed(&config).export().unwrap();
    each_machine!(machine => {
        let mut encoders = MachineEncoders::new(machine, &config, Recompute::None).unwrap();
        let mut masters = TOWERS.map(|(_, prefix)| Masters::new(machine, &all, prefix));
        for ((tower, _), masters) in TOWERS.into_iter().zip(&masters) {
            masters.load(machine, &mut encoders, tower);
        }
        step(machine, &mut encoders, &mut masters, (&images, &texts), config.embed_dim, 10.0);
        let views = masters.iter().flat_map(|of| of.gradients.iter().map(|gradient| machine.view(gradient)));
        let squares = encoders.update.sum_of_squares(machine, views).unwrap();
        let values = masters.iter().flat_map(|of| of.gradients.iter().flat_map(|g| down(machine, g)));
        let want: f64 = values.map(|g| f64::from(g).powi(2)).sum();
        assert!((squares - want).abs() <= 1e-5 * want, "{squares} for {want}");
    });
}

/// Gradients of a batch that is encoded in parts, each once more for its way back, are those of the batch at once.
#[test]
fn micro_batches_add_up() {
    let config: ModelConfig = ron::from_str(OPEN_CLIP).unwrap();
    let all = composed(&config).export().unwrap();
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
    each_machine!(machine => {
        let mut encoders = MachineEncoders::new(machine, &config, Recompute::None).unwrap();
        let [mut masters, mut again] =
            [0, 1].map(|_| TOWERS.map(|(_, prefix)| Masters::new(machine, &all, prefix)));
        for ((tower, _), masters) in TOWERS.into_iter().zip(&masters) {
            masters.load(machine, &mut encoders, tower);
        }
        let (z, _) = step(machine, &mut encoders, &mut masters, (&images, &texts), width, 10.0);
        let mut sides = Vec::new();
        for (tower, _) in TOWERS {
            let mut z = machine.zeros::<f32>(5 * width).unwrap();
            for (at, (image, text)) in [0, 2].into_iter().zip(&parts) {
                let mut to = machine.view_mut(&mut z);
                let to = to.part(at * width, image.kept.batch * width);
                let pass = match tower {
                    Tower::Image => encoders.encode_images(machine, image, to, false),
                    _ => encoders.encode_texts(machine, text, to, false),
                };
                assert!(pass.unwrap().is_none());
            }
            sides.push(z);
        }
        for (side, z) in sides.iter().zip(&z) {
            assert!(down(machine, side) == *z, "a row does not depend on those beside it");
        }
        let [mut of_images, mut of_texts] = [0, 1].map(|_| machine.zeros::<f32>(5 * width).unwrap());
        let to = (machine.view_mut(&mut of_images), machine.view_mut(&mut of_texts));
        let from = (machine.view(&sides[0]), machine.view(&sides[1]));
        encoders.loss.loss_and_gradients(machine, to, from, 10.0, width).unwrap();
        for ((tower, _), (masters, of_z)) in TOWERS.into_iter().zip(again.iter_mut().zip([&of_images, &of_texts])) {
            let mut views: Vec<_> = masters.gradients.iter_mut().map(|g| machine.view_mut(g)).collect();
            for (at, (image, text)) in [0, 2].into_iter().zip(&parts) {
                let n = image.kept.batch * width;
                let mut unused = machine.zeros::<f32>(n).unwrap();
                let to = machine.view_mut(&mut unused);
                let pass = match tower {
                    Tower::Image => encoders.encode_images(machine, image, to, true),
                    _ => encoders.encode_texts(machine, text, to, true),
                };
                let dz = machine.view(of_z).part(at * width, n);
                encoders.send_back(machine, tower, pass.unwrap().unwrap(), dz, &mut views).unwrap();
            }
        }
        for (whole, parts) in masters.iter().zip(&again) {
            for (name, (a, b)) in whole.names.iter().zip(whole.gradients.iter().zip(&parts.gradients)) {
                let (a, b) = (down(machine, a), down(machine, b));
                let apart = length(a.iter().zip(&b).map(|(a, b)| f64::from(a - b)));
                let norm = length(a.iter().map(|&a| f64::from(a)));
                // Only the order of sums in f32 differs.
                assert!(apart <= 1e-5 * norm + 1e-7, "{name}: {apart:e} apart, length {norm:e}");
            }
        }
    });
}

/// The second step takes no memory, and the arenas are as large as was said.
#[test]
fn memory_is_taken_once_and_as_much_as_was_said() {
    let machine = match Emulator::counting() {
        Ok(machine) => machine,
        Err(why) => return println!("skipped: {why}"),
    };
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = case(&config, 3, 4, half());
    let all = composed(&config).export().unwrap();
    for recompute in [Recompute::None, Recompute::Blocks] {
        let mut encoders = MachineEncoders::new(&machine, &config, recompute).unwrap();
        let mut masters = TOWERS.map(|(_, prefix)| Masters::new(&machine, &all, prefix));
        let mut took = Vec::new();
        for _ in 0..2 {
            let before = machine.taken();
            step(&machine, &mut encoders, &mut masters, (&images, &texts), config.embed_dim, 10.0);
            // What `step` itself takes: embeddings of both sides and their gradients.
            took.push(machine.taken() - before - 4);
        }
        assert!(took[0] > 0 && took[1] == 0, "{took:?} pieces");
        let said = machine_bytes(&config, recompute, (3, 3), 8, config.text.context);
        assert_eq!(encoders.arena_bytes(), said.arenas);
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
    let Ok(machine) = &Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let mut encoders = MachineEncoders::new(machine, &config, Recompute::None).unwrap();
    let masters = Masters::new(machine, &composed(&config).export().unwrap(), TOWERS[0].1);
    masters.load(machine, &mut encoders, Tower::Image);
    let [one, other] = [3, 5].map(|batch| Arc::new(case(&config, batch, 4, half()).0));
    let mut z = machine.zeros::<f32>(5 * config.embed_dim).unwrap();
    let mut encode = |encoders: &mut MachineEncoders<Emulator>, input: &ImageInput| {
        let before = sent()[0];
        let mut to = machine.view_mut(&mut z);
        let to = to.part(0, input.kept.batch * config.embed_dim);
        encoders.encode_images(machine, input, to, false).unwrap();
        (sent()[0] - before, down(machine, &z)[..input.kept.batch * config.embed_dim].to_vec())
    };
    let pixels = |input: &Arc<ImageInput>| Held(input.clone()).as_ref().len();
    let whole = [&one, &other].map(|input| encode(&mut encoders, input));
    encoders.send_ahead(machine, Arc::new(Held(one.clone()))).unwrap();
    // While some are on their way, no others can be.
    encoders.send_ahead(machine, Arc::new(Held(other.clone()))).unwrap();
    assert_eq!(sent()[1], pixels(&one));
    assert_eq!(encode(&mut encoders, &one), (whole[0].0 - pixels(&one), whole[0].1.clone()));
    assert!(encode(&mut encoders, &one) == whole[0], "they were read once");
    encoders.send_ahead(machine, Arc::new(Held(one.clone()))).unwrap();
    assert!(encode(&mut encoders, &other) == whole[1], "these were not sent");
    assert!(encode(&mut encoders, &one) == whole[0], "these had to make room");
    // The same bytes somewhere else are others.
    encoders.send_ahead(machine, Arc::new(Held(Arc::new(ImageInput::clone(&one))))).unwrap();
    assert!(encode(&mut encoders, &one) == whole[0]);
}

/// Every kernel that `flip bench` times can be launched at the sizes of a model.
#[test]
fn every_kernel_has_a_rate() {
    let Ok(machine) = &Emulator::counting() else { return println!("skipped: no C++ compiler") };
    for recipe in [FLIP, OPEN_CLIP] {
        let config: ModelConfig = ron::from_str(recipe).unwrap();
        let rates = machine_rates(machine, &config, (2, 8), 1000, |launch| launch().map(|()| 1e-3)).unwrap();
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
    assert_eq!(machine_lacks(&config), None);
    let masters = 16.0 * config.parameter_counts().total() as f64;
    for (recompute, pairs) in [(Recompute::None, 256), (Recompute::Blocks, 2048)] {
        let held = machine_bytes(&config, recompute, (65_536, pairs), 98, 32);
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
        machine_lacks(&config).unwrap_or_default()
    };
    assert_eq!(lacks(|_| ()), "");
    assert!(lacks(|config| config.image.heads = 4).starts_with("model.image needs heads of a width in"));
    assert!(lacks(|config| config.text.width = 36).contains("not 36"));
    assert!(lacks(|config| config.text.mlp_ratio = 2.1).contains("widths that 8 divides"));
    assert!(lacks(|config| config.embed_dim = 13).contains("multiple of 8, not 13"));
}
