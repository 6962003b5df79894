//! Parameters at the start, as the official code draws them: Xavier-uniform matrices, normal tokens and
//! positions, zero biases, unit norms.

use dfdx::prelude::*;
use rand::distributions::Uniform;
use rand_distr::{Distribution, Normal};

use crate::parameter::{rounded, Parameter, Role};
use crate::seed::{rng, Purpose};

/// Deviation of tokens, class token and learned positions.
const TOKEN_DEVIATION: f64 = 0.02;

/// Makes parameters one after the other. Each has a generator of its own, keyed by its place in line, and
/// draws in double precision, so that models in single and double precision start alike.
pub(crate) struct Initialiser<'a, D> {
    device: &'a D,
    seed: u64,
    made: u64,
}

impl<'a, D> Initialiser<'a, D> {
    pub fn new(device: &'a D, seed: u64) -> Self {
        Initialiser { device, seed, made: 0 }
    }

    /// A matrix [inputs, outputs], uniform within +-sqrt(6 / (inputs + outputs)) (Xavier).
    pub fn matrix<E: Dtype>(
        &mut self,
        name: String,
        inputs: usize,
        outputs: usize,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        let bound = (6.0 / (inputs + outputs) as f64).sqrt();
        self.uniform(name, vec![inputs, outputs], bound)
    }

    /// Query, key and value matrices side by side, [width, 3 width], each uniform within
    /// +-sqrt(1.5 / width): half of Xavier's bound, on the fan of one matrix alone.
    pub fn query_key_value<E: Dtype>(&mut self, name: String, width: usize) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        self.uniform(name, vec![width, 3 * width], (1.5 / width as f64).sqrt())
    }

    /// Tokens or positions, normal with deviation 0.02.
    pub fn tokens<E: Dtype>(
        &mut self,
        name: String,
        role: Role,
        shape: Vec<usize>,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        let normal = Normal::new(0.0, TOKEN_DEVIATION).expect("0.02 is a deviation");
        self.drawn(name, role, shape, normal)
    }

    /// A vector of `len` times `value`.
    pub fn constant<E: Dtype>(
        &mut self,
        name: String,
        role: Role,
        len: usize,
        value: f64,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        self.made += 1;
        self.parameter(name, role, vec![len], vec![rounded(value); len])
    }

    fn uniform<E: Dtype>(
        &mut self,
        name: String,
        shape: Vec<usize>,
        bound: f64,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        self.drawn(name, Role::Weight, shape, Uniform::new_inclusive(-bound, bound))
    }

    fn drawn<E: Dtype>(
        &mut self,
        name: String,
        role: Role,
        shape: Vec<usize>,
        distribution: impl Distribution<f64>,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        let mut rng = rng(self.seed, Purpose::Init, self.made, 0);
        self.made += 1;
        let len = shape.iter().product();
        let values = (0..len).map(|_| rounded(distribution.sample(&mut rng))).collect();
        self.parameter(name, role, shape, values)
    }

    fn parameter<E: Dtype>(
        &self,
        name: String,
        role: Role,
        shape: Vec<usize>,
        values: Vec<E>,
    ) -> Result<Parameter<E, D>, D::Err>
    where
        D: Device<E>,
    {
        let last = shape.last().copied().unwrap_or(1);
        let master =
            self.device.try_tensor_from_vec(values, (shape.iter().product::<usize>() / last, last))?;
        Ok(Parameter { name, role, shape, master, given_up: false })
    }
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
        let tensors = model.export();
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
        let model = |seed| Flip::<f32, Cpu>::new(&Cpu::default(), &tiny_config(), seed).unwrap().export();
        assert_eq!(model(5), model(5));
        assert_ne!(model(5), model(6));
        let double = Flip::<f64, Cpu>::new(&Cpu::default(), &tiny_config(), 5).unwrap();
        assert_eq!(double.export(), model(5));
    }
}
