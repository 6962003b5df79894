//! `flip evaluate`: what a model reaches on data sets, without a recipe.

mod args;
mod found;
mod jobs;
mod measure;
mod outcome;

use std::path::Path;

use crate::evaluator::EmbeddingCache;
use crate::log::{Logging, Progress};
use crate::record::{Failed, ModelEvaluation};
use crate::report::model_evaluation;
use crate::terminal::{self, say};
use crate::trained::Trained;

use super::model_card::folder_name;
use super::{Failure, Outcome};
pub use args::EvaluateArgs;
use jobs::Plan;
use measure::Measuring;

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
