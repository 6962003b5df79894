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
        Ok(Parameter { name, role, shape, master })
    }
}
