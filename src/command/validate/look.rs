//! A look into the data that a recipe names, as far as it is on this machine: headers, columns, classes, a first sample.
//! A run would refuse the same, later.

use std::path::Path;
use std::sync::mpsc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::source::{Order, Source};
use crate::data::{Cursor, DataError, SourceConfig};
use crate::evaluator::{Classes, ClassesConfig, EvaluatorConfig, Known};
use crate::recipe::files::Presence;
use crate::recipe::Recipe;

/// Longest time that looking takes. A network file system can be slow to answer, and an archive is long to list.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Findings of a look into the data.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Refused by a run, each with its field.
    pub refused: Vec<(String, String)>,
    /// Worth to know.
    pub warnings: Vec<String>,
}

/// Opens the sources that are here, and reads the first sample of each.
pub(super) fn look(recipe: &Recipe, files: &[Presence]) -> Findings {
    let deadline = Instant::now() + TIMEOUT;
    let mut findings = Findings::default();
    let mut validation = None;
    for (field, config) in sources(recipe) {
        if !is_here(&field, &config, files) {
            continue;
        }
        let opened = match first_sample(recipe, config, deadline) {
            None => {
                findings.warnings.push(format!("{field}: could not be looked at in time"));
                continue;
            }
            Some(opened) => opened,
        };
        match opened {
            Err(error) => findings.refused.push((field, error.to_string())),
            Ok(first) => {
                findings.warnings.extend(first.problem.map(|problem| format!("{field}: {problem}")));
                if field == VALIDATION {
                    validation = Some(first.source);
                }
            }
        }
    }
    if let Some(source) = validation {
        findings.refused.extend(classes(recipe, &*source));
    }
    findings
}

const VALIDATION: &str = "data.validation";

/// Every source of the recipe with its field, but those that are made up.
fn sources(recipe: &Recipe) -> Vec<(String, SourceConfig)> {
    let mut all = vec![("data.train".to_owned(), recipe.data.train.clone())];
    all.extend(recipe.data.validation.clone().map(|config| (VALIDATION.to_owned(), config)));
    for (index, stage) in recipe.stages.clone().iter_mut().enumerate() {
        let (list, evaluators) = stage.evaluators_mut();
        for (position, evaluator) in evaluators.iter_mut().enumerate() {
            let (_, sources) = evaluator.inputs_mut();
            let path = format!("stages[{index}]{list}[{position}]");
            all.extend(
                sources.into_iter().map(|(field, config)| (format!("{path}.{field}"), config.clone())),
            );
        }
    }
    all.retain(|(_, config)| !matches!(config, SourceConfig::Scenes(_)));
    all
}

/// True of a source whose files are all on this machine; what is behind URLs is not asked for.
fn is_here(field: &str, config: &SourceConfig, files: &[Presence]) -> bool {
    let below = |presence: &&Presence| {
        presence.field.strip_prefix(field).is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    let remote = serde_json::to_string(config).is_ok_and(|text| text.contains("://"));
    let mut own = files.iter().filter(below).peekable();
    !remote && own.peek().is_some() && own.all(|presence| presence.found > 0 && presence.complete)
}

/// A source that could be opened.
struct First {
    source: Arc<dyn Source>,
    /// Fault of its first sample, which a run would skip.
    problem: Option<String>,
}

/// Opens a source and reads its first sample; none where that takes too long. Its thread is left behind then.
fn first_sample(
    recipe: &Recipe,
    config: SourceConfig,
    deadline: Instant,
) -> Option<Result<First, DataError>> {
    let (send, receive) = mpsc::sync_channel(1);
    let (data, seed) = (recipe.data.clone(), recipe.seed);
    std::thread::spawn(move || {
        // Nobody listens any more when the time is over.
        let _ = send.send(data.open(&config, seed).and_then(first));
    });
    receive.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

fn first(source: Arc<dyn Source>) -> Result<First, DataError> {
    let Some(ticket) = source.ticket(Cursor::default(), Order::Stored)? else {
        return Ok(First { problem: Some("it has no samples".into()), source });
    };
    let problem = source.load(&ticket).err().map(|error| format!("its first sample: {error}"));
    Ok(First { source, problem })
}

/// Evaluations that need classes of the validation data, which has none.
fn classes(recipe: &Recipe, source: &dyn Source) -> Vec<(String, String)> {
    let (names, templates) = (source.classes(), source.templates());
    let mut refused = Vec::new();
    for (index, stage) in recipe.stages.iter().enumerate() {
        let (list, evaluators) = stage.evaluators();
        for (position, evaluator) in evaluators.iter().enumerate() {
            let EvaluatorConfig::ZeroShot(config) = evaluator else { continue };
            if config.data.is_some() || !matches!(config.classes, ClassesConfig::Source { .. }) {
                continue;
            }
            let known = Known { classes: &names, templates: &templates };
            if let Err(error) = Classes::read(&config.classes, known) {
                refused.push((format!("stages[{index}]{list}[{position}].classes"), error.to_string()));
            }
        }
    }
    refused
}

/// A message of everything that is refused.
pub(super) fn told(path: &Path, refused: &[(String, String)]) -> String {
    let lines = refused.iter().map(|(field, problem)| match problem.starts_with(field.as_str()) {
        true => format!("{}: {problem}", path.display()),
        false => format!("{}: {field}: {problem}", path.display()),
    });
    lines.collect::<Vec<_>>().join("\n")
}
