//! The held-out loss.

use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::{held_out_loss, metric, naive_dot, whole_numbers, World};

#[test]
fn held_out_loss_is_the_official_one() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fixtures/flip_jax_tiny/expected.safetensors");
    let bytes = std::fs::read(&path).expect("the fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let floats = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).expect(name).data();
        data.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
    };
    let mut world = World::new(24);
    let (z_img, z_txt) = (floats("eval/z_img"), floats("eval/z_txt"));
    for (pair, (image, text)) in z_img.chunks(24).zip(z_txt.chunks(24)).enumerate() {
        world.images.push((image.to_vec(), vec![pair.to_string()], None));
        world.texts.insert(pair.to_string(), text.to_vec());
    }
    let scale = 1.0 / f64::from(floats("eval/tau")[0]);
    let result = world.evaluate(&held_out_loss(6), &[], 4, scale).expect("a result");
    let (loss, official) = (metric(&result, "loss"), f64::from(floats("eval/loss")[0]));
    assert!((loss - official).abs() < 2e-5, "{loss}, official {official}");
}

proptest! {
    #[test]
    fn held_out_loss_equals_the_plain_formula(
        (images, texts) in (2usize..24).prop_flat_map(|pairs| (whole_numbers(pairs, 5), whole_numbers(pairs, 5))),
        batch in 2usize..8, size in 1usize..9, scale in 0.1..100.0f64,
    ) {
        let mut world = World::new(5);
        for (pair, (image, text)) in images.iter().zip(&texts).enumerate() {
            world.images.push((image.clone(), vec![pair.to_string(), "not the first".into()], None));
            world.texts.insert(pair.to_string(), text.clone());
        }
        let result = world.evaluate(&held_out_loss(batch), &[], size, scale);
        let whole = images.len() / batch;
        if whole == 0 {
            let message = result.expect_err("too few pairs").to_string();
            prop_assert!(message.contains(&format!("whole batch of {batch} pairs")), "{}", message);
            return Ok(());
        }
        let result = result.expect("a result");
        prop_assert_eq!(result.n as usize, whole * batch);
        let mut expected = 0.0;
        for first in (0..whole).map(|b| b * batch) {
            let rows = first..first + batch;
            let logit = |i: usize, j: usize| scale * f64::from(naive_dot(&images[i], &texts[j]));
            let log_sum = |logits: Vec<f64>| {
                let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln()
            };
            for i in rows.clone() {
                let by_row = log_sum(rows.clone().map(|j| logit(i, j)).collect());
                let by_column = log_sum(rows.clone().map(|j| logit(j, i)).collect());
                expected += 0.5 * (by_row + by_column) - logit(i, i);
            }
        }
        expected /= (whole * batch) as f64;
        let loss = metric(&result, "loss");
        prop_assert!((loss - expected).abs() <= 1e-12 * (1.0 + expected.abs()) * scale.max(1.0), "{loss} {expected}");
    }
}
