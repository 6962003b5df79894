//! Parameters at the start, as the official code draws them.

use dfdx::prelude::*;
use rand::distributions::Uniform;
use rand_distr::{Distribution, Normal};

use crate::parameter::{rounded, Init, Parameter};
use crate::seed::{rng, Purpose};

/// The first values of the parameter at a place of the list of all. Each has a generator of its own, keyed by its place, and
/// draws in double precision, so that models in single and double precision start alike.
pub(super) fn first_values<E: Dtype>(parameter: &Parameter, place: usize, seed: u64) -> Vec<E> {
    match parameter.init {
        Init::Uniform { bound } => drawn(parameter, place, seed, Uniform::new_inclusive(-bound, bound)),
        Init::Normal { deviation } => {
            drawn(parameter, place, seed, Normal::new(0.0, deviation).expect("a deviation is positive"))
        }
        Init::Constant(value) => vec![rounded(value); parameter.len()],
    }
}

fn drawn<E: Dtype>(
    parameter: &Parameter,
    place: usize,
    seed: u64,
    distribution: impl Distribution<f64>,
) -> Vec<E> {
    let mut rng = rng(seed, Purpose::Init, place as u64, 0);
    (0..parameter.len()).map(|_| rounded(distribution.sample(&mut rng))).collect()
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::super::tests::tiny_config;
    use super::super::{Flip, ImagePositions};

    /// Largest magnitude and deviation.
    fn spread(values: &[f32]) -> (f64, f64) {
        let values = values.iter().map(|&x| f64::from(x));
        let largest = values.clone().fold(0.0f64, |m, x| m.max(x.abs()));
        let n = values.len() as f64;
        (largest, (values.map(|x| x * x).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn parameters_start_as_in_the_official_code() {
        let mut config = tiny_config();
        config.image.positions = ImagePositions::Learned;
        (config.image.width, config.text.width, config.text.vocab_size) = (128, 96, 500);
        let model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 1).unwrap();
        let tensors = model.export().unwrap();
        let of = |name: &str| &tensors.iter().find(|tensor| tensor.name == name).unwrap().data;
        let uniform = |name: &str, bound: f64| {
            let (largest, deviation) = spread(of(name));
            assert!(
                largest <= bound * (1.0 + 1e-6) && largest > 0.98 * bound,
                "{name}: {largest} for {bound}"
            );
            assert!((deviation * 3f64.sqrt() / bound - 1.0).abs() < 0.03, "{name}: {deviation}");
        };
        let xavier = |inputs: f64, outputs: f64| (6.0 / (inputs + outputs)).sqrt();
        uniform("image.patch.weight", xavier(48.0, 128.0));
        uniform("image.blocks.1.attention.qkv.weight", (1.5 / 128.0f64).sqrt());
        uniform("image.blocks.0.attention.out.weight", xavier(128.0, 128.0));
        uniform("image.blocks.0.mlp.up.weight", xavier(128.0, 512.0));
        uniform("text.blocks.0.mlp.down.weight", xavier(384.0, 96.0));
        uniform("text.projection", xavier(96.0, 10.0));
        for name in ["image.class_token", "image.positions", "text.tokens", "text.positions"] {
            let (_, deviation) = spread(of(name));
            assert!((deviation / 0.02 - 1.0).abs() < 0.2, "{name}: {deviation}");
        }
        for tensor in &tensors {
            if tensor.name.ends_with(".bias") || tensor.name.ends_with(".shift") {
                assert!(tensor.data.iter().all(|&x| x == 0.0), "{}", tensor.name);
            }
            if tensor.name.ends_with(".scale") {
                assert!(tensor.data.iter().all(|&x| x == 1.0), "{}", tensor.name);
            }
        }
        assert_eq!(of("logit_scale"), &[(1.0f64 / 0.07).ln() as f32]);
    }

    #[test]
    fn the_seed_and_nothing_else_decides() {
        let model =
            |seed| Flip::<f32, Cpu>::new(&Cpu::default(), &tiny_config(), seed).unwrap().export().unwrap();
        assert_eq!(model(5), model(5));
        assert_ne!(model(5), model(6));
        let double = Flip::<f64, Cpu>::new(&Cpu::default(), &tiny_config(), 5).unwrap();
        assert_eq!(double.export().unwrap(), model(5));
    }
}
