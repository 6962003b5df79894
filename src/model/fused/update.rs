//! The update of all parameters on kernels, and the memory of gradients from one step to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;
use dfdx::tensor::Storage;

use crate::kernel::adamw::AdamW;
use crate::kernel::{global_norm, Cpu as Kernels};
use crate::model::engine::Moments;
use crate::parameter::{Parameter, Role};

/// Memory of gradients that were used up: zeros, for the next step to add to. Fresh memory would have to be
/// mapped page by page in every step, which takes longer than the update itself.
#[derive(Clone)]
pub(super) struct Spare(Arc<Mutex<Gradients<f32, Cpu>>>);

impl Default for Spare {
    fn default() -> Self {
        Spare(Arc::new(Mutex::new(Gradients::leaky())))
    }
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

impl Spare {
    /// Zeros by master; an empty entry is in use.
    pub fn lock(&self) -> MutexGuard<'_, Gradients<f32, Cpu>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sum of the squares of all gradients; a parameter without a gradient has one of zero.
pub(super) fn square_sum(
    kernels: &Kernels,
    parameters: &[&Parameter<f32, Cpu>],
    gradients: &mut Gradients<f32, Cpu>,
) -> Result<f64, CpuError> {
    let mut sum = 0.0;
    for parameter in parameters {
        sum += global_norm::sum_of_squares(kernels, gradients.get_or_alloc_mut(&parameter.master)?);
    }
    Ok(sum)
}

/// What dfdx holds the values of a gradient in.
type Values = <Cpu as Storage<f32>>::Vec;

/// A parameter with its moments and gradient, taken out of dfdx for the time of an update.
struct Lent<'a> {
    parameter: &'a mut Parameter<f32, Cpu>,
    rule: AdamW,
    first: Values,
    second: Values,
    gradient: Values,
}

/// The values that `from` holds for a parameter; none are left there.
fn take(from: &mut Gradients<f32, Cpu>, parameter: &Parameter<f32, Cpu>) -> Result<Values, CpuError> {
    let held = from.get_or_alloc_mut(&parameter.master)?;
    let values = std::mem::take(&mut **held);
    let nothing = held.clone();
    let mut taken = std::mem::replace(held, nothing);
    *taken = values;
    Ok(taken)
}

/// One update of every parameter, each by one thread.
pub(super) fn adamw(
    kernels: &Kernels,
    spare: &Spare,
    parameters: Vec<&mut Parameter<f32, Cpu>>,
    moments: Moments<'_, f32, Cpu>,
    mut gradients: Gradients<f32, Cpu>,
    rule: &dyn Fn(Role) -> AdamW,
) -> Result<(), CpuError> {
    let mut lent = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let first = take(moments.first, parameter)?;
        let second = take(moments.second, parameter)?;
        let gradient = take(&mut gradients, parameter)?;
        lent.push(Lent { rule: rule(parameter.role), first, second, gradient, parameter });
    }
    // The largest first, so that threads finish together.
    lent.sort_by_key(|lent| std::cmp::Reverse(lent.gradient.len()));
    let failed = Mutex::new(Ok(()));
    kernels.threads().each(lent.iter_mut(), |_, lent| {
        let Lent { parameter, rule, first, second, gradient } = lent;
        rule.steps(kernels, first, second, gradient);
        // dfdx lends the storage of a master to nobody, but takes steps itself: p -= step + decay * p.
        let descent = SgdConfig {
            lr: 1.0,
            momentum: None,
            weight_decay: Some(WeightDecay::Decoupled(rule.decay_of_update())),
        };
        // Without momentum, what stands in its place is left as it is.
        if let Err(error) = descent.try_update(&mut parameter.master, first, gradient) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
        }
        gradient.fill(0.0);
    });
    for Lent { parameter, first, second, gradient, .. } in lent {
        *moments.first.get_or_alloc_mut(&parameter.master)? = first;
        *moments.second.get_or_alloc_mut(&parameter.master)? = second;
        *spare.lock().get_or_alloc_mut(&parameter.master)? = gradient;
    }
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}
