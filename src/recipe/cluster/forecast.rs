//! A training stage on a cluster.

use serde::Serialize;

use super::error::ClusterError;
use super::size::Cluster;
use super::traffic::Traffic;
use crate::ranks::reduce::scratch_bytes;
use crate::ranks::Shard;
use crate::recipe::forecast::TrainingForecast;
use crate::recipe::memory::{Memory, Update};
use crate::recipe::{Compute, Precision, Recipe};

/// Operations a second of the cores of a rank in the loss: a dozen server cores in single precision, an assumption.
const LOSS_RATE: f64 = 1e12;

/// Bytes a second at which a checkpoint is assumed to be written.
const DISK: f64 = 1e9;

/// Bytes of a pair where no index tells them: LAION-400M as img2dataset packs it at 256 pixels, 13.7 TB.
const PAIR_BYTES: f64 = 34e3;

/// A training stage on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterForecast {
    /// Number of ranks.
    pub ranks: usize,
    /// Number of hosts.
    pub hosts: usize,
    /// Name of the device of each rank.
    pub device: &'static str,
    /// Share of the device's peak that the products reach.
    pub utilisation: f64,
    /// Origin of that share, in words.
    pub utilisation_from: &'static str,
    /// Pairs of a rank.
    pub pairs: usize,
    /// Forward and backward pass of a step, seconds.
    pub compute_s: f64,
    /// The loss, which the processor computes where there are several ranks, seconds.
    pub loss_s: f64,
    /// Sent by each rank in a step, bytes.
    pub ring_bytes: f64,
    /// Gradients and parameters that a rank sends in a step, bytes.
    pub gradient_bytes: f64,
    /// Of the gradients and parameters, those that leave the host.
    pub leaving_bytes: f64,
    /// Sending all of it, seconds.
    pub communication_s: f64,
    /// The part that is not hidden behind the backward pass, seconds.
    pub exposed_s: f64,
    /// A step, loss and communication included, seconds.
    pub step_s: f64,
    /// Exposed, of the step.
    pub communication_share: f64,
    /// Bytes of a pair in the shards.
    pub pair_bytes: f64,
    /// True if an index tells it; else it is an assumption.
    pub pair_bytes_known: bool,
    /// Bytes that a host reads in a second.
    pub read_per_s: f64,
    /// Bytes that a host reads in a pass over the data, where an index tells its size.
    pub read_per_epoch: Option<f64>,
    /// Bytes of a checkpoint.
    pub checkpoint_bytes: f64,
    /// A checkpoint, seconds, in which training waits.
    pub checkpoint_s: f64,
    /// Of a rank at its fullest, in a step: with its share of what is sharded, all gradients, and the pieces of an
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

impl Cluster {
    /// A training stage; `first` is the first one of the recipe, which was measured if anything was.
    ///
    /// # Errors
    /// The batch cannot be divided among the ranks.
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
        let (pairs, hosts) = (batch / ranks, ranks.div_ceil(self.per_host));
        let (compute_s, reached) = self.compute(recipe, plan, first);
        let counts = recipe.model.parameter_counts();
        let width = recipe.model.embed_dim as f64;
        let loss_s = match ranks {
            1 => 0.0,
            _ => 12.0 * batch as f64 * pairs as f64 * width / LOSS_RATE,
        };
        let once = recipe.model.flops_per_pair(plan.kept_patches, plan.kept_tokens, batch);
        let back = compute_s * 2.0 / 3.0 * recipe.model.text_flops_per_pair(plan.kept_tokens) / once;
        let traffic = Traffic::of(self, recipe, batch);
        let exposed_s = traffic.after_s + (traffic.image_s - back).max(0.0);
        let step_s = compute_s + loss_s + exposed_s;

        let shard = self.shard(recipe);
        let checkpoint_bytes = 12.0 * counts.total() as f64;
        let elsewhere = match shard {
            Shard::Nothing => 0.0,
            _ => 8.0 * counts.total() as f64 * (1.0 - 1.0 / ranks as f64),
        };
        let memory = self.memory(recipe, plan);
        let pair_bytes = self.data.map_or(PAIR_BYTES, |data| data.bytes / data.pairs);
        let of_host = batch as f64 / hosts as f64 * pair_bytes;
        let hours = plan.steps.map(|steps| steps as f64 * step_s / 3600.0);
        let device_hours = hours.map(|hours| hours * ranks as f64);
        Ok(ClusterForecast {
            ranks,
            hosts,
            device: self.device.name,
            utilisation: reached / self.peak(recipe),
            utilisation_from: self.measured.map_or(self.device.utilisation_from, |_| "measured"),
            pairs,
            compute_s,
            loss_s,
            ring_bytes: traffic.ring_bytes,
            gradient_bytes: traffic.gradient_bytes,
            leaving_bytes: traffic.leaving_bytes,
            communication_s: traffic.image_s + traffic.after_s,
            exposed_s,
            step_s,
            communication_share: exposed_s / step_s,
            pair_bytes,
            pair_bytes_known: self.data.is_some(),
            read_per_s: of_host / step_s,
            read_per_epoch: self.data.map(|data| data.bytes / hosts as f64),
            checkpoint_bytes,
            checkpoint_s: checkpoint_bytes / DISK + elsewhere / self.link,
            fits: memory.total <= self.device.memory,
            memory,
            hours,
            device_hours,
            cost: device_hours.and_then(|hours| self.price.map(|price| price * hours)),
        })
    }

    /// Seconds of a rank's forward and backward pass, and the FLOP a second that it reaches in them.
    fn compute(&self, recipe: &Recipe, plan: &TrainingForecast, first: &TrainingForecast) -> (f64, f64) {
        let (batch, pairs) = (plan.batch, plan.batch / self.ranks);
        let once = recipe.model.flops_per_pair(plan.kept_patches, plan.kept_tokens, batch);
        let twice = match plan.micro_batch < pairs {
            true => plan.flops_per_step_encoding_twice / batch as f64,
            false => 0.0,
        };
        let assumed = self.peak(recipe) * self.device.utilisation;
        let reached = self.measured.map_or(assumed, |speed| speed * first.flops_per_pair);
        (pairs as f64 * (once + twice) / reached, reached)
    }

    /// Memory of a rank.
    fn memory(&self, recipe: &Recipe, plan: &TrainingForecast) -> Memory {
        let (ranks, pairs) = (self.ranks, plan.batch / self.ranks);
        let counts = recipe.model.parameter_counts();
        let update = Update {
            kept_patches: plan.kept_patches,
            kept_tokens: plan.kept_tokens,
            batch: pairs,
            micro_batch: plan.micro_batch.min(pairs),
            ema: plan.memory.average > 0.0,
            frozen: plan.frozen.iter().map(|frozen| frozen.tower()).collect(),
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
        let elsewhere = 1.0 - 1.0 / ranks as f64;
        let shard = self.shard(recipe);
        if shard != Shard::Nothing {
            let moments = memory.moments * elsewhere;
            memory.moments -= moments;
            memory.total -= moments;
        }
        if shard == Shard::Masters {
            let masters = 4.0 * counts.weights as f64 * elsewhere;
            memory.parameters -= masters;
            // The average lies where the masters do.
            let average = if memory.average > 0.0 { masters } else { 0.0 };
            memory.average -= average;
            memory.total -= masters + average;
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::{reduce, ring, Parts, Together};
    use crate::recipe::cluster::device::DEVICES;
    use crate::recipe::cluster::size::DataSize;
    use crate::recipe::forecast::{forecast, StageForecast};

    fn cluster(ranks: usize, measured: Option<f64>) -> Cluster {
        Cluster { ranks, per_host: 8, device: DEVICES[1], link: 1e9, measured, data: None, price: None }
    }

    #[test]
    fn bytes_are_those_that_ranks_count() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.ron");
        let recipe = crate::recipe::read(&path, &[]).unwrap();
        let stages = forecast(&recipe);
        let StageForecast::Pretrain(plan) = &stages[0] else { panic!("the quickstart begins with training") };
        let cluster = cluster(4, Some(1e3));
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
        let cluster = cluster(4, None);
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
    fn hosts_read_their_share_and_only_what_leaves_them_takes_the_slow_link() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/vit_l16.ron");
        let recipe = crate::recipe::read(&path, &[]).unwrap();
        let stages = forecast(&recipe);
        let plan = stages.iter().find_map(StageForecast::training).unwrap();
        let on = |ranks, per_host| {
            let data = Some(DataSize { pairs: 4e8, bytes: 13.7e12 });
            let cluster = Cluster { per_host, link: 50e9, data, ..cluster(ranks, None) };
            cluster.forecast(&recipe, 0, plan, plan).unwrap()
        };
        let many = on(256, 8);
        assert_eq!(many.hosts, 32);
        assert_eq!(many.read_per_epoch, Some(13.7e12 / 32.0));
        assert!((many.read_per_s * many.step_s - plan.batch as f64 / 32.0 * 34_250.0).abs() < 1.0);
        // 7 of 255 others are on the same host.
        assert!((many.leaving_bytes / many.gradient_bytes - 248.0 / 255.0).abs() < 1e-9);
        let (alone, one_host) = (on(1, 8), on(8, 8));
        assert_eq!((alone.leaving_bytes, alone.communication_s, alone.loss_s), (0.0, 0.0, 0.0));
        assert_eq!(one_host.leaving_bytes, 0.0);
        // On a link of 50 GB/s in the place of 450, beside waits of messages that are the same.
        assert!(on(8, 1).communication_s > 2.0 * one_host.communication_s);
        // 12 products of a rank's rows with all.
        let loss = 12.0 * 256.0 * 65_536.0 * recipe.model.embed_dim as f64 / LOSS_RATE;
        assert_eq!((plan.batch, many.pairs), (65_536, 256));
        assert!((many.loss_s - loss).abs() < 1e-9);
        assert_eq!(many.checkpoint_bytes, 12.0 * recipe.model.parameter_counts().total() as f64);
    }
}
