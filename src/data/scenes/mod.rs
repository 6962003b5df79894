//! The built-in source: small pictures of one or two shapes, endless, deterministic, nothing to download.
//!
//! A picture is a function of (seed, split, number). Training never shows a held-out combination of shape
//! and colour ([`Combination`]); evaluation shows nothing else, one shape at a time, and its labels are
//! the combinations. To name one rightly, a model has to have learned shapes and colours apart from each
//! other.

mod attribute;
mod caption;
mod combination;
mod outline;
mod paint;
mod scene;

pub use attribute::{Colour, Ground, Place, Relation, Shape, Size, Texture};
pub use combination::Combination;
pub use scene::{Object, Scene, Subject};

use std::collections::HashMap;

use outline::Outline;

use super::permutation::Permutations;
use super::source::{Order, Picture, Raw, Skip, Source, Ticket};
use super::{Cursor, DataError, ScenesConfig, ScenesSplit};
use crate::seed::{rng, Purpose};

/// Smallest side at which shapes can be told apart at all, and largest that a `u32` of bytes can hold.
const SIDES: std::ops::RangeInclusive<usize> = 8..=16_384;

/// The source.
pub struct Scenes {
    side: usize,
    split: ScenesSplit,
    samples: Option<u64>,
    seed: u64,
    /// By class label.
    combinations: Vec<Combination>,
    labels: HashMap<Combination, i64>,
    /// By shape.
    outlines: Vec<Outline>,
    permutations: Permutations,
}

impl Scenes {
    /// `seed` decides what the pictures are; their order is another matter (see [`Order`]).
    pub fn new(config: &ScenesConfig, seed: u64) -> Result<Self, DataError> {
        if !SIDES.contains(&config.size) {
            return Err(DataError::Invalid(format!(
                "scenes: size {}: expected {} to {} pixels",
                config.size,
                SIDES.start(),
                SIDES.end()
            )));
        }
        let combinations = Combination::of(config.split);
        Ok(Scenes {
            side: config.size,
            split: config.split,
            samples: config.samples.map(std::num::NonZeroU64::get),
            seed,
            labels: combinations.iter().copied().zip(0..).collect(),
            combinations,
            outlines: Shape::ALL.iter().map(|&shape| Outline::of(shape)).collect(),
            permutations: Permutations::default(),
        })
    }

    /// The scene of this number, its picture and its captions.
    pub fn sample(&self, number: u64) -> (Scene, Raw) {
        let (split, pairs) = match self.split {
            ScenesSplit::Train => ("train", true),
            ScenesSplit::HeldOut => ("held-out", false),
        };
        let mut rng = rng(self.seed, Purpose::Scene, number, self.split as u64);
        let scene = Scene::draw(&self.combinations, pairs, &mut rng);
        let captions = caption::captions(&scene, &mut rng);
        let side = self.side as u32;
        let pixels = scene.paint(self.side, &self.outlines, &mut rng);
        let label = match &scene.subject {
            Subject::One(object, ..) => self.labels.get(&object.what).copied(),
            Subject::Two(..) => None,
        };
        let raw = Raw {
            key: format!("scenes/{split}/{number:08}"),
            picture: Picture::Rgb { width: side, height: side, pixels },
            captions,
            meta: None,
            label,
        };
        (scene, raw)
    }
}

impl Source for Scenes {
    fn samples(&self) -> Option<u64> {
        self.samples
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        let number = match self.samples {
            // Endless: every picture is new, so any order is as good as this one.
            None => cursor.position,
            Some(samples) if cursor.position >= samples => return Ok(None),
            Some(samples) => self.permutations.item(order, cursor.epoch, cursor.position, samples),
        };
        Ok(Some(Ticket {
            epoch: cursor.epoch,
            index: cursor.position,
            item: (0, number),
            after: Cursor { position: cursor.position + 1, ..cursor },
        }))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, Skip> {
        Ok(self.sample(ticket.item.1).1)
    }

    fn classes(&self) -> Vec<String> {
        self.combinations.iter().map(|combination| combination.phrase()).collect()
    }
}
