//! A sweep as its run folders tell it.

use std::fs;
use std::path::Path;

use super::error::SweepError;
use super::grid::Setting;
use super::plan::{baseline, cell_folder, flops_per_step};
use super::study::{self, Study};
use crate::recipe::{self, Recipe};
use crate::record::RunPaths;
use crate::report::sweep::{self, Cell, Outcome, Sweep, Wanted};

/// File in the folder of a cell with the reason for which it failed.
pub(super) const FAILURE: &str = "failure.txt";

/// Reads what the runs of a study have left: nothing is run, and of the recipe only what the runs keep is read.
///
/// # Errors
/// A file of a run cannot be read.
pub fn report(study: &Study, settings: &[Setting], out: &Path) -> Result<Sweep, SweepError> {
    let mut all = Sweep {
        name: study.name.clone(),
        claim: study.claim.clone(),
        settings: Vec::new(),
        baseline: baseline(study, settings),
        wanted: study.metric.clone().map(|metric| Wanted {
            evaluation: metric.evaluation,
            kind: metric.kind,
            metric: metric.metric,
        }),
        study: study::write(study),
    };
    for setting in settings {
        let mut cells = Vec::new();
        let mut first: Option<Recipe> = None;
        for seed in seeds(out, setting)? {
            let folder = cell_folder(out, setting, seed);
            let path = RunPaths::new(&folder).recipe();
            let recipe = recipe::read_text(&path.display().to_string(), &text(&path)?, &[])
                .map_err(|errors| SweepError::Recipe { path: path.clone(), errors: Box::new(errors) })?;
            let outcome =
                match (RunPaths::new(&folder).is_complete(), fs::read_to_string(folder.join(FAILURE))) {
                    (true, _) => Outcome::Finished,
                    (false, Ok(message)) => Outcome::Failed(message.trim().to_owned()),
                    (false, Err(_)) => Outcome::Unfinished,
                };
            // Runs of an earlier recipe, with seeds that the later one was not run with.
            let like_first = Recipe { seed, ..first.get_or_insert_with(|| recipe.clone()).clone() };
            let outcome = match recipe::difference(&like_first, &recipe) {
                Some((first, this)) => {
                    Outcome::Failed(format!("left out: its recipe has {this}, the first seed's {first}"))
                }
                None => outcome,
            };
            let link = folder.strip_prefix(out).unwrap_or(&folder).to_string_lossy().into_owned();
            cells.push(Cell::read(seed, &folder, link, outcome, &flops_per_step(&recipe))?);
        }
        let planned = usize::try_from(study.seeds.get()).unwrap_or(usize::MAX);
        all.settings.push(sweep::Setting { name: setting.name.clone(), planned, cells });
    }
    Ok(all)
}

/// The seeds that a setting has run folders of, in order.
fn seeds(out: &Path, setting: &Setting) -> Result<Vec<u64>, SweepError> {
    let folder = out.join("cells").join(&setting.folder);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SweepError::Io { path: folder, source }),
    };
    let mut seeds = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| SweepError::Io { path: folder.clone(), source })?;
        let name = entry.file_name();
        let seed: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("seed-")?.parse().ok());
        seeds.extend(seed.filter(|_| RunPaths::new(entry.path()).holds_run()));
    }
    seeds.sort_unstable();
    Ok(seeds)
}

fn text(path: &Path) -> Result<String, SweepError> {
    fs::read_to_string(path).map_err(|source| SweepError::Io { path: path.into(), source })
}
