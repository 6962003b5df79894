//! Invariants that no type and no single room can hold: sizes that must agree, masks that must leave
//! something, durations that must fit into each other, evaluations that need data. All violations at once.

mod data;
mod evaluators;
mod model;
mod stages;

use super::field_path::FieldPath;
use super::Recipe;
use crate::ranks::Shard;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field to change.
    pub path: FieldPath,
    /// Expected and found.
    pub message: String,
    /// Advice.
    pub help: Option<String>,
    /// Other fields that take part, each with a label.
    pub also: Vec<(FieldPath, String)>,
}

/// Everything about a recipe that cannot run.
pub fn validate(recipe: &Recipe) -> Vec<Violation> {
    let mut findings = Findings::default();
    name(recipe, &mut findings);
    model::validate(&recipe.model, &mut findings);
    precision(recipe, &mut findings);
    shard(recipe, &mut findings);
    data::validate(&recipe.data, &mut findings);
    stages::validate(recipe, &mut findings);
    findings.0
}

/// The name becomes a folder.
fn name(recipe: &Recipe, findings: &mut Findings) {
    let name = &recipe.name;
    if name.is_empty()
        || name.starts_with('.')
        || name.contains(['/', '\\', '\0'])
        || name.contains(char::is_control)
    {
        let message = format!("expected a name that can be a folder, got {name:?}");
        findings.add("name", message).help("use letters, digits, `_` and `-`");
    }
}

/// Options that the composed graph lacks.
fn precision(recipe: &Recipe, findings: &mut Findings) {
    use super::{Compute, Precision, Recompute};
    if recipe.precision == Precision::Bf16 && recipe.compute == Compute::Reference {
        findings
            .add("precision", "Bf16 needs `compute: Fused`; the reference computes in 32 bits".into())
            .help("write `compute: Fused`, or `precision: F32`")
            .also("compute", "computed by this");
    }
    if recipe.recompute != Recompute::None && recipe.compute == Compute::Reference {
        findings
            .add("recompute", "needs `compute: Fused`; the reference keeps every result".into())
            .help("write `compute: Fused`, or leave `recompute` out")
            .also("compute", "computed by this");
    }
}

/// Masters can be given up where products read copies of them.
fn shard(recipe: &Recipe, findings: &mut Findings) {
    use super::{Compute, Precision};
    let copies = recipe.precision == Precision::Bf16 && recipe.compute == Compute::Fused;
    if recipe.ranks.shard == Shard::Masters && !copies {
        findings
            .add(
                "ranks.shard",
                "Masters needs `precision: Bf16`; in 32 bits, masters are what products read".into(),
            )
            .help("write `precision: Bf16`, or `shard: Optimizer`")
            .also("precision", "computed in this");
    }
}

/// Violations as they are found.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, path: &str, message: String) -> Finding<'_> {
        let violation = Violation { path: parsed(path), message, help: None, also: Vec::new() };
        self.0.push(violation);
        let last = self.0.len() - 1;
        Finding(&mut self.0[last])
    }
}

/// A violation that may be explained further.
struct Finding<'a>(&'a mut Violation);

impl Finding<'_> {
    fn help(self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    fn also(self, path: &str, label: &str) -> Self {
        self.0.also.push((parsed(path), label.to_owned()));
        self
    }
}

/// Paths in this room are written by hand.
fn parsed(path: &str) -> FieldPath {
    path.parse().unwrap_or_default()
}
