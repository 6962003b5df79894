//! Evaluations: data with an end, classes that the data can have, names that tell results apart.

use super::{data, Findings};
use crate::data::{ScenesConfig, SourceConfig, Weighted};
use crate::evaluator::{ClassesConfig, EvaluatorConfig};
use crate::recipe::Recipe;

pub(super) fn validate(recipe: &Recipe, list: &[EvaluatorConfig], path: &str, findings: &mut Findings) {
    if list.is_empty() {
        let finding = findings.add(path, "expected at least one evaluation, got none".into());
        finding.help("for example Evaluate([HeldOutLoss(name: \"validation\", batch: 256)])");
    }
    let mut seen: Vec<(&str, &str, usize)> = Vec::new();
    for (index, evaluator) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (kind, name, own) = match evaluator {
            EvaluatorConfig::ZeroShot(config) => ("ZeroShot", &config.name, &config.data),
            EvaluatorConfig::Retrieval(config) => ("Retrieval", &config.name, &config.data),
            EvaluatorConfig::HeldOutLoss(config) => ("HeldOutLoss", &config.name, &config.data),
        };
        if name.is_empty() {
            findings.add(&format!("{path}.name"), "expected a name, got nothing".into());
        }
        if let Some((_, _, first)) = seen.iter().find(|(other, used, _)| *other == kind && used == name) {
            let message = format!("two {kind} evaluations of this stage are named {name:?}");
            let first = format!("{}[{first}].name", path.rsplit_once('[').map_or("", |(stage, _)| stage));
            findings.add(&format!("{path}.name"), message).also(&first, "first used here");
        }
        seen.push((kind, name, index));
        match own.as_ref().or(recipe.data.validation.as_ref()) {
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

/// What each kind asks of its data.
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
        EvaluatorConfig::Retrieval(_) => {}
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

fn classes(classes: &ClassesConfig, source: &SourceConfig, path: &str, field: &str, findings: &mut Findings) {
    let json = matches!(source, SourceConfig::WebDataset(_) | SourceConfig::Table(_) | SourceConfig::Mix(_));
    let needs = match classes {
        ClassesConfig::Source { .. } if json => {
            Some("shards and tables do not know their classes; use Task, Names or Lines")
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
        ClassesConfig::Source { templates: written } => templates(written, path, findings),
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
