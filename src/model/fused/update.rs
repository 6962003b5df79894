//! The update of all parameters on kernels, and the memory of gradients from one step to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

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

/// A parameter with the storage of its moments and gradient, taken out of dfdx for the time of an update.
struct Lent<'a> {
    parameter: &'a mut Parameter<f32, Cpu>,
    rule: AdamW,
    first: Vec<f32>,
    second: Vec<f32>,
    gradient: Vec<f32>,
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
        let take = |from: &mut Gradients<f32, Cpu>| -> Result<Vec<f32>, CpuError> {
            Ok(std::mem::take(&mut **from.get_or_alloc_mut(&parameter.master)?))
        };
        let (first, second, gradient) = (take(moments.first)?, take(moments.second)?, take(&mut gradients)?);
        lent.push(Lent { rule: rule(parameter.role), first, second, gradient, parameter });
    }
    // The largest first, so that threads finish together.
    lent.sort_by_key(|lent| std::cmp::Reverse(lent.gradient.len()));
    kernels.threads().each(lent.iter_mut(), |_, lent| {
        // dfdx lends the storage of a master to nobody: it is copied out and in.
        let mut values = vec![0.0; lent.gradient.len()];
        lent.parameter.master.copy_into(&mut values);
        lent.rule.update(kernels, &mut values, &mut lent.first, &mut lent.second, &mut lent.gradient);
        lent.parameter.master.copy_from(&values);
    });
    for Lent { parameter, first, second, gradient, .. } in lent {
        **moments.first.get_or_alloc_mut(&parameter.master)? = first;
        **moments.second.get_or_alloc_mut(&parameter.master)? = second;
        **spare.lock().get_or_alloc_mut(&parameter.master)? = gradient;
    }
    Ok(())
}
