//! A batch in parts, on one rank and on several: the same bits, the gradient of the whole batch, and as many bytes on the
//! way as the formulas say. Ranks are threads here; tests/mpi.rs has processes.

use dfdx::prelude::*;
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{Flip, GraphDevice, ImageInput, ModelConfig, OwnParts, PatchValues, Precision, TextInput};
use flip::optimizer::{AdamW, AdamWConfig};
use flip::parameter::{Flat, NamedTensor, Role};
use flip::ranks::{reduce, ring, Alone, Kind, Owners, Parts, Ranks, RanksConfig, Together};
use flip::seed::{rng, Purpose};
use rand::Rng;

const MODEL: &str = r#"(
    image: (size: 32, patch: 8, width: 24, depth: 2, heads: 3),
    text: (tokenizer: Train((captions: 1)), vocab_size: 50, context: 9, width: 20, depth: 2, heads: 2),
    embed_dim: 13,
)"#;

/// How encoders compute.
#[derive(Debug, Clone, Copy)]
enum How {
    Composed,
    Fused(Precision),
}

fn model(how: How) -> Flip<f32, Cpu> {
    let config: ModelConfig = ron::from_str(MODEL).unwrap();
    let flip = Flip::new(&Cpu::default(), &config, 11).unwrap();
    match how {
        How::Composed => flip,
        How::Fused(precision) => Cpu::fuse(flip, precision.into()).unwrap(),
    }
}

/// Pairs of each part, in micro-batches.
type Case = (Vec<Vec<ImageInput>>, Vec<Vec<TextInput>>);

fn case(config: &ModelConfig, parts: usize, micro_batches: &[usize]) -> Case {
    let mut rng = rng(7, Purpose::Bench, 0, 0);
    let context = config.text.context;
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    for part in 0..parts {
        let (mut of_part, mut captions) = (Vec::new(), Vec::new());
        for (unit, &batch) in micro_batches.iter().enumerate() {
            let mask = ImageMask::Random(Ratio::try_from(0.5).unwrap());
            let kept = mask.draw(4, batch, 3, 5, (part * 100 + unit * 10) as u64);
            let values = kept.ids.len() * config.image.patch.pow(2) * 3;
            let patches = PatchValues::Bytes((0..values).map(|_| rng.gen()).collect());
            of_part.push(ImageInput { patches, kept, grid: 4 });
            let tokens =
                (0..batch * context).map(|_| rng.gen_range(0..config.text.vocab_size as u32)).collect();
            captions.push(TextInput { tokens, kept: Kept::all(batch, context) });
        }
        images.push(of_part);
        texts.push(captions);
    }
    (images, texts)
}

/// Loss, and the bits of every gradient.
type Learned = (u64, Vec<Vec<u32>>);

fn learned(model: &Flip<f32, Cpu>, loss: f64, gradients: &Flat<f32, Cpu>) -> Learned {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    (
        loss.to_bits(),
        (0..model.parameters().len()).map(|place| bits(gradients.read(place).unwrap())).collect(),
    )
}

fn on(ranks: &dyn Ranks, how: How, (images, texts): &Case, batch: usize, keep: bool) -> Learned {
    let model = model(how);
    let config = RanksConfig { parts: std::num::NonZeroUsize::new(images.len()), ..Default::default() };
    let parts = Parts::of(&config, batch, 1, ranks).unwrap();
    let own = OwnParts { images: &images[parts.own()], texts: &texts[parts.own()], owners: None, keep };
    let step = model.loss_and_gradients_in_parts(ranks, &parts, own).unwrap();
    let width = model.config().embed_dim;
    if ranks.count() > 1 {
        // 4 (B - B / R) (4 d + 2) bytes, where each rank has as many pairs.
        let bounds = parts.bounds();
        let of = |width| ring::bytes_sent(&bounds, width, ranks.rank());
        assert_eq!(ranks.traffic().sent(Kind::Ring), 2 * of(width) + 2 * of(width + 1));
        if parts.count() == ranks.count() {
            let rows = (batch - batch / ranks.count()) as u64;
            assert_eq!(ranks.traffic().sent(Kind::Ring), 4 * rows * (4 * width as u64 + 2));
        }
        let mut towers = [0; 2];
        for parameter in model.parameters().iter().filter(|p| p.name != "logit_scale") {
            towers[usize::from(parameter.name.starts_with("text"))] += parameter.len();
        }
        let sum = |len: usize| reduce::bytes_sent(&parts, len, ranks.rank(), ranks.count());
        assert_eq!(ranks.traffic().sent(Kind::Exchange), towers.into_iter().map(sum).sum::<u64>());
    }
    learned(&model, step.loss, &step.gradients)
}

fn together(count: usize, how: How, case: &Case, batch: usize, keep: bool) -> Learned {
    let mut all: Vec<Learned> = std::thread::scope(|scope| {
        let threads: Vec<_> = Together::of(count)
            .into_iter()
            .map(|ranks| scope.spawn(move || on(&ranks, how, case, batch, keep)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "ranks disagree");
    all.swap_remove(0)
}

#[test]
fn any_number_of_ranks_computes_the_same_bits() {
    let config: ModelConfig = ron::from_str(MODEL).unwrap();
    for how in [How::Composed, How::Fused(Precision::F32), How::Fused(Precision::Bf16)] {
        for (parts, micro_batches) in [(4, vec![6]), (4, vec![2, 4]), (6, vec![3, 3])] {
            let rows: usize = micro_batches.iter().sum();
            let case = case(&config, parts, &micro_batches);
            let one = on(&Alone::default(), how, &case, parts * rows, true);
            let again = on(&Alone::default(), how, &case, parts * rows, false);
            assert!(one == again, "{how:?}: keeping activations changes the numbers");
            for ranks in 1..=parts {
                let keep = ranks % 2 == 0;
                let several = together(ranks, how, &case, parts * rows, keep);
                assert!(one == several, "{how:?}, {parts} parts of {micro_batches:?}, {ranks} ranks");
            }
        }
    }
}

/// Losses of three updates, then an image's embedding, and on rank 0 the weights.
type Trained = (Vec<u64>, Vec<f32>, Option<Vec<NamedTensor>>);

/// Trains with masters on one rank each, or in one process with all of them.
fn trained(ranks: &dyn Ranks, (images, texts): &Case) -> Trained {
    let mut model = model(How::Fused(Precision::Bf16));
    let config = RanksConfig { parts: std::num::NonZeroUsize::new(images.len()), ..Default::default() };
    let parts = Parts::of(&config, images.len() * 6, 1, ranks).unwrap();
    let lengths: Vec<usize> = model.parameters().iter().map(|parameter| parameter.len()).collect();
    let owners = Owners::of(&lengths, ranks.count());
    let shared = ranks.count() > 1;
    if shared {
        model.shard(ranks, &owners).unwrap();
    }
    let owned = |place: usize| owners.owner(place) == ranks.rank();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mut losses = Vec::new();
    for _ in 0..3 {
        let (own, of_ranks) = (parts.own(), shared.then_some(&owners));
        let own = OwnParts { images: &images[own.clone()], texts: &texts[own], owners: of_ranks, keep: true };
        let step = model.loss_and_gradients_in_parts(ranks, &parts, own).unwrap();
        losses.push(step.loss.to_bits());
        let before = ranks.traffic().sent(Kind::Broadcast);
        if !shared {
            optimizer.update(&mut model, step.gradients, 1e-2, 1.0).unwrap();
            continue;
        }
        optimizer.update_sharded(ranks, &owners, &mut model, step.gradients, 1e-2, 1.0).unwrap();
        let mut sent = 0;
        for (place, parameter) in model.parameters().iter().enumerate() {
            let weight = parameter.role == Role::Weight;
            assert_eq!(!model.masters().holds(place), weight && !owned(place), "{}", parameter.name);
            if owned(place) {
                // Weights go round in halves of words.
                let words = if weight { parameter.len().div_ceil(2) } else { parameter.len() };
                sent += 4 * words * (ranks.count() - 1);
            }
        }
        assert_eq!(ranks.traffic().sent(Kind::Broadcast) - before, sent as u64);
    }
    let embedded = model.embed_images(&images[0][0]).unwrap();
    let mut weights = Vec::new();
    for (place, parameter) in model.parameters().iter().enumerate() {
        let (name, shape) = parameter.outline();
        let mut see = |values: &[f32]| {
            weights.push(NamedTensor { name: name.clone(), shape: shape.clone(), data: values.to_vec() });
        };
        model.show_first(ranks, Some(&owners), place, &mut see).unwrap();
    }
    if !shared {
        assert_eq!(weights, model.export().unwrap());
    }
    (losses, embedded, (ranks.rank() == 0).then_some(weights))
}

#[test]
fn masters_on_one_rank_each_train_as_whole_ones_do() {
    let config: ModelConfig = ron::from_str(MODEL).unwrap();
    let case = &case(&config, 4, &[6]);
    let whole = trained(&Alone::default(), case);
    assert_ne!(whole.0[0], whole.0[2]);
    for count in 2..=4 {
        std::thread::scope(|scope| {
            let ranks = Together::of(count);
            let threads: Vec<_> =
                ranks.into_iter().map(|ranks| scope.spawn(move || trained(&ranks, case))).collect();
            for (rank, thread) in threads.into_iter().enumerate() {
                let (losses, embedded, weights) = thread.join().unwrap();
                assert_eq!((&losses, &embedded), (&whole.0, &whole.1), "rank {rank} of {count}");
                assert_eq!(weights.is_some(), rank == 0);
                assert!(weights.is_none_or(|weights| Some(weights) == whole.2), "weights of {count} ranks");
            }
        });
    }
}

#[test]
fn masters_that_products_read_are_not_given_up() {
    let mut model = model(How::Fused(Precision::F32));
    let ranks = &Together::of(2)[0];
    let error = model.shard(ranks, &Owners::of(&[1, 1], 2)).unwrap_err().to_string();
    assert!(error.contains("precision: Bf16"), "{error}");
}

#[test]
fn parts_have_the_gradient_of_the_whole_batch() {
    let config: ModelConfig = ron::from_str(MODEL).unwrap();
    let how = How::Fused(Precision::F32);
    let case = case(&config, 4, &[6]);
    let (loss, gradients) = together(3, how, &case, 24, true);
    let model = model(how);
    let (images, texts): (Vec<_>, Vec<_>) = (case.0.concat(), case.1.concat());
    let whole = model.loss_and_gradients(&images, &texts).unwrap();
    assert!((f64::from_bits(loss) - whole.loss).abs() < 1e-6, "{} for {}", f64::from_bits(loss), whole.loss);
    for ((place, parameter), bits) in model.parameters().iter().enumerate().zip(gradients) {
        let expected = whole.gradients.read(place).unwrap();
        let length = expected.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let apart = expected.iter().zip(bits).map(|(a, b)| f64::from(a - f32::from_bits(b)).powi(2));
        let apart = apart.sum::<f64>().sqrt();
        assert!(apart <= 1e-5 * length + 1e-7, "{}: {apart} of {length}", parameter.name);
    }
}

#[test]
fn a_row_of_fused_encoders_does_not_depend_on_the_rows_beside_it() {
    let config: ModelConfig = ron::from_str(MODEL).unwrap();
    let (images, texts) = case(&config, 1, &[37]);
    let (image, text) = (&images[0][0], &texts[0][0]);
    for precision in [Precision::F32, Precision::Bf16] {
        let model = model(How::Fused(precision));
        let (z_image, z_text) = (model.embed_images(image).unwrap(), model.embed_texts(text).unwrap());
        for rows in [0..1, 0..20, 5..37, 36..37] {
            let cut = |kept: &Kept| {
                let ids = kept.ids[rows.start * kept.kept..rows.end * kept.kept].to_vec();
                Kept { ids, batch: rows.len(), ..kept.clone() }
            };
            let PatchValues::Bytes(bytes) = &image.patches else { panic!("bytes were given") };
            let row = bytes.len() / 37;
            let patches = PatchValues::Bytes(bytes[rows.start * row..rows.end * row].to_vec());
            let some = ImageInput { patches, kept: cut(&image.kept), grid: image.grid };
            let z = &z_image[rows.start * config.embed_dim..rows.end * config.embed_dim];
            assert!(model.embed_images(&some).unwrap() == z, "{precision:?}: images {rows:?}");
            let tokens = text.tokens.len() / 37;
            let tokens = text.tokens[rows.start * tokens..rows.end * tokens].to_vec();
            let some = TextInput { tokens, kept: cut(&text.kept) };
            let z = &z_text[rows.start * config.embed_dim..rows.end * config.embed_dim];
            assert!(model.embed_texts(&some).unwrap() == z, "{precision:?}: captions {rows:?}");
        }
    }
}
