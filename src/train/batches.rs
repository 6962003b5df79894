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
use super::lanes;
use super::plan::{PlanError, TrainingPlan};
use super::run::Run;
use super::state::State;

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
    /// How samples are dealt to the parts.
    dealing: Dealing,
    /// The plan of the loader of this rank's first part.
    loading: LoaderOptions,
    loaders: Vec<Loader>,
    /// Just past the last sample that was trained on, for each lane of this rank, or each part.
    cursors: Vec<Cursor>,
    /// The batch of the next step, or why there is none.
    ahead: Option<Result<ReadyBatch, TrainError>>,
}

impl<'p> Batches<'p> {
    /// Starts a loader for each part of this rank where the run stands. `count` is the number of batches that will be taken,
    /// where it is known.
    ///
    /// # Errors
    /// The batch cannot be divided among the ranks, or data cannot be had.
    pub fn start<D: GraphDevice>(
        run: &mut Run<'_, D>,
        plan: &'p TrainingPlan,
        count: Option<u64>,
    ) -> Result<Self, TrainError> {
        let config = run.config;
        let needs_frequencies = plan.config.text_mask.needs_frequencies();
        let frequencies = needs_frequencies.then(|| count_tokens(run)).transpose()?;
        let filter = Arc::new(Filter::open(&config.data.filter, run.source.as_ref())?);
        let parts = parts_of(run, plan)?;
        let masking = Masking { plan, model: config.model, frequencies: None, seed: config.seed };
        let position = &run.state.position;
        let mut loading = LoaderOptions {
            source: run.source.clone(),
            order: Order::Shuffled { seed: config.seed },
            passes: Passes::Endless,
            share: Share::WHOLE,
            start: position.cursor,
            lanes: Vec::new(),
            batches: count,
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
        let dealing = match run.state.is_without_lanes() {
            true => {
                tracing::info!(
                    target: "flip::data",
                    "an earlier version began this run: its samples go on in that version's order, without lanes"
                );
                Dealing::Turns
            }
            false => Dealing::Lanes(lanes_of(run, plan, &parts)?),
        };
        let starts = dealing.starts(run, &parts, &mut loading);
        let (mut loaders, mut cursors) = (Vec::new(), Vec::new());
        for options in starts {
            cursors.extend(options.starts());
            loaders.push(Loader::start(options)?);
        }
        Ok(Batches { plan, parts, dealing, frequencies, loading, loaders, cursors, ahead: None })
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
    fn load_ahead<D: GraphDevice>(&mut self, run: &Run<'_, D>, clock: &mut Clock) -> Option<&StepImages> {
        let loaded = self.load(run, clock, run.state.position.global_step + 1);
        self.ahead.insert(loaded).as_ref().ok().map(|batch| &batch.images)
    }

    /// Loads the next batch where there are `more` and the model wants to know its images beforehand, and tells the model of
    /// both.
    pub fn announce<D: GraphDevice>(
        &mut self,
        run: &Run<'_, D>,
        clock: &mut Clock,
        batch: &ReadyBatch,
        more: bool,
    ) {
        if run.model.prefetches() {
            let next = if more { self.load_ahead(run, clock) } else { None };
            run.model.prefetch(&batch.images, next);
        }
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
            let lanes = self.dealing.lanes_of_part(&self.parts);
            let part = BatchPart { index, of: self.parts.count(), lanes };
            let StepInputs { images, texts } = masking.inputs(batch, part, global_step);
            (images, texts)
        });
        let (images, texts): (Vec<_>, Vec<_>) = inputs.unzip();
        Ok(ReadyBatch { batches, images: Arc::new(images), texts })
    }

    /// Notes that these batches have been trained on.
    pub fn used(&mut self, batches: &[Batch]) {
        self.cursors = batches.iter().flat_map(|batch| batch.cursors.clone()).collect();
    }

    /// Notes in the state where all lanes stand, those of other ranks too; called by all ranks.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn note_places(&self, ranks: &dyn Ranks, state: &mut State) -> Result<(), TrainError> {
        let own = serde_json::to_vec(&self.cursors).map_err(TrainError::message)?;
        let mut all = Vec::new();
        for cursors in ranks.gather(&own)? {
            all.extend(serde_json::from_slice::<Vec<Cursor>>(&cursors).map_err(TrainError::message)?);
        }
        match self.dealing {
            Dealing::Turns => state.set_parts(all),
            Dealing::Lanes(_) => state.set_lanes(self.parts.count(), &all),
        }
        Ok(())
    }

    /// The plan of a loader of the first rows of the batch that this stage begins with.
    pub fn loading_first(&self, most: usize) -> LoaderOptions {
        let first = self.loading.lanes.first().copied();
        let rows = self.parts.rows() / self.dealing.lanes_of_part(&self.parts);
        LoaderOptions {
            lanes: first.into_iter().collect(),
            batches: None,
            batch: rows.min(most),
            ..self.loading.clone()
        }
    }

    /// Samples that were left out in this stage.
    pub fn skipped(&self) -> Skipped {
        let mut all = Skipped::default();
        self.loaders.iter().for_each(|loader| all.merge(loader.skipped().clone()));
        all
    }
}

/// How samples are dealt to the parts of a batch.
#[derive(Debug, Clone, Copy)]
enum Dealing {
    /// Parts take turns at the samples of one order: runs that began before there were lanes.
    Turns,
    /// Each part has the same number of these lanes.
    Lanes(usize),
}

impl Dealing {
    /// Lanes of each part.
    fn lanes_of_part(self, parts: &Parts) -> usize {
        match self {
            Dealing::Turns => 1,
            Dealing::Lanes(lanes) => lanes / parts.count(),
        }
    }

    /// The plan of the loader of each part of this rank. `loading` becomes that of the first.
    fn starts<D: GraphDevice>(
        self,
        run: &mut Run<'_, D>,
        parts: &Parts,
        loading: &mut LoaderOptions,
    ) -> Vec<LoaderOptions> {
        let starts: Vec<LoaderOptions> = match self {
            Dealing::Turns => {
                if run.state.parts.len() != parts.count() {
                    run.state.forget_parts();
                }
                let share = |part: usize| Share { rank: part as u64, ranks: parts.count() as u64 };
                let of = |part: usize| match run.state.parts.get(part) {
                    Some(&start) => LoaderOptions { share: share(part).resumed(), start, ..loading.clone() },
                    None => LoaderOptions {
                        share: share(part),
                        start: run.state.position.cursor,
                        ..loading.clone()
                    },
                };
                parts.own().map(of).collect()
            }
            Dealing::Lanes(lanes) => {
                let cursors = lanes::places(lanes, run.state.lanes.as_ref(), run.source.takes_turns());
                let of = |part: usize| {
                    let own = lanes::of_part(part, parts.count(), lanes);
                    LoaderOptions { lanes: lanes::dealt(own, lanes, &cursors), ..loading.clone() }
                };
                parts.own().map(of).collect()
            }
        };
        if let Some(first) = starts.first() {
            *loading = first.clone();
        }
        starts
    }
}

/// The parts of a batch of the stage.
fn parts_of<D: GraphDevice>(run: &Run<'_, D>, plan: &TrainingPlan) -> Result<Parts, TrainError> {
    let stage = run.state.position.stage;
    let lanes = run.state.lanes.as_ref().map(|lanes| lanes.parts);
    let so_far = lanes.unwrap_or(run.state.parts.len()).max(1);
    let given = run.config.data.lanes.map(|lanes| lanes.get()).filter(|_| !run.state.is_without_lanes());
    // Parts have whole lanes.
    Parts::of(run.config.ranks, given.unwrap_or(plan.batch), so_far, run.processes.ranks)
        .map(|parts| parts.of_batch(plan.batch))
        .map_err(|source| TrainError::Plan { stage, source: PlanError::Parts(source) })
}

/// Number of lanes of the stage.
fn lanes_of<D: GraphDevice>(
    run: &Run<'_, D>,
    plan: &TrainingPlan,
    parts: &Parts,
) -> Result<usize, TrainError> {
    let (stage, given) = (run.state.position.stage, run.config.data.lanes.map(|lanes| lanes.get()));
    lanes::count(given, run.state.lanes.as_ref(), parts.count(), plan.batch)
        .map_err(|problem| TrainError::Plan { stage, source: PlanError::Lanes(problem) })
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
