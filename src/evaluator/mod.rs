//! What a model can do, measured on pairs it was not trained on.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::SourceConfig;

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
    /// Metric name to value, in a fixed order.
    pub metrics: Vec<(String, f64)>,
    /// Samples that counted.
    pub n: u64,
    /// Accuracy per class where there are classes: name, samples, share that was right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassResult>,
}

/// How one class fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    pub name: String,
    pub n: u64,
    pub top1: f64,
}
