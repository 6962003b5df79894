//! Runs the evaluators of a stage and keeps their rows in `eval.json`.

use std::cell::RefCell;

use crate::data::Batch;
use crate::evaluator::examples::Thumbnail;
use crate::evaluator::{Batches, Embedder, Evaluated, Evaluator, EvaluatorConfig, Known, Material};
use crate::model::GraphDevice;
use crate::ranks::Owners;
use crate::record::{Evaluation, EvaluationRow, Example, Examples, RunFolder};
use crate::report;

use super::embed::{self, Part, EMBED_BATCH};
use super::error::TrainError;
use super::reader::{self, Embedded, Reader};
use super::run::Run;
use super::serve::serve;
use super::state::{Ended, Position};

/// Runs the evaluators in turn with the weights, and where there is an average of these, with that too: its rows are of the
/// data set's name and ` (ema)`. Rank 0 runs them; the others read and embed with it.
///
/// # Errors
/// An evaluator, its data or an exchange fails.
pub fn evaluate<D: GraphDevice>(
    run: &mut Run<'_, D>,
    configs: &[EvaluatorConfig],
) -> Result<Ended, TrainError> {
    let ended = evaluate_with(run, configs, "")?;
    if ended == Ended::Interrupted || run.ema.is_none() {
        return Ok(ended);
    }
    exchange_average(run)?;
    let ended = evaluate_with(run, configs, AVERAGED);
    // Also behind an error: what has been trained may yet be saved.
    exchange_average(run)?;
    ended
}

/// Behind the name of a data set that the average of the weights was evaluated on.
const AVERAGED: &str = " (ema)";

/// Computes with the average instead of the weights, or the other way round. Called by all ranks.
fn exchange_average<D: GraphDevice>(run: &mut Run<'_, D>) -> Result<(), TrainError> {
    let Some(average) = &mut run.ema else { return Ok(()) };
    run.model.exchange(average.weights_mut());
    if run.model.is_sharded() {
        let lengths: Vec<usize> = run.model.parameters().iter().map(|parameter| parameter.len()).collect();
        let owners = Owners::of(&lengths, run.processes.ranks.count());
        run.model.broadcast(run.processes.ranks, &owners)?;
    }
    Ok(())
}

/// Runs the evaluators in turn, on rank 0; the others read and embed with it.
fn evaluate_with<D: GraphDevice>(
    run: &mut Run<'_, D>,
    configs: &[EvaluatorConfig],
    suffix: &str,
) -> Result<Ended, TrainError> {
    let Some(recorder) = &run.recorder else { return serve(run, configs) };
    let folder = recorder.folder;
    match evaluate_on_first(run, folder, configs, suffix) {
        Ok(ended) => {
            embed::end(run, ended)?;
            Ok(ended)
        }
        Err(error) => {
            if error.is_of_data() {
                embed::fail(run, &error)?;
            }
            Err(error)
        }
    }
}

/// Runs the evaluators in turn. Those that an earlier, interrupted attempt left at this position are not
/// run again: they would give the same.
fn evaluate_on_first<D: GraphDevice>(
    run: &mut Run<'_, D>,
    folder: &RunFolder,
    configs: &[EvaluatorConfig],
    suffix: &str,
) -> Result<Ended, TrainError> {
    let Position { stage, step, samples, global_step, .. } = run.state.position;
    let mut rows = EvaluationRow::read_all(&folder.evaluations())?;
    rows.retain(|row| run.state.position.includes(row.stage, row.step));
    for (index, config) in configs.iter().enumerate() {
        let evaluator = config.evaluator();
        let dataset = format!("{}{suffix}", evaluator.name());
        let made = |row: &EvaluationRow| {
            let made = (row.kind.as_str(), row.dataset.as_str());
            (row.stage, row.step) == (stage, step) && made == (evaluator.kind(), &*dataset)
        };
        if rows.iter().any(made) {
            continue;
        }
        let evaluated = match run.processes.interrupted() {
            true => None,
            false => run_evaluator(run, index, evaluator)?,
        };
        let Some(Evaluated { mut evaluation, examples }) = evaluated else { return interrupted(run) };
        evaluation.dataset.push_str(suffix);
        if let Some(recorder) = &mut run.recorder {
            for (metric, value) in &evaluation.metrics {
                let tag = format!("eval/{}/{}/{metric}", evaluation.kind, evaluation.dataset);
                recorder.scalar(global_step, &tag, *value as f32)?;
            }
        }
        // In the course of training the numbers are of interest; images would pile up.
        if step == 0 && !examples.is_empty() {
            let index = if suffix.is_empty() { index } else { configs.len() + index };
            write_examples(folder, stage, index, &evaluation, examples)?;
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

/// Ends a stage of evaluations. The position that it is interrupted at is that of the checkpoint before it; where there is
/// none yet (a recipe that only evaluates), one is written. A training stage writes its own.
fn interrupted<D: GraphDevice>(run: &mut Run<'_, D>) -> Result<Ended, TrainError> {
    if run.newest_checkpoint.is_none() && run.state.position.step == 0 {
        run.save(None, None)?;
    }
    Ok(Ended::Interrupted)
}

fn write_examples(
    folder: &RunFolder,
    stage: usize,
    index: usize,
    evaluation: &Evaluation,
    examples: Vec<Example<Thumbnail>>,
) -> Result<(), TrainError> {
    let url = |thumbnail: Thumbnail| report::thumbnail(&thumbnail.pixels, thumbnail.size);
    let examples = Examples {
        stage,
        kind: evaluation.kind.clone(),
        dataset: evaluation.dataset.clone(),
        task: evaluation.task.clone(),
        examples: examples.into_iter().map(|example| example.try_map(url)).collect::<Result<_, _>>()?,
    };
    folder.still_there()?;
    Ok(examples.write(&folder.examples_of(stage, index))?)
}

/// Runs an evaluator to its result; none where it was interrupted.
fn run_evaluator<D: GraphDevice>(
    run: &Run<'_, D>,
    index: usize,
    evaluator: &dyn Evaluator,
) -> Result<Option<Evaluated>, TrainError> {
    let evaluated = measure(run, index, evaluator);
    // An interruption ends the data early: neither a result nor an error says anything then.
    match run.processes.interrupted() {
        true => Ok(None),
        false => evaluated.map(Some),
    }
}

/// Runs the evaluator of this index in its stage on its data, with the model that the run has.
fn measure<D: GraphDevice>(
    run: &Run<'_, D>,
    index: usize,
    evaluator: &dyn Evaluator,
) -> Result<Evaluated, TrainError> {
    let test = reader::open(run, evaluator, Part::Test)?;
    let (classes, templates) = (test.source.classes(), test.source.templates());
    let known = Known { classes: &classes, templates: &templates };
    let train = evaluator.train().map(|_| reader::open(run, evaluator, Part::Train)).transpose()?;
    let batch = evaluator.batch().unwrap_or(EMBED_BATCH);
    // A stage may ask several things of the same data.
    let kind = evaluator.kind().replace('_', "-");
    let title =
        format!("{}, {kind} {}", run.processes.progress.stage(run.state.position.stage), evaluator.name());
    let mask = evaluator.image_mask();
    let (embedded, failure) = (RefCell::new(Embedded::default()), RefCell::new(None));
    let reader = |opened, part, title| {
        Reader::new(run, opened, (index, part, mask.clone()), (title, batch), (&embedded, &failure))
    };
    let mut train = train.map(|train| reader(train, Part::Train, format!("{title}, train")));
    let mut train = train.as_mut().map(|reader| move || reader.next());
    let train = train.as_mut().map(|train| train as &mut Batches<'_>);
    let mut test = reader(test, Part::Test, title);
    let mut test = || test.next();

    let context = run.config.model.text.context;
    let mut images = |batch: &Batch| match embedded.borrow_mut().take(batch) {
        Some(embeddings) => Ok(embeddings),
        // A mask depends on an image's place in the data, not on the batch it falls into.
        None => Ok(embed::embed_images(run, &batch.pixels, mask, &batch.numbers)?),
    };
    let mut texts = |texts: &[String]| {
        let mut tokens = Vec::with_capacity(texts.len() * context);
        for text in texts {
            tokens.extend(run.tokenizer.encode(text, context)?.0);
        }
        Ok(embed::texts(run, &tokens)?)
    };
    let dim = run.config.model.embed_dim;
    let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim };
    let logit_scale = run.model.logit_scale().exp();
    let stop = || {
        run.processes.ranks.mark();
        run.processes.interrupted()
    };
    let material =
        Material { test: &mut test, known, train, logit_scale, seed: run.config.seed, stop: &stop };
    let evaluated = evaluator.evaluate(material, &mut embedder);
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(evaluated?),
    }
}
