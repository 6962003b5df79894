//! The model as its users see it.

use dfdx::prelude::*;
use rand::Rng;

use super::*;
use crate::mask::Kept;
use crate::optimizer::{AdamW, AdamWConfig};
use crate::parameter::NamedTensor;
use crate::seed::{rng, Purpose};

/// A model of a few thousand parameters; 9 patches, 6 tokens.
pub(super) fn tiny_config() -> ModelConfig {
    serde_json::from_value(serde_json::json!({
        "image": { "size": 12, "patch": 4, "width": 16, "depth": 2, "heads": 2 },
        "text": { "tokenizer": { "WordPiece": "unused" }, "vocab_size": 20, "context": 6, "width": 12,
                  "depth": 1, "heads": 3 },
        "embed_dim": 10,
    }))
    .unwrap()
}

fn tiny() -> Flip<f32, Cpu> {
    Flip::new(&Cpu::default(), &tiny_config(), 3).unwrap()
}

/// Random pairs with 4 of 9 patches and 5 of 6 tokens kept.
fn pairs(batch: usize, seed: u64) -> (ImageInput, TextInput) {
    let mut rng = rng(seed, Purpose::Bench, 0, 0);
    let mut kept = |kept: usize, of: usize| {
        let rows = (0..batch).flat_map(|_| rand::seq::index::sample(&mut rng, of, kept).into_iter());
        Kept { ids: rows.map(|id| id as u32).collect(), batch, kept, of }
    };
    let (patches, tokens) = (kept(4, 9), kept(5, 6));
    let bytes = (0..batch * 4 * 48).map(|_| rng.gen()).collect();
    let ids = (0..batch * 5).map(|_| rng.gen_range(0..20)).collect();
    (
        ImageInput { patches: PatchValues::Bytes(bytes), kept: patches, grid: 3 },
        TextInput { tokens: ids, kept: tokens },
    )
}

/// The rows of several inputs in one.
fn joined(parts: &[(ImageInput, TextInput)]) -> (ImageInput, TextInput) {
    let (mut images, mut texts) = parts[0].clone();
    let join = |kept: &mut Kept, more: &Kept| {
        kept.ids.extend(&more.ids);
        kept.batch += more.batch;
    };
    for (image, text) in &parts[1..] {
        if let (PatchValues::Bytes(all), PatchValues::Bytes(more)) = (&mut images.patches, &image.patches) {
            all.extend(more);
        }
        texts.tokens.extend(&text.tokens);
        join(&mut images.kept, &image.kept);
        join(&mut texts.kept, &text.kept);
    }
    (images, texts)
}

#[test]
fn micro_batches_have_the_gradient_of_the_full_batch() {
    let model = tiny();
    let parts = [pairs(3, 1), pairs(1, 2), pairs(4, 3)];
    let (images, texts) = joined(&parts);
    let at_once = model.loss_and_gradients(&[images], &[texts]).unwrap();
    let (images, texts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let cached = model.loss_and_gradients(&images, &texts).unwrap();
    assert!((at_once.loss - cached.loss).abs() < 1e-6);
    for (place, parameter) in model.parameters().iter().enumerate() {
        let expected = at_once.gradients.read(place).unwrap();
        let got = cached.gradients.read(place).unwrap();
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut expected.iter().zip(&got).map(|(a, b)| a - b));
        // Key biases have no gradient but rounding; hence the absolute part.
        assert!(error <= 2e-6 * norm(&mut expected.iter().copied()) + 1e-7, "{}: {error}", parameter.name);
    }
}

#[test]
fn the_loss_on_the_host_is_that_of_the_graph() {
    let model = tiny();
    let (images, texts) = pairs(7, 1);
    let (z_images, z_texts) = (model.embed_images(&images).unwrap(), model.embed_texts(&texts).unwrap());
    let on_host = model.contrastive_loss(&z_images, &z_texts, 7);
    let step = model.loss_and_gradients(&[images], &[texts]).unwrap();
    assert!((step.loss - on_host).abs() < 1e-6, "{} {on_host}", step.loss);
    assert_eq!(step.logit_scale, model.logit_scale());
}

#[test]
fn overfits_one_batch() {
    let mut model = tiny();
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let (images, texts) = pairs(8, 5);
    let mut losses = Vec::new();
    for _ in 0..60 {
        let step =
            model.loss_and_gradients(std::slice::from_ref(&images), std::slice::from_ref(&texts)).unwrap();
        optimizer.update(&mut model, step.gradients, 5e-3, 1.0).unwrap();
        losses.push(step.loss);
    }
    assert!(losses[0] > 1.5 && losses[59] < 0.02, "{losses:?}");
}

#[test]
fn the_order_in_which_tokens_were_kept_does_not_matter() {
    let mut config = tiny_config();
    config.text.causal = true;
    config.text.pool = TextPool::EndOfText;
    let model = Flip::<f64, Cpu>::new(&Cpu::default(), &config, 0).unwrap();
    let input = |order: [usize; 4]| {
        let (ids, tokens) = ([0, 2, 3, 5], [4, 9, 19, 1]);
        let kept = Kept { ids: order.map(|i| ids[i]).to_vec(), batch: 1, kept: 4, of: 6 };
        TextInput { tokens: order.map(|i| tokens[i]).to_vec(), kept }
    };
    let expected = model.embed_texts(&input([0, 1, 2, 3])).unwrap();
    let shuffled = model.embed_texts(&input([2, 0, 3, 1])).unwrap();
    assert!(expected.iter().zip(&shuffled).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn bytes_are_the_same_as_their_normalised_values() {
    let model = tiny();
    let (images, _) = pairs(2, 1);
    let floats = PatchValues::Floats(patch::normalised(&images.patches, &PixelNorm::IMAGENET));
    let same = ImageInput { patches: floats, ..images.clone() };
    assert_eq!(model.embed_images(&images), model.embed_images(&same));
}

#[test]
fn images_may_be_smaller_than_the_model_s() {
    for positions in [ImagePositions::SinCos, ImagePositions::Learned] {
        let mut config = tiny_config();
        config.image.positions = positions;
        let model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 0).unwrap();
        let bytes = (0..4 * 48).map(|i| i as u8).collect();
        let input = ImageInput { patches: PatchValues::Bytes(bytes), kept: Kept::all(1, 4), grid: 2 };
        let z = model.embed_images(&input).unwrap();
        assert!((z.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_scale_is_clipped_where_the_recipe_says() {
    let mut config = tiny_config();
    config.logit_scale.init = 6.0;
    let mut model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 0).unwrap();
    model.clip_logit_scale().unwrap();
    assert_eq!(model.logit_scale(), LOGIT_SCALE_RANGE[1]);
    assert_eq!(model.export().unwrap().last().unwrap().data, [6.0]);

    config.logit_scale.clip = LogitScaleClip::AfterUpdate;
    let mut model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 0).unwrap();
    assert_eq!(model.logit_scale(), 6.0);
    model.clip_logit_scale().unwrap();
    assert_eq!(model.export().unwrap().last().unwrap().data, [LOGIT_SCALE_RANGE[1] as f32]);
}

#[test]
fn a_softmax_leaves_the_logit_bias_alone() {
    let mut config = tiny_config();
    config.logit_bias = Some(-10.0);
    let plain = tiny();
    for fused in [false, true] {
        let mut models = [&config, plain.config()].map(|config| {
            let model = Flip::<f32, Cpu>::new(&Cpu::default(), config, 3).unwrap();
            if fused {
                Cpu::fuse(model, Precision::F32.into()).unwrap()
            } else {
                model
            }
        });
        let (images, texts) = pairs(8, 5);
        for model in &mut models {
            let mut optimizer = AdamW::new(&AdamWConfig::default());
            for _ in 0..3 {
                let (images, texts) = (std::slice::from_ref(&images), std::slice::from_ref(&texts));
                let step = model.loss_and_gradients(images, texts).unwrap();
                optimizer.update(model, step.gradients, 5e-3, 1.0).unwrap();
            }
        }
        let [with, without] = models;
        assert_eq!((with.logit_bias(), without.logit_bias()), (Some(-10.0), None));
        let mut tensors = with.export().unwrap();
        assert_eq!(tensors.pop().unwrap().name, "logit_bias");
        assert_eq!(tensors, without.export().unwrap());
    }
}

#[test]
fn weights_go_out_and_come_back() {
    let source = tiny();
    let mut other = Flip::<f32, Cpu>::new(&Cpu::default(), &tiny_config(), 99).unwrap();
    assert_ne!(source.export().unwrap(), other.export().unwrap());
    other.import(&source.export().unwrap()).unwrap();
    assert_eq!(source.export().unwrap(), other.export().unwrap());
}

#[test]
fn weights_that_do_not_fit_are_all_named_and_change_nothing() {
    let mut model = tiny();
    let before = model.export().unwrap();
    let mut tensors = before.clone();
    tensors.retain(|tensor| tensor.name != "image.blocks.1.mlp.up.bias");
    tensors.iter_mut().filter(|t| t.name == "text.projection").for_each(|t| t.shape = vec![10, 12]);
    tensors.push(NamedTensor { name: "head.weight".into(), shape: vec![1], data: vec![0.0] });
    let error = model.import(&tensors).unwrap_err();
    assert_eq!(
        error.to_string(),
        "these tensors are not those of the model that the recipe describes:\n\
         image.blocks.1.mlp.up.bias: missing\n\
         head.weight: expected no such tensor, or only one\n\
         text.projection: expected shape [12, 10], got [10, 12]"
    );
    assert_eq!(model.export().unwrap(), before);
}

#[test]
fn input_that_does_not_fit_is_refused_by_row() {
    let model = tiny();
    let (images, texts) = pairs(2, 1);
    let mut far = texts.clone();
    far.tokens[7] = 20;
    let message = model.embed_texts(&far).unwrap_err().to_string();
    assert_eq!(message, "text input: row 1: token id 20 is outside the vocabulary of 20 (text.vocab_size)");

    let mut short = images.clone();
    short.patches = PatchValues::Floats(vec![0.0; 5]);
    let message = model.embed_images(&short).unwrap_err().to_string();
    assert_eq!(message, "image input: expected 8 kept patches of 4 x 4 x 3 values, 384 in all, got 5");

    let mut outside = images.clone();
    outside.kept.ids[0] = 9;
    let message = model.embed_images(&outside).unwrap_err().to_string();
    assert_eq!(message, "image input: row 0: patch position 9 is outside 0..9");

    assert!(matches!(model.loss_and_gradients(&[images], &[]), Err(ModelError::Batches { .. })));
}
