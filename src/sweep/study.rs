//! A study: one RON document that says which recipe is varied, how, and what the outcome is read from.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::grid::{self, Setting};
use crate::recipe::validate::Violation;
use crate::recipe::{self, nearest, Described, Origin, Override, RecipeErrors};

/// One recipe, varied: every combination of the values of its axes is a setting, every setting is run with every
/// seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Names the folder: `runs/<name>` unless `--out` says otherwise.
    pub name: String,
    /// The recipe that is varied. A relative path begins at the folder of the study if the file is there, else at the
    /// working directory.
    pub recipe: PathBuf,
    /// Claim that the study is to show, in a sentence or two; stands above its results.
    #[serde(default)]
    pub claim: Option<String>,
    /// Overrides of every run, as `--set` takes them: "stages.0.batch=256".
    #[serde(default)]
    pub set: Vec<String>,
    /// Fields that are varied.
    #[serde(default)]
    pub axes: Vec<Axis>,
    /// Runs of each setting: with the seed of the recipe and those that follow it. A study has at most 10,000 runs:
    /// settings times seeds.
    #[serde(default = "one")]
    #[schemars(range(max = 10_000))]
    pub seeds: NonZeroU64,
    /// The setting, by its name, whose final result the others are timed to. Default: the first.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The measurement that is drawn. Default: the first that is a share, such as an accuracy.
    #[serde(default)]
    pub metric: Option<MetricConfig>,
}

/// Something that is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Axis {
    /// A field and its values, separated by commas: "stages.0.image_mask=Keep,Random(0.5)". Fields that change
    /// together: "stages.0.image_mask,stages.0.length=(Keep,Steps(100)),(Random(0.5),Steps(190))".
    Values(String),
    /// Settings with names, each a list of overrides.
    Settings(Vec<NamedSetting>),
}

/// One value of an axis, with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSetting {
    /// Name in tables, charts and folders.
    pub name: String,
    /// Its overrides, as `--set` takes them. None: the recipe as it is.
    #[serde(default)]
    pub set: Vec<String>,
}

/// A metric of an evaluation, as `eval.json` spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricConfig {
    /// The name that the recipe gives the evaluation.
    pub evaluation: String,
    /// Its kind, such as `zero_shot` or `retrieval`, where several evaluations have the name.
    #[serde(default)]
    pub kind: Option<String>,
    /// The metric, such as `top1`. Default: the main one of the evaluation.
    #[serde(default)]
    pub metric: Option<String>,
}

fn one() -> NonZeroU64 {
    NonZeroU64::MIN
}

/// The file in the folder of a sweep that says what was swept.
pub const STUDY: &str = "study.ron";

/// A study as it was read, with the place of each of its overrides.
#[derive(Debug)]
pub struct Read {
    /// The study.
    pub study: Study,
    /// Every combination of the axes.
    pub settings: Vec<Setting>,
    /// To say where in it something is wrong; none of a command line.
    pub(super) document: Option<Described<Study>>,
}

/// The JSON Schema of a study, without references: its few types are written out where they stand.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        settings.into_generator().into_root_schema_for::<Study>().to_value()
    })
}

/// `schema/study.json`, for editors.
pub fn schema_json() -> String {
    format!("{:#}\n", schema())
}

/// True if the file at `path` is a study and not a recipe.
pub fn is_study(path: &Path) -> bool {
    // What is no file, such as a pipe, can be read only once.
    path.is_file() && recipe::text(path).is_ok_and(|text| is_text_of_study(&text))
}

/// True if a text is that of a study.
pub fn is_text_of_study(text: &str) -> bool {
    recipe::looks_like(text, "Study", "recipe")
}

/// Checks the form of a study that is being written; its recipe is not looked at.
///
/// # Errors
/// All errors at once, each with its place.
pub fn check_text(name: &str, text: &str) -> Result<(), RecipeErrors> {
    recipe::check_described::<Study>(name, text, schema()).map(drop)
}

/// Reads and checks the study at `path`; `sets` are further axes (or, with a single value, overrides).
///
/// # Errors
/// All errors at once, each with its place.
pub fn read(path: &Path, sets: &[String]) -> Result<Read, RecipeErrors> {
    let described = recipe::read_described::<Study>(path, schema())?;
    let mut violations = check(&described.value);
    let mut axes = Vec::new();
    for (index, axis) in described.value.axes.iter().enumerate() {
        let place = |inside: &str| described.origin(&format!("axes[{index}]{inside}"));
        match expanded(axis, place) {
            Ok(choices) => axes.push(choices),
            Err(message) => violations.push(violation(&format!("axes[{index}]"), message)),
        }
    }
    let fixed = described.value.set.iter().enumerate();
    let fixed: Vec<Override> = fixed
        .map(|(index, text)| Override {
            text: text.clone(),
            origin: described.origin(&format!("set[{index}]")),
        })
        .collect();
    for (index, text) in described.value.set.iter().enumerate() {
        if let Err(message) = grid::single(text) {
            violations.push(violation(&format!("set[{index}]"), message));
        }
    }
    if !violations.is_empty() {
        return Err(described.refuse(violations));
    }
    let mut study = described.value.clone();
    let from_arguments = match arguments(sets) {
        Ok(axes) => axes,
        Err((set, message)) => return Err(recipe::argument_error(path, &set, message)),
    };
    study.axes.extend(sets.iter().cloned().map(Axis::Values));
    axes.extend(from_arguments);
    if let Err(message) = grid::affordable(&axes, study.seeds.get()) {
        return Err(described.refuse(vec![violation("axes", message)]));
    }
    let settings = grid::settings(&fixed, &axes);
    if let Some(baseline) = &study.baseline {
        let names: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
        if !names.contains(&baseline.as_str()) {
            let mut unknown = violation("baseline", format!("no setting is called {baseline:?}"));
            unknown.help = Some(match nearest(baseline, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("the settings are {}", names.join("; ")),
            });
            return Err(described.refuse(vec![unknown]));
        }
    }
    let beside = path.parent().unwrap_or(Path::new("")).join(&study.recipe);
    // Where it is nowhere, the plan says so; charts of what is stored need none.
    if beside.exists() {
        study.recipe = beside;
    }
    Ok(Read { study, settings, document: Some(described) })
}

/// The study that a command line describes: a recipe and `--set` arguments with one value or several.
///
/// # Errors
/// An argument that makes no axis.
pub fn of_arguments(name: String, recipe: &Path, sets: &[String]) -> Result<Read, RecipeErrors> {
    let axes = arguments(sets).map_err(|(set, message)| recipe::argument_error(recipe, &set, message))?;
    if let (Err(message), Some(last)) = (grid::affordable(&axes, 1), sets.last()) {
        return Err(recipe::argument_error(recipe, last, message));
    }
    let settings = grid::settings(&[], &axes);
    let study = Study {
        name,
        recipe: recipe.to_owned(),
        claim: None,
        set: Vec::new(),
        axes: sets.iter().cloned().map(Axis::Values).collect(),
        seeds: one(),
        baseline: None,
        metric: None,
    };
    Ok(Read { study, settings, document: None })
}

/// The axes of `--set` arguments; an error names its argument.
fn arguments(sets: &[String]) -> Result<Vec<Vec<grid::Choice>>, (String, String)> {
    sets.iter().map(|set| grid::values(set, None).map_err(|message| (set.clone(), message))).collect()
}

fn expanded(axis: &Axis, place: impl Fn(&str) -> Option<Origin>) -> Result<Vec<grid::Choice>, String> {
    match axis {
        Axis::Values(text) => grid::values(text, place("")),
        Axis::Settings(settings) => {
            let mut choices = Vec::new();
            for (index, setting) in settings.iter().enumerate() {
                let mut overrides = Vec::new();
                for (position, text) in setting.set.iter().enumerate() {
                    grid::single(text)?;
                    let origin = place(&format!("[{index}].set[{position}]"));
                    overrides.push(Override { text: text.clone(), origin });
                }
                choices.push(grid::Choice::named(&setting.name, overrides));
            }
            if choices.is_empty() {
                return Err("expected at least one setting".into());
            }
            if choices.len() as u64 > grid::MOST_RUNS {
                let most = grid::MOST_RUNS;
                return Err(format!("expected at most {most} settings, got {}", choices.len()));
            }
            Ok(choices)
        }
    }
}

/// Checks that no type can make.
fn check(study: &Study) -> Vec<Violation> {
    let mut violations = Vec::new();
    let name = &study.name;
    if name.is_empty()
        || name.starts_with('.')
        || name.contains(['/', '\\'])
        || name.contains(char::is_control)
    {
        violations.push(violation("name", format!("expected a name that can be a folder, got {name:?}")));
    }
    for (index, axis) in study.axes.iter().enumerate() {
        let Axis::Settings(settings) = axis else { continue };
        // More than a study may have are refused elsewhere.
        for (position, setting) in settings.iter().enumerate().take(grid::MOST_RUNS as usize) {
            let path = format!("axes[{index}][{position}].name");
            if setting.name.trim().is_empty() {
                violations.push(violation(&path, "expected a name".into()));
            }
            let first = settings[..position].iter().position(|other| other.name == setting.name);
            if let Some(first) = first {
                let mut twice = violation(&path, format!("two settings are called {:?}", setting.name));
                let other = format!("axes[{index}][{first}].name").parse().unwrap_or_default();
                twice.also.push((other, "the other".into()));
                violations.push(twice);
            }
        }
    }
    violations
}

pub(super) fn violation(path: &str, message: String) -> Violation {
    // Paths in this file are written by hand.
    Violation { path: path.parse().unwrap_or_default(), message, help: None, also: Vec::new() }
}

/// The study as RON that reads back equal: what a sweep keeps beside its runs.
///
/// # Panics
/// The path of the recipe is not UTF-8; one that was read from a text is.
pub fn write(study: &Study) -> String {
    recipe::written(study)
}
