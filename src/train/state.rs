//! Position of a run: together with model and optimizer, all that is needed to go on exactly.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Name;
use crate::data::Cursor;

use super::identity::Identity;
use super::lanes::LaneCursors;

/// Position of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Index of the stage.
    pub stage: usize,
    /// Updates done in this stage.
    pub step: u64,
    /// Updates done in the whole run; masks are drawn from it.
    pub global_step: u64,
    /// Pairs seen in the whole run.
    pub samples: u64,
    /// The next pair of the training source.
    pub cursor: Cursor,
    /// Length of `metrics.jsonl`, bytes.
    pub metrics_bytes: u64,
    /// Length of `timing.jsonl`, bytes.
    pub timing_bytes: u64,
}

impl Position {
    /// Name of the checkpoint taken here.
    pub fn name(&self) -> Name {
        Name { stage: self.stage, step: self.step }
    }

    /// True if a row of this stage and step belongs to a run that stands here: it was not written later.
    pub fn includes(&self, stage: usize, step: u64) -> bool {
        (stage, step) <= (self.stage, self.step)
    }
}

/// Contents of `state.json` in a checkpoint: everything beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Position of the run.
    #[serde(flatten)]
    pub position: Position,
    /// The next pair of each lane; none in a run that an earlier version began, whose parts take turns at one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<LaneCursors>,
    /// In such a run, the next pair of each part of a batch, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Cursor>,
    /// Updates that the average of the weights has seen, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<u64>,
    /// The run and its data; earlier versions did not say it, and other ranks than 0 do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

impl State {
    /// True in a run that an earlier version began, before there were lanes: it goes on in its own order.
    pub fn is_without_lanes(&self) -> bool {
        self.lanes.is_none() && self.position.samples > 0
    }

    /// Sets the next pair of each lane, of batches in so many parts.
    pub fn set_lanes(&mut self, parts: usize, cursors: &[Cursor]) {
        let lanes = LaneCursors::new(parts, cursors);
        self.position.cursor = lanes.furthest();
        self.lanes = Some(lanes);
    }

    /// Sets the next pair of each part. A single one needs no list.
    pub fn set_parts(&mut self, parts: Vec<Cursor>) {
        match parts[..] {
            [whole] => (self.position.cursor, self.parts) = (whole, Vec::new()),
            _ => {
                self.position.cursor = furthest(self.position.cursor, &parts);
                self.parts = parts;
            }
        }
    }

    /// Goes on with another number of parts: those that there were stood at different places only where samples were broken.
    pub fn forget_parts(&mut self) {
        self.position.cursor = furthest(self.position.cursor, &self.parts);
        self.parts.clear();
    }
}

fn furthest(from: Cursor, parts: &[Cursor]) -> Cursor {
    parts.iter().fold(from, |at, &part| at.further(part))
}

/// The end of a stage, or of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it was done.
    Complete,
    /// SIGINT, SIGTERM, SIGHUP or SIGUSR1 came, and a checkpoint was written.
    Interrupted,
}
