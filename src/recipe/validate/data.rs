//! Sources of pairs and their preparation.

use super::Findings;
use crate::data::files::Files;
use crate::data::location::Location;
use crate::data::{
    mix, pattern, AugmentConfig, DataConfig, ScenesConfig, ScenesSplit, SourceConfig, Weighted,
};

pub(super) fn validate(data: &DataConfig, findings: &mut Findings) {
    source(&data.train, "data.train", findings);
    if let SourceConfig::Scenes(ScenesConfig { split: ScenesSplit::HeldOut, .. }) = data.train {
        findings
            .add("data.train.split", "training on HeldOut leaves nothing to evaluate on".into())
            .help("write `split: Train`");
    }
    if let Some(validation) = &data.validation {
        source(validation, "data.validation", findings);
    }
    augment(&data.augment, findings);
    let storage = &data.storage;
    if storage.stall_limit_s < storage.stall_warning_s {
        let message = format!(
            "expected at least stall_warning_s ({}), got {}",
            storage.stall_warning_s, storage.stall_limit_s
        );
        findings.add("data.storage.stall_limit_s", message);
    }
}

/// What is wrong with a source by itself.
pub(super) fn source(source: &SourceConfig, path: &str, findings: &mut Findings) {
    match source {
        SourceConfig::WebDataset(config) => files(&config.shards, &format!("{path}.shards"), findings),
        SourceConfig::Table(config) => files(&config.files, &format!("{path}.files"), findings),
        SourceConfig::Mix(sources) => {
            let weights: Vec<f64> = sources.iter().map(|Weighted(_, weight)| *weight).collect();
            if let Err(message) = mix::check(&weights) {
                findings.add(path, message);
            }
            for (index, Weighted(inner, _)) in sources.iter().enumerate() {
                let path = format!("{path}[{index}][0]");
                match inner {
                    SourceConfig::Mix(_) => {
                        let finding = findings.add(&path, "a mix cannot be in a mix".into());
                        finding.help("put its sources into the outer one, with their weights multiplied");
                    }
                    inner => self::source(inner, &path, findings),
                }
            }
        }
        SourceConfig::Scenes(_)
        | SourceConfig::Folder(_)
        | SourceConfig::ImageNet(_)
        | SourceConfig::Cifar(_) => {}
    }
}

/// Patterns that can be read, whether they match or not.
fn files(files: &Files, field: &str, findings: &mut Findings) {
    if files.patterns().is_empty() {
        findings.add(field, "expected at least one path, got none".into());
    }
    for (index, written) in files.patterns().iter().enumerate() {
        let field = match files {
            Files::One(_) => field.to_owned(),
            Files::Several(_) => format!("{field}[{index}]"),
        };
        if written.is_empty() {
            let finding =
                findings.add(&field, "expected a path with braces or wildcards, got nothing".into());
            finding.help("for example /data/laion400m/{00000..41455}.tar");
        } else if let Err(message) = Location::parse(written) {
            findings.add(&field, message);
        } else if let Err(message) = pattern::expand(written) {
            findings.add(&field, message);
        }
    }
}

fn augment(augment: &AugmentConfig, findings: &mut Findings) {
    let (low, high) = augment.crop_area;
    if !(0.0 < low && low <= high && high <= 1.0) {
        let message = format!("expected 0 < smallest <= largest <= 1, got ({low}, {high})");
        findings.add("data.augment.crop_area", message);
    }
    let (low, high) = augment.crop_aspect;
    if !(0.0 < low && low <= high) {
        let message = format!("expected 0 < smallest <= largest, got ({low}, {high})");
        findings.add("data.augment.crop_aspect", message);
    }
}
