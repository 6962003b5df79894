//! What a model can do, measured on pairs it was not trained on.
//!
//! An evaluator sees two closures over host vectors, never the model, so it measures whatever can embed
//! pictures and texts. A new one is a file and a line in [`EvaluatorConfig`] and [`evaluate`].

pub mod classes;
mod held_out_loss;
mod retrieval;
mod similarity;
mod zero_shot;

pub use classes::Classes;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::{Batch, DataError, SourceConfig};

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum EvaluatorConfig {
    /// Classification by the text of the class names.
    ZeroShot(ZeroShotConfig),
    /// Finding the caption of a picture and the picture of a caption.
    Retrieval(RetrievalConfig),
    /// The contrastive loss on pairs that training never sees.
    HeldOutLoss(HeldOutLossConfig),
}

/// Zero-shot classification with an ensemble of prompt templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotConfig {
    /// Name of the result, for example "imagenet".
    pub name: String,
    /// Pictures with labels. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Class names, templates and the field that holds the label.
    pub classes: ClassesConfig,
}

/// Where class names and prompt templates come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ClassesConfig {
    /// The source knows its classes: the held-out combinations of scenes, the sub-folders of a folder.
    Source {
        /// Each with `{}` where the class name goes.
        #[serde(default = "plain_template")]
        templates: Vec<String>,
    },
    /// One task of a `classes.json` with `tasks: [{task, label_field, templates, classes: [{id, phrase}]}]`.
    Task {
        /// The file.
        file: PathBuf,
        /// Which of its tasks.
        task: String,
    },
    /// Written out here; the label is the index into the list.
    Names {
        /// Class names, by index.
        names: Vec<String>,
        /// Each with `{}` where the class name goes.
        #[serde(default = "plain_template")]
        templates: Vec<String>,
        /// Field of the sample's json that holds the index.
        label_field: String,
    },
    /// CLIP_benchmark's files: one class name, one template (with `{c}`) a line; labels in `.cls` members.
    Lines {
        /// `classnames.txt`.
        names: PathBuf,
        /// `zeroshot_classification_templates.txt`.
        templates: PathBuf,
    },
}

fn plain_template() -> Vec<String> {
    vec!["{}".into()]
}

/// Image-text retrieval: recall at 1, 5 and 10, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Name of the result.
    pub name: String,
    /// Pictures with one or several captions each. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Which of a picture's captions take part.
    #[serde(default)]
    pub captions: RetrievalCaptions,
}

/// Which of a picture's captions take part in retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RetrievalCaptions {
    /// Every one; a picture is found by any of its captions.
    #[default]
    All,
    /// The first, which the built-in scenes make the most complete one.
    First,
}

/// The symmetric contrastive loss over batches of a fixed size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldOutLossConfig {
    /// Name of the result.
    pub name: String,
    /// Pairs. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Pairs that compete with each other; the last, smaller batch is left out.
    #[schemars(range(min = 2))]
    pub batch: usize,
}

/// One measured result, a row of `eval.json` (`stage` is filled in by the stage).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `zero_shot`, `retrieval` or `held_out_loss`.
    pub kind: String,
    /// Name given in the recipe.
    pub dataset: String,
    /// What was asked, for example the task or the split.
    pub task: String,
    /// Metric name to value, in a fixed order; an object in JSON.
    #[serde(with = "ordered_map")]
    pub metrics: Vec<(String, f64)>,
    /// Samples that counted.
    pub n: u64,
    /// Accuracy per class where there are classes: name, samples, share that was right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassResult>,
}

/// Pairs as a JSON object that keeps their order.
mod ordered_map {
    use std::fmt;

    use serde::de::{MapAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(pairs: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, f64)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    pairs.push((name, value.unwrap_or(f64::NAN)));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// How one class fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    pub name: String,
    pub n: u64,
    pub top1: f64,
}

/// Any error of the code that embeds.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The next batch of the data that an evaluation is about; `None` at the end.
pub type Batches<'a> = dyn FnMut() -> Result<Option<Batch>, DataError> + 'a;

/// Embeds the pictures of a batch.
pub type EmbedImages<'a> = dyn FnMut(&Batch) -> Result<Vec<f32>, BoxError> + 'a;

/// Embeds texts.
pub type EmbedTexts<'a> = dyn FnMut(&[String]) -> Result<Vec<f32>, BoxError> + 'a;

/// A model as evaluators see it. Embeddings are of unit length, as the model compares them.
pub struct Embedder<'a> {
    /// The pictures of a batch -> [batch, dim].
    pub images: &'a mut EmbedImages<'a>,
    /// Texts, however many -> [texts, dim].
    pub texts: &'a mut EmbedTexts<'a>,
    /// Width of the embedding space.
    pub dim: usize,
}

/// Why an evaluation has no result.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("embedding {what}: {source}")]
    Embed { what: &'static str, source: BoxError },
    #[error("embedding {what}: expected {rows} rows of {dim} numbers, got {got} numbers")]
    Shape { what: &'static str, rows: usize, dim: usize, got: usize },
    #[error("embedding {what}: the embedding of {which} is not finite; the model has diverged")]
    NotFinite { what: &'static str, which: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {detail}")]
    ClassFile { path: PathBuf, detail: String },
    #[error("classes: {0}")]
    Classes(String),
    #[error("sample {key}: label {label} is none of the {classes} classes; expected {expected}")]
    Label { key: String, label: i64, classes: usize, expected: String },
    #[error("evaluation \"{name}\": {detail}")]
    NothingToMeasure { name: String, detail: String },
}

/// Runs one evaluation over all of `batches`. `source_classes` are the names that the source gives its
/// labels, empty where it has none ([`Source::classes`](crate::data::source::Source::classes));
/// `logit_scale` is what cosine similarities are multiplied with, the exponential of the clipped parameter.
pub fn evaluate(
    config: &EvaluatorConfig,
    batches: &mut Batches<'_>,
    source_classes: &[String],
    embedder: &mut Embedder<'_>,
    logit_scale: f64,
) -> Result<Evaluation, EvaluatorError> {
    match config {
        EvaluatorConfig::ZeroShot(config) => {
            let classes = Classes::read(&config.classes, source_classes)?;
            zero_shot::evaluate(&config.name, &classes, batches, embedder)
        }
        EvaluatorConfig::Retrieval(config) => retrieval::evaluate(config, batches, embedder),
        EvaluatorConfig::HeldOutLoss(config) => {
            held_out_loss::evaluate(config, batches, embedder, logit_scale)
        }
    }
}

impl EvaluatorConfig {
    /// Name of the result.
    pub fn name(&self) -> &str {
        match self {
            EvaluatorConfig::ZeroShot(config) => &config.name,
            EvaluatorConfig::Retrieval(config) => &config.name,
            EvaluatorConfig::HeldOutLoss(config) => &config.name,
        }
    }

    /// The data, where it is not `data.validation`.
    pub fn data(&self) -> Option<&SourceConfig> {
        match self {
            EvaluatorConfig::ZeroShot(config) => config.data.as_ref(),
            EvaluatorConfig::Retrieval(config) => config.data.as_ref(),
            EvaluatorConfig::HeldOutLoss(config) => config.data.as_ref(),
        }
    }
}

/// Texts embedded at a time: enough to fill a batch, few enough to bound memory.
const TEXTS_AT_ONCE: usize = 256;

impl Embedder<'_> {
    /// [batch, dim], checked.
    fn embed_images(&mut self, batch: &Batch) -> Result<Vec<f32>, EvaluatorError> {
        let what = "pictures";
        let rows = (self.images)(batch).map_err(|source| EvaluatorError::Embed { what, source })?;
        check(&rows, what, self.dim, &batch.keys)?;
        Ok(rows)
    }

    /// [texts, dim], checked.
    fn embed_texts(&mut self, texts: &[String]) -> Result<Vec<f32>, EvaluatorError> {
        let what = "texts";
        let mut rows = Vec::with_capacity(texts.len() * self.dim);
        for texts in texts.chunks(TEXTS_AT_ONCE) {
            let some = (self.texts)(texts).map_err(|source| EvaluatorError::Embed { what, source })?;
            check(&some, what, self.dim, texts)?;
            rows.extend(some);
        }
        Ok(rows)
    }
}

/// Refuses embeddings that would make metrics silently wrong: comparisons with NaN are all false, which
/// would pass for the best rank.
fn check(rows: &[f32], what: &'static str, dim: usize, names: &[String]) -> Result<(), EvaluatorError> {
    if rows.len() != names.len() * dim {
        return Err(EvaluatorError::Shape { what, rows: names.len(), dim, got: rows.len() });
    }
    match rows.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(EvaluatorError::NotFinite { what, which: names[at / dim].clone() }),
    }
}
