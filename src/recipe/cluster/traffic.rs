//! Traffic of a step among the ranks, and how long it takes.

use super::size::Cluster;
use crate::ranks::reduce::messages;
use crate::ranks::Shard;
use crate::recipe::Recipe;

/// Seconds that a message takes beside its bytes.
const HOP: f64 = 5e-6;

/// Bytes that each rank sends in a step, and seconds that they take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Traffic {
    /// Embeddings round the ring.
    pub ring_bytes: f64,
    /// Gradients and parameters.
    pub gradient_bytes: f64,
    /// Of those, what goes to other hosts.
    pub leaving_bytes: f64,
    /// The exchange of the image encoder's gradients, beside the backward pass of the text encoder.
    pub image_s: f64,
    /// Everything else, which nothing hides.
    pub after_s: f64,
}

impl Traffic {
    /// Of a batch of so many pairs.
    pub fn of(cluster: &Cluster, recipe: &Recipe, batch: usize) -> Traffic {
        let counts = recipe.model.parameter_counts();
        let (ranks, width) = (cluster.ranks as f64, recipe.model.embed_dim as f64);
        let pairs = batch / cluster.ranks;
        let ring_bytes = 4.0 * (batch - pairs) as f64 * (4.0 * width + 2.0);
        let shard = cluster.shard(recipe);
        let from_each = |bytes: f64| bytes * (ranks - 1.0) / ranks;
        let handed_back = match shard {
            Shard::Nothing => 0.0,
            Shard::Optimizer => from_each(4.0 * counts.total() as f64),
            Shard::Masters => from_each(4.0 * counts.total() as f64 - 2.0 * counts.weights as f64),
        };
        // Gradients go there and back, unless what goes back are parameters.
        let ways = if shard == Shard::Nothing { 2.0 } else { 1.0 };
        let exchange = |values: u64| ways * from_each(4.0 * values as f64);
        let waits = |values: u64| ways * messages(values as usize, cluster.ranks) as f64 * HOP;
        let hops = if cluster.ranks == 1 { 0.0 } else { 4.0 * ranks * HOP };
        let (image, text) = (exchange(counts.image), exchange(counts.text));
        let image_s = cluster.to_all_s(image) + waits(counts.image);
        let after_s =
            cluster.to_next_s(ring_bytes) + cluster.to_all_s(text + handed_back) + waits(counts.text) + hops;
        let gradient_bytes = image + text + handed_back;
        let leaving_bytes = gradient_bytes * cluster.leaving();
        Traffic { ring_bytes, gradient_bytes, leaving_bytes, image_s, after_s }
    }
}

impl Cluster {
    /// Ranks that a rank has beside it on its host, itself included.
    fn on_host(&self) -> usize {
        self.per_host.clamp(1, self.ranks)
    }

    /// Share of what goes to all other ranks that goes to other hosts.
    fn leaving(&self) -> f64 {
        match self.ranks {
            1 => 0.0,
            ranks => (ranks - self.on_host()) as f64 / (ranks - 1) as f64,
        }
    }

    /// Seconds in which a rank sends bytes to all others in equal shares: within the host and out of it at once.
    fn to_all_s(&self, bytes: f64) -> f64 {
        let leaving = self.leaving();
        (bytes * leaving / self.link).max(bytes * (1.0 - leaving) / self.device.nvlink)
    }

    /// Seconds in which every rank sends bytes to the next one: the slowest neighbours hold up all.
    fn to_next_s(&self, bytes: f64) -> f64 {
        let speed = if self.on_host() < self.ranks { self.link } else { self.device.nvlink };
        bytes / speed
    }
}
