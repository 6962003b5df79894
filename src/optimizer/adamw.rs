//! AdamW: Adam with decay that does not pass through the moments (Loshchilov & Hutter, arXiv 1711.05101).
//!
//! Update t = 1, 2, ... of a parameter p with gradient g:
//! m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),
//! p = p - lr (u + decay p).

use dfdx::optim::{AdamConfig, WeightDecay};
use dfdx::prelude::*;

use super::config::AdamWConfig;
use crate::parameter::{blend, host_f32, rounded, Mismatch, NamedTensor, Parameter};

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
}

impl OptimizerError {
    fn device(error: impl std::fmt::Display) -> Self {
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

    /// Moves every parameter, at learning rate `lr`. A parameter without a gradient has one of zero.
    pub fn update(
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
        for (prefix, moments) in [(FIRST, &mut self.first), (SECOND, &mut self.second)] {
            for parameter in parameters {
                moments.try_alloc_for(&parameter.master).map_err(OptimizerError::device)?;
                tensors.push(NamedTensor {
                    name: format!("{prefix}{}", parameter.name),
                    shape: parameter.shape.clone(),
                    data: host_f32(&moments.get(&parameter.master)),
                });
            }
        }
        let count = [self.updates / COUNT_BASE, self.updates % COUNT_BASE].map(|n| n as f32);
        tensors.push(NamedTensor { name: UPDATES.into(), shape: vec![2], data: count.into() });
        Ok(tensors)
    }

    /// The state that [`AdamW::export`] wrote for the same parameters.
    pub fn import(
        config: &AdamWConfig,
        parameters: &[&Parameter<E, D>],
        tensors: &[NamedTensor],
    ) -> Result<Self, OptimizerError> {
        let of_each = |prefix: &'static str| {
            parameters.iter().map(move |p| (format!("{prefix}{}", p.name), p.shape.clone()))
        };
        let count = std::iter::once((UPDATES.to_string(), vec![2]));
        let expected: Vec<_> = of_each(FIRST).chain(of_each(SECOND)).chain(count).collect();
        let tensors = Mismatch::pair(&expected, tensors).map_err(OptimizerError::State)?;
        let (moments, count) = tensors.split_at(2 * parameters.len());
        let (first, second) = moments.split_at(parameters.len());
        let mut state = Self::new(config);
        for (moments, tensors) in [(&mut state.first, first), (&mut state.second, second)] {
            for (parameter, tensor) in parameters.iter().zip(tensors) {
                fill(moments, parameter, &tensor.data).map_err(OptimizerError::device)?;
            }
        }
        state.updates = count.iter().flat_map(|t| &t.data).fold(0, |n, &digit| n * COUNT_BASE + digit as u64);
        Ok(state)
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
