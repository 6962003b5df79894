//! Runs the evaluators of a stage and keeps their rows in `eval.json`.

use std::sync::Arc;

use crate::data::decode::Transform;
use crate::data::load::{LabelFrom, Loader, LoaderOptions, Passes, Share};
use crate::data::source::{Order, Source};
use crate::data::storage::with_stall_timeout;
use crate::data::{Batch, CaptionUse, DataError};
use crate::evaluator::examples::Thumbnail;
use crate::evaluator::{Batches, Embedder, Evaluated, Evaluator, EvaluatorConfig, Known, Material};
use crate::log::Bar;
use crate::model::GraphDevice;
use crate::record::{Evaluation, EvaluationRow, Example, Examples, RunFolder};
use crate::report;

use super::split::{self, EMBED_BATCH};
use super::training::{Position, Records, Run};
use super::{Ended, StageError};

/// Runs the evaluators in turn, on rank 0; the others embed what it hands out.
pub fn evaluate<D: GraphDevice>(
    run: &mut Run<'_, D>,
    configs: &[EvaluatorConfig],
) -> Result<Ended, StageError> {
    if run.records.is_none() {
        return split::serve(run);
    }
    match evaluate_here(run, configs) {
        Ok(ended) => {
            split::over(run, ended)?;
            Ok(ended)
        }
        Err(error) => {
            if error.is_of_data() {
                split::failed(run, &error)?;
            }
            Err(error)
        }
    }
}

/// Runs the evaluators in turn. Those that an earlier, interrupted attempt left at this position are not
/// run again: they would give the same.
fn evaluate_here<D: GraphDevice>(
    run: &mut Run<'_, D>,
    configs: &[EvaluatorConfig],
) -> Result<Ended, StageError> {
    let Position { stage, step, samples, .. } = run.position;
    let Some(Records { folder, .. }) = run.records else { return Ok(Ended::Complete) };
    let mut rows = EvaluationRow::read_all(&folder.evaluations())?;
    rows.retain(|row| run.position.includes(row.stage, row.step));
    for (index, config) in configs.iter().enumerate() {
        let evaluator = config.evaluator();
        let made = |row: &EvaluationRow| {
            let made = (row.evaluation.kind.as_str(), row.evaluation.dataset.as_str());
            (row.stage, row.step) == (stage, step) && made == (evaluator.kind(), evaluator.name())
        };
        if rows.iter().any(made) {
            continue;
        }
        if run.interrupted() {
            return interrupted(run);
        }
        let Evaluated { evaluation, examples } = match evaluate_one(run, evaluator) {
            Ok(evaluated) => evaluated,
            Err(_) if run.interrupted() => return interrupted(run),
            Err(error) => return Err(error),
        };
        for (metric, value) in &evaluation.metrics {
            let tag = format!("eval/{}/{}/{metric}", evaluation.kind, evaluation.dataset);
            if let Some(Records { events, .. }) = &mut run.records {
                events.scalars(run.position.global_step, &[(&tag, *value as f32)])?;
            }
        }
        // In the course of training the numbers are of interest; images would pile up.
        if step == 0 && !examples.is_empty() {
            write_examples(run, folder, index, &evaluation, examples)?;
        }
        let headline = evaluation.metrics.first();
        tracing::info!(
            target: "flip::evaluate", stage, step, kind = evaluation.kind, dataset = evaluation.dataset,
            metric = headline.map(|(name, _)| name.as_str()), value = headline.map(|(_, value)| *value), "evaluated"
        );
        rows.push(EvaluationRow { stage, step, samples, evaluation });
        EvaluationRow::write_all(folder, &rows)?;
    }
    Ok(Ended::Complete)
}

/// The position that a stage of evaluations is interrupted at is that of the checkpoint before it; where
/// there is none yet (a recipe that only evaluates), one is written. A training stage writes its own.
fn interrupted<D: GraphDevice>(run: &mut Run<'_, D>) -> Result<Ended, StageError> {
    if run.saved.is_none() && run.position.step == 0 {
        run.save(None, None)?;
    }
    Ok(Ended::Interrupted)
}

fn write_examples<D: GraphDevice>(
    run: &Run<'_, D>,
    folder: &RunFolder,
    index: usize,
    evaluation: &Evaluation,
    examples: Vec<Example<Thumbnail>>,
) -> Result<(), StageError> {
    let url = |thumbnail: Thumbnail| report::thumbnail(&thumbnail.pixels, thumbnail.size);
    let shown = examples.into_iter().map(|example| example.try_map(url)).collect::<Result<_, _>>()?;
    let examples = Examples {
        stage: run.position.stage,
        kind: evaluation.kind.clone(),
        dataset: evaluation.dataset.clone(),
        task: evaluation.task.clone(),
        examples: shown,
    };
    folder.still_there()?;
    Ok(examples.write(&folder.examples_of(run.position.stage, index))?)
}

fn evaluate_one<D: GraphDevice>(
    run: &Run<'_, D>,
    evaluator: &dyn Evaluator,
) -> Result<Evaluated, StageError> {
    let source_config = evaluator
        .data()
        .or(run.data.validation.as_ref())
        .ok_or_else(|| StageError::NoEvaluationData { evaluator: evaluator.name().into() })?;
    let captions = if evaluator.captions() { CaptionUse::Needed } else { CaptionUse::Unused };
    let open = |config| run.data.open_for(config, run.seed, captions);
    let source = open(source_config)?;
    let (classes, templates) = (source.classes(), source.templates());
    let known = Known { classes: &classes, templates: &templates };
    let label = evaluator.label(known)?;
    let batch = evaluator.batch().unwrap_or(EMBED_BATCH);
    // A stage may ask several things of the same data.
    let kind = evaluator.kind().replace('_', "-");
    let title = format!("{} {kind} {}", run.position.stage, evaluator.name());
    let reading = Reading { title: &title, label: label.clone(), batch };
    let mut reader = None;
    let mut test = || next(run, &source, &reading, &mut reader);

    let train = evaluator.train().map(open).transpose()?;
    let title = format!("{title}, train");
    let reading = Reading { title: &title, label, batch };
    let mut train_reader = None;
    let mut train = train.map(|source| move || next(run, &source, &reading, &mut train_reader));
    let train = train.as_mut().map(|train| train as &mut Batches<'_>);

    let context = run.model_config.text.context;
    // Masks depend on an image's place in the data, not on the batch it falls into.
    let (mask, image) = (evaluator.image_mask(), run.model_config.image.size.pow(2) * 3);
    let mut first = 0;
    let mut images = |batch: &Batch| {
        let embeddings = split::images(run, &batch.pixels, mask, first)?;
        first += (batch.pixels.len() / image) as u64;
        Ok(embeddings)
    };
    let mut texts = |texts: &[String]| {
        let mut tokens = Vec::with_capacity(texts.len() * context);
        for text in texts {
            tokens.extend(run.tokenizer.encode(text, context)?.0);
        }
        Ok(split::texts(run, &tokens)?)
    };
    let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: run.model_config.embed_dim };
    let logit_scale = run.model.logit_scale().exp();
    let stop = || {
        run.ranks.mark();
        run.interrupted()
    };
    let material = Material { test: &mut test, known, train, logit_scale, seed: run.seed, stop: &stop };
    let evaluation = evaluator.evaluate(material, &mut embedder)?;
    match run.interrupted() {
        // The data ended early.
        true => Err(StageError::Stopped),
        false => Ok(evaluation),
    }
}

/// How an evaluator reads a source.
struct Reading<'a> {
    /// What the progress is called.
    title: &'a str,
    label: LabelFrom,
    batch: usize,
}

/// A source that is being read.
struct Reader {
    loader: Loader,
    /// Until the data ends.
    bar: Option<Bar>,
    seen: u64,
}

/// The next batch, in the order in which the source stores it; the first call begins to read. An
/// interruption ends the data.
fn next<D: GraphDevice>(
    run: &Run<'_, D>,
    source: &Arc<dyn Source>,
    reading: &Reading<'_>,
    reader: &mut Option<Reader>,
) -> Result<Option<Batch>, DataError> {
    if run.interrupted() {
        return Ok(None);
    }
    run.ranks.mark();
    let reader = match reader {
        Some(reader) => reader,
        None => {
            let loader = Loader::start(LoaderOptions {
                source: source.clone(),
                order: Order::Stored,
                passes: Passes::Once,
                share: Share::WHOLE,
                start: Default::default(),
                batch: reading.batch,
                keep_partial: true,
                transform: Transform::Evaluate { size: run.model_config.image.size },
                patches: None,
                tokenizer: run.tokenizer.clone(),
                context: run.model_config.text.context,
                label: reading.label.clone(),
                filter: None,
                limits: run.data.limits.clone(),
                workers: run.workers(),
                stall_timeout: run.data.storage.stall_timeout(),
                seed: run.seed,
            })?;
            let (name, progress, counted) = (source.name(), source.progress(), source.clone());
            let count = move || counted.samples();
            let samples = with_stall_timeout(
                run.data.storage.stall_timeout(),
                &name,
                "counting the samples",
                progress,
                count,
            )?;
            let bar = run.progress.bar(reading.title, samples.unwrap_or(0), "images");
            reader.insert(Reader { loader, bar: Some(bar), seen: 0 })
        }
    };
    let batch = reader.loader.next()?;
    match &batch {
        Some(batch) => {
            reader.seen += batch.keys.len() as u64;
            if let Some(bar) = &reader.bar {
                bar.update(reader.seen, "");
            }
        }
        None => {
            if let Some(bar) = reader.bar.take() {
                bar.finish();
            }
            let skipped = reader.loader.skipped();
            if skipped.total() > 0 {
                tracing::warn!(target: "flip::data", %skipped, "samples were left out of {}", reading.title);
            }
        }
    }
    Ok(batch)
}
