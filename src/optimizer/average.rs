//! An exponential moving average of the weights: a <- a + (1 - d) (p - a) after each update. It lies where the masters lie: on
//! each rank the average of those that it has.

use super::config::EmaConfig;
use crate::parameter::{Flat, Ranges};
use dfdx::prelude::*;

/// The average, and how many updates it has seen.
#[derive(Debug)]
pub struct Average<E: Dtype, D: Storage<E>> {
    weights: Flat<E, D>,
    updates: u64,
}

impl<E: Dtype, D: Ranges<E>> Average<E, D> {
    /// An average that begins with these weights, or is continued with what it was after so many `updates`.
    pub fn new(weights: Flat<E, D>, updates: u64) -> Self {
        Average { weights, updates }
    }

    /// Updates seen so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averaged weights.
    pub fn weights(&self) -> &Flat<E, D> {
        &self.weights
    }

    /// The averaged weights, to be exchanged for a while.
    pub fn weights_mut(&mut self) -> &mut Flat<E, D> {
        &mut self.weights
    }

    /// Lies as the masters do from here on.
    ///
    /// # Errors
    /// The device has no room.
    pub fn follow(&mut self, masters: &Flat<E, D>) -> Result<(), D::Err> {
        if self.weights.layout() != masters.layout() {
            self.weights = self.weights.laid_out(masters.layout().clone())?;
        }
        Ok(())
    }

    /// Moves the average towards the masters after an update.
    ///
    /// # Errors
    /// The device fails.
    pub fn update(&mut self, config: &EmaConfig, masters: &Flat<E, D>) -> Result<(), D::Err> {
        let share = 1.0 - config.decay_at(self.updates);
        self.updates += 1;
        self.weights.move_towards(masters, share)
    }
}
