//! Sources of pairs and their preparation.

use super::Findings;
use crate::data::source::filter::FilterConfig;
use crate::data::source::{mix, pattern, scenes};
use crate::data::source::{Deal, Files};
use crate::data::storage::Location;
use crate::data::{
    AugmentConfig, DataConfig, ScenesConfig, ScenesLevel, ScenesSplit, SourceConfig, Weighted,
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
    filter(&data.filter, findings);
    let share = data.limits.broken_share;
    if !(0.0..=1.0).contains(&share) {
        findings.add("data.limits.broken_share", format!("expected a share from 0 to 1, got {share}"));
    }
}

fn filter(filter: &FilterConfig, findings: &mut Findings) {
    if let Some(most) = filter.max_aspect.filter(|most| most.is_nan() || *most < 1.0) {
        let finding =
            findings.add("data.filter.max_aspect", format!("expected a ratio of 1 or more, got {most}"));
        finding.help("it is the longer side by the shorter one, for example 3.0");
    }
    if let Some((fewest, most)) = filter.caption_characters.filter(|(fewest, most)| fewest > most) {
        let message = format!("expected the fewest, then the most, got ({fewest}, {most})");
        findings.add("data.filter.caption_characters", message);
    }
    let Some(score) = &filter.score else { return };
    match (score.min, score.max) {
        (None, None) => {
            let message = "expected a smallest or a largest value, got neither".into();
            findings.add("data.filter.score", message).help("for example (field: \"similarity\", min: 0.28)");
        }
        (Some(min), Some(max)) if min > max => {
            findings.add("data.filter.score", format!("expected min <= max, got {min} and {max}"));
        }
        _ => {}
    }
}

/// Problems of a source by itself.
pub(super) fn source(source: &SourceConfig, path: &str, findings: &mut Findings) {
    match source {
        SourceConfig::WebDataset(config) => {
            files(&config.shards, &format!("{path}.shards"), findings);
            if config.resampled && config.deal == Deal::Kept {
                let message = "shards that are drawn with replacement are not kept".into();
                let finding = findings.add(&format!("{path}.deal"), message);
                finding.also(&format!("{path}.resampled"), "draws from all shards");
            }
        }
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
        SourceConfig::Scenes(ScenesConfig { size, level, .. }) => {
            // What is too small for every level, the shape of the field tells.
            let least = scenes::least_side(*level);
            if *level != ScenesLevel::Plain && *size < least {
                let message = format!("expected at least {least} pixels for {level:?}, got {size}");
                findings
                    .add(&format!("{path}.size"), message)
                    .also(&format!("{path}.level"), "shows small things");
            }
        }
        SourceConfig::Folder(_)
        | SourceConfig::ImageNet(_)
        | SourceConfig::ClipBenchmark(_)
        | SourceConfig::Karpathy(_)
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
