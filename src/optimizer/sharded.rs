//! Norm, update and state where each rank has the moments of some parameters only. What comes out is what one rank computes
//! that has them all.

use std::ops::Range;

use dfdx::prelude::*;

use super::adamw::{AdamW, OptimizerError};
use super::clip::squares;
use crate::model::Flip;
use crate::parameter::NamedTensor;
use crate::ranks::{Ranks, RanksError};

/// The Euclidean norm of all gradients, of which each rank has those of its own parameters.
///
/// # Errors
/// The device or an exchange fails.
pub fn sharded_norm<D: Device<f32>>(
    ranks: &dyn Ranks,
    owners: &[Range<usize>],
    model: &Flip<f32, D>,
    gradients: &mut Gradients<f32, D>,
) -> Result<f64, OptimizerError> {
    let own = squares(model, owners[ranks.rank()].clone(), gradients).map_err(OptimizerError::device)?;
    let own: Vec<u8> = own.iter().flat_map(|square| square.to_le_bytes()).collect();
    let mut sum = 0.0;
    for square in ranks.gather(&own)?.concat().chunks_exact(8) {
        let square = square.try_into().map_err(|_| RanksError::Size { expected: 8, got: square.len() })?;
        sum += f64::from_le_bytes(square);
    }
    Ok(sum.sqrt())
}

impl<D: Device<f32>> AdamW<f32, D> {
    /// Updates the parameters of this rank and gives them to the others.
    ///
    /// # Errors
    /// The device or an exchange fails.
    pub fn update_sharded(
        &mut self,
        ranks: &dyn Ranks,
        owners: &[Range<usize>],
        model: &mut Flip<f32, D>,
        gradients: Gradients<f32, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        self.update_some(model, owners[ranks.rank()].clone(), gradients, lr, factor)?;
        Ok(model.spread(ranks, owners)?)
    }

    /// The state of all parameters on rank 0, as [`AdamW::export`] gives it where one rank has it all; the others get
    /// nothing.
    ///
    /// # Errors
    /// The device or an exchange fails.
    pub fn export_sharded(
        &mut self,
        ranks: &dyn Ranks,
        owners: &[Range<usize>],
        model: &Flip<f32, D>,
    ) -> Result<Option<Vec<NamedTensor>>, OptimizerError> {
        let parameters = model.parameters();
        let own = self.export(&parameters[owners[ranks.rank()].clone()])?;
        let (count, moments) =
            own.split_last().map_or((None, &[][..]), |(count, moments)| (Some(count), moments));
        let send: Vec<f32> = moments.iter().flat_map(|tensor| tensor.data.iter().copied()).collect();
        let mut sent = vec![0; ranks.count()];
        sent[0] = send.len();
        let numbers = |own: &Range<usize>| parameters[own.clone()].iter().map(|p| 2 * p.len()).sum();
        let first = ranks.rank() == 0;
        let received: Vec<usize> = owners.iter().map(|own| if first { numbers(own) } else { 0 }).collect();
        let mut receive = vec![0.0; received.iter().sum()];
        ranks.exchange(&send, &sent, &mut receive, &received)?;
        let Some(count) = count.filter(|_| first) else { return Ok(None) };
        let mut rest = receive.as_slice();
        let mut all = Vec::with_capacity(2 * parameters.len() + 1);
        for own in owners {
            // Names and shapes, to be filled in.
            let mut outline = AdamW::new(self.config()).export(&parameters[own.clone()])?;
            outline.pop();
            for tensor in &mut outline {
                let (values, after) = rest.split_at(tensor.data.len());
                tensor.data.copy_from_slice(values);
                rest = after;
            }
            all.extend(outline);
        }
        all.push(count.clone());
        Ok(Some(all))
    }

    /// The share of this rank of the state of all parameters.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn import_sharded(
        ranks: &dyn Ranks,
        owners: &[Range<usize>],
        config: &super::AdamWConfig,
        model: &Flip<f32, D>,
        tensors: &[NamedTensor],
    ) -> Result<Self, OptimizerError> {
        let own = &model.parameters()[owners[ranks.rank()].clone()];
        let tensors: Vec<NamedTensor> = Self::state_of(own, tensors).cloned().collect();
        Self::import(config, own, &tensors)
    }
}
