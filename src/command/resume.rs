//! The recipe that a run goes on with: the one it was started with, but for what changes no number, and for what `--amend`
//! changes from here on.

use std::fmt::Write as _;
use std::path::Path;

use crate::checkpoint::Snapshot;
use crate::duration::{Duration, Length, Phase};
use crate::outside;
use crate::recipe::{self, Change, Effect, FieldPath, Recipe, Segment};
use crate::record::{now, Amendment, RunFolder};
use crate::train::Stage;
use crate::train::{Position, State};

use super::{Failure, RecipeArgs};

/// A run that goes on.
#[derive(Debug)]
pub(super) struct GoingOn {
    /// With everything that was amended, now and before.
    pub recipe: Recipe,
    before: Vec<Amendment>,
    /// Amendments of now: the argument, and the fields that it changes.
    now: Vec<(String, Vec<Change>)>,
}

impl GoingOn {
    /// Reads the recipe that was given, with the amendments of the run and with new ones, and holds it against the one
    /// in the folder.
    ///
    /// # Errors
    /// They differ in a field that decides a number and is not amended, or cannot be.
    pub fn with(folder: &RunFolder, given: &RecipeArgs, amend: &[String]) -> Result<GoingOn, Failure> {
        let before = Amendment::read_all(&folder.amendments())?;
        let amended: Vec<String> = before.iter().map(|amendment| amendment.set.clone()).collect();
        let read = |path: &Path, sets: &[&[String]]| {
            let recipe = path.to_path_buf();
            super::read_recipe(&RecipeArgs { recipe, sets: sets.concat() })
        };
        // Killed between writing the list and the recipe, the recipe lacks what the list has.
        let stored = read(&folder.recipe(), &[&amended])?;
        let mut recipe = read(&given.recipe, &[&given.sets, &amended])?;
        same(&folder.recipe(), &recipe::changes(&stored, &recipe))?;
        let mut now = Vec::new();
        for (index, set) in amend.iter().enumerate() {
            let next = read(&given.recipe, &[&given.sets, &amended, &amend[..=index]])?;
            let changes = recipe::changes(&recipe, &next);
            for change in &changes {
                if let Effect::Fixed(why) = change.effect() {
                    return Err(Failure::Usage(format!(
                        "--amend {set}: {} cannot be changed while a run goes on: {why}. Start another run; with init: \
                         Checkpoint({:?}) it begins with the weights of this one",
                        change.path,
                        folder.root()
                    )));
                }
            }
            if !changes.is_empty() {
                now.push((set.clone(), changes));
            }
            recipe = next;
        }
        Ok(GoingOn { recipe, before, now })
    }

    /// Refuses to amend what the run has behind it, and writes down what is amended where. `from` is the checkpoint that
    /// the run goes on from.
    ///
    /// # Errors
    /// An amendment comes too late, or the folder cannot be written.
    pub fn record(mut self, folder: &RunFolder, from: Option<&Snapshot>) -> Result<Recipe, Failure> {
        let position = match from {
            Some(snapshot) => snapshot.state::<State>()?.position,
            None => Position::default(),
        };
        for (set, changes) in std::mem::take(&mut self.now) {
            for change in changes {
                in_time(&self.recipe, &change, &position)
                    .map_err(|why| Failure::Usage(format!("--amend {set}: {why}")))?;
                let Position { stage, step, samples, .. } = position;
                let field = change.path.to_string();
                tracing::info!(
                    target: "flip", "amended from stage {stage}, step {step} on: {field}: {} -> {}",
                    change.old, change.new
                );
                let (old, new) = (change.old, change.new);
                self.before.push(Amendment {
                    set: set.clone(),
                    field,
                    old,
                    new,
                    when: now(),
                    stage,
                    step,
                    samples,
                });
            }
            // The run has more before it than it had.
            match std::fs::remove_file(folder.complete()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let mut text = serde_json::to_string_pretty(&self.before)?;
            text.push('\n');
            folder.replace(&folder.amendments(), outside::without_secrets(&text).as_bytes())?;
        }
        let written = recipe::write(&self.recipe);
        if std::fs::read_to_string(folder.recipe()).is_ok_and(|there| there != written) {
            folder.replace(&folder.recipe(), written.as_bytes())?;
        }
        Ok(self.recipe)
    }
}

/// A run goes on with the recipe that it was started with, or with one that computes the same.
fn same(path: &Path, changes: &[Change]) -> Result<(), Failure> {
    let mut told = String::new();
    let mut amendable = None;
    for change in changes {
        let Change { path, old, new } = change;
        let advice = match change.effect() {
            Effect::None => continue,
            Effect::FromHereOn => {
                amendable.get_or_insert((path, new));
                ""
            }
            Effect::Fixed(_) => " (cannot be amended)",
        };
        let _ = write!(told, "\n  {path}: {old} there, {path}: {new} now{advice}");
    }
    if told.is_empty() {
        return Ok(());
    }
    let advice = match amendable {
        Some((path, new)) => {
            let path = path.to_string().replace('[', ".").replace(']', "");
            format!(
                ". To go on with another value from here on, amend it: --amend '{path}={new}'; it is recorded and shown \
                 in the report"
            )
        }
        None => String::new(),
    };
    Err(Failure::Usage(format!(
        "{} was started with a different recipe, so the run cannot go on exactly; give the same recipe and --set, leave \
         the recipe out and give the run folder in its place, or choose another --out{advice}. What differs:{told}",
        path.display()
    )))
}

/// Refuses a change of something that the run has passed.
fn in_time(recipe: &Recipe, change: &Change, position: &Position) -> Result<(), String> {
    let FieldPath { segments } = &change.path;
    let [Segment::Field(first), Segment::Index(stage), ..] = &segments[..] else { return Ok(()) };
    if first != "stages" || *stage > position.stage {
        return Ok(());
    }
    if *stage < position.stage {
        return Err(format!("stage {stage} is done; the run is in stage {}", position.stage));
    }
    let batch = matches!(segments.get(2), Some(Segment::Field(name)) if name == "batch");
    match recipe.stages.get(*stage).and_then(not_in_steps) {
        Some(field) if batch && position.step > 0 => Err(format!(
            "stages[{stage}].{field} is not in steps, so that another batch would also change how much of the stage is \
             behind: amend that to Steps(...) as well"
        )),
        _ => Ok(()),
    }
}

/// A duration of a training stage that depends on its batch.
fn not_in_steps(stage: &Stage) -> Option<&'static str> {
    let config = stage.training()?;
    let every = config.evaluate.map(|periodic| periodic.every);
    // A share is of the length.
    let depends = |phase: Phase| !matches!(phase, Phase::Steps(_) | Phase::Share(_));
    let fields = [
        ("length", !matches!(config.length, Length::Steps(_))),
        ("schedule.warmup", depends(config.schedule.warmup())),
        ("schedule.decay", config.schedule.decay().is_some_and(depends)),
        ("evaluate.every", every.is_some_and(|every| !matches!(every, Duration::Steps(_)))),
    ];
    fields.into_iter().find(|(_, depends)| *depends).map(|(field, _)| field)
}
