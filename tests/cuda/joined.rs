//! A model whose encoders are computed on a GPU, tape, gradients and optimizer being dfdx's: what runs on a GPU, with the
//! emulator in its place, which uses the memory of dfdx's Cpu.

use std::sync::Arc;

use dfdx::prelude::Cpu;
use flip::kernel::adamw::AdamW as Rule;
use flip::kernel::cuda::phase::Phase;
use flip::mask::ImageMask;
use flip::model::{fuse_on_gpu, Flip, Fusion, GraphDevice, ImageInput, ModelConfig, ModelError};
use flip::model::{OwnParts, Precision, Recompute, TextInput};
use flip::optimizer::{global_norm, AdamW, AdamWConfig};
use flip::parameter::Role;
use flip::ranks::{Alone, Owners, Parts, Ranks, RanksConfig, Together};

use crate::emulator::{sent, Emulator};
use crate::encoders::{case, composed, half, length, FEATURE, FLIP, GRADIENT, LOSS, OPEN_CLIP, ZERO};

/// The model of a recipe on the emulator; `None` where there is no C++ compiler.
fn joined(model: Flip<f32, Cpu>, recompute: Recompute) -> Option<Flip<f32, Cpu>> {
    match Emulator::counting() {
        Ok(emulator) => {
            let how = Fusion { recompute, ..Precision::Bf16.into() };
            Some(fuse_on_gpu(model, emulator, how).unwrap())
        }
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

/// Micro-batches of these sizes.
fn cases(
    config: &ModelConfig,
    sizes: &[usize],
    grid: usize,
    mask: &ImageMask,
) -> (Vec<ImageInput>, Vec<TextInput>) {
    sizes.iter().map(|&size| case(config, size, grid, mask.clone())).unzip()
}

fn compare(recipe: &str, sizes: &[usize], grid: usize, mask: ImageMask, recompute: Recompute) {
    let config: ModelConfig = ron::from_str(recipe).unwrap();
    let (images, texts) = cases(&config, sizes, grid, &mask);
    let oracle = composed(&config);
    let Some(model) = joined(composed(&config), recompute) else { return };
    for (image, text) in images.iter().zip(&texts) {
        let ours = [model.embed_images(image).unwrap(), model.embed_texts(text).unwrap()].concat();
        let theirs = [oracle.embed_images(image).unwrap(), oracle.embed_texts(text).unwrap()].concat();
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= FEATURE));
    }
    let theirs = oracle.loss_and_gradients(&images, &texts).unwrap();
    let mut most = 0.0f64;
    // Twice: the second pass uses the arenas of the first.
    for _ in 0..2 {
        let ours = model.loss_and_gradients(&images, &texts).unwrap();
        assert!((ours.loss - theirs.loss).abs() <= LOSS, "loss {} for {}", ours.loss, theirs.loss);
        for (place, a) in model.parameters().iter().enumerate() {
            let (of_ours, wanted) =
                (ours.gradients.read(place).unwrap(), theirs.gradients.read(place).unwrap());
            let apart = length(of_ours.iter().zip(&wanted).map(|(&x, &y)| f64::from(x - y)));
            let norm = length(wanted.iter().map(|&x| f64::from(x)));
            let keys = a.name.ends_with("qkv.bias");
            let allowed = GRADIENT * norm + if keys { ZERO * (wanted.len() as f64).sqrt() } else { 0.0 };
            assert!(apart <= allowed, "{} of {sizes:?}: {apart:e} apart, length {norm:e}", a.name);
            if !keys {
                most = most.max(apart / norm);
            }
        }
    }
    println!("{sizes:?}: gradients off by {most:.1e}");
}

#[test]
fn the_model_is_that_of_the_graph() {
    compare(FLIP, &[4], 4, half(), Recompute::None);
    compare(FLIP, &[2, 3], 4, half(), Recompute::Blocks);
    compare(OPEN_CLIP, &[4], 4, half(), Recompute::Blocks);
    compare(OPEN_CLIP, &[2, 2, 1], 3, ImageMask::Keep, Recompute::None);
}

/// After updates the copies that kernels read are those of the masters, and so they are after weights from elsewhere.
#[test]
fn kernels_read_what_the_masters_are() {
    let config: ModelConfig = ron::from_str(OPEN_CLIP).unwrap();
    let (images, texts) = cases(&config, &[3], 4, &half());
    let Some(mut model) = joined(composed(&config), Recompute::None) else { return };
    let before = model.embed_images(&images[0]).unwrap();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    for _ in 0..2 {
        let step = model.loss_and_gradients(&images, &texts).unwrap();
        optimizer.update(&mut model, step.gradients, 1e-2, 0.5).unwrap();
    }
    let embed = |model: &Flip<f32, Cpu>| {
        [model.embed_images(&images[0]).unwrap(), model.embed_texts(&texts[0]).unwrap()].concat()
    };
    let mut fresh = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 99).unwrap();
    fresh.import(&model.export().unwrap()).unwrap();
    let mut fresh = joined(fresh, Recompute::None).unwrap();
    assert_ne!(model.embed_images(&images[0]).unwrap(), before);
    assert!(embed(&model) == embed(&fresh));
    fresh.import(&composed(&config).export().unwrap()).unwrap();
    assert_eq!(fresh.embed_images(&images[0]).unwrap(), before);
}

/// Three steps of two micro-batches; where `announced`, each travels while the one before it is computed.
fn steps(model: &mut Flip<f32, Cpu>, announced: bool) -> ((Vec<u64>, Vec<f32>), [usize; 2]) {
    let (config, before) = (model.config().clone(), sent());
    let inputs: Vec<_> = [4, 5, 3]
        .into_iter()
        .map(|size| {
            let (images, texts) = cases(&config, &[size, 2], 4, &half());
            (Arc::new(vec![images]), texts)
        })
        .collect();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mut losses = Vec::new();
    for (k, (images, texts)) in inputs.iter().enumerate() {
        if announced {
            model.prefetch(images, inputs.get(k + 1).map(|(next, _)| next));
        }
        let step = model.loss_and_gradients(&images[0], texts).unwrap();
        losses.push(step.loss.to_bits());
        optimizer.update(model, step.gradients, 1e-2, 1.0).unwrap();
        if k == 1 {
            // Others come between: those that were announced have to make room.
            losses.push(model.embed_images(&inputs[0].0[0][0]).unwrap()[0].to_bits().into());
        }
    }
    let after = sent();
    let sent = [after[0] - before[0], after[1] - before[1]];
    ((losses, model.embed_images(&inputs[1].0[0][1]).unwrap()), sent)
}

/// The emulator lets nothing arrive before something waits for it, and refuses to overwrite what may be in use.
#[test]
fn images_that_come_ahead_change_nothing() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let Some(mut with) = joined(composed(&config), Recompute::None) else { return };
    let mut without = joined(composed(&config), Recompute::None).unwrap();
    assert!(with.prefetches() && !composed(&config).prefetches());
    let (wanted, [all, none]) = steps(&mut without, false);
    let (got, [rest, ahead]) = steps(&mut with, true);
    assert!(got == wanted);
    // Of two passes over two micro-batches in each of three steps, all but the very first travel beside. The first three pairs
    // of the third step do so in vain, and once more.
    let image = 8 * config.image.patch_values();
    assert_eq!((none, ahead), (0, (2 * (6 + 7 + 5) - 4) * image));
    assert_eq!(all - rest, ahead - 3 * image);
}

#[test]
fn every_phase_of_a_step_is_marked_once_and_in_order() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = cases(&config, &[3], 4, &half());
    let Some(mut model) = joined(composed(&config), Recompute::None) else { return };
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    // Nothing is kept before the first lap.
    model.embed_images(&images[0]).unwrap();
    assert_eq!(model.lap().unwrap(), []);
    let mut laps = Vec::new();
    for _ in 0..2 {
        let step = model.loss_and_gradients(&images, &texts).unwrap();
        global_norm(&model, &step.gradients).unwrap();
        optimizer.update(&mut model, step.gradients, 1e-3, 1.0).unwrap();
        laps.push(model.lap().unwrap().into_iter().map(|(phase, _)| phase).collect::<Vec<_>>());
    }
    let mut once = laps[0].clone();
    once.dedup();
    once.sort();
    // The text encoder's copies were made in this step; an update leaves the copies up to date.
    assert_eq!(once, Phase::ALL, "{laps:?}");
    assert_eq!(laps[1], Phase::ALL[1..], "{laps:?}");
}

/// Every parameter moves as the formula says, for the gradients there are; and the norm is theirs.
#[test]
fn updates_follow_the_formula() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let (images, texts) = cases(&config, &[3], 4, &half());
    let Some(mut model) = joined(composed(&config), Recompute::None) else { return };
    let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = AdamWConfig::default();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mut wanted: Vec<[Vec<f64>; 3]> = Vec::new();
    for t in 1..=3 {
        let step = model.loss_and_gradients(&images, &texts).unwrap();
        let gradients: Vec<Vec<f32>> =
            (0..model.parameters().len()).map(|place| step.gradients.read(place).unwrap()).collect();
        let norm = global_norm(&model, &step.gradients).unwrap();
        let want = length(gradients.iter().flatten().map(|&g| f64::from(g)));
        assert!((norm - want).abs() <= 1e-5 * want, "{norm} for {want}");
        let (lr, factor) = (1e-3 * t as f64, 0.5);
        for (i, parameter) in model.parameters().iter().enumerate() {
            if t == 1 {
                let values = model.masters().read(i).unwrap();
                let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                wanted.push([values.clone(), vec![0.0; values.len()], vec![0.0; values.len()]]);
            }
            let decay = if parameter.role.decays() { weight_decay } else { 0.0 };
            let rule = Rule { lr, beta1, beta2, eps, decay, t, gradient: factor };
            let [p, m, v] = &mut wanted[i];
            for (j, &g) in gradients[i].iter().enumerate() {
                rule.reference(&mut p[j], &mut m[j], &mut v[j], f64::from(g));
            }
        }
        optimizer.update(&mut model, step.gradients, lr, factor).unwrap();
    }
    for ((place, parameter), [want, ..]) in model.parameters().iter().enumerate().zip(&wanted) {
        let got = model.masters().read(place).unwrap();
        let most = got.iter().zip(want).fold(0.0f64, |most, (&a, b)| most.max((f64::from(a) - b).abs()));
        assert!(most <= 2e-6, "{}: {most:e} apart", parameter.name);
    }
}

#[test]
fn what_has_no_kernels_is_refused() {
    let Ok(emulator) = Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let error = fuse_on_gpu(composed(&config), emulator, Precision::F32.into()).unwrap_err();
    assert_eq!(error, ModelError::FusedF32OnGpu);
    let mut odd = config.clone();
    odd.embed_dim = 13;
    let model = Flip::<f32, Cpu>::new(&Cpu::default(), &odd, 1).unwrap();
    let error = fuse_on_gpu(model, Emulator::counting().unwrap(), Precision::Bf16.into()).unwrap_err();
    assert!(matches!(error, ModelError::NoGpuKernels(_)), "{error}");
    // The processor's own fused encoders take both.
    assert!(Cpu::fuse(composed(&config), Precision::F32.into()).is_ok());
}

/// Losses of two updates and then an image's embedding, of two parts on one rank or on two with masters on one each.
fn trained(ranks: &dyn Ranks, config: &ModelConfig) -> Option<(Vec<u64>, Vec<f32>)> {
    let (images, texts) = cases(config, &[3, 3], 4, &half());
    let (images, texts): (Vec<_>, Vec<_>) =
        images.into_iter().zip(texts).map(|(i, t)| (vec![i], vec![t])).unzip();
    let mut model = joined(composed(config), Recompute::None)?;
    let in_two = RanksConfig { parts: std::num::NonZeroUsize::new(2), ..RanksConfig::default() };
    let parts = Parts::of(&in_two, 6, 1, ranks).unwrap();
    let lengths: Vec<usize> = model.parameters().iter().map(|parameter| parameter.len()).collect();
    let owners = (ranks.count() > 1).then(|| Owners::of(&lengths, ranks.count()));
    if let Some(owners) = &owners {
        model.shard(ranks, owners).unwrap();
        let elsewhere = |(place, _): &(usize, _)| !model.masters().holds(*place);
        let elsewhere: Vec<_> = model.parameters().iter().enumerate().filter(elsewhere).collect();
        assert!(!elsewhere.is_empty());
        assert!(elsewhere.iter().all(|(_, parameter)| parameter.role == Role::Weight));
    }
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mut losses = Vec::new();
    for _ in 0..2 {
        let own = parts.own();
        let own = OwnParts {
            images: &images[own.clone()],
            texts: &texts[own],
            owners: owners.as_ref(),
            keep: true,
        };
        let step = model.loss_and_gradients_in_parts(ranks, &parts, own).unwrap();
        losses.push(step.loss.to_bits());
        match &owners {
            None => optimizer.update(&mut model, step.gradients, 1e-2, 1.0).unwrap(),
            Some(owners) => {
                optimizer.update_sharded(ranks, owners, &mut model, step.gradients, 1e-2, 1.0).unwrap()
            }
        }
    }
    Some((losses, model.embed_images(&images[0][0]).unwrap()))
}

#[test]
fn masters_on_one_rank_each_train_as_whole_ones_do() {
    let config: ModelConfig = ron::from_str(FLIP).unwrap();
    let Some(whole) = trained(&Alone::default(), &config) else { return };
    assert_ne!(whole.0[0], whole.0[1]);
    std::thread::scope(|scope| {
        let ranks = Together::of(2);
        let config = &config;
        let threads: Vec<_> =
            ranks.into_iter().map(|ranks| scope.spawn(move || trained(&ranks, config))).collect();
        for thread in threads {
            assert!(thread.join().unwrap().as_ref() == Some(&whole));
        }
    });
}
