//! The report of `flip validate` as text.

use std::io::{self, Write};

use super::report::{Export, IndexedData, Parameters, Report};
use crate::recipe::cluster::ClusterForecast;
use crate::recipe::forecast::{StageForecast, TrainingForecast};
use crate::terminal::{self, bytes, flop, grouped, scaled};

/// Prints the report for a person.
pub(super) fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} is valid", report.recipe)?;
    let Parameters { image, text, total } = report.parameters;
    let [image, text, total] = [image, text, total].map(|count| scaled(count as f64));
    row(out, "parameters", &format!("{total}: image encoder {image}, text encoder {text}"))?;
    row(out, "precision", &format!("{:?}, compute {:?}", report.precision, report.compute))?;
    for (index, stage) in report.stages.iter().enumerate() {
        match stage {
            StageForecast::Pretrain(plan) => {
                print_training((index, report.stages.len()), "pretrain", plan, out)?
            }
            StageForecast::Unmask(plan) => print_training((index, report.stages.len()), "unmask", plan, out)?,
            StageForecast::Evaluate { evaluations } => {
                writeln!(out, "\nstage {} of {}: evaluate", index + 1, report.stages.len())?;
                row(out, "evaluations", &evaluations.join(", "))?;
            }
        }
    }
    print_exports(&report.exports, out)?;
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
    if let Some(data) = &report.indexed {
        print_indexed(data, out)?;
    }
    for (stage, forecast) in &report.cluster {
        print_cluster(*stage, forecast, out)?;
    }
    for warning in &report.warnings {
        writeln!(out, "{}", terminal::wrapped(&format!("warning: {warning}"), columns(), 2))?;
    }
    Ok(())
}

/// The formats that the model can be exported to, and the options that are in the way of others.
fn print_exports(exports: &[Export], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nexport")?;
    for export in exports {
        let text = match export.in_the_way.as_slice() {
            [] => "yes".to_owned(),
            obstacles => format!("no: {}", obstacles.join("; ")),
        };
        row(out, &export.format, &text)?;
    }
    Ok(())
}

/// Size of an epoch.
fn print_indexed(data: &IndexedData, out: &mut dyn Write) -> io::Result<()> {
    let (shards, samples) = (grouped(data.shards), grouped(data.samples));
    let size = data.bytes.map_or(String::new(), |all| format!(", {}", bytes(all as f64)));
    row(out, "an epoch", &format!("{samples} pairs in {shards} shards{size}"))
}

fn print_cluster(stage: usize, on: &ClusterForecast, out: &mut dyn Write) -> io::Result<()> {
    let hosts = if on.hosts == 1 { "one host".to_owned() } else { format!("{} hosts", on.hosts) };
    writeln!(out, "\nstage {} on {} x {}, {hosts}", stage + 1, grouped(on.ranks as u64), on.device)?;
    let reached = format!("{:.0} % of the peak, {}", 100.0 * on.utilisation, on.utilisation_from);
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
    if on.ranks > 1 {
        row(out, "loss", &format!("{} on the processor, assumed 1 TFLOP/s a rank", seconds(on.loss_s)))?;
        let (ring, gradients) = (bytes(on.ring_bytes), bytes(on.gradient_bytes));
        let leaving = bytes(on.leaving_bytes);
        let sent = format!(
            "embeddings {ring} to the next; gradients {gradients} to all, {leaving} of it to other hosts"
        );
        row(out, "sent by a rank", &sent)?;
        let (all, exposed) = (seconds(on.communication_s), seconds(on.exposed_s));
        let share = 100.0 * on.communication_share;
        row(out, "communication", &format!("{all}, {exposed} of it not hidden: {share:.1} % of the step"))?;
    }
    let known = if on.pair_bytes_known { "" } else { ", assumed, as in LAION-400M; name an index to know" };
    let epoch = on.read_per_epoch.map_or(String::new(), |read| format!(", {} an epoch", bytes(read)));
    let (each, pair) = (bytes(on.read_per_s), bytes(on.pair_bytes));
    row(out, "read by a host", &format!("{each} a second{epoch}: {pair} a pair{known}"))?;
    let (size, time) = (bytes(on.checkpoint_bytes), seconds(on.checkpoint_s));
    row(out, "checkpoint", &format!("{size}, about {time} at 1 GB/s"))?;
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

fn print_training(
    (index, stages): (usize, usize),
    kind: &str,
    plan: &TrainingForecast,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\nstage {} of {stages}: {kind}", index + 1)?;
    let length = match (plan.steps, plan.samples) {
        _ if plan.hours.is_some() => {
            let hours = plan.hours.unwrap_or_default();
            format!("{hours} hours of training, in steps once the stage has begun and some were timed")
        }
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
    let decay =
        plan.decay_steps.map_or(String::new(), |steps| format!(", decay {} steps", fractional(steps)));
    row(out, "learning rate", &format!("peak {:e}{warmup}{decay}", plan.peak_lr))?;
    if !plan.frozen.is_empty() {
        let frozen: Vec<_> = plan.frozen.iter().map(|part| format!("{part:?}")).collect();
        let frozen = frozen.join(", ");
        row(out, "frozen", &format!("{frozen}: no gradients, no moments, no backward pass"))?;
    }
    if plan.continues {
        row(out, "optimizer", "goes on with the moments of the stage before")?;
    }
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

/// A name and its value; what does not fit on a line of a terminal goes on below the value.
fn row(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{}", terminal::wrapped(&format!("  {name:<14} {value}"), columns(), 17))
}

fn columns() -> usize {
    terminal::out_columns().unwrap_or(usize::MAX)
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
    fn steps_may_have_a_fraction() {
        assert_eq!(fractional(3800.0), "3,800");
        assert_eq!(fractional(2.5), "2.5");
    }
}
