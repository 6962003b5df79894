//! The steps of a stage whose length is a budget of hours or of FLOP: resolved when the stage begins, recorded in the run
//! folder, and read from there wherever the run is resumed. The clock is asked once.

use std::time::{Duration, Instant};

use crate::duration::Length;
use crate::model::GraphDevice;
use crate::ranks::broadcast_bytes;
use crate::record::{ResolvedLength, RunFolder};

use super::batches::Batches;
use super::clock::Clock;
use super::error::TrainError;
use super::learner::{Gradients, Learner};
use super::plan::{PlanError, TrainingPlan};
use super::processes::Agreement;
use super::rank_reports::RankReport;
use super::run::Run;

/// Steps that are tried before the clock counts: the first ones allocate memory and fill queues.
const UNTIMED: usize = 2;
/// Steps that are timed, at least and at most.
const TIMED: [usize; 2] = [3, 200];
/// Most seconds of a trial, and of its budget the most that is spent on it.
const TRIAL: (f64, f64) = (30.0, 0.02);

/// The plan of a stage with the steps that its length stands for, given one that may not know them yet; none where the run was
/// interrupted before they were known. Called by all ranks.
///
/// # Errors
/// A step fails that is tried, `lengths.json` cannot be read or written, it was lost, or an exchange fails.
pub fn settled<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: TrainingPlan,
    with_steps: impl Fn(u64) -> Result<TrainingPlan, PlanError>,
) -> Result<Option<TrainingPlan>, TrainError> {
    let (stage, length) = (run.state.position.stage, plan.config.length);
    if length.duration().is_some() {
        return Ok(Some(plan));
    }
    let steps = match recorded(run, length)? {
        Some(steps) => steps,
        None => match resolved(run, &plan)? {
            Some(resolved) => {
                let steps = resolved.steps;
                let ResolvedLength { length, seconds_per_step, .. } = &resolved;
                tracing::info!(target: "flip::train", stage, steps, seconds_per_step, "{length} in steps");
                if let Some(folder) = folder(run) {
                    resolved.record(folder)?;
                }
                steps
            }
            None => {
                if run.newest_checkpoint.is_none() {
                    run.save(None, None)?;
                }
                return Ok(None);
            }
        },
    };
    let plan = with_steps(steps).map_err(|source| TrainError::Plan { stage, source })?;
    Ok(Some(plan))
}

/// The run folder, on rank 0.
fn folder<'r, D: GraphDevice>(run: &Run<'r, D>) -> Option<&'r RunFolder> {
    run.recorder.as_ref().map(|recorder| recorder.folder)
}

/// The steps that the run has recorded for a stage of this length.
fn recorded<D: GraphDevice>(run: &Run<'_, D>, length: Length) -> Result<Option<u64>, TrainError> {
    let (stage, begun) = (run.state.position.stage, run.state.position.step > 0);
    // The steps, and whether they were known and are not any more.
    let mut found = (None, false);
    if let Some(folder) = folder(run) {
        let all = ResolvedLength::read_all(&folder.lengths())?;
        let of_stage = all.into_iter().find(|recorded| recorded.stage == stage);
        found = match of_stage {
            Some(recorded) if recorded.length == format!("{length:?}") => (Some(recorded.steps), false),
            // Another length was amended.
            Some(_) => (None, false),
            None => (None, begun),
        };
    }
    let message = serde_json::to_vec(&found).map_err(TrainError::message)?;
    let message = broadcast_bytes(run.processes.ranks, &message)?;
    match serde_json::from_slice(&message).map_err(TrainError::message)? {
        (_, true) => Err(TrainError::Plan { stage, source: PlanError::LengthLost }),
        (steps, false) => Ok(steps),
    }
}

/// The steps that a budget stands for; none where the run was interrupted.
fn resolved<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
) -> Result<Option<ResolvedLength>, TrainError> {
    let stage = run.state.position.stage;
    let length = format!("{:?}", plan.config.length);
    let Length::Hours(hours) = plan.config.length else {
        let flop_per_step = Some(plan.config.flops_per_step(run.config.model));
        return Ok(Some(ResolvedLength {
            stage,
            length,
            steps: plan.steps,
            seconds_per_step: None,
            flop_per_step,
        }));
    };
    let Some(seconds) = seconds_per_step(run, plan, 3600.0 * hours)? else { return Ok(None) };
    let steps = ((3600.0 * hours / seconds) as u64).max(1);
    Ok(Some(ResolvedLength { stage, length, steps, seconds_per_step: Some(seconds), flop_per_step: None }))
}

/// Seconds of a step, of some that are tried with the batches that come next, at a learning rate of 0; none where the run was
/// interrupted. All ranks get what rank 0 has timed.
fn seconds_per_step<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
    budget: f64,
) -> Result<Option<f64>, TrainError> {
    let most = Duration::from_secs_f64(TRIAL.0.min(TRIAL.1 * budget));
    let mut batches = Batches::start(run, plan, None)?;
    let mut learner = Learner::to_try(run, plan)?;
    let mut clock = Clock::start();
    let (mut began, mut times) = (Instant::now(), Vec::new());
    loop {
        let loaded = batches.next(run, &mut clock);
        let reason = loaded.as_ref().err().map(ToString::to_string);
        let batch = match (run.processes.agree(reason.as_deref(), &RankReport::default()), loaded) {
            (Ok(Agreement { interrupted: true, .. }), Ok(_)) => return Ok(None),
            (Ok(_), Ok(batch)) => batch,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        batches.announce(run, &mut clock, &batch, true);
        let Gradients { step, norm } = learner.gradients(run, plan, &batches, &batch)?;
        // Moments that are handed on stay as they are, and a second pair of them might find no room.
        if run.moments.is_none() {
            learner.update(run, plan, step.gradients, norm, 0.0)?;
        }
        let now = Instant::now();
        times.push((now - began).as_secs_f64());
        began = now;
        let timed = times.get(UNTIMED..).unwrap_or_default();
        let enough = timed.len() >= TIMED[0]
            && (timed.len() >= TIMED[1] || timed.iter().sum::<f64>() >= most.as_secs_f64());
        // The median: a step that something else delayed does not count.
        let answer = if enough { median(timed) } else { 0.0 };
        let mut answer = [answer as f32];
        run.processes.ranks.broadcast(0, &mut answer)?;
        if answer[0] > 0.0 {
            return Ok(Some(f64::from(answer[0])));
        }
    }
}

/// The middle one in order; at least a nanosecond.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default().max(1e-9)
}
