//! Norm, update and state where each rank has the moments of some parameters only. What comes out is what one rank computes
//! that has them all.

use super::adamw::{AdamW, OptimizerError};
use super::clip::squares;
use super::config::AdamWConfig;
use crate::model::Flip;
use crate::parameter::{Flat, Mismatch, Ranges};
use crate::ranks::{send, Owners, Ranks, RanksError};

/// The Euclidean norm of all gradients, of which each rank has those of its own parameters.
///
/// # Errors
/// The device or an exchange fails.
pub fn sharded_norm<D: Ranges<f32>>(
    ranks: &dyn Ranks,
    owners: &Owners,
    model: &Flip<f32, D>,
    gradients: &Flat<f32, D>,
) -> Result<f64, OptimizerError> {
    let places = |rank: usize| owners.places(rank).filter(|&place| model.learns(place));
    let mine: Vec<usize> = places(ranks.rank()).collect();
    let own = squares(model, &mine, gradients).map_err(OptimizerError::device)?;
    let own: Vec<u8> = own.iter().flat_map(|square| square.to_le_bytes()).collect();
    let mut of_each = vec![0.0; model.parameters().len()];
    for (rank, own) in ranks.gather(&own)?.iter().enumerate() {
        let size = RanksError::Size { expected: 8 * places(rank).count(), got: own.len() };
        let (squares, rest) = own.as_chunks();
        if squares.len() != places(rank).count() || !rest.is_empty() {
            return Err(size.into());
        }
        places(rank).zip(squares).for_each(|(place, &square)| of_each[place] = f64::from_le_bytes(square));
    }
    // In the order of all parameters, as one rank adds them up.
    Ok(of_each.iter().fold(0.0, |sum, square| sum + square).sqrt())
}

impl<D: Ranges<f32>> AdamW<f32, D> {
    /// Updates the parameters of this rank and gives them to the others.
    ///
    /// # Errors
    /// The device or an exchange fails.
    pub fn update_sharded(
        &mut self,
        ranks: &dyn Ranks,
        owners: &Owners,
        model: &mut Flip<f32, D>,
        gradients: Flat<f32, D>,
        lr: f64,
        factor: f64,
    ) -> Result<(), OptimizerError> {
        let learning = model.learning();
        let mine =
            |place: usize| owners.owner(place) == ranks.rank() && learning.binary_search(&place).is_ok();
        self.update_some(model, mine, gradients, lr, factor)?;
        Ok(model.broadcast(ranks, owners)?)
    }

    /// Shows rank 0 a tensor of the [outline](AdamW::outline) for all parameters of the model, wherever it is; `owners` have
    /// each some, where they are shared out. Then called by all ranks, of whom the others see nothing.
    ///
    /// # Errors
    /// The device or an exchange fails.
    pub fn show_first(
        &self,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        model: &Flip<f32, D>,
        index: usize,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), OptimizerError> {
        let parameters = model.parameters();
        let place = index % parameters.len();
        // The number of updates is the same on all of them.
        let moments = owners.filter(|_| index < 2 * parameters.len());
        let from = moments.map_or(0, |owners| owners.owner(place));
        let first = ranks.rank() == 0;
        if from == 0 {
            return match first {
                true => self.show(parameters, index, see),
                false => Ok(()),
            };
        }
        let mut values = Vec::new();
        if ranks.rank() == from {
            self.show(parameters, index, &mut |own| values = own.to_vec())?;
        } else if first {
            values.resize(parameters[place].len(), 0.0);
        }
        send(ranks, from, 0, &mut values)?;
        if first {
            see(&values);
        }
        Ok(())
    }

    /// The state that was written for all parameters of the model, or of it what belongs to this rank where `owners` have
    /// each some. Called by all ranks. Rank 0 knows the names and shapes of the tensors `there`, and `read` gives it the
    /// values of one by its place there; it hands each to where it belongs.
    ///
    /// # Errors
    /// A tensor is missing or of another shape, `read` fails, or the device, or an exchange.
    pub fn import_each<'a, F: From<OptimizerError>>(
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        config: &AdamWConfig,
        model: &Flip<f32, D>,
        there: impl Iterator<Item = (&'a str, Vec<usize>)>,
        mut read: impl FnMut(usize, &mut Vec<f32>) -> Result<(), F>,
    ) -> Result<Self, F> {
        let parameters = model.parameters();
        let (rank, outline) = (ranks.rank(), Self::outline(parameters));
        let places = match rank {
            0 => Mismatch::places(&outline, there).map_err(OptimizerError::State)?,
            _ => Vec::new(),
        };
        let wanted =
            |place: usize| model.learns(place) && owners.is_none_or(|owners| owners.owner(place) == rank);
        let mut state = Self::for_some(config, model.masters().device(), parameters, wanted)?;
        for (index, (_, shape)) in outline.iter().enumerate() {
            let moments = owners.filter(|_| index < 2 * parameters.len());
            let to = moments.map(|owners| owners.owner(index % parameters.len()));
            let mut values = Vec::new();
            match places.get(index) {
                Some(&place) => read(place, &mut values)?,
                None if to.is_none_or(|to| to == rank) => values.resize(shape.iter().product(), 0.0),
                None => {}
            }
            let handed = match to {
                None => ranks.broadcast(0, &mut values),
                Some(0) => Ok(()),
                Some(to) => send(ranks, 0, to, &mut values),
            };
            handed.map_err(OptimizerError::from)?;
            if to.is_none_or(|to| to == rank) {
                state.fill(parameters, index, &values)?;
            }
        }
        Ok(state)
    }
}
