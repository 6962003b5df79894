//! The built-in source: small images of shapes, endless, deterministic, nothing to download.
//!
//! An image is a function of (seed, level, split, number). Training never shows a held-out combination of
//! shape and colour ([`Combination`]), and from the level `Clutter` on never two things together that
//! evaluation shows together ([`never_together`]); evaluation shows nothing else, and its labels are what
//! was held out. To name it rightly, a model has to have learned shapes, colours, sides and numbers apart
//! from each other.

mod attribute;
mod caption;
mod combination;
mod composition;
mod config;
mod describe;
mod outline;
mod paint;
mod scene;
mod topic;

pub use attribute::{Colour, Ground, Place, Relation, Shape, Size, Texture};
pub use combination::Combination;
pub use composition::{Composition, Placed};
pub use config::{ScenesConfig, ScenesLevel, ScenesSplit};
pub use scene::{Object, Scene, Subject};
pub use topic::{never_together, Group, Topic};

use std::collections::HashMap;

use rand::{Rng, RngCore};

use outline::Outline;

use crate::data::source::permutation::{dealt, Permutations};
use crate::data::source::{Order, Source, Ticket};
use crate::data::{Cursor, DataError};
use crate::data::{Image, LoadError, Raw};
use crate::seed::{rng, Purpose};

/// Smallest side at which one large shape can be told from another at all, and the same for small ones.
const LEAST: usize = 8;
const LEAST_CROWDED: usize = 32;
/// Largest side, so that a `u32` can hold the bytes.
const MOST: usize = 16_384;

/// Prompt templates of this source, from the level `Clutter` on.
const TEMPLATES: [&str; 2] = ["{}", "a picture of {}"];

/// The content of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Of the level `Plain`.
    Plain(Scene),
    /// Of every other.
    Composed(Composition),
}

/// The source.
pub struct Scenes {
    side: usize,
    split: ScenesSplit,
    level: ScenesLevel,
    samples: Option<u64>,
    seed: u64,
    /// Combinations that the split shows; by class label where single shapes are the classes.
    combinations: Vec<Combination>,
    labels: HashMap<Combination, i64>,
    /// Topics that an evaluation asks for from the level `Clutter` on, by class label.
    topics: Vec<Topic>,
    /// By shape.
    outlines: Vec<Outline>,
    permutations: Permutations,
}

impl Scenes {
    /// `seed` decides what the images are; their order is another matter (see [`Order`]).
    pub fn new(config: &ScenesConfig, seed: u64) -> Result<Self, DataError> {
        let least = least_side(config.level);
        if !(least..=MOST).contains(&config.size) {
            return Err(DataError::Invalid(format!(
                "scenes: size {}: expected {least} to {MOST} pixels",
                config.size
            )));
        }
        let topics = match config.split {
            ScenesSplit::Train => Vec::new(),
            ScenesSplit::HeldOut => Topic::held_out(config.level),
        };
        // Beside what is asked, an evaluation shows what training shows.
        let composed = config.level != ScenesLevel::Plain;
        let combinations = Combination::of(if composed { ScenesSplit::Train } else { config.split });
        Ok(Scenes {
            side: config.size,
            split: config.split,
            level: config.level,
            samples: config.samples.map(std::num::NonZeroU64::get),
            seed,
            labels: combinations.iter().copied().zip(0..).collect(),
            combinations,
            topics,
            outlines: Shape::ALL.iter().map(|&shape| Outline::of(shape)).collect(),
            permutations: Permutations::default(),
        })
    }

    /// The content of the image of this number, and the sample: image and captions.
    pub fn sample(&self, number: u64) -> (Content, Raw) {
        let (split, pairs) = match self.split {
            ScenesSplit::Train => ("train", true),
            ScenesSplit::HeldOut => ("held-out", false),
        };
        let stream = self.split as u64 + 2 * self.level as u64;
        let mut rng = rng(self.seed, Purpose::Scene, number, stream);
        let (content, captions, pixels, label);
        if self.level == ScenesLevel::Plain {
            let scene = Scene::draw(&self.combinations, pairs, &mut rng);
            captions = caption::captions(&scene, &mut rng);
            pixels = scene.paint(self.side, &self.outlines, &mut rng);
            label = match &scene.subject {
                Subject::One(object, ..) => self.labels.get(&object.what).copied(),
                Subject::Two(..) => None,
            };
            content = Content::Plain(scene);
        } else {
            let composition;
            (composition, label) = self.compose(&mut rng);
            captions = describe::captions(&composition, &mut rng);
            pixels = composition.paint(self.side, &self.outlines, &mut rng);
            content = Content::Composed(composition);
        }
        let key = match self.level {
            ScenesLevel::Plain => format!("scenes/{split}/{number:08}"),
            ScenesLevel::Clutter => format!("scenes/clutter/{split}/{number:08}"),
            ScenesLevel::Relations => format!("scenes/relations/{split}/{number:08}"),
            ScenesLevel::Counts => format!("scenes/counts/{split}/{number:08}"),
        };
        let side = self.side as u32;
        let image = Image::Rgb { width: side, height: side, pixels };
        (content, Raw { key, image, captions, meta: Ok(None), label, label_set: None })
    }

    /// A composition and its label.
    fn compose(&self, rng: &mut dyn RngCore) -> (Composition, Option<i64>) {
        match self.split {
            ScenesSplit::Train => {
                let composition = Composition::train(self.level, &self.combinations, rng);
                let label = match composition.topic {
                    Topic::One(Group { what, count: 1 }) => self.labels.get(&what).copied(),
                    _ => None,
                };
                (composition, label)
            }
            ScenesSplit::HeldOut => {
                let class = rng.gen_range(0..self.topics.len());
                let topic = self.topics[class];
                (Composition::of(topic, self.level, &self.combinations, rng), Some(class as i64))
            }
        }
    }
}

/// Smallest side of a level's images, pixels.
pub fn least_side(level: ScenesLevel) -> usize {
    match level {
        ScenesLevel::Plain => LEAST,
        _ => LEAST_CROWDED,
    }
}

impl Source for Scenes {
    fn samples(&self) -> Option<u64> {
        self.samples
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        Ok(match self.samples {
            Some(samples) => self.permutations.ticket(order, cursor, samples),
            // Endless: every image is new, so any order is as good as this one.
            None => {
                let (number, after) = dealt(order, cursor);
                Some(Ticket { epoch: cursor.epoch, index: number, item: (0, number), after })
            }
        })
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        Ok(self.sample(ticket.item.1).1)
    }

    fn classes(&self) -> Vec<String> {
        match self.topics.as_slice() {
            [] => self.combinations.iter().map(|combination| combination.phrase()).collect(),
            topics => topics.iter().map(|topic| topic.phrase()).collect(),
        }
    }

    fn templates(&self) -> Vec<String> {
        match self.topics.as_slice() {
            [] => Vec::new(),
            _ => TEMPLATES.map(str::to_owned).to_vec(),
        }
    }
}
