//! Runs the evaluators of a stage and keeps their rows in `eval.json`.

use serde::{Deserialize, Serialize};

use crate::data::loader::{LabelFrom, Loader, Passes, Plan};
use crate::data::open_source;
use crate::data::source::Order;
use crate::data::transform::Transform;
use crate::data::Batch;
use crate::evaluator::{self, Classes, Embedder, Evaluation, EvaluatorConfig};
use crate::model::GraphDevice;
use crate::run_folder::RunFolder;

use super::inputs::{whole_pictures, whole_texts};
use super::training::Run;
use super::{Ended, StageError};

/// Pictures or texts embedded at a time.
const EMBED_BATCH: usize = 128;

/// A row of `eval.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRow {
    /// Index of the stage in the recipe.
    pub stage: usize,
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// Runs the evaluators in turn. Rows of this stage that an earlier, interrupted attempt left are replaced.
pub fn evaluate<D: GraphDevice>(
    run: &mut Run<'_, D>,
    configs: &[EvaluatorConfig],
) -> Result<Ended, StageError> {
    let stage = run.position.stage;
    let mut rows = read_rows(run.folder)?;
    rows.retain(|row| row.stage < stage);
    for config in configs {
        if run.interrupted() {
            return interrupted(run);
        }
        let evaluation = match evaluate_one(run, config) {
            Ok(evaluation) => evaluation,
            Err(_) if run.interrupted() => return interrupted(run),
            Err(error) => return Err(error),
        };
        for (metric, value) in &evaluation.metrics {
            let tag = format!("eval/{}/{}/{metric}", evaluation.kind, evaluation.dataset);
            run.events.scalars(run.position.global_step, &[(&tag, *value as f32)])?;
        }
        rows.push(EvaluationRow { stage, evaluation });
        write_rows(run.folder, &rows)?;
    }
    Ok(Ended::Complete)
}

/// The position an evaluation is interrupted at is that of the checkpoint before it; where there is none
/// yet (a recipe that only evaluates), one is written.
fn interrupted<D: GraphDevice>(run: &mut Run<'_, D>) -> Result<Ended, StageError> {
    if run.saved.is_none() {
        run.save(None)?;
    }
    Ok(Ended::Interrupted)
}

fn evaluate_one<D: GraphDevice>(
    run: &Run<'_, D>,
    config: &EvaluatorConfig,
) -> Result<Evaluation, StageError> {
    let source_config = config
        .data()
        .or(run.data.validation.as_ref())
        .ok_or_else(|| StageError::NoEvaluationData { evaluator: config.name().into() })?;
    let source = open_source(source_config, run.seed)?;
    let classes = source.classes();
    let size = run.model_config.image.size;
    let total = source.samples();
    let mut loader = Loader::start(Plan {
        source,
        order: Order::Stored,
        passes: Passes::Once,
        start: Default::default(),
        batch: batch_of(config),
        keep_partial: true,
        transform: Transform::Evaluate { size },
        patches: None,
        tokenizer: run.tokenizer.clone(),
        context: run.model_config.text.context,
        label: label_of(config, &classes)?,
        filter: None,
        limits: run.data.limits.clone(),
        workers: run.workers(),
        seed: run.seed,
    })?;
    let bar = run.progress.bar(
        &format!("{} evaluate {}", run.position.stage, config.name()),
        total.unwrap_or(0),
        "images",
    );
    let mut seen = 0;
    let mut batches = || {
        if run.interrupted() {
            return Ok(None);
        }
        let batch = loader.next()?;
        if let Some(batch) = &batch {
            seen += batch.keys.len() as u64;
            bar.update(seen, "");
        }
        Ok(batch)
    };
    let patch = run.model_config.image.patch;
    let context = run.model_config.text.context;
    let mut images = |batch: &Batch| {
        let mut embeddings = Vec::new();
        for pixels in batch.pixels.chunks(EMBED_BATCH * size * size * 3) {
            embeddings.extend(run.model.embed_images(&whole_pictures(pixels, size, patch))?);
        }
        Ok(embeddings)
    };
    let mut texts = |texts: &[String]| {
        let mut embeddings = Vec::new();
        for texts in texts.chunks(EMBED_BATCH) {
            let mut tokens = Vec::with_capacity(texts.len() * context);
            for text in texts {
                tokens.extend(run.tokenizer.encode(text, context)?.0);
            }
            embeddings.extend(run.model.embed_texts(&whole_texts(&tokens, context))?);
        }
        Ok(embeddings)
    };
    let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: run.model_config.embed_dim };
    let scale = run.model.logit_scale().exp();
    let evaluation = evaluator::evaluate(config, &mut batches, &classes, &mut embedder, scale)?;
    drop(loader);
    bar.finish();
    Ok(evaluation)
}

/// Pairs of a batch: those that compete, for a loss; else as many as are embedded at a time.
fn batch_of(config: &EvaluatorConfig) -> usize {
    match config {
        EvaluatorConfig::HeldOutLoss(config) => config.batch,
        EvaluatorConfig::ZeroShot(_) | EvaluatorConfig::Retrieval(_) => EMBED_BATCH,
    }
}

/// Where the evaluation finds the class of a sample.
fn label_of(config: &EvaluatorConfig, source_classes: &[String]) -> Result<LabelFrom, StageError> {
    let EvaluatorConfig::ZeroShot(config) = config else { return Ok(LabelFrom::None) };
    let classes = Classes::read(&config.classes, source_classes)?;
    Ok(classes.label_field.map_or(LabelFrom::Source, LabelFrom::JsonField))
}

/// The rows of `eval.json`; none where it is not there yet.
pub fn read_rows(folder: &RunFolder) -> Result<Vec<EvaluationRow>, StageError> {
    let path = folder.evaluations();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StageError::Io { path, source }),
    };
    serde_json::from_slice(&text).map_err(|source| StageError::State { path, source })
}

/// Replaces `eval.json`.
pub fn write_rows(folder: &RunFolder, rows: &[EvaluationRow]) -> Result<(), StageError> {
    let path = folder.evaluations();
    let mut text =
        serde_json::to_vec_pretty(rows).map_err(|source| StageError::State { path: path.clone(), source })?;
    text.push(b'\n');
    folder.replace(&path, &text)?;
    Ok(())
}
