//! Arguments of `flip evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(
    after_help = "DATA is a folder of CLIP_benchmark, also behind https://; a folder with one sub-folder a class (of \
                        which `train` and `test` or `val` may hold a split each); shards, as 'data/{00..41}.tar'; or a source \
                        as recipes have it, as 'Karpathy(annotations: \"dataset_coco.json\", images: \"coco\", split: Test)'.\n\n\
                        Embeddings are kept in OUT/embeddings, by the hash of the model and of the data: another evaluation \
                        of the same images is quick, and so is the same command after a kill."
)]
pub struct EvaluateArgs {
    /// Folder of a run, one of its checkpoints, or a checkpoint that `flip import` takes.
    pub run: PathBuf,
    /// Classification by class names.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    pub zero_shot: Vec<String>,
    /// Finding captions of images, and images of captions.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    pub retrieval: Vec<String>,
    /// A linear classifier, on the embeddings and on the features before the projection, from which CLIP's learn.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    pub linear_probe: Vec<String>,
    /// The same from 1, 2, 4, 8 and 16 images of each class.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    pub few_shot: Vec<String>,
    /// Every folder of CLIP_benchmark below this one. Behind https:// those are looked for that papers report.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub suite: Vec<String>,
    /// Measurement of the classification sets of the suite; those with captions are measured by retrieval.
    #[arg(long, value_enum, num_args = 1.., default_values = ["zero-shot"], value_name = "EVALUATOR")]
    pub suite_with: Vec<SuiteEvaluator>,
    /// Prompt templates: a file, one a line with {} or {c} where the class name goes, or CLIP_benchmark's
    /// en_zeroshot_classification_templates.json; openai80 or openai7, which is what the paper takes (both out of
    /// CLIP_benchmark's file); or plain, the name alone [default: those of the data, or of CLIP_benchmark where it is installed].
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<String>,
    /// Class names: a file, one a line, a JSON list, CLIP_benchmark's en_classnames.json, or a classes.json with tasks
    /// [default: those of the data].
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// The task of a classes.json that has several.
    #[arg(long, value_name = "NAME", requires = "classes")]
    pub task: Option<String>,
    /// Split of the images that are classified.
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// Folder to write: results.json, results.html, embeddings [default: evaluations/NAME, NAME being that of the model].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Folder that keeps embeddings [default: embeddings in the folder of the results].
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    pub cache: Option<PathBuf>,
    /// Keep no embeddings.
    #[arg(long)]
    pub no_cache: bool,
}

/// Measurement of a classification set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SuiteEvaluator {
    ZeroShot,
    LinearProbe,
    FewShot,
}
