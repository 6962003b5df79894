//! Forecast for many devices, from the work of one.
//!
//! With R ranks, a batch of B pairs, embeddings of d values, P parameters of which I are the image encoder's, a link of L
//! bytes a second from each rank and T seconds for the pairs of one rank:
//!
//! - the ring sends `4 (B - B / R) (4 d + 2)` bytes from each rank,
//! - gradients of n values are added up in pieces and handed back: `2 * 4 n (R - 1) / R` bytes from each rank, in
//!   [messages] that take a [`HOP`] each beside their bytes,
//! - where the optimizer's state is shared out, what is handed back are updated parameters, after the backward pass, each
//!   from its owner to all, and half as many bytes for those of weights whose masters are shared out too,
//! - the exchange of the image encoder's runs while the text encoder runs backward, `2/3 T` times its share in the FLOPs,
//! - so a step takes `T + ring / L + max(0, exchange(I) - back) + exchange(P - I) + 4 R hops`, a hop for each tile that
//!   starts from each rank, four times round; with shared state, `exchange(I)` is the half that adds up, and what is handed
//!   back takes its time at the end.
//!
//! A rank's memory is that of its pairs on one device, with `8 P / R` bytes of moments in the place of `8 P` and `4 / R` in
//! the place of 4 for each weight whose master is shared out; beside it, the pieces of an exchange
//! ([`scratch_bytes`]), and where it computes n parts of a batch one after the other, the larger encoder's gradients `log2 n`
//! more times. Gradients count whole in every mode: those of both encoders may meet, the image encoder's on their way and the
//! text encoder's as they arise. Shares are of whole tensors, so that the largest is more than this.

use serde::Serialize;

use super::forecast::TrainingForecast;
use super::memory::{Memory, Update};
use super::{Compute, Precision, Recipe};
use crate::ranks::reduce::{messages, scratch_bytes};
use crate::ranks::Shard;

/// Seconds that a message takes beside its bytes.
const HOP: f64 = 5e-6;

/// Share of its peak that a device is assumed to reach where nothing was measured.
const UTILISATION: f64 = 0.35;

/// A device as its data sheet has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Device {
    /// Name as given to `--device`.
    pub name: &'static str,
    /// Dense, with sums in 32 bits; FLOP a second.
    pub bf16: f64,
    /// FLOP a second in single precision.
    pub f32: f64,
    /// Bytes.
    pub memory: f64,
}

const GIB: f64 = (1u64 << 30) as f64;

/// Peaks of NVIDIA's data sheets, for SXM modules; without sparsity, and F32 without TF32.
pub const DEVICES: [Device; 4] = [
    Device { name: "a100", bf16: 312e12, f32: 19.5e12, memory: 80.0 * GIB },
    Device { name: "h100", bf16: 989e12, f32: 67e12, memory: 80.0 * GIB },
    Device { name: "h200", bf16: 989e12, f32: 67e12, memory: 141.0 * GIB },
    Device { name: "b200", bf16: 2250e12, f32: 75e12, memory: 180.0 * GIB },
];

/// Many devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Number of ranks, a device each.
    pub ranks: usize,
    /// Device of each rank.
    pub device: Device,
    /// Bytes a second that each rank can send.
    pub link: f64,
    /// Pairs a second of one device, measured for the first training stage; else an assumption.
    pub measured: Option<f64>,
    /// Price of a device for an hour.
    pub price: Option<f64>,
}

/// A training stage on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterForecast {
    /// Number of ranks.
    pub ranks: usize,
    /// Name of the device of each rank.
    pub device: &'static str,
    /// Share of the device's peak that the products reach.
    pub utilisation: f64,
    /// True if that was measured.
    pub measured: bool,
    /// Pairs of a rank.
    pub pairs: usize,
    /// Forward and backward pass of a step, seconds.
    pub compute_s: f64,
    /// Sent by each rank in a step, bytes.
    pub ring_bytes: f64,
    /// Gradients that a rank sums up with the others in a step, bytes.
    pub gradient_bytes: f64,
    /// All that is sent, over the link.
    pub communication_s: f64,
    /// The part that is not hidden behind the backward pass.
    pub exposed_s: f64,
    /// A step, communication included, seconds.
    pub step_s: f64,
    /// Exposed, of the step.
    pub communication_share: f64,
    /// Of a rank at its fullest, in a step: with its share of what is shared out, all gradients, and the pieces of an
    /// exchange.
    pub memory: Memory,
    /// True if the device has that much memory.
    pub fits: bool,
    /// The stage, hours; `None` where its length is unknown.
    pub hours: Option<f64>,
    /// The stage, hours of all devices together.
    pub device_hours: Option<f64>,
    /// The stage, in the currency of the price.
    pub cost: Option<f64>,
}

/// Reasons why no forecast can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum ClusterError {
    #[error("expected a device out of {}, got {found:?}", DEVICES.map(|device| device.name).join(", "))]
    Device { found: String },
    #[error(
        "expected the speed of a link, such as 400Gb (bits a second) or 50GB (bytes a second), got {0:?}"
    )]
    Link(String),
    #[error("stages[{stage}].batch: {batch} pairs are not a whole number for each of {ranks} ranks")]
    Batch { stage: usize, batch: usize, ranks: usize },
}

/// A device by its name.
///
/// # Errors
/// None of the known ones is called so.
pub fn device(name: &str) -> Result<Device, ClusterError> {
    let found = DEVICES.into_iter().find(|device| device.name == name.to_ascii_lowercase());
    found.ok_or_else(|| ClusterError::Device { found: name.into() })
}

/// Bytes a second of `400Gb`, `50GB`, `1.6Tb`, with or without `/s`.
///
/// # Errors
/// It reads otherwise.
pub fn link(text: &str) -> Result<f64, ClusterError> {
    let wrong = || ClusterError::Link(text.into());
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let at = bare.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = bare.split_at(at);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let (prefix, unit) = unit.split_at(unit.len() - 1);
    let prefix = match prefix {
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(wrong()),
    };
    let bits = match unit {
        "b" => 1.0 / 8.0,
        "B" => 1.0,
        _ => return Err(wrong()),
    };
    let speed = number * prefix * bits;
    if speed > 0.0 && speed.is_finite() {
        Ok(speed)
    } else {
        Err(wrong())
    }
}

impl Cluster {
    /// A training stage; `first` is the first one of the recipe, which was measured if anything was.
    ///
    /// # Errors
    /// The batch cannot be shared out.
    pub fn forecast(
        &self,
        recipe: &Recipe,
        stage: usize,
        plan: &TrainingForecast,
        first: &TrainingForecast,
    ) -> Result<ClusterForecast, ClusterError> {
        let (ranks, batch) = (self.ranks, plan.batch);
        if !batch.is_multiple_of(ranks) {
            return Err(ClusterError::Batch { stage, batch, ranks });
        }
        let pairs = batch / ranks;
        let micro_batch = plan.micro_batch.min(pairs);
        let peak = match recipe.precision {
            Precision::F32 => self.device.f32,
            Precision::Bf16 => self.device.bf16,
        };
        let once = recipe.model.flops_per_pair(plan.kept_patches, plan.kept_tokens, batch);
        let twice = if micro_batch < pairs { plan.flops_per_step_encoding_twice / batch as f64 } else { 0.0 };
        let reached = self.measured.map_or(peak * UTILISATION, |speed| speed * first.flops_per_pair);
        let compute_s = pairs as f64 * (once + twice) / reached;

        let counts = recipe.model.parameter_counts();
        let (count, width) = (ranks as f64, recipe.model.embed_dim as f64);
        let ring_bytes = 4.0 * (batch - pairs) as f64 * (4.0 * width + 2.0);
        let shard = if ranks == 1 { Shard::Nothing } else { recipe.ranks.shard };
        let from_each = |bytes: f64| bytes * (count - 1.0) / count;
        let handed_back = match shard {
            Shard::Nothing => 0.0,
            Shard::Optimizer => from_each(4.0 * counts.total() as f64),
            Shard::Masters => from_each(4.0 * counts.total() as f64 - 2.0 * counts.weights as f64),
        };
        // Gradients go there and back, unless what goes back are parameters.
        let ways = if shard == Shard::Nothing { 2.0 } else { 1.0 };
        let exchange = |values: u64| ways * from_each(4.0 * values as f64);
        let waits = |values: u64| ways * messages(values as usize, ranks) as f64 * HOP;
        let text = recipe.model.text_flops_per_pair(plan.kept_tokens);
        let back = compute_s * 2.0 / 3.0 * text / once;
        let hops = if ranks == 1 { 0.0 } else { 4.0 * count * HOP };
        let (of_image, of_text) = (exchange(counts.image), exchange(counts.text));
        let of_image_s = of_image / self.link + waits(counts.image);
        let after = (ring_bytes + of_text + handed_back) / self.link + waits(counts.text) + hops;
        let communication_s = of_image_s + after;
        let exposed_s = after + (of_image_s - back).max(0.0);
        let step_s = compute_s + exposed_s;

        let update = Update {
            kept_patches: plan.kept_patches,
            kept_tokens: plan.kept_tokens,
            batch: pairs,
            micro_batch,
        };
        let mut memory = match (recipe.compute, recipe.precision) {
            (Compute::Fused, Precision::Bf16) => Memory::on_gpu(&recipe.model, recipe.fusion(), &update),
            (compute, _) => Memory::of(&recipe.model, compute, recipe.fusion(), &update),
        };
        if ranks > 1 {
            let largest = counts.image.max(counts.text) as usize;
            let parts = recipe.ranks.parts.map_or(ranks, |parts| parts.get().max(ranks));
            let depth = parts.div_ceil(ranks).next_power_of_two().ilog2() as usize;
            let beside = (scratch_bytes(largest, ranks) + 4 * largest * depth) as f64;
            memory.gradients += beside;
            memory.total += beside;
        }
        let elsewhere = (count - 1.0) / count;
        if shard != Shard::Nothing {
            let moments = memory.moments * elsewhere;
            memory.moments -= moments;
            memory.total -= moments;
        }
        if shard == Shard::Masters {
            let masters = 4.0 * counts.weights as f64 * elsewhere;
            memory.parameters -= masters;
            memory.total -= masters;
        }
        let hours = plan.steps.map(|steps| steps as f64 * step_s / 3600.0);
        let device_hours = hours.map(|hours| hours * count);
        Ok(ClusterForecast {
            ranks,
            device: self.device.name,
            utilisation: reached / peak,
            measured: self.measured.is_some(),
            pairs,
            compute_s,
            ring_bytes,
            gradient_bytes: of_image + of_text + handed_back,
            communication_s,
            exposed_s,
            step_s,
            communication_share: exposed_s / step_s,
            fits: memory.total <= self.device.memory,
            memory,
            hours,
            device_hours,
            cost: device_hours.and_then(|hours| self.price.map(|price| price * hours)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::{reduce, ring, Parts, Together};
    use crate::recipe::forecast::{forecast, StageForecast};

    #[test]
    fn bytes_are_those_that_ranks_count() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.ron");
        let recipe = crate::recipe::read(&path, &[]).unwrap();
        let stages = forecast(&recipe);
        let StageForecast::Pretrain(plan) = &stages[0] else { panic!("the quickstart begins with training") };
        let cluster = Cluster { ranks: 4, device: DEVICES[1], link: 1e9, measured: Some(1e3), price: None };
        let on = cluster.forecast(&recipe, 0, plan, plan).unwrap();
        let rank = &Together::of(4)[1];
        let parts = Parts::of(&recipe.ranks, plan.batch, 1, rank).unwrap();
        let width = recipe.model.embed_dim;
        let ring = 2 * ring::bytes_sent(&parts.bounds(), width, 1)
            + 2 * ring::bytes_sent(&parts.bounds(), width + 1, 1);
        assert_eq!(on.ring_bytes, ring as f64);
        let counts = recipe.model.parameter_counts();
        let sum = |values: u64| reduce::bytes_sent(&parts, values as usize, 1, 4);
        // A slice is a whole number of values.
        assert!((on.gradient_bytes - (sum(counts.image) + sum(counts.text)) as f64).abs() < 64.0);
        // A thousand pairs a second are 128 in 128 ms; a quarter of them on each rank.
        assert!((on.compute_s - 0.032).abs() < 1e-9, "{}", on.compute_s);
        assert!(cluster
            .forecast(&recipe, 0, &TrainingForecast { batch: 130, ..plan.clone() }, plan)
            .is_err());
    }

    #[test]
    fn what_is_shared_out_takes_less_memory_and_no_more_bytes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.ron");
        let cluster = Cluster { ranks: 4, device: DEVICES[1], link: 1e9, measured: None, price: None };
        let on = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
            let recipe = crate::recipe::read(&path, &set).unwrap();
            let StageForecast::Pretrain(plan) = &forecast(&recipe)[0] else { panic!("training comes first") };
            let counts = recipe.model.parameter_counts();
            (cluster.forecast(&recipe, 0, plan, plan).unwrap(), counts)
        };
        let (nothing, counts) = on(&["precision=Bf16"]);
        let (optimizer, _) = on(&["precision=Bf16", "ranks.shard=Optimizer"]);
        let (masters, _) = on(&["precision=Bf16", "ranks.shard=Masters"]);
        assert_eq!(optimizer.memory.moments, nothing.memory.moments / 4.0);
        let weights = counts.weights as f64;
        assert_eq!(masters.memory.total, optimizer.memory.total - 3.0 * weights);
        // The logit scale has no gradient to add up, but is handed back.
        assert!((optimizer.gradient_bytes - nothing.gradient_bytes).abs() < 4.0);
        assert_eq!(masters.gradient_bytes, optimizer.gradient_bytes - 1.5 * weights);
    }

    #[test]
    fn links_are_read_in_bits_and_bytes() {
        assert_eq!(link("400Gb"), Ok(50e9));
        assert_eq!(link("50GB/s"), Ok(50e9));
        assert_eq!(link("1.6Tb"), Ok(200e9));
        for wrong in ["400", "fast", "400Kb", "-1Gb", "Gb", ""] {
            assert!(link(wrong).is_err(), "{wrong}");
        }
    }
}
