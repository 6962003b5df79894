//! Parameters on several ranks: all alike, or the masters of weights on one rank each, where the others have only the
//! rounded copies that products read (ZeRO, arXiv 1910.02054, in whole tensors).

use std::sync::Arc;

use super::error::ModelError;
use super::Flip;
use crate::kernel::element::Bf16;
use crate::parameter::{Flat, Layout, Ranges, Role};
use crate::ranks::{cut, cut_mut, send, Owners, Ranks, RanksError};

impl<D: Ranges<f32>> Flip<f32, D> {
    /// Gives every rank the parameters of rank 0.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn broadcast_from_first(&mut self, ranks: &dyn Ranks) -> Result<(), ModelError> {
        if ranks.count() == 1 {
            return Ok(());
        }
        let owners = Owners::first(self.parameters().len());
        self.broadcast_whole(ranks, &owners)
    }

    /// True if masters are sharded: then some of them are elsewhere.
    pub fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// Gives up the masters of the weights that other ranks own. From here on only `owners` update them, and
    /// [`broadcast`](Flip::broadcast) rounds.
    ///
    /// # Errors
    /// Kernels do not compute with copies of the weights: in f32, masters are what they read. Or the device fails.
    pub fn shard(&mut self, ranks: &dyn Ranks, owners: &Owners) -> Result<(), ModelError> {
        let engine = self.engine().filter(|engine| engine.copies_weights()).ok_or(ModelError::NoCopies)?;
        engine.load(&self.masters).map_err(ModelError::device)?;
        let kept =
            |place: usize| self.parameters[place].role != Role::Weight || owners.owner(place) == ranks.rank();
        let layout = Arc::new(Layout::new(&self.parameters, kept));
        self.masters = self.masters.laid_out(layout).map_err(ModelError::device)?;
        self.sharded = true;
        Ok(())
    }

    /// Gives every rank each parameter as its owner has it; weights whose masters are shared out rounded to bf16, as products
    /// read them, in half of the bytes.
    ///
    /// # Errors
    /// The exchange or the device fails.
    pub fn broadcast(&mut self, ranks: &dyn Ranks, owners: &Owners) -> Result<(), ModelError> {
        self.broadcast_whole(ranks, owners)?;
        let Some(engine) = self.engine().filter(|_| self.sharded) else { return Ok(()) };
        for place in self.weights() {
            let mut values = match self.masters.holds(place) {
                true => self.masters.read(place).map_err(ModelError::device)?,
                false => vec![0.0; self.parameters[place].len()],
            };
            broadcast_rounded(ranks, owners.owner(place), &mut values)?;
            if !self.masters.holds(place) {
                engine.copy_weight(place, &values).map_err(ModelError::device)?;
            }
        }
        Ok(())
    }

    /// Those whose masters every rank has, a few at a time.
    fn broadcast_whole(&mut self, ranks: &dyn Ranks, owners: &Owners) -> Result<(), ModelError> {
        let whole = |place: &usize| !(self.sharded && self.parameters[*place].role == Role::Weight);
        let whole: Vec<usize> = (0..self.parameters.len()).filter(whole).collect();
        let mut values = Vec::new();
        for from in 0..ranks.count() {
            let mut rest: Vec<usize> =
                whole.iter().copied().filter(|&place| owners.owner(place) == from).collect();
            while !rest.is_empty() {
                let together = together(rest.iter().map(|&place| self.parameters[place].len()));
                let bundle: Vec<usize> = rest.drain(..together).collect();
                let lengths: Vec<usize> = bundle.iter().map(|&place| self.parameters[place].len()).collect();
                values.resize(lengths.iter().sum(), 0.0);
                if ranks.rank() == from {
                    for (&place, to) in bundle.iter().zip(cut_mut(&mut values, &lengths)) {
                        let read = self.masters.show(place, &mut |own| to.copy_from_slice(own));
                        read.map_err(ModelError::device)?;
                    }
                }
                ranks.broadcast(from, &mut values)?;
                if ranks.rank() != from {
                    for (place, values) in bundle.into_iter().zip(cut(&values, &lengths)) {
                        self.masters_mut().write(place, values).map_err(ModelError::device)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows rank 0 the values of the parameter at a place of the list, wherever its master is. Called by all ranks; the
    /// others see nothing.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn show_first(
        &self,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        place: usize,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), ModelError> {
        self.show_first_of(&self.masters, ranks, owners, place, see)
    }

    /// As [`show_first`](Self::show_first), of values that lie where the masters do.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn show_first_of(
        &self,
        values_here: &Flat<f32, D>,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        place: usize,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), ModelError> {
        let parameter = &self.parameters[place];
        let sharded = self.sharded && parameter.role == Role::Weight;
        let from = owners.filter(|_| sharded).map_or(0, |owners| owners.owner(place));
        let (first, own) = (ranks.rank() == 0, ranks.rank() == from);
        if first && own {
            return values_here.show(place, see).map_err(ModelError::device);
        }
        let mut values = match own {
            true if from != 0 => values_here.read(place).map_err(ModelError::device)?,
            _ => vec![0.0; if first { parameter.len() } else { 0 }],
        };
        if from != 0 {
            send(ranks, from, 0, &mut values)?;
        }
        if first {
            see(&values);
        }
        Ok(())
    }

    /// Places of the weights in the list of parameters.
    fn weights(&self) -> Vec<usize> {
        let all = self.parameters.iter().enumerate();
        all.filter(|(_, parameter)| parameter.role == Role::Weight).map(|(place, _)| place).collect()
    }
}

/// Values broadcast at a time, at least where there are as many: 1 MiB, so that small parameters take few messages.
const BUNDLE: usize = 256 << 10;

/// Number of the first parameters of these lengths that are broadcast at once.
fn together(lengths: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fits = |length: &usize| {
        sum += length;
        sum <= BUNDLE
    };
    lengths.take_while(fits).count().max(1)
}

/// Gives every rank the values of one, rounded to bf16: two in a word.
fn broadcast_rounded(ranks: &dyn Ranks, from: usize, values: &mut [f32]) -> Result<(), RanksError> {
    let own = ranks.rank() == from;
    let mut words = if own { paired(values) } else { vec![0.0; values.len().div_ceil(2)] };
    ranks.broadcast(from, &mut words)?;
    if !own {
        let halves =
            words.iter().map(|word| word.to_bits()).flat_map(|bits| [bits as u16, (bits >> 16) as u16]);
        values.iter_mut().zip(halves).for_each(|(value, half)| *value = Bf16(half).to_f32());
    }
    Ok(())
}

/// Bits of two rounded values for each word, the first in the lower half.
fn paired(values: &[f32]) -> Vec<f32> {
    let half = |value: Option<&f32>| value.map_or(0, |&value| u32::from(Bf16::from_f32(value).0));
    values.chunks(2).map(|two| f32::from_bits(half(two.first()) | half(two.get(1)) << 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Together;

    #[test]
    fn values_go_round_in_halves_of_words() {
        for n in [1, 2, 7] {
            let values: Vec<f32> = (0..n).map(|i| (i as f32 - 2.3) * 1.7f32.powi(i)).collect();
            let rounded: Vec<f32> = values.iter().map(|&value| Bf16::from_f32(value).to_f32()).collect();
            std::thread::scope(|scope| {
                for ranks in Together::of(3) {
                    let (values, rounded) = (&values, &rounded);
                    scope.spawn(move || {
                        let mut own =
                            if ranks.rank() == 1 { values.clone() } else { vec![f32::NAN; values.len()] };
                        broadcast_rounded(&ranks, 1, &mut own).unwrap();
                        assert_eq!(&own, if ranks.rank() == 1 { values } else { rounded });
                    });
                }
            });
        }
    }
}
