//! Every run of a sweep, checked before the first begins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::grid::{Setting, MOST_RUNS};
use super::study::{violation, MetricConfig, Read, Study};
use crate::interpreter;
use crate::recipe::forecast::{forecast, StageForecast};
use crate::recipe::validate::Violation;
use crate::recipe::{self, files, nearest, Recipe, RecipeError, RecipeErrors};

/// Different errors that are told at a time.
const MOST_ERRORS: usize = 20;

/// A sweep, ready to be run.
#[derive(Debug)]
pub struct SweepPlan {
    /// The study that is planned.
    pub study: Study,
    /// Every combination of its axes.
    pub settings: Vec<Setting>,
    /// In the order in which they run: every setting with the first seed, then with the next. So each comparison
    /// is complete early, and a machine that grows slower slows all settings alike.
    pub cells: Vec<Cell>,
}

/// One run.
#[derive(Debug)]
pub struct Cell {
    /// Index of its setting.
    pub setting: usize,
    /// Its seed.
    pub seed: u64,
    /// Its run folder.
    pub folder: PathBuf,
    /// Its recipe, with its setting and its seed.
    pub recipe: Recipe,
    /// Floating-point operations of its training; none where only the source can tell.
    pub flops: Option<f64>,
}

/// Operations of a step of each stage; 0 for evaluations.
pub fn flops_per_step(recipe: &Recipe) -> Vec<f64> {
    forecast(recipe).iter().map(StageForecast::flops_per_step).collect()
}

/// Folder of a run of a setting.
pub fn cell_folder(out: &Path, setting: &Setting, seed: u64) -> PathBuf {
    out.join("cells").join(&setting.folder).join(format!("seed-{seed}"))
}

/// Everything that is wrong with the runs of a sweep, each once, with the settings it concerns.
#[derive(Debug)]
pub struct SweepPlanErrors {
    /// The recipe that is varied.
    recipe: PathBuf,
    /// Settings in all.
    settings: usize,
    broken: Vec<Broken>,
}

#[derive(Debug)]
struct Broken {
    settings: Vec<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    Recipe(Box<RecipeErrors>),
    Other(String),
}

impl What {
    fn render(&self, styled: bool) -> String {
        match self {
            What::Recipe(errors) => errors.render(styled),
            What::Other(message) => message.clone(),
        }
    }
}

impl SweepPlanErrors {
    fn add(&mut self, setting: &str, what: What) {
        let text = what.render(false);
        match self.broken.iter_mut().find(|broken| broken.what.render(false) == text) {
            Some(known) => known.settings.push(setting.to_owned()),
            None => self.broken.push(Broken { settings: vec![setting.to_owned()], what }),
        }
    }

    /// The errors as facts, for machines; those that stand in no text have the name of their first setting as field.
    pub fn errors(&self) -> Vec<RecipeError> {
        let of = |broken: &Broken| match &broken.what {
            What::Recipe(errors) => errors.errors(),
            What::Other(message) => vec![RecipeError {
                file: self.recipe.display().to_string(),
                line: None,
                column: None,
                set: None,
                field: broken.settings.first().cloned().unwrap_or_default(),
                message: message.clone(),
                help: None,
            }],
        };
        self.broken.iter().flat_map(of).collect()
    }

    /// The errors with the lines they concern; `styled` adds terminal colours.
    pub fn render(&self, styled: bool) -> String {
        let mut parts = Vec::new();
        for Broken { settings, what } in &self.broken {
            let concerned = match settings.len() {
                all if all == self.settings && all > 1 => "in every setting:".to_owned(),
                _ if self.settings == 1 => String::new(),
                1 => format!("in the setting {}:", settings[0]),
                several => format!("in {several} of {} settings, first {}:", self.settings, settings[0]),
            };
            parts.push(format!("{concerned}\n{}", what.render(styled)).trim_start().to_owned());
        }
        parts.push("nothing was run".to_owned());
        parts.join("\n\n")
    }
}

impl fmt::Display for SweepPlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for SweepPlanErrors {}

impl SweepPlan {
    /// Reads and checks the recipe of every setting.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn new(read: Read, out: &Path) -> Result<SweepPlan, SweepPlanErrors> {
        let Read { study, settings, mut document } = read;
        let mut errors =
            SweepPlanErrors { recipe: study.recipe.clone(), settings: settings.len(), broken: Vec::new() };
        let mut recipes = Vec::with_capacity(settings.len());
        for setting in &settings {
            if errors.broken.len() == MOST_ERRORS {
                break;
            }
            match recipe::read_overridden(&study.recipe, &setting.overrides) {
                Ok(recipe) => recipes.push(recipe),
                Err(wrong) => errors.add(&setting.name, What::Recipe(Box::new(wrong))),
            }
        }
        for (setting, recipe) in settings.iter().zip(&recipes) {
            for message in problems(recipe) {
                errors.add(&setting.name, What::Other(message));
            }
            let wrong = study.metric.as_ref().and_then(|metric| unmeasured(metric, recipe));
            if let Some((wrong, document)) = wrong.and_then(|wrong| Some((wrong, document.take()?))) {
                errors.add(&setting.name, What::Recipe(Box::new(document.refuse(vec![wrong]))));
            }
        }
        let runs = (settings.len() as u64).saturating_mul(study.seeds.get());
        if runs > MOST_RUNS {
            let (settings, seeds) = (settings.len(), study.seeds);
            let many = format!(
                "expected at most {MOST_RUNS} runs, got {runs} ({settings} settings x {seeds} seeds)"
            );
            errors.add("seeds", What::Other(many));
        }
        if !errors.broken.is_empty() {
            return Err(errors);
        }
        let mut cells = Vec::new();
        for offset in 0..study.seeds.get() {
            for (index, (setting, recipe)) in settings.iter().zip(&recipes).enumerate() {
                let seed = recipe.seed.wrapping_add(offset);
                let recipe = Recipe { seed, ..recipe.clone() };
                let folder = cell_folder(out, setting, seed);
                let flops = forecast(&recipe).iter().map(StageForecast::flops).sum();
                cells.push(Cell { setting: index, seed, folder, recipe, flops });
            }
        }
        Ok(SweepPlan { study, settings, cells })
    }

    /// Operations of all runs; none where only a source can tell.
    pub fn flops(&self) -> Option<f64> {
        self.cells.iter().map(|cell| cell.flops).sum()
    }

    /// Index of the setting that others are compared with.
    pub fn baseline(&self) -> usize {
        baseline(&self.study, &self.settings)
    }
}

/// Index of the setting that others are compared with.
pub fn baseline(study: &Study, settings: &[Setting]) -> usize {
    let named = |name: &String| settings.iter().position(|setting| setting.name == *name);
    study.baseline.as_ref().and_then(named).unwrap_or(0)
}

/// Problems that would stop a run on this machine, or leave nothing to compare.
fn problems(recipe: &Recipe) -> Vec<String> {
    let mut problems = files::missing(recipe, |_| false);
    problems.extend(interpreter::place(recipe).err().map(|error| error.to_string()));
    if evaluations(recipe).is_empty() {
        let advice = "give it a stage Evaluate([...]), or `evaluate` in a training stage";
        problems.push(format!("stages: nothing is evaluated, so there is nothing to compare; {advice}"));
    }
    problems
}

/// Names of the evaluations of a recipe, each with its kinds.
fn evaluations(recipe: &Recipe) -> BTreeMap<&str, Vec<&str>> {
    let mut evaluations: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for evaluator in recipe.stages.iter().flat_map(|stage| stage.evaluators().1) {
        let evaluator = evaluator.evaluator();
        evaluations.entry(evaluator.name()).or_default().push(evaluator.kind());
    }
    evaluations
}

/// The metric of a study is measured in every setting.
fn unmeasured(metric: &MetricConfig, recipe: &Recipe) -> Option<Violation> {
    let there = evaluations(recipe);
    let names: Vec<&str> = there.keys().copied().collect();
    let MetricConfig { evaluation, kind, .. } = metric;
    match (there.get(evaluation.as_str()), kind) {
        (None, _) => {
            let mut unknown =
                violation("metric.evaluation", format!("no evaluation is called {evaluation:?}"));
            unknown.help = Some(match nearest(evaluation, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("the recipe evaluates {}", names.join(", ")),
            });
            Some(unknown)
        }
        (Some(kinds), Some(kind)) if !kinds.contains(&kind.as_str()) => {
            let message = format!("{evaluation:?} is not evaluated by {kind}, but by {}", kinds.join(", "));
            Some(violation("metric.kind", message))
        }
        _ => None,
    }
}
