//! AdamW: Adam with decay that does not pass through the moments (Loshchilov & Hutter, arXiv 1711.05101).
//!
//! Update t = 1, 2, ... of a parameter p with gradient g:
//! m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),
//! p = p - lr (u + decay p).
//!
//! A composed model is updated by dfdx's own rule, a fused one by [kernels](crate::kernel::adamw).

use std::sync::Arc;

use dfdx::optim::{AdamConfig, Momentum, SgdConfig, WeightDecay};
use dfdx::prelude::*;

use super::config::AdamWConfig;
use crate::kernel::adamw as kernel;
use crate::model::{Flip, ModelError, Update};
use crate::parameter::{Flat, Layout, Mismatch, NamedTensor, Parameter, Ranges, Role};
use crate::ranks::RanksError;

/// The number of updates is exported as two numbers, of 2^24 and of 1: single precision counts no further.
const COUNT_BASE: u64 = 1 << 24;
const FIRST: &str = "adamw.first.";
const SECOND: &str = "adamw.second.";
const UPDATES: &str = "adamw.updates";

/// An optimizer could not go on.
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
    /// First and second, of those parameters that are updated here; none before the first update.
    moments: Option<[Flat<E, D>; 2]>,
    updates: u64,
}

impl<E: Dtype, D: Ranges<E>> AdamW<E, D> {
    /// No moments, no updates.
    pub fn new(config: &AdamWConfig) -> Self {
        AdamW { config: config.clone(), moments: None, updates: 0 }
    }

    /// Updates seen so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves every parameter of a model at learning rate `lr`, by its gradient times `factor` (what clipping
    /// leaves of it, see [`clip_factor`](super::clip_factor)).
    pub fn update(
        &mut self,
        model: &mut Flip<E, D>,
        gradients: Flat<E, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        let learning = model.learning();
        self.update_some(model, |place| learning.binary_search(&place).is_ok(), gradients, lr, factor)
    }

    /// As [`update`](Self::update), of those parameters alone that are `wanted`, by their places in the list of all;
    /// there are no moments of the others.
    pub fn update_some(
        &mut self,
        model: &mut Flip<E, D>,
        wanted: impl Fn(usize) -> bool,
        mut gradients: Flat<E, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        let device = model.masters().device().clone();
        self.allocate(&device, model.parameters(), wanted).map_err(OptimizerError::device)?;
        self.updates += 1;
        let Some(moments) = &mut self.moments else { return Ok(()) };
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let t = self.updates;
        let Some(engine) = model.engine() else {
            let rule = AdamConfig { lr, betas: [beta1, beta2], eps, weight_decay: None };
            let step = Composed { rule, weight_decay, t, factor };
            let parameters = model.parameters().to_vec();
            let composed = step.update(&parameters, model.masters_mut(), moments, &mut gradients);
            return composed.map_err(OptimizerError::device);
        };
        let rule = |role: Role| kernel::AdamW {
            lr,
            beta1,
            beta2,
            eps,
            decay: if role.decays() { weight_decay } else { 0.0 },
            t,
            gradient: factor,
        };
        let all = model.learning();
        let masters = model.masters_to_update();
        let update = Update { masters, moments, gradients: &mut gradients, rule: &rule };
        let (updated, there) = (update.moments[0].layout(), update.gradients.layout());
        let whole = all.iter().all(|&place| updated.range(place).is_some() && there.range(place).is_some());
        engine.adamw(update).map_err(OptimizerError::device)?;
        if whole {
            model.recycle(gradients);
        }
        Ok(())
    }

    /// Has moments of those parameters that are `wanted`: zeros, where there are none yet.
    fn allocate(
        &mut self,
        device: &D,
        parameters: &[Parameter],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), D::Err> {
        if self.moments.is_none() {
            let layout = Arc::new(Layout::new(parameters, wanted));
            self.moments = Some([Flat::zeros(device, layout.clone())?, Flat::zeros(device, layout)?]);
        }
        Ok(())
    }

    /// Both moments of every parameter and the number of updates, copied to the host.
    pub fn export(&self, parameters: &[Parameter]) -> Result<Vec<NamedTensor>, OptimizerError> {
        let mut tensors = Vec::with_capacity(2 * parameters.len() + 1);
        for (index, (name, shape)) in Self::outline(parameters).into_iter().enumerate() {
            let mut data = Vec::new();
            self.show(parameters, index, &mut |values| data = values.to_vec())?;
            tensors.push(NamedTensor { name, shape, data });
        }
        Ok(tensors)
    }

    /// Name and shape of each tensor of the state: the first moments of all parameters, the second ones, the number of
    /// updates.
    pub fn outline(parameters: &[Parameter]) -> Vec<(String, Vec<usize>)> {
        let of_each = |prefix: &'static str| {
            parameters.iter().map(move |p| (format!("{prefix}{}", p.name), p.shape.clone()))
        };
        let count = std::iter::once((UPDATES.to_string(), vec![2]));
        of_each(FIRST).chain(of_each(SECOND)).chain(count).collect()
    }

    /// Shows a tensor of the [outline](Self::outline), by its place there.
    pub(super) fn show(
        &self,
        parameters: &[Parameter],
        index: usize,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), OptimizerError> {
        if index == 2 * parameters.len() {
            see(&[self.updates / COUNT_BASE, self.updates % COUNT_BASE].map(|n| n as f32));
            return Ok(());
        }
        let (which, place) = (index / parameters.len(), index % parameters.len());
        match &self.moments {
            Some(moments) if moments[which].holds(place) => {
                see(&moments[which].read_f32(place).map_err(OptimizerError::device)?)
            }
            // What does not learn has none.
            _ => see(&vec![0.0; parameters[place].len()]),
        }
        Ok(())
    }

    /// The state that [`AdamW::export`] wrote for the same parameters, on a device.
    pub fn import(
        config: &AdamWConfig,
        device: &D,
        parameters: &[Parameter],
        tensors: &[NamedTensor],
    ) -> Result<Self, OptimizerError> {
        let expected = Self::outline(parameters);
        let tensors = Mismatch::pair(&expected, tensors).map_err(OptimizerError::State)?;
        let mut state = Self::for_some(config, device, parameters, |_| true)?;
        for (index, tensor) in tensors.into_iter().enumerate() {
            state.fill(parameters, index, &tensor.data)?;
        }
        Ok(state)
    }

    /// A state that has yet to be filled, with moments of those parameters that are `wanted`.
    pub(super) fn for_some(
        config: &AdamWConfig,
        device: &D,
        parameters: &[Parameter],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Self, OptimizerError> {
        let mut state = Self::new(config);
        state.allocate(device, parameters, wanted).map_err(OptimizerError::device)?;
        Ok(state)
    }

    /// Takes the values of a tensor of the [outline](Self::outline), by its place there.
    pub(super) fn fill(
        &mut self,
        parameters: &[Parameter],
        index: usize,
        values: &[f32],
    ) -> Result<(), OptimizerError> {
        if index == 2 * parameters.len() {
            self.updates = values.iter().fold(0, |n, &digit| n * COUNT_BASE + digit as u64);
            return Ok(());
        }
        let (which, place) = (index / parameters.len(), index % parameters.len());
        let Some(moments) = &mut self.moments else { return Ok(()) };
        moments[which].write_f32(place, values).map_err(OptimizerError::device)
    }
}

/// An update composed of dfdx's own, parameter by parameter.
struct Composed {
    /// Without decay, which depends on the parameter.
    rule: AdamConfig,
    weight_decay: f64,
    t: u64,
    /// Factor on every gradient.
    factor: f64,
}

impl Composed {
    fn update<E: Dtype, D: Ranges<E>>(
        &self,
        parameters: &[Parameter],
        masters: &mut Flat<E, D>,
        [first, second]: &mut [Flat<E, D>; 2],
        gradients: &mut Flat<E, D>,
    ) -> Result<(), D::Err> {
        // From some thousand updates on, the bias corrections are 1 anyway.
        let t = i32::try_from(self.t).unwrap_or(i32::MAX);
        let device = masters.device().clone();
        let own = first.layout().clone();
        let updated = parameters.iter().enumerate().filter(|(place, _)| own.range(*place).is_some());
        for (place, parameter) in updated {
            let weight_decay = parameter.role.decays().then_some(WeightDecay::Decoupled(self.weight_decay));
            let rule = AdamConfig { weight_decay, ..self.rule };
            let mut gradient = gradients.cut(place)?;
            if self.factor != 1.0 {
                // dfdx has no product of bare storage, but a velocity: v <- 0 + factor v.
                let scale =
                    SgdConfig { lr: 0.0, momentum: Some(Momentum::Classic(self.factor)), weight_decay: None };
                let (mut unmoved, nothing) =
                    (device.allocate(parameter.len())?, device.allocate(parameter.len())?);
                device.sgd_kernel(&scale, &mut unmoved, &mut gradient, &nothing)?;
            }
            let (mut p, mut m, mut v) = (masters.cut(place)?, first.cut(place)?, second.cut(place)?);
            device.adam_kernel(t, &rule, &mut p, &mut m, &mut v, &gradient)?;
            masters.paste(place, &p)?;
            first.paste(place, &m)?;
            second.paste(place, &v)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::{Init, Tower};

    fn parameter(role: Role, len: usize) -> Parameter {
        let init = Init::Constant(0.0);
        Parameter {
            name: format!("{role:?}"),
            tower: Tower::Text,
            role,
            shape: vec![len],
            init,
            rounded: true,
        }
    }

    fn flat<E: Dtype>(parameters: &[Parameter], values: &[&[E]]) -> Flat<E, Cpu>
    where
        Cpu: Ranges<E>,
    {
        let layout = Arc::new(Layout::new(parameters, |_| true));
        let mut flat = Flat::zeros(&Cpu::default(), layout).unwrap();
        values.iter().enumerate().for_each(|(place, values)| flat.write(place, values).unwrap());
        flat
    }

    fn composed(config: &AdamWConfig, t: u64) -> Composed {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = *config;
        let rule = AdamConfig { lr: 0.01, betas: [beta1, beta2], eps, weight_decay: None };
        Composed { rule, weight_decay, t, factor: 1.0 }
    }

    #[test]
    fn follows_the_formula_and_spares_biases_from_decay() {
        let config = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.2 };
        let parameters = [parameter(Role::Weight, 2), parameter(Role::Bias, 1)];
        let mut masters = flat(&parameters, &[&[0.5f64, -2.0], &[1.5]]);
        let mut state = [(); 2].map(|()| flat::<f64>(&parameters, &[]));
        let mut expected = [vec![0.5, -2.0], vec![1.5]];
        let mut moments = [[0.0f64; 2]; 3];
        for k in 0..5u64 {
            let of = |i: usize| ((i as u64 + 3 * k) as f64).sin();
            let mut gradients = flat(&parameters, &[&[of(0), of(1)], &[of(0)]]);
            composed(&config, k + 1).update(&parameters, &mut masters, &mut state, &mut gradients).unwrap();
            for (at, (i, p)) in [(0, 0), (0, 1), (1, 0)].into_iter().enumerate() {
                let g = of(p);
                let [m, v] = &mut moments[at];
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let t = k as i32 + 1;
                let u = (*m / (1.0 - 0.9f64.powi(t))) / ((*v / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-8);
                let decay = if i == 0 { 0.2 * expected[i][p] } else { 0.0 };
                expected[i][p] -= 0.01 * (u + decay);
            }
        }
        let got = [0, 1].map(|place| masters.read(place).unwrap()).concat();
        for (got, expected) in got.into_iter().zip(expected.concat()) {
            assert!((got - expected).abs() < 1e-14, "{got} for {expected}");
        }
    }

    #[test]
    fn goes_on_from_its_exported_state() {
        let (config, parameters) = (AdamWConfig::default(), [parameter(Role::Weight, 2)]);
        let start = || flat(&parameters, &[&[0.5f32, -2.0]]);
        let step = |masters: &mut Flat<f32, Cpu>, optimizer: &mut AdamW<f32, Cpu>, k: usize| {
            let mut gradients = flat(&parameters, &[&[0.3 * k as f32 - 1.0, 0.7]]);
            optimizer.updates += 1;
            let (step, moments) = (composed(&config, optimizer.updates), optimizer.moments.as_mut().unwrap());
            step.update(&parameters, masters, moments, &mut gradients).unwrap();
        };
        let fresh = || AdamW::for_some(&config, &Cpu::default(), &parameters, |_| true).unwrap();
        let (mut whole, mut optimizer) = (start(), fresh());
        (0..6).for_each(|k| step(&mut whole, &mut optimizer, k));

        let (mut halves, mut optimizer) = (start(), fresh());
        (0..3).for_each(|k| step(&mut halves, &mut optimizer, k));
        let state = optimizer.export(&parameters).unwrap();
        let mut optimizer = AdamW::import(&config, &Cpu::default(), &parameters, &state).unwrap();
        assert_eq!(optimizer.updates(), 3);
        (3..6).for_each(|k| step(&mut halves, &mut optimizer, k));
        assert_eq!(whole.read(0).unwrap(), halves.read(0).unwrap());
    }

    #[test]
    fn counts_further_than_single_precision() {
        let config = AdamWConfig::default();
        let optimizer = AdamW::<f32, Cpu> { updates: 3 * COUNT_BASE + 5, ..AdamW::new(&config) };
        let state = optimizer.export(&[]).unwrap();
        let again = AdamW::<f32, Cpu>::import(&config, &Cpu::default(), &[], &state).unwrap();
        assert_eq!(again.updates(), 3 * COUNT_BASE + 5);
    }

    #[test]
    fn names_what_is_missing() {
        let parameters = [parameter(Role::Weight, 1)];
        let import = AdamW::<f32, Cpu>::import(&AdamWConfig::default(), &Cpu::default(), &parameters, &[]);
        assert_eq!(
            import.unwrap_err().to_string(),
            "these tensors are not the state of this model's optimizer:\n\
             adamw.first.Weight: missing\nadamw.second.Weight: missing\nadamw.updates: missing"
        );
    }
}
