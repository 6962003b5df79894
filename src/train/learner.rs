//! What a training stage learns with: gradients of a batch, their norm, and the update, on one rank or on several.

use crate::model::{GraphDevice, LossAndGradients, OwnParts};
use crate::optimizer::{clip_factor, global_norm, sharded_norm, AdamW, OptimizerError};
use crate::parameter::Flat;
use crate::ranks::{Owners, Shard};

use super::batches::{Batches, ReadyBatch};
use super::error::TrainError;
use super::plan::{PlanError, TrainingPlan};
use super::resumed::Resumed;
use super::run::Run;

/// The optimizer of a stage, and the ranks that hold its state.
pub(super) struct Learner<D: GraphDevice> {
    /// The ranks that hold the optimizer's state of each parameter, where it is sharded.
    pub owners: Option<Owners>,
    pub optimizer: AdamW<f32, D>,
}

/// Loss of a batch, and its gradients with their global L2 norm before clipping.
pub(super) struct Gradients<D: GraphDevice> {
    pub step: LossAndGradients<f32, D>,
    pub norm: f64,
}

impl<D: GraphDevice> Learner<D> {
    /// The optimizer as it is when a stage begins, as the stage before has handed it on, or as it was when the checkpoint
    /// was taken.
    ///
    /// # Errors
    /// The checkpoint is of another model, the device fails, or an exchange.
    pub fn new(
        run: &mut Run<'_, D>,
        plan: &TrainingPlan,
        resumed: Option<&Resumed>,
    ) -> Result<Self, TrainError> {
        run.model.freeze(&plan.config.frozen_towers());
        let (ranks, config) = (run.processes.ranks, &plan.rule.adamw);
        let owners = owners(run)?;
        let handed_on = run.moments.take();
        let optimizer = match (resumed, handed_on) {
            (Some(resumed), _) => resumed.optimizer(ranks, owners.as_ref(), config, &run.model)?,
            (None, Some(moments)) if plan.rule.continues => moments,
            (None, None) if plan.rule.continues => {
                let stage = run.state.position.stage;
                return Err(TrainError::Plan { stage, source: PlanError::NoMoments });
            }
            (None, _) => AdamW::new(config),
        };
        Ok(Learner { owners, optimizer })
    }

    /// An optimizer to try a stage with.
    ///
    /// # Errors
    /// The device fails.
    pub fn to_try(run: &mut Run<'_, D>, plan: &TrainingPlan) -> Result<Self, TrainError> {
        run.model.freeze(&plan.config.frozen_towers());
        Ok(Learner { owners: owners(run)?, optimizer: AdamW::new(&plan.rule.adamw) })
    }

    /// Loss of a batch, and its gradients: on this rank all of them, or those of its own parameters.
    ///
    /// # Errors
    /// The input does not fit, the device fails, or an exchange.
    pub fn gradients(
        &self,
        run: &Run<'_, D>,
        plan: &TrainingPlan,
        batches: &Batches<'_>,
        batch: &ReadyBatch,
    ) -> Result<Gradients<D>, TrainError> {
        let (model, ranks) = (&run.model, run.processes.ranks);
        let step = self.loss_and_gradients(run, plan, batches, batch)?;
        let norm = match &self.owners {
            None => global_norm(model, &step.gradients).map_err(device)?,
            Some(owners) => sharded_norm(ranks, owners, model, &step.gradients)?,
        };
        Ok(Gradients { step, norm })
    }

    fn loss_and_gradients(
        &self,
        run: &Run<'_, D>,
        plan: &TrainingPlan,
        batches: &Batches<'_>,
        batch: &ReadyBatch,
    ) -> Result<LossAndGradients<f32, D>, TrainError> {
        let (model, parts) = (&run.model, &batches.parts);
        let ReadyBatch { images, texts, .. } = batch;
        if let ([images], [texts], 1) = (images.as_slice(), texts.as_slice(), parts.count()) {
            return Ok(model.loss_and_gradients(images, texts)?);
        }
        // A micro-batch is there to bound memory. Where it bounds nothing, encoding twice would be in vain.
        let keep = plan.micro_batch >= plan.batch || images.iter().map(Vec::len).sum::<usize>() == 1;
        let own = OwnParts { images, texts, owners: self.owners.as_ref(), keep };
        Ok(model.loss_and_gradients_in_parts(run.processes.ranks, parts, own)?)
    }

    /// Updates the parameters, of which each rank has its own where they are sharded, by gradients whose norm is `norm`.
    ///
    /// # Errors
    /// The device or an exchange fails.
    pub fn update(
        &mut self,
        run: &mut Run<'_, D>,
        plan: &TrainingPlan,
        gradients: Flat<f32, D>,
        norm: f64,
        lr: f64,
    ) -> Result<(), TrainError> {
        let (model, ranks) = (&mut run.model, run.processes.ranks);
        let factor = plan.config.clip_grad_norm.map_or(1.0, |most| clip_factor(norm, most));
        match &self.owners {
            None => self.optimizer.update(model, gradients, lr, factor)?,
            Some(owners) => self.optimizer.update_sharded(ranks, owners, model, gradients, lr, factor)?,
        }
        Ok(())
    }
}

/// The owners of the optimizer's state where that is sharded. Masters are given up where these are sharded too.
fn owners<D: GraphDevice>(run: &mut Run<'_, D>) -> Result<Option<Owners>, TrainError> {
    let (ranks, shard) = (run.processes.ranks, run.config.ranks.shard);
    let lengths: Vec<usize> = run.model.parameters().iter().map(|parameter| parameter.len()).collect();
    let sharded = shard != Shard::Nothing && !run.processes.alone();
    let owners = sharded.then(|| Owners::of(&lengths, ranks.count()));
    if let (Some(owners), Shard::Masters, false) = (&owners, shard, run.model.is_sharded()) {
        run.model.shard(ranks, owners)?;
    }
    Ok(owners)
}

fn device(error: impl std::fmt::Display) -> OptimizerError {
    OptimizerError::Device(error.to_string())
}
