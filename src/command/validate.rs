//! `flip validate`: what a recipe, or each setting of a study, will cost and need, told without building anything.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::command::number::whole;
use crate::device;
use crate::interpreter;
use crate::recipe::cluster::{self, Cluster, ClusterError, ClusterForecast};
use crate::recipe::files::{self, Presence};
use crate::recipe::forecast::{forecast, StageForecast, TrainingForecast};
use crate::recipe::{self, Compute, Precision, Recipe, RecipeError};
use crate::sweep::study;
use crate::terminal;

use super::{memory, Failure, Outcome};

/// Everything about a recipe that is known before it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub recipe: String,
    pub valid: bool,
    pub precision: Precision,
    pub compute: Compute,
    pub parameters: Parameters,
    pub stages: Vec<StageForecast>,
    /// Of all training stages; `None` where only the source can tell.
    pub flops: Option<f64>,
    pub files: Vec<Presence>,
    /// What would stop a run on this machine, with advice.
    pub warnings: Vec<String>,
    /// Every training stage on many devices, with its index, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<(usize, ClusterForecast)>,
}

/// Many devices to forecast for.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// Forecast the training stages on so many devices, one rank each, 1 to 1,048,576.
    #[arg(long, value_name = "N", requires_all = ["device", "link"], value_parser = whole(1..=1 << 20))]
    ranks: Option<usize>,
    /// The device: a100, h100, h200 or b200.
    #[arg(long, value_name = "NAME", requires = "ranks")]
    device: Option<String>,
    /// What each rank can send in a second: 400Gb (bits), 50GB (bytes).
    #[arg(long, value_name = "SPEED", requires = "ranks")]
    link: Option<String>,
    /// Pairs a second that one device trains in the first training stage, as `flip bench` measures it [default: 35 % of
    /// the peak of the data sheet, an assumption].
    #[arg(long, value_name = "X", requires = "ranks")]
    images_per_s: Option<f64>,
    /// Price of a device for an hour; the cost comes in the same money.
    #[arg(long, value_name = "X", requires = "ranks")]
    price: Option<f64>,
}

impl ClusterArgs {
    /// The cluster that is asked for, if any.
    fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        let usage = |error: ClusterError| Failure::Usage(error.to_string());
        let (Some(ranks), Some(name), Some(speed)) = (self.ranks, &self.device, &self.link) else {
            return Ok(None);
        };
        for (flag, value) in [("--images-per-s", self.images_per_s), ("--price", self.price)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(Failure::Usage(format!("{flag}: expected a number above 0, got {value}")));
            }
        }
        let device = cluster::device(name).map_err(usage)?;
        let link = cluster::link(speed).map_err(usage)?;
        let (measured, price) = (self.images_per_s, self.price);
        Ok(Some(Cluster { ranks, device, link, measured, price }))
    }
}

/// Reads the recipe and prints its report, as a table or as one line of JSON. With `json`, the errors of a
/// broken recipe are printed there as well: `{"valid": false, "errors": [...]}`.
///
/// # Errors
/// The recipe is wrong, or `out` cannot be written.
pub fn validate(
    path: &Path,
    sets: &[String],
    on: &ClusterArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let cluster = on.cluster()?;
    if study::is_study(path) {
        return super::sweep::validate(path, sets, json, out);
    }
    let recipe = match recipe::read(path, sets) {
        Ok(recipe) => recipe,
        Err(errors) => {
            if json {
                let broken = Broken { valid: false, errors: errors.errors() };
                writeln!(out, "{}", serde_json::to_string(&broken)?)?;
            }
            return Err(Failure::Usage(errors.render(terminal::colours())));
        }
    };
    let mut report = report(&recipe);
    if let Some(cluster) = cluster {
        let plans: Vec<_> = report.stages.iter().map(training).collect();
        let first = plans.iter().flatten().next();
        let mut forecasts = Vec::new();
        for (stage, plan) in plans.iter().enumerate() {
            let (Some(plan), Some(first)) = (plan, first) else { continue };
            let forecast = cluster.forecast(&recipe, stage, plan, first);
            forecasts.push((stage, forecast.map_err(|error| Failure::Usage(error.to_string()))?));
        }
        report.cluster = forecasts;
    }
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
pub(super) struct Broken {
    pub valid: bool,
    pub errors: Vec<RecipeError>,
}

/// Trainable numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The image encoder with its projection.
    pub image: u64,
    /// The text encoder with its projection.
    pub text: u64,
    /// All, the logit scale included.
    pub total: u64,
}

/// The report of a valid recipe.
pub fn report(recipe: &Recipe) -> Report {
    let stages = forecast(recipe);
    let counts = recipe.model.parameter_counts();
    let flops = stages.iter().map(|stage| training(stage).map_or(Some(0.0), |plan| plan.flops)).sum();
    let files = files::inventory(recipe);
    let place = interpreter::place(recipe);
    let larger = match (&place, device::host_memory()) {
        (Ok(place), Some(host)) => memory::beyond(recipe, &stages, place.gpu.is_some(), host),
        _ => Vec::new(),
    };
    let refusal = place.err().map(|error| error.to_string());
    let warnings = refusal.into_iter().chain(larger).chain(files.iter().filter_map(warning)).collect();
    Report {
        recipe: recipe.name.clone(),
        valid: true,
        precision: recipe.precision,
        compute: recipe.compute,
        parameters: Parameters { image: counts.image, text: counts.text, total: counts.total() },
        stages,
        flops,
        files,
        warnings,
        cluster: Vec::new(),
    }
}

pub(super) fn training(stage: &StageForecast) -> Option<&TrainingForecast> {
    match stage {
        StageForecast::Pretrain(plan) | StageForecast::Unmask(plan) => Some(plan),
        StageForecast::Evaluate { .. } => None,
    }
}

fn warning(file: &Presence) -> Option<String> {
    let Presence { field, path, .. } = file;
    let elsewhere = format!("`flip run` needs it: {}", file.override_hint());
    if file.found == 0 && !file.complete {
        return Some(format!("{field}: {path} could not be looked at in time"));
    }
    match (file.found, file.shards) {
        (0, true) => Some(format!("{field}: {path} matches nothing on this machine; {elsewhere}")),
        (0, false) => Some(format!("{field}: {path} is not on this machine; {elsewhere}")),
        (found, true) if found < file.named && file.complete => {
            let absent = file.named - found;
            Some(format!("{field}: {absent} of the {} shards of {path} are not on this machine", file.named))
        }
        _ => None,
    }
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} is valid", report.recipe)?;
    let Parameters { image, text, total } = report.parameters;
    let [image, text, total] = [image, text, total].map(|count| scaled(count as f64));
    row(out, "parameters", &format!("{total}: image encoder {image}, text encoder {text}"))?;
    row(out, "precision", &format!("{:?}, compute {:?}", report.precision, report.compute))?;
    for (index, stage) in report.stages.iter().enumerate() {
        match stage {
            StageForecast::Pretrain(plan) => print_training(index, "pretrain", plan, out)?,
            StageForecast::Unmask(plan) => print_training(index, "unmask", plan, out)?,
            StageForecast::Evaluate { evaluations } => {
                writeln!(out, "\nstage {index}: evaluate")?;
                row(out, "evaluations", &evaluations.join(", "))?;
            }
        }
    }
    writeln!(out, "\nin all")?;
    row(out, "compute", &report.flops.map_or(UNKNOWN.to_owned(), flop))?;
    for file in report.files.iter().filter(|file| file.found > 0) {
        let lower = if file.complete { "" } else { "at least " };
        let found = if file.shards {
            format!("{lower}{} shards, {}", file.found, bytes(file.bytes as f64))
        } else {
            "present".to_owned()
        };
        row(out, &file.field, &format!("{found}: {}", file.path))?;
    }
    for (stage, forecast) in &report.cluster {
        print_cluster(*stage, forecast, out)?;
    }
    for warning in &report.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn print_cluster(stage: usize, on: &ClusterForecast, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nstage {stage} on {} x {}", grouped(on.ranks as u64), on.device)?;
    let from = if on.measured { "measured" } else { "assumed, nothing was measured: see --images-per-s" };
    let reached = format!("{:.0} % of the peak, {from}", 100.0 * on.utilisation);
    let pairs = grouped(on.pairs as u64);
    row(
        out,
        "step",
        &format!(
            "{}, of which {} compute: {pairs} pairs a rank at {reached}",
            seconds(on.step_s),
            seconds(on.compute_s)
        ),
    )?;
    let (ring, gradients) = (bytes(on.ring_bytes), bytes(on.gradient_bytes));
    row(out, "sent by a rank", &format!("embeddings {ring}, gradients {gradients}"))?;
    let (all, exposed) = (seconds(on.communication_s), seconds(on.exposed_s));
    let share = 100.0 * on.communication_share;
    row(out, "communication", &format!("{all}, {exposed} of it not hidden: {share:.1} % of the step"))?;
    let fits = if on.fits { "" } else { ": more than the device has" };
    row(out, "memory a rank", &format!("about {}{fits}", bytes(on.memory.total)))?;
    if let (Some(hours), Some(device_hours)) = (on.hours, on.device_hours) {
        let cost =
            on.cost.map_or(String::new(), |cost| format!(", {} in money", grouped(cost.round() as u64)));
        row(out, "whole stage", &format!("{hours:.1} hours, {device_hours:.0} device hours{cost}"))?;
    }
    Ok(())
}

/// `1.53 s`, `12.0 ms`.
fn seconds(value: f64) -> String {
    match value {
        value if value >= 1.0 => format!("{value:.2} s"),
        value if value >= 1e-3 => format!("{:.1} ms", value * 1e3),
        value => format!("{:.1} us", value * 1e6),
    }
}

const UNKNOWN: &str = "known once the shards are counted; or set data.epoch_samples";

fn print_training(index: usize, kind: &str, plan: &TrainingForecast, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nstage {index}: {kind}")?;
    let length = match (plan.steps, plan.samples) {
        (Some(steps), Some(samples)) => format!("{} steps, {} pairs", grouped(steps), scaled(samples)),
        _ => UNKNOWN.to_owned(),
    };
    row(out, "length", &length)?;
    let micro = match plan.micro_batch {
        micro if micro < plan.batch => format!(", encoded {} at a time", grouped(micro as u64)),
        _ => String::new(),
    };
    row(out, "batch", &format!("{} pairs{micro}", grouped(plan.batch as u64)))?;
    let warmup =
        plan.warmup_steps.map_or(String::new(), |steps| format!(", warm-up {} steps", fractional(steps)));
    row(out, "learning rate", &format!("peak {:e}{warmup}", plan.peak_lr))?;
    let size = plan.image_size;
    row(out, "image", &format!("{size} x {size}, {} of {} patches kept", plan.kept_patches, plan.patches))?;
    row(out, "caption", &format!("{} of {} tokens kept", plan.kept_tokens, plan.tokens))?;
    let (pair, step) = (flop(plan.flops_per_pair), flop(plan.flops_per_step));
    let total = plan.flops.map_or(String::new(), |flops| format!(", {} in all", flop(flops)));
    if !plan.evaluations.is_empty() {
        let every = plan
            .evaluate_every
            .map_or("at intervals".to_owned(), |steps| format!("every {} steps", grouped(steps)));
        row(out, "evaluations", &format!("{every}: {}", plan.evaluations.join(", ")))?;
    }
    row(out, "compute", &format!("{pair} a pair, {step} a step{total}"))?;
    if plan.flops_per_step_encoding_twice > 0.0 {
        let twice = flop(plan.flops_per_step_encoding_twice);
        row(out, "", &format!("with {twice} more a step, as micro-batches are encoded twice"))?;
    }
    let memory = &plan.memory;
    row(out, "memory", &format!("about {}, images in host memory included", bytes(memory.total)))?;
    let parts: Vec<_> =
        memory.parts().iter().map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
    row(out, "", &parts.join(", "))
}

fn row(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {name:<14} {value}")
}

const METRIC: [&str; 9] = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];

/// Three digits and a metric prefix: `86.2 M`.
fn scaled(value: f64) -> String {
    let (value, prefix) = stepped(value, 1000.0, METRIC.len());
    format!("{value} {}", METRIC[prefix]).trim_end().to_owned()
}

/// Floating-point operations: `59.4 GFLOP`.
pub(super) fn flop(value: f64) -> String {
    let (value, prefix) = stepped(value, 1000.0, METRIC.len());
    format!("{value} {}FLOP", METRIC[prefix])
}

/// Three digits and a binary prefix: `12.3 GiB`.
pub(super) fn bytes(value: f64) -> String {
    const PREFIXES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (value, prefix) = stepped(value, 1024.0, PREFIXES.len());
    format!("{value} {}", PREFIXES[prefix])
}

fn stepped(mut value: f64, step: f64, prefixes: usize) -> (String, usize) {
    let mut prefix = 0;
    // From 999.5 on, three digits would read 1000.
    while value >= 999.5 && prefix + 1 < prefixes {
        value /= step;
        prefix += 1;
    }
    let decimals = match value {
        value if prefix == 0 || value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    (format!("{value:.decimals$}"), prefix)
}

/// Digits in groups of three: `190,000`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Steps, which may have a fraction: `3,800`, `2.5`.
fn fractional(steps: f64) -> String {
    if steps.fract() == 0.0 {
        grouped(steps as u64)
    } else {
        format!("{steps:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(scaled(86_190_336.0), "86.2 M");
        assert_eq!(scaled(999.6e9), "1.00 T");
        assert_eq!(scaled(12.0), "12");
        assert_eq!(flop(59.36e9), "59.4 GFLOP");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(grouped(190_000), "190,000");
        assert_eq!(grouped(65), "65");
        assert_eq!(fractional(3800.0), "3,800");
        assert_eq!(fractional(2.5), "2.5");
    }
}
