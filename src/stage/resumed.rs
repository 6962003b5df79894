//! The checkpoint that a run goes on from. Rank 0 reads it and hands out what the others need, one tensor after the other:
//! they need not see the run folder, and nobody holds all of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointError, Name, Snapshot};
use crate::model::{Flip, GraphDevice};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::ranks::{from_first, Owners, Ranks};

use super::training::{State, MODEL, OPTIMIZER};
use super::StageError;

/// A checkpoint, as a rank knows it.
#[derive(Debug)]
pub struct Resumed {
    /// Its folder, on rank 0.
    pub path: PathBuf,
    pub state: State,
    /// That of its folder, on rank 0.
    pub name: Option<Name>,
    /// On rank 0.
    snapshot: Option<Snapshot>,
}

/// What rank 0 tells the others.
#[derive(Serialize, Deserialize)]
struct Told {
    path: PathBuf,
    state: State,
}

impl Resumed {
    /// What rank 0 has found, to all.
    ///
    /// # Errors
    /// Its state is not readable, or the exchange fails.
    pub fn share(ranks: &dyn Ranks, own: Option<Snapshot>) -> Result<Option<Resumed>, StageError> {
        let told = match &own {
            Some(snapshot) => Some(Told { path: snapshot.path.clone(), state: snapshot.state()? }),
            None => None,
        };
        let told = from_first(ranks, &serde_json::to_vec(&told).map_err(StageError::json)?)?;
        let told: Option<Told> = serde_json::from_slice(&told).map_err(StageError::json)?;
        let name = own.as_ref().map(|snapshot| snapshot.name);
        Ok(told.map(|Told { path, state }| Resumed { path, state, name, snapshot: own }))
    }

    /// Gives a model its weights on rank 0; the others have them from there.
    ///
    /// # Errors
    /// The checkpoint is of another model, or no longer there.
    pub fn weights<D: GraphDevice>(&self, model: &mut Flip<f32, D>) -> Result<(), StageError> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let stored = snapshot.outline(MODEL)?;
        let there = stored.iter().map(|stored| (stored.name.as_str(), stored.shape.clone()));
        model.import_each(there, |place, values| Ok(snapshot.values(MODEL, &stored[place], values)?))
    }

    /// The state of the optimizer, or this rank's share of it. Called by all ranks.
    ///
    /// # Errors
    /// The checkpoint is of another model, or no longer there; or an exchange fails.
    pub fn optimizer<D: GraphDevice>(
        &self,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        config: &AdamWConfig,
        model: &Flip<f32, D>,
    ) -> Result<AdamW<f32, D>, StageError> {
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
