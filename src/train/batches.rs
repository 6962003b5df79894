//! Batches of a training stage: loaded, masked, and one of them ahead where the model wants to know the next.

use std::sync::Arc;
use std::time::Instant;

use crate::data::decode::Transform;
use crate::data::load::first_captions_within;
use crate::data::load::Share;
use crate::data::load::Skipped;
use crate::data::load::{LabelFrom, Loader, LoaderOptions, Passes};
use crate::data::source::filter::Filter;
use crate::data::source::Order;
use crate::data::{Batch, Cursor};
use crate::mask::TokenFrequencies;
use crate::model::{GraphDevice, StepImages, TextInput};
use crate::ranks::{Parts, Ranks};

use super::clock::Clock;
use super::error::TrainError;
use super::inputs::{BatchPart, Masking, StepInputs};
use super::plan::{PlanError, TrainingPlan};
use super::run::Run;

/// Captions that token frequencies are counted over.
const COUNTED_CAPTIONS: usize = 10_000;

/// Samples of this rank in a batch, ready for the encoders: an entry for each of its parts.
pub struct ReadyBatch {
    /// As they were loaded.
    pub batches: Vec<Batch>,
    /// Kept patches of each micro-batch of each part.
    pub images: StepImages,
    /// Kept tokens of each micro-batch of each part.
    pub texts: Vec<Vec<TextInput>>,
}

/// The batches of a stage, of which this rank has some parts.
pub struct Batches<'p> {
    plan: &'p TrainingPlan,
    /// Parts of a batch, and which of them this rank has.
    pub parts: Parts,
    frequencies: Option<TokenFrequencies>,
    /// The plan of every loader, but for its part and its start.
    loading: LoaderOptions,
    loaders: Vec<Loader>,
    /// Just past the last sample that was trained on, for each part of this rank.
    cursors: Vec<Cursor>,
    /// The batch of the next step, or why there is none.
    ahead: Option<Result<ReadyBatch, TrainError>>,
}

impl<'p> Batches<'p> {
    /// Starts a loader for each part of this rank where the run stands.
    ///
    /// # Errors
    /// The batch cannot be divided among the ranks, or data cannot be had.
    pub fn start<D: GraphDevice>(run: &mut Run<'_, D>, plan: &'p TrainingPlan) -> Result<Self, TrainError> {
        let config = run.config;
        let needs_frequencies = plan.config.text_mask.needs_frequencies();
        let frequencies = needs_frequencies.then(|| count_tokens(run)).transpose()?;
        let filter = Arc::new(Filter::open(&config.data.filter, run.source.as_ref())?);
        let stage = run.state.position.stage;
        let so_far = run.state.parts.len().max(1);
        let parts = Parts::of(config.ranks, plan.batch, so_far, run.processes.ranks)
            .map_err(|source| TrainError::Plan { stage, source: PlanError::Parts(source) })?;
        let masking = Masking { plan, model: config.model, frequencies: None, seed: config.seed };
        let loading = LoaderOptions {
            source: run.source.clone(),
            order: Order::Shuffled { seed: config.seed },
            passes: Passes::Endless,
            share: Share { rank: 0, ranks: parts.count() as u64 },
            start: run.state.position.cursor,
            batch: parts.rows(),
            keep_partial: false,
            transform: Transform::Train { size: plan.image_size, augment: config.data.augment.clone() },
            patches: Some(masking.patches()),
            tokenizer: run.tokenizer.clone(),
            context: config.model.text.context,
            label: LabelFrom::None,
            filter: Some(filter),
            limits: config.data.limits.clone(),
            workers: (run.workers() / parts.own().len()).max(1),
            stall_timeout: config.data.storage.stall_timeout(),
            seed: config.seed,
        };
        if run.state.parts.len() != parts.count() {
            run.state.forget_parts();
        }
        let (mut loaders, mut cursors) = (Vec::new(), Vec::new());
        for part in parts.own() {
            let share = Share { rank: part as u64, ..loading.share };
            let (share, start) = match run.state.parts.get(part) {
                Some(&cursor) => (share.resumed(), cursor),
                None => (share, run.state.position.cursor),
            };
            loaders.push(Loader::start(LoaderOptions { share, start, ..loading.clone() })?);
            cursors.push(start);
        }
        Ok(Batches { plan, parts, frequencies, loading, loaders, cursors, ahead: None })
    }

    /// The batch of the step that comes next.
    ///
    /// # Errors
    /// Data cannot be had.
    pub fn next<D: GraphDevice>(
        &mut self,
        run: &Run<'_, D>,
        clock: &mut Clock,
    ) -> Result<ReadyBatch, TrainError> {
        match self.ahead.take() {
            Some(batch) => batch,
            None => self.load(run, clock, run.state.position.global_step),
        }
    }

    /// Loads the batch after the one that [`next`](Self::next) gave. Its error, if it has one, is the next step's.
    pub fn load_ahead<D: GraphDevice>(&mut self, run: &Run<'_, D>, clock: &mut Clock) -> Option<&StepImages> {
        let loaded = self.load(run, clock, run.state.position.global_step + 1);
        self.ahead.insert(loaded).as_ref().ok().map(|batch| &batch.images)
    }

    /// Loads a part of the batch for each loader, and draws the masks of an update.
    fn load<D: GraphDevice>(
        &mut self,
        run: &Run<'_, D>,
        clock: &mut Clock,
        global_step: u64,
    ) -> Result<ReadyBatch, TrainError> {
        let waiting = Instant::now();
        let next = |loader: &mut Loader| loader.next()?.ok_or(TrainError::NoMoreData);
        let batches: Result<Vec<Batch>, TrainError> = self.loaders.iter_mut().map(next).collect();
        clock.wait(waiting.elapsed());
        let batches = batches?;
        let (model, seed) = (run.config.model, run.config.seed);
        let masking = Masking { plan: self.plan, model, frequencies: self.frequencies.as_ref(), seed };
        let inputs = self.parts.own().zip(&batches).map(|(index, batch)| {
            let part = BatchPart { index, of: self.parts.count() };
            let StepInputs { images, texts } = masking.inputs(batch, part, global_step);
            (images, texts)
        });
        let (images, texts): (Vec<_>, Vec<_>) = inputs.unzip();
        Ok(ReadyBatch { batches, images: Arc::new(images), texts })
    }

    /// Notes that these batches have been trained on.
    pub fn used(&mut self, batches: &[Batch]) {
        self.cursors = batches.iter().map(|batch| batch.cursor).collect();
    }

    /// Gives the places of all parts of a batch, those of the parts of other ranks too; called by all ranks.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn gather_cursors(&self, ranks: &dyn Ranks) -> Result<Vec<Cursor>, TrainError> {
        let own = serde_json::to_vec(&self.cursors).map_err(TrainError::message)?;
        let mut all = Vec::new();
        for cursors in ranks.gather(&own)? {
            all.extend(serde_json::from_slice::<Vec<Cursor>>(&cursors).map_err(TrainError::message)?);
        }
        Ok(all)
    }

    /// The plan of the loader of the first part, to start at `start`.
    pub fn loading_from(&self, start: Cursor) -> LoaderOptions {
        LoaderOptions { start, ..self.loading.clone() }
    }

    /// Samples that were left out in this stage.
    pub fn skipped(&self) -> Skipped {
        let mut all = Skipped::default();
        self.loaders.iter().for_each(|loader| all.merge(loader.skipped().clone()));
        all
    }
}

fn count_tokens<D: GraphDevice>(run: &Run<'_, D>) -> Result<TokenFrequencies, TrainError> {
    let timeout = run.config.data.storage.stall_timeout();
    let captions = first_captions_within(timeout, &run.source, COUNTED_CAPTIONS)?;
    let mut rows = Vec::with_capacity(captions.len());
    for caption in &captions {
        let (mut tokens, length) = run.tokenizer.encode(caption, run.config.model.text.context)?;
        tokens.truncate(length);
        rows.push(tokens);
    }
    Ok(TokenFrequencies::count(rows))
}
