//! `flip evaluate`: what a model reaches on data sets, without a recipe.

mod found;
mod jobs;
mod measure;
mod outcome;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::evaluator::EmbeddingCache;
use crate::log::{Logging, Progress};
use crate::record::{Failed, ModelEvaluation};
use crate::report::model_evaluation;
use crate::terminal::{self, say};
use crate::trained::Trained;

use super::model_card::folder_name;
use super::{Failure, Outcome};
use jobs::Plan;
use measure::Measuring;

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
    run: PathBuf,
    /// Classification by class names.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    zero_shot: Vec<String>,
    /// Finding captions of images, and images of captions.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    retrieval: Vec<String>,
    /// A linear classifier, on the embeddings and on the features before the projection, from which CLIP's learn.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    linear_probe: Vec<String>,
    /// The same from 1, 2, 4, 8 and 16 images of each class.
    #[arg(long, value_name = "DATA", num_args = 1..)]
    few_shot: Vec<String>,
    /// Every folder of CLIP_benchmark below this one. Behind https:// those are looked for that papers report.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    suite: Vec<String>,
    /// What the classification sets of the suite are measured with; those with captions are measured by retrieval.
    #[arg(long, value_enum, num_args = 1.., default_values = ["zero-shot"], value_name = "EVALUATOR")]
    suite_with: Vec<SuiteEvaluator>,
    /// Prompt templates: a file, one a line with {} or {c} where the class name goes, or CLIP_benchmark's
    /// en_zeroshot_classification_templates.json; openai80 or openai7, which is what the paper takes (both out of
    /// CLIP_benchmark's file); or plain, the name alone [default: those of the data, or of CLIP_benchmark where it is installed].
    #[arg(long, value_name = "FILE")]
    prompts: Option<String>,
    /// Class names: a file, one a line, a JSON list, CLIP_benchmark's en_classnames.json, or a classes.json with tasks
    /// [default: those of the data].
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// The task of a classes.json that has several.
    #[arg(long, value_name = "NAME", requires = "classes")]
    task: Option<String>,
    /// Split of the images that are classified.
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Folder to write: results.json, results.html, embeddings [default: evaluations/NAME, NAME being that of the model].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder that keeps embeddings [default: embeddings in the folder of the results].
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no embeddings.
    #[arg(long)]
    no_cache: bool,
}

/// What a classification set is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SuiteEvaluator {
    ZeroShot,
    LinearProbe,
    FewShot,
}

pub fn evaluate(args: &EvaluateArgs) -> Result<Outcome, Failure> {
    let progress = Progress::new();
    let _logging = Logging::start(None, &progress)?;
    let Plan { jobs, missing } = Plan::of(args)?;
    let trained = Trained::open(&args.run)?;
    let name = folder_name(&args.run);
    let out = args.out.clone().unwrap_or_else(|| Path::new("evaluations").join(&name));
    std::fs::create_dir_all(&out)
        .map_err(|error| Failure::Usage(format!("--out {}: {error}", out.display())))?;
    let cache = (!args.no_cache)
        .then(|| EmbeddingCache::new(args.cache.clone().unwrap_or_else(|| out.join("embeddings"))));
    let mut results = ModelEvaluation {
        model: args.run.display().to_string(),
        checkpoint: trained.checkpoint.display().to_string(),
        model_hash: trained.hash()?.into(),
        version: concat!("flip ", env!("CARGO_PKG_VERSION")).into(),
        results: Vec::new(),
        failed: Vec::new(),
        missing,
    };
    let (json, page) = (out.join("results.json"), out.join("results.html"));
    let measuring = Measuring { trained: &trained, cache, progress: &progress };
    for job in &jobs {
        match measuring.measure(job) {
            Ok(measured) => results.results.extend(measured),
            Err(failure) => results.failed.push(Failed {
                kind: job.kind().into(),
                dataset: job.name.clone(),
                reason: failure.told().0.trim_start_matches("error: ").to_owned(),
            }),
        }
        // After each: a suite takes hours, and what was measured stays.
        results.write(&json)?;
        model_evaluation::write_page(&results, &page)?;
    }
    say!("{}", model_evaluation::text(&results, terminal::out_columns()).trim_end());
    say!("results  {}\npage     {}", json.display(), page.display());
    match results.failed.len() {
        0 => Ok(Outcome::Done),
        failed => Err(Failure::Other(
            format!(
                "{failed} of {} measurements failed; the reasons are above and in results.json",
                jobs.len()
            )
            .into(),
        )),
    }
}
