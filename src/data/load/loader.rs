//! Batches in the order of the source, prepared ahead by worker threads.
//!
//! The batches depend on the options alone, never on the number of threads or on their timing; a loader that
//! starts at the cursor of a batch goes on with the very next sample.

use std::time::{Duration, Instant};

use crate::data::load::collate::Delivery;
use crate::data::load::prefetch::Prefetch;
use crate::data::load::{Batch, LoaderOptions, Passes, Patches, Skipped};
use crate::data::DataError;

/// Yields batches as its options say.
///
/// ```
/// use std::sync::Arc;
///
/// use flip::data::decode::Transform;
/// use flip::data::load::{first_captions, Loader, LoaderOptions};
/// use flip::data::text::Tokenizer;
/// use flip::data::{open_source, ScenesConfig, ScenesLevel, ScenesSplit, SourceConfig};
///
/// let samples = std::num::NonZeroU64::new(100);
/// let config = ScenesConfig { size: 32, split: ScenesSplit::Train, level: ScenesLevel::Plain, samples };
/// let source = open_source(&SourceConfig::Scenes(config), 0)?;
/// let tokenizer = Tokenizer::train(first_captions(source.as_ref(), 100)?.into_iter(), 500)?;
/// let transform = Transform::centre(32);
/// let mut options = LoaderOptions::new(source, transform, Arc::new(tokenizer), 16, 8);
/// options.workers = 2;
/// let mut loader = Loader::start(options)?;
/// let mut batches = 0;
/// while let Some(batch) = loader.next()? {
///     assert_eq!(batch.pixels.len(), 8 * 32 * 32 * 3);
///     assert_eq!(batch.tokens.len(), 8 * 16);
///     batches += 1;
/// }
/// assert_eq!(batches, 12);
/// # Ok::<(), flip::data::DataError>(())
/// ```
pub struct Loader {
    prefetch: Prefetch,
    skipped: Skipped,
    waited: Duration,
    /// Batches that will yet be taken, where that was said.
    left: Option<u64>,
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
    /// The options ask for empty batches, images or captions, or the system refuses a thread.
    pub fn start(options: LoaderOptions) -> Result<Self, DataError> {
        for (what, value) in
            [("batch", options.batch), ("image size", options.transform.size()), ("context", options.context)]
        {
            if value == 0 {
                return Err(DataError::Invalid(format!("a loader needs a {what} of at least 1, got 0")));
            }
        }
        let lanes = options.lanes.len().max(1);
        if !options.batch.is_multiple_of(lanes) || (lanes > 1 && options.passes == Passes::Once) {
            let batch = options.batch;
            let what = format!("a loader cannot make batches of {batch} of {lanes} lanes, nor end with them");
            return Err(DataError::Invalid(what));
        }
        let size = options.transform.size();
        if let Some(Patches { side, kept, .. }) = options.patches {
            if side == 0 || kept == 0 || !size.is_multiple_of(side) {
                let what = format!("{kept} patches of {side} pixels from images of {size}");
                return Err(DataError::Invalid(format!("a loader cannot cut {what}")));
            }
        }
        Ok(Loader {
            left: options.batches,
            prefetch: Prefetch::start(options)?,
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
        self.left = match self.left {
            Some(0) => {
                let what = "a loader was asked for more batches than it was told of; this is a bug";
                return Err(DataError::Invalid(what.into()));
            }
            left => left.map(|left| left - 1),
        };
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

    /// Time that `next` has waited for data, all in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}
