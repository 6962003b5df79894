//! `flip compare`: several runs side by side.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::recipe;
use crate::record::RunPaths;
use crate::report::compare::{self, Run};
use crate::terminal::{self, say_error};

use super::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folders of runs.
    #[arg(required = true, num_args = 1.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page with the curves.
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    out: PathBuf,
}

/// Prints a table of the runs and writes the page.
///
/// # Errors
/// A folder holds no run, or what it holds cannot be read, or `out` or the page cannot be written.
pub fn compare(args: &CompareArgs, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let mut runs = Vec::with_capacity(args.runs.len());
    for folder in &args.runs {
        let path = RunPaths::new(folder).recipe();
        if !path.exists() {
            return Err(Failure::Usage(format!(
                "{} holds no run (there is no recipe.ron in it); expected a folder that `flip run` made",
                folder.display()
            )));
        }
        let fields = match recipe::read(&path, &[]) {
            Ok(recipe) => fields(&serde_json::to_value(&recipe)?),
            // Of another release; its numbers can be compared all the same.
            Err(errors) => {
                say_error!("{}: its recipe is not compared: {errors}", path.display());
                Vec::new()
            }
        };
        runs.push(Run::read(folder, fields)?);
    }
    compare::tell_apart(&mut runs, &args.runs);
    compare::write(&runs, &args.out)?;
    write!(out, "{}", compare::text(&runs, terminal::out_columns()))?;
    writeln!(out, "\npage        {}", args.out.display())?;
    Ok(Outcome::Done)
}

/// Every field of a recipe with its value, as `--set` spells them: `stages.0.batch`.
fn fields(recipe: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    flatten(String::new(), recipe, &mut all);
    all
}

fn flatten(path: String, value: &Value, all: &mut Vec<(String, String)>) {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(object) => match variant(object) {
            Some((name, value)) => {
                // A variant with one plain value reads as it is written: Random(0.5).
                if value.is_object() || value.is_array() {
                    all.push((path.clone(), name.clone()));
                    flatten(path, value, all);
                } else {
                    all.push((path, format!("{name}({})", plain(value))));
                }
            }
            None => object.iter().for_each(|(name, value)| flatten(inside(name), value, all)),
        },
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            all.push((path, format!("[{}]", items.join(", "))));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(inside(&at.to_string()), item, all));
        }
        plain_value => all.push((path, plain(plain_value))),
    }
}

/// A variant of an enumeration: one entry with a capital; fields are small.
fn variant(object: &serde_json::Map<String, Value>) -> Option<(&String, &Value)> {
    let (name, value) = object.iter().next()?;
    (object.len() == 1 && name.starts_with(char::is_uppercase)).then_some((name, value))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_spelled_as_overrides_are() {
        let recipe = serde_json::json!({
            "name": "x",
            "model": {"image": {"size": 32}},
            "stages": [
                {"Pretrain": {"batch": 8, "image_mask": {"Random": 0.5}, "length": {"Steps": 4}, "clip": null}},
                {"Evaluate": [{"ZeroShot": {"name": "a", "templates": ["{}", "a {}"]}}]},
            ],
        });
        let expected = [
            ("model.image.size", "32"),
            ("name", "x"),
            ("stages.0", "Pretrain"),
            ("stages.0.batch", "8"),
            ("stages.0.clip", "none"),
            ("stages.0.image_mask", "Random(0.5)"),
            ("stages.0.length", "Steps(4)"),
            ("stages.1", "Evaluate"),
            ("stages.1.0", "ZeroShot"),
            ("stages.1.0.name", "a"),
            ("stages.1.0.templates", "[{}, a {}]"),
        ];
        let mut found = fields(&recipe);
        found.sort();
        let found: Vec<(&str, &str)> = found.iter().map(|(field, value)| (&**field, &**value)).collect();
        assert_eq!(found, expected);
    }
}
