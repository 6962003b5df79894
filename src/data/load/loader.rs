//! Batches in the order of the source, prepared ahead by worker threads.
//!
//! What comes out depends on the plan alone, never on the number of threads or on their timing; a loader that
//! starts at the cursor of a batch goes on with the very next sample.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::decode::Transform;
use crate::data::load::prefetch::{Delivery, Prefetch};
use crate::data::load::{LimitsConfig, Share, Skipped};
use crate::data::source::filter::Filter;
use crate::data::source::{Order, Source};
use crate::data::storage::Patience;
use crate::data::text::Tokenizer;
use crate::data::{Batch, Cursor, DataError};

/// Everything that decides what a loader yields.
#[derive(Clone)]
pub struct Plan {
    pub source: Arc<dyn Source>,
    pub order: Order,
    pub passes: Passes,
    /// Which samples of the order are for this process.
    pub share: Share,
    /// The first sample.
    pub start: Cursor,
    /// Pairs in a batch.
    pub batch: usize,
    /// Whether a pass may end with a smaller batch; otherwise its last pairs are left out. Endless passes have
    /// no end: a batch may hold the last pairs of one epoch and the first of the next.
    pub keep_partial: bool,
    pub transform: Transform,
    /// Where a mask is known before images are decoded: the patches that it keeps, and nothing else is resized.
    pub patches: Option<Patches>,
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens of a caption.
    pub context: usize,
    pub label: LabelFrom,
    /// Good samples that are left out nevertheless; none without.
    pub filter: Option<Arc<Filter>>,
    pub limits: LimitsConfig,
    /// Threads that read, decode and tokenize; at least one. They change the speed and nothing else.
    pub workers: usize,
    /// How long the loader waits for a source that makes no progress.
    pub patience: Patience,
    /// Crops and the choice among several captions derive from it.
    pub seed: u64,
}

/// Patches of images instead of whole ones.
#[derive(Clone)]
pub struct Patches {
    /// Side of a patch, pixels; the size of the images is a multiple of it.
    pub side: usize,
    /// Patches of each image.
    pub kept: usize,
    /// The `kept` patches of the sample that stands at (epoch, index), each less than their number in an image.
    pub keep: Arc<dyn Fn(u64, u64) -> Vec<u32> + Send + Sync>,
}

/// How often the source is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Epoch after epoch.
    Endless,
    /// To the end of the epoch of the first sample. The source has to have an end.
    Once,
}

/// Where the class of an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelFrom {
    None,
    /// The source knows it: `.cls` members, folders, scenes.
    Source,
    /// A whole number in the sample's json. Anything else there, or a negative number, is no label.
    JsonField(String),
}

/// Yields the batches of a plan.
pub struct Loader {
    prefetch: Prefetch,
    skipped: Skipped,
    waited: Duration,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    Failed,
}

impl Loader {
    /// Starts the threads; they begin to work at once and are joined when the loader is dropped. Beside the
    /// batch that was handed out last, at most two more are held in memory.
    ///
    /// # Errors
    /// The plan asks for empty batches, images or captions, or the system refuses a thread.
    pub fn start(plan: Plan) -> Result<Self, DataError> {
        for (what, value) in
            [("batch", plan.batch), ("image size", plan.transform.size()), ("context", plan.context)]
        {
            if value == 0 {
                return Err(DataError::Invalid(format!("a loader needs a {what} of at least 1, got 0")));
            }
        }
        let size = plan.transform.size();
        if let Some(Patches { side, kept, .. }) = plan.patches {
            if side == 0 || kept == 0 || !size.is_multiple_of(side) {
                let what = format!("{kept} patches of {side} pixels from images of {size}");
                return Err(DataError::Invalid(format!("a loader cannot cut {what}")));
            }
        }
        Ok(Loader {
            prefetch: Prefetch::start(plan)?,
            skipped: Skipped::default(),
            waited: Duration::ZERO,
            state: State::Running,
        })
    }

    /// The next batch; waits for it. `None` at the end of a single pass. Broken samples are left out and
    /// counted.
    ///
    /// # Errors
    /// The source fails as a whole or makes no progress for too long, a whole pass has not one usable sample, too
    /// many are broken, or a thread panicked. After an error nothing more comes.
    #[allow(clippy::should_implement_trait)] // An iterator of results would go on after an error.
    pub fn next(&mut self) -> Result<Option<Batch>, DataError> {
        match self.state {
            State::Running => {}
            State::Ended => return Ok(None),
            State::Failed => return Err(DataError::Invalid("the loader stopped at an earlier error".into())),
        }
        let began = Instant::now();
        let Delivery { outcome, skipped } = self.prefetch.receive();
        self.waited += began.elapsed();
        self.skipped.merge(skipped);
        self.state = match &outcome {
            Ok(Some(_)) => State::Running,
            Ok(None) => State::Ended,
            Err(_) => State::Failed,
        };
        outcome
    }

    /// Samples left out before the last batch that was handed out.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// How long `next` has waited for data, all in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}
