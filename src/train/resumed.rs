//! The checkpoint that a run goes on from. Rank 0 reads it and hands out what the others need, one tensor after the other:
//! they need not see the run folder, and nobody holds all of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointError, Name, Snapshot};
use crate::model::{Flip, GraphDevice};
use crate::optimizer::{AdamW, AdamWConfig, Average};
use crate::ranks::{broadcast_bytes, Owners, Ranks};

use super::error::TrainError;
use super::identity::{Identity, IdentityError};
use super::run::{EMA, MODEL, OPTIMIZER};
use super::state::State;

/// A checkpoint, as a rank knows it.
#[derive(Debug)]
pub struct Resumed {
    /// Its folder, on rank 0.
    pub path: PathBuf,
    /// Position, parts and identity of the run.
    pub state: State,
    /// Name of its folder; on rank 0.
    pub name: Option<Name>,
    /// On rank 0.
    snapshot: Option<Snapshot>,
}

/// Message of rank 0 to the others.
#[derive(Serialize, Deserialize)]
struct Message {
    path: PathBuf,
    state: State,
}

impl Resumed {
    /// Gives all ranks the snapshot that rank 0 has found.
    ///
    /// # Errors
    /// Its state is not readable, or the exchange fails.
    pub fn share(ranks: &dyn Ranks, own: Option<Snapshot>) -> Result<Option<Resumed>, TrainError> {
        let message = match &own {
            Some(snapshot) => Some(Message { path: snapshot.path.clone(), state: snapshot.state()? }),
            None => None,
        };
        let message = serde_json::to_vec(&message).map_err(TrainError::message)?;
        let message = broadcast_bytes(ranks, &message)?;
        let message: Option<Message> = serde_json::from_slice(&message).map_err(TrainError::message)?;
        let name = own.as_ref().map(|snapshot| snapshot.name);
        Ok(message.map(|Message { path, state }| Resumed { path, state, name, snapshot: own }))
    }

    /// Folder and identity of the checkpoint.
    pub fn identity(&self) -> (&Path, Option<&Identity>) {
        (&self.path, self.state.identity.as_ref())
    }

    /// Refuses a checkpoint of a place that a recipe of so many stages does not have.
    ///
    /// # Errors
    /// It is of such a place.
    pub fn check_place(&self, stages: usize) -> Result<(), IdentityError> {
        let position = &self.state.position;
        let refused = |problem: String| {
            let checkpoint = self.path.clone();
            Err(IdentityError::Place { checkpoint, stage: position.stage, step: position.step, problem })
        };
        if self.name.is_some_and(|name| name != position.name()) {
            return refused("its folder has the name of another place; it was edited or renamed".into());
        }
        if position.stage >= stages {
            return refused(format!("the recipe has only {stages} stages, counted from 0"));
        }
        Ok(())
    }

    /// Gives a model its weights on rank 0; the others have them from there.
    ///
    /// # Errors
    /// The checkpoint is of another model, or no longer there.
    pub fn weights<D: GraphDevice>(&self, model: &mut Flip<f32, D>) -> Result<(), TrainError> {
        self.weights_of(MODEL, model)
    }

    fn weights_of<D: GraphDevice>(&self, stem: &str, model: &mut Flip<f32, D>) -> Result<(), TrainError> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let stored = snapshot.outline(stem)?;
        let there = stored.iter().map(|stored| (stored.name.as_str(), stored.shape.clone()));
        model.import_each(there, |place, values| Ok(snapshot.values(stem, &stored[place], values)?))
    }

    /// The average of the weights, where the checkpoint has one. Called by all ranks, each of which has all of the model yet.
    ///
    /// # Errors
    /// The checkpoint is of another model, or no longer there; or an exchange fails.
    pub fn average<D: GraphDevice>(
        &self,
        ranks: &dyn Ranks,
        model: &Flip<f32, D>,
    ) -> Result<Option<Average<f32, D>>, TrainError> {
        let Some(updates) = self.state.ema else { return Ok(None) };
        let mut averaged = model.clone();
        self.weights_of(EMA, &mut averaged)?;
        averaged.broadcast_from_first(ranks)?;
        Ok(Some(Average::new(averaged.masters().clone(), updates)))
    }

    /// The state of the optimizer, or this rank's shard of it. Called by all ranks.
    ///
    /// # Errors
    /// The checkpoint is of another model, or no longer there; or an exchange fails.
    pub fn optimizer<D: GraphDevice>(
        &self,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        config: &AdamWConfig,
        model: &Flip<f32, D>,
    ) -> Result<AdamW<f32, D>, TrainError> {
        let stored = self.snapshot.as_ref().map(|snapshot| snapshot.outline(OPTIMIZER)).transpose()?;
        let stored = stored.unwrap_or_default();
        let there = stored.iter().map(|stored| (stored.name.as_str(), stored.shape.clone()));
        AdamW::import_each(ranks, owners, config, model, there, |place, values| {
            let missing = || CheckpointError::Missing { path: self.path.clone() };
            let snapshot = self.snapshot.as_ref().ok_or_else(missing)?;
            Ok(snapshot.values(OPTIMIZER, &stored[place], values)?)
        })
    }
}
