//! Files of a run folder that grow while the run goes on.

use crate::record::{
    EvaluationRow, JsonLines, Metrics, RecordError, RunFolder, StepMetrics, StepTiming, Timing,
};
use crate::report::{EventWriter, ReportError};

use super::error::TrainError;
use super::state::Position;

/// Open files of a run. Rank 0 has them, and writes for all.
#[derive(Debug)]
pub struct Recorder<'a> {
    /// The run folder.
    pub folder: &'a RunFolder,
    metrics: Metrics,
    timing: Timing,
    events: EventWriter,
}

/// A file that cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// A file of rows.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The event file of TensorBoard.
    #[error(transparent)]
    Events(#[from] ReportError),
}

impl<'a> Recorder<'a> {
    /// Opens the files as long as they were at this position: rows written later are removed, as their steps are done again.
    ///
    /// # Errors
    /// A file lost what was written before the position, or cannot be written.
    pub fn open(folder: &'a RunFolder, position: &Position) -> Result<Recorder<'a>, RecorderError> {
        let mut rows = EvaluationRow::read_all(&folder.evaluations())?;
        rows.retain(|row| position.includes(row.stage, row.step));
        EvaluationRow::write_all(folder, &rows)?;
        Ok(Recorder {
            folder,
            metrics: JsonLines::open(&folder.metrics(), Some(position.metrics_bytes))?,
            timing: JsonLines::open(&folder.timing(), Some(position.timing_bytes))?,
            events: EventWriter::create(&folder.tensorboard(), position.global_step)?,
        })
    }

    /// Appends the rows of a step.
    ///
    /// # Errors
    /// The folder was moved, or cannot be written.
    pub fn step(
        &mut self,
        global_step: u64,
        metrics: &StepMetrics,
        timing: &StepTiming,
    ) -> Result<(), TrainError> {
        self.folder.still_there()?;
        self.metrics.append(metrics)?;
        self.timing.append(timing)?;
        let scalars = [
            ("train/loss", metrics.loss),
            ("train/lr", metrics.lr as f32),
            ("train/logit_scale", metrics.logit_scale),
            ("train/grad_norm", metrics.grad_norm),
            ("speed/images_per_s", timing.images_per_s as f32),
            ("speed/data_wait", timing.data_wait as f32),
        ];
        Ok(self.events.scalars(global_step, &scalars)?)
    }

    /// Adds a scalar to the event file of TensorBoard.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn scalar(&mut self, global_step: u64, tag: &str, value: f32) -> Result<(), TrainError> {
        Ok(self.events.scalars(global_step, &[(tag, value)])?)
    }

    /// Makes all rows survive a power loss, and notes in `position` how long the files are.
    ///
    /// # Errors
    /// The folder was moved, or the disk's.
    pub fn sync(&self, position: &mut Position) -> Result<(), TrainError> {
        self.folder.still_there()?;
        self.metrics.sync()?;
        self.timing.sync()?;
        position.metrics_bytes = self.metrics.position();
        position.timing_bytes = self.timing.position();
        Ok(())
    }
}
