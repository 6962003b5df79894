//! Sources of pairs and their preparation.

use super::Findings;
use crate::data::{pattern, AugmentConfig, DataConfig, ScenesConfig, ScenesSplit, SourceConfig};

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
}

/// What is wrong with a source by itself.
pub(super) fn source(source: &SourceConfig, path: &str, findings: &mut Findings) {
    if let SourceConfig::WebDataset(shards) = source {
        let field = format!("{path}.shards");
        if shards.shards.is_empty() {
            let finding =
                findings.add(&field, "expected a path with braces or wildcards, got nothing".into());
            finding.help("for example /data/laion400m/{00000..41455}.tar");
        } else if let Err(message) = pattern::expand(&shards.shards) {
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
