//! AdamW: Adam with decay that does not pass through the moments (Loshchilov & Hutter, arXiv 1711.05101).
//!
//! Update t = 1, 2, ... of a parameter p with gradient g:
//! m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),
//! p = p - lr (u + decay p).
//!
//! A composed model is updated by dfdx's own rule, a fused one by [kernels](crate::kernel::adamw).

use dfdx::optim::{AdamConfig, WeightDecay};
use dfdx::prelude::*;

use super::config::AdamWConfig;
use crate::kernel::adamw as kernel;
use crate::model::{Engine, Flip, ModelError, Moments};
use crate::parameter::{blend, host_f32, rounded, Mismatch, NamedTensor, Parameter, Role};
use crate::ranks::RanksError;

/// The number of updates is exported as two numbers, of 2^24 and of 1: single precision counts no further.
const COUNT_BASE: u64 = 1 << 24;
const FIRST: &str = "adamw.first.";
const SECOND: &str = "adamw.second.";
const UPDATES: &str = "adamw.updates";

/// Why an optimizer could not go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptimizerError {
    #[error("these tensors are not the state of this model's optimizer:\n{0}")]
    State(Mismatch),
    #[error("the device failed: {0}")]
    Device(String),
    #[error(transparent)]
    Ranks(#[from] RanksError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl OptimizerError {
    pub(super) fn device(error: impl std::fmt::Display) -> Self {
        OptimizerError::Device(error.to_string())
    }
}

/// Moments of every parameter, and how many updates they have seen.
#[derive(Debug)]
pub struct AdamW<E: Dtype, D: Storage<E>> {
    config: AdamWConfig,
    first: Gradients<E, D>,
    second: Gradients<E, D>,
    updates: u64,
}

impl<E: Dtype, D: Device<E>> AdamW<E, D> {
    /// No moments, no updates.
    pub fn new(config: &AdamWConfig) -> Self {
        AdamW { config: config.clone(), first: Gradients::leaky(), second: Gradients::leaky(), updates: 0 }
    }

    /// Updates seen so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves every parameter of a model at learning rate `lr`, by its gradient times `factor` (what clipping
    /// leaves of it, see [`clip_factor`](super::clip_factor)). A parameter without a gradient has one of zero.
    pub fn update(
        &mut self,
        model: &mut Flip<E, D>,
        gradients: Gradients<E, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        self.update_some(model, |_| true, gradients, lr, factor)
    }

    /// As [`update`](Self::update), of those parameters alone that are `wanted`, by their places in the walk over the model;
    /// there are no moments of the others.
    pub fn update_some(
        &mut self,
        model: &mut Flip<E, D>,
        wanted: impl Fn(usize) -> bool,
        mut gradients: Gradients<E, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        let engine = model.engine();
        let own = model.parameters_mut().into_iter().enumerate();
        let parameters: Vec<_> =
            own.filter(|(place, _)| wanted(*place)).map(|(_, parameter)| parameter).collect();
        let Some(engine) = engine else {
            for parameter in parameters.iter().filter(|_| factor != 1.0) {
                let nothing = parameter.master.device().try_zeros_like(&parameter.master);
                let nothing = nothing.map_err(OptimizerError::device)?;
                blend(&mut gradients, parameter, factor, nothing).map_err(OptimizerError::device)?;
            }
            return self.compose(parameters, &mut gradients, lr);
        };
        self.updates += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let t = self.updates;
        let rule = |role: Role| kernel::AdamW {
            lr,
            beta1,
            beta2,
            eps,
            decay: if role.decays() { weight_decay } else { 0.0 },
            t,
            gradient: factor,
        };
        let moments = Moments { first: &mut self.first, second: &mut self.second };
        engine.adamw(parameters, moments, gradients, &rule).map_err(OptimizerError::device)
    }

    /// The update composed of dfdx's own, parameter by parameter.
    fn compose(
        &mut self,
        parameters: Vec<&mut Parameter<E, D>>,
        gradients: &mut Gradients<E, D>,
        lr: f64,
    ) -> Result<(), OptimizerError> {
        self.updates += 1;
        // From some thousand updates on, the bias corrections are 1 anyway.
        let t = i32::try_from(self.updates).unwrap_or(i32::MAX);
        for parameter in parameters {
            let decay = parameter.role.decays().then_some(WeightDecay::Decoupled(self.config.weight_decay));
            let rule = AdamConfig {
                lr,
                betas: [self.config.beta1, self.config.beta2],
                eps: self.config.eps,
                weight_decay: decay,
            };
            Self::step(rule, t, parameter, &mut self.first, &mut self.second, gradients)
                .map_err(OptimizerError::device)?;
        }
        Ok(())
    }

    fn step(
        rule: AdamConfig,
        t: i32,
        parameter: &mut Parameter<E, D>,
        first: &mut Gradients<E, D>,
        second: &mut Gradients<E, D>,
        gradients: &mut Gradients<E, D>,
    ) -> Result<(), D::Err> {
        let first = first.get_or_alloc_mut(&parameter.master)?;
        let second = second.get_or_alloc_mut(&parameter.master)?;
        let gradient = gradients.get_or_alloc_mut(&parameter.master)?;
        rule.try_update(t, &mut parameter.master, first, second, gradient)
    }

    /// Both moments of every parameter and the number of updates, copied to the host.
    pub fn export(&mut self, parameters: &[&Parameter<E, D>]) -> Result<Vec<NamedTensor>, OptimizerError> {
        let mut tensors = Vec::with_capacity(2 * parameters.len() + 1);
        for (index, (name, shape)) in Self::outline(parameters).into_iter().enumerate() {
            let mut data = Vec::new();
            self.show(None, parameters, index, &mut |values| data = values.to_vec())?;
            tensors.push(NamedTensor { name, shape, data });
        }
        Ok(tensors)
    }

    /// Name and shape of each tensor of the state: the first moments of all parameters, the second ones, the number of
    /// updates.
    pub fn outline(parameters: &[&Parameter<E, D>]) -> Vec<(String, Vec<usize>)> {
        let of_each = |prefix: &'static str| {
            parameters.iter().map(move |p| (format!("{prefix}{}", p.name), p.shape.clone()))
        };
        let count = std::iter::once((UPDATES.to_string(), vec![2]));
        of_each(FIRST).chain(of_each(SECOND)).chain(count).collect()
    }

    /// Shows a tensor of the [outline](Self::outline), by its place there; where an engine lends it, without a copy.
    pub(super) fn show(
        &mut self,
        engine: Option<&dyn Engine<E, D>>,
        parameters: &[&Parameter<E, D>],
        index: usize,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), OptimizerError> {
        let moments = if index < parameters.len() { &mut self.first } else { &mut self.second };
        let Some(parameter) = parameters.iter().cycle().take(2 * parameters.len()).nth(index) else {
            see(&[self.updates / COUNT_BASE, self.updates % COUNT_BASE].map(|n| n as f32));
            return Ok(());
        };
        match engine {
            Some(engine) => engine.show(parameter, moments, see).map_err(OptimizerError::device),
            None => {
                moments.try_alloc_for(&parameter.master).map_err(OptimizerError::device)?;
                see(&host_f32(&moments.get(&parameter.master)));
                Ok(())
            }
        }
    }

    /// The state that [`AdamW::export`] wrote for the same parameters.
    pub fn import(
        config: &AdamWConfig,
        parameters: &[&Parameter<E, D>],
        tensors: &[NamedTensor],
    ) -> Result<Self, OptimizerError> {
        let expected = Self::outline(parameters);
        let tensors = Mismatch::pair(&expected, tensors).map_err(OptimizerError::State)?;
        let mut state = Self::new(config);
        for (index, tensor) in tensors.into_iter().enumerate() {
            state.fill(None, parameters, index, tensor.data.clone())?;
        }
        Ok(state)
    }

    /// Takes the values of a tensor of the [outline](Self::outline), by its place there.
    pub(super) fn fill(
        &mut self,
        engine: Option<&dyn Engine<E, D>>,
        parameters: &[&Parameter<E, D>],
        index: usize,
        values: Vec<f32>,
    ) -> Result<(), OptimizerError> {
        let moments = if index < parameters.len() { &mut self.first } else { &mut self.second };
        let Some(parameter) = parameters.iter().cycle().take(2 * parameters.len()).nth(index) else {
            self.updates = values.iter().fold(0, |n, &digit| n * COUNT_BASE + digit as u64);
            return Ok(());
        };
        let filled = match engine {
            Some(engine) => engine.put_gradient(parameter, moments, values),
            None => fill(moments, parameter, &values),
        };
        filled.map_err(OptimizerError::device)
    }
}

fn fill<E: Dtype, D: Device<E>>(
    moments: &mut Gradients<E, D>,
    parameter: &Parameter<E, D>,
    values: &[f32],
) -> Result<(), D::Err> {
    let values = values.iter().map(|&x| rounded(f64::from(x))).collect();
    let values = parameter.master.device().try_tensor_from_vec(values, *parameter.master.shape())?;
    blend(moments, parameter, 0.0, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(role: Role, values: &[f64]) -> Parameter<f64, Cpu> {
        let master = Cpu::default().tensor_from_vec(values.to_vec(), (1, values.len()));
        Parameter { name: format!("{role:?}"), role, shape: vec![values.len()], master, given_up: false }
    }

    fn gradients(parameters: &[Parameter<f64, Cpu>], k: u64) -> Gradients<f64, Cpu> {
        let mut gradients = Gradients::leaky();
        for parameter in parameters {
            let values = (0..parameter.len()).map(|i| ((i as u64 + 3 * k) as f64).sin()).collect();
            let values = parameter.master.device().tensor_from_vec(values, *parameter.master.shape());
            blend(&mut gradients, parameter, 1.0, values).unwrap();
        }
        gradients
    }

    fn values(parameters: &[Parameter<f64, Cpu>]) -> Vec<Vec<f64>> {
        parameters.iter().map(|parameter| parameter.master.as_vec()).collect()
    }

    #[test]
    fn follows_the_formula_and_spares_biases_from_decay() {
        let config = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.2 };
        let mut parameters = [parameter(Role::Weight, &[0.5, -2.0]), parameter(Role::Bias, &[1.5])];
        let mut optimizer = AdamW::new(&config);
        let mut expected = values(&parameters);
        let mut moments = [[0.0f64; 2]; 3];
        for k in 0..5 {
            let mut step = gradients(&parameters, k);
            optimizer.compose(parameters.iter_mut().collect(), &mut step, 0.01).unwrap();
            for (at, (i, p)) in [(0, 0), (0, 1), (1, 0)].into_iter().enumerate() {
                let g = ((p as u64 + 3 * k) as f64).sin();
                let [m, v] = &mut moments[at];
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let t = k as i32 + 1;
                let u = (*m / (1.0 - 0.9f64.powi(t))) / ((*v / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-8);
                let decay = if i == 0 { 0.2 * expected[i][p] } else { 0.0 };
                expected[i][p] -= 0.01 * (u + decay);
            }
        }
        for (got, expected) in values(&parameters).concat().into_iter().zip(expected.concat()) {
            assert!((got - expected).abs() < 1e-14, "{got} for {expected}");
        }
    }

    #[test]
    fn goes_on_from_its_exported_state() {
        let config = AdamWConfig::default();
        let start = || {
            let master = Cpu::default().tensor_from_vec(vec![0.5f32, -2.0], (1, 2));
            [Parameter { name: "p".into(), role: Role::Weight, shape: vec![2], master, given_up: false }]
        };
        let step = |parameters: &mut [Parameter<f32, Cpu>], optimizer: &mut AdamW<f32, Cpu>, k: usize| {
            let mut gradients = Gradients::leaky();
            let values = Cpu::default().tensor_from_vec(vec![0.3 * k as f32 - 1.0, 0.7], (1, 2));
            blend(&mut gradients, &parameters[0], 1.0, values).unwrap();
            optimizer.compose(parameters.iter_mut().collect(), &mut gradients, 0.01).unwrap();
        };
        let (mut whole, mut optimizer) = (start(), AdamW::new(&config));
        (0..6).for_each(|k| step(&mut whole, &mut optimizer, k));

        let (mut halves, mut optimizer) = (start(), AdamW::new(&config));
        (0..3).for_each(|k| step(&mut halves, &mut optimizer, k));
        let state = optimizer.export(&[&halves[0]]).unwrap();
        let mut optimizer = AdamW::import(&config, &[&halves[0]], &state).unwrap();
        assert_eq!(optimizer.updates(), 3);
        (3..6).for_each(|k| step(&mut halves, &mut optimizer, k));
        assert_eq!(whole[0].to_host(), halves[0].to_host());
    }

    #[test]
    fn counts_further_than_single_precision() {
        let config = AdamWConfig::default();
        let mut optimizer = AdamW::<f32, Cpu> { updates: 3 * COUNT_BASE + 5, ..AdamW::new(&config) };
        let state = optimizer.export(&[]).unwrap();
        assert_eq!(AdamW::<f32, Cpu>::import(&config, &[], &state).unwrap().updates(), 3 * COUNT_BASE + 5);
    }

    #[test]
    fn names_what_is_missing() {
        let parameters = [parameter(Role::Weight, &[0.5])];
        let error = AdamW::import(&AdamWConfig::default(), &[&parameters[0]], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "these tensors are not the state of this model's optimizer:\n\
             adamw.first.Weight: missing\nadamw.second.Weight: missing\nadamw.updates: missing"
        );
    }
}
