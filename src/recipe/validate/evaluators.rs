//! Evaluations: data with an end, classes that the data can have, names that tell results apart.

use super::{data, Findings};
use crate::data::{ScenesConfig, SourceConfig, Weighted};
use crate::evaluator::{ClassesConfig, EvaluatorConfig, LabelsConfig, Penalty, RetrievalCaptions};
use crate::recipe::Recipe;

pub(super) fn validate(recipe: &Recipe, list: &[EvaluatorConfig], path: &str, findings: &mut Findings) {
    if list.is_empty() {
        let finding = findings.add(path, "expected at least one evaluation, got none".into());
        finding.help("for example Evaluate([HeldOutLoss(name: \"validation\", batch: 256)])");
    }
    let mut seen: Vec<(&str, &str, usize)> = Vec::new();
    for (index, evaluator) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let kind = spelled(evaluator);
        let (name, own) = (evaluator.evaluator().name(), evaluator.evaluator().data());
        if name.is_empty() {
            findings.add(&format!("{path}.name"), "expected a name, got nothing".into());
        }
        if let Some((_, _, first)) = seen.iter().find(|(other, used, _)| *other == kind && *used == name) {
            let message = format!("two {kind} evaluations of this stage are named {name:?}");
            let first = format!("{}[{first}].name", path.rsplit_once('[').map_or("", |(stage, _)| stage));
            findings.add(&format!("{path}.name"), message).also(&first, "first used here");
        }
        seen.push((kind, name, index));
        if let Some(train) = evaluator.evaluator().train() {
            let field = format!("{path}.train");
            data::source(train, &field, findings);
            bounded(train, &field, findings);
            if let (Some(labels), SourceConfig::Scenes(_)) = (labels(evaluator), train) {
                scenes_have_labels(labels, &format!("{path}.labels"), &field, findings);
            }
        }
        let grid = recipe.model.image.size / recipe.model.image.patch.max(1);
        if grid > 0 && evaluator.evaluator().image_mask().kept(grid) == 0 {
            let message = format!("keeps none of the {} patches; at least one must stay", grid * grid);
            findings.add(&format!("{path}.image_mask"), message).help("lower the ratio");
        }
        match own.or(recipe.data.validation.as_ref()) {
            None => {
                let finding = findings.add(&path, format!("{kind} has nothing to evaluate on"));
                finding.help("give it `data`, or set `data.validation`");
            }
            Some(source) => {
                let field = if own.is_some() { format!("{path}.data") } else { "data.validation".to_owned() };
                if own.is_some() {
                    data::source(source, &field, findings);
                }
                bounded(source, &field, findings);
                judged(evaluator, source, &path, &field, findings);
            }
        }
    }
}

/// As recipes spell it.
fn spelled(evaluator: &EvaluatorConfig) -> &'static str {
    match evaluator {
        EvaluatorConfig::ZeroShot(_) => "ZeroShot",
        EvaluatorConfig::Retrieval(_) => "Retrieval",
        EvaluatorConfig::NearestNeighbours(_) => "NearestNeighbours",
        EvaluatorConfig::LinearProbe(_) => "LinearProbe",
        EvaluatorConfig::FewShot(_) => "FewShot",
        EvaluatorConfig::HeldOutLoss(_) => "HeldOutLoss",
    }
}

/// Labels of an evaluator that learns.
fn labels(evaluator: &EvaluatorConfig) -> Option<&LabelsConfig> {
    match evaluator {
        EvaluatorConfig::NearestNeighbours(config) => Some(&config.labels),
        EvaluatorConfig::LinearProbe(config) => Some(&config.labels),
        EvaluatorConfig::FewShot(config) => Some(&config.labels),
        EvaluatorConfig::ZeroShot(_) | EvaluatorConfig::Retrieval(_) | EvaluatorConfig::HeldOutLoss(_) => {
            None
        }
    }
}

fn scenes_have_labels(labels: &LabelsConfig, path: &str, field: &str, findings: &mut Findings) {
    if let LabelsConfig::Field(_) = labels {
        let message = "labels are read from the json of shards; use Source for this data".to_owned();
        findings.add(path, message).also(field, "the data");
    }
}

/// An evaluation has to end.
fn bounded(source: &SourceConfig, field: &str, findings: &mut Findings) {
    let scenes =
        |source: &SourceConfig| matches!(source, SourceConfig::Scenes(ScenesConfig { samples: None, .. }));
    let endless = match source {
        SourceConfig::Mix(sources) => sources.iter().any(|Weighted(source, _)| scenes(source)),
        source => scenes(source),
    };
    let told = findings.0.iter().any(|violation| violation.path == super::parsed(field));
    if endless && !told {
        let finding = findings.add(field, "these scenes never end, an evaluation has to".into());
        finding.help("write `samples: 2000`");
    }
}

/// Checks of the data of each kind.
fn judged(
    evaluator: &EvaluatorConfig,
    source: &SourceConfig,
    path: &str,
    field: &str,
    findings: &mut Findings,
) {
    match evaluator {
        EvaluatorConfig::ZeroShot(config) => {
            classes(&config.classes, source, &format!("{path}.classes"), field, findings)
        }
        EvaluatorConfig::Retrieval(config) => {
            if config.captions == RetrievalCaptions::AtMost(0) {
                let finding = findings.add(
                    &format!("{path}.captions"),
                    "expected at least one caption of an image, got AtMost(0)".into(),
                );
                finding.help("leave it out for all of them");
            }
        }
        EvaluatorConfig::NearestNeighbours(config) => {
            if config.temperature == Some(0.0) {
                let message = "expected temperature > 0, got 0".into();
                let finding = findings.add(&format!("{path}.temperature"), message);
                finding.help("leave it out for votes that all count the same");
            }
        }
        EvaluatorConfig::LinearProbe(config) => match config.penalty {
            Penalty::Sweep { held_out } if held_out <= 0.0 || held_out >= 1.0 => {
                let message = format!("expected 0 < held_out < 1, got {held_out}");
                findings.add(&format!("{path}.penalty"), message).help("for example Sweep(held_out: 0.2)");
            }
            Penalty::C(c) => positive(c, &format!("{path}.penalty"), findings),
            Penalty::Sweep { .. } => {}
        },
        EvaluatorConfig::FewShot(config) => {
            if config.shots.is_empty() || config.shots.contains(&0) {
                let message = format!("expected numbers of images above 0, got {:?}", config.shots);
                findings.add(&format!("{path}.shots"), message).help("for example [1, 2, 4, 8, 16]");
            }
            positive(config.c, &format!("{path}.c"), findings);
        }
        EvaluatorConfig::HeldOutLoss(config) => {
            let SourceConfig::Scenes(ScenesConfig { samples: Some(samples), .. }) = source else { return };
            if config.batch as u64 > samples.get() {
                let message =
                    format!("expected at most the {samples} pairs of the data, got {}", config.batch);
                findings.add(&format!("{path}.batch"), message).also(field, "the data");
            }
        }
    }
}

fn positive(c: f64, path: &str, findings: &mut Findings) {
    if c <= 0.0 {
        findings.add(path, format!("expected C > 0, got {c}")).help("a smaller C is a stronger penalty");
    }
}

fn classes(classes: &ClassesConfig, source: &SourceConfig, path: &str, field: &str, findings: &mut Findings) {
    let json = matches!(source, SourceConfig::WebDataset(_) | SourceConfig::Table(_) | SourceConfig::Mix(_));
    let needs = match classes {
        ClassesConfig::Source { .. } if json => {
            Some("shards and tables do not know their classes; use Task, Names or Lines")
        }
        ClassesConfig::Source { .. } if matches!(source, SourceConfig::Karpathy(_)) => {
            Some("these images have captions and no classes; use Retrieval for this data")
        }
        ClassesConfig::Task { .. } | ClassesConfig::Names { .. } if !json => {
            Some("labels are read from the json of shards and tables; use Source for this data")
        }
        ClassesConfig::Lines { .. } if matches!(source, SourceConfig::Scenes(_)) => {
            Some("scenes know their own classes; use Source")
        }
        _ => None,
    };
    if let Some(message) = needs {
        findings.add(path, message.to_owned()).also(field, "the data");
    }
    match classes {
        ClassesConfig::Source { templates: Some(written) } => templates(written, path, findings),
        ClassesConfig::Source { templates: None } => {}
        ClassesConfig::Names { names, templates: written, .. } => {
            if names.len() < 2 {
                let message = format!("expected at least two classes, got {}", names.len());
                findings.add(&format!("{path}.names"), message);
            }
            templates(written, path, findings);
        }
        ClassesConfig::Task { .. } | ClassesConfig::Lines { .. } => {}
    }
}

fn templates(templates: &[String], path: &str, findings: &mut Findings) {
    if templates.is_empty() {
        let finding =
            findings.add(&format!("{path}.templates"), "expected at least one template, got none".into());
        finding.help("leave it out for [\"{}\"]");
    }
    for (index, template) in templates.iter().enumerate() {
        if !template.contains("{}") {
            let message = format!("expected `{{}}` where the class name goes, got {template:?}");
            findings.add(&format!("{path}.templates[{index}]"), message);
        }
    }
}
