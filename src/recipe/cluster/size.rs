//! A cluster, and the data that it trains on.

use super::device::Device;
use crate::ranks::Shard;
use crate::recipe::{Precision, Recipe};

/// Many devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Number of ranks, a device each.
    pub ranks: usize,
    /// Ranks of a host.
    pub per_host: usize,
    /// Device of each rank.
    pub device: Device,
    /// Bytes a second that each rank can send to another host.
    pub link: f64,
    /// Pairs a second of one device, measured for the first training stage; else an assumption.
    pub measured: Option<f64>,
    /// The training data, where an index tells its size.
    pub data: Option<DataSize>,
    /// Price of a device for an hour.
    pub price: Option<f64>,
}

/// Size of a set of training data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSize {
    /// Pairs.
    pub pairs: f64,
    /// Bytes of all shards, as they are stored.
    pub bytes: f64,
}

impl Cluster {
    /// FLOP a second of the data sheet.
    pub(super) fn peak(&self, recipe: &Recipe) -> f64 {
        match recipe.precision {
            Precision::F32 => self.device.f32,
            Precision::Bf16 => self.device.bf16,
        }
    }

    /// The state that ranks share out; a single one has all.
    pub(super) fn shard(&self, recipe: &Recipe) -> Shard {
        if self.ranks == 1 {
            Shard::Nothing
        } else {
            recipe.ranks.shard
        }
    }
}
