//! Masks: the patches and the tokens that an encoder sees. The mask belongs to the stage, not to the
//! model; the ratio ends here: everything later sees only how many are kept, and which.
//!
//! Every strategy works as FLIP's does: it scores the positions of one row, and those with the lowest
//! scores are kept ([`random_mask`] is the routine; uniform noise is one way to score). So whatever a
//! strategy computes, the number kept is the same for all rows, no position occurs twice, and none is out
//! of range. A row is scored with a generator of its own - images by (seed, epoch, place of the sample in
//! it), so that the loader knows what is kept before it decodes; texts by (seed, step, row) - and a batch may be
//! drawn whole or in parts.
//!
//! A strategy of one's own is an implementation of [`ImageStrategy`] or [`TextStrategy`]; for recipes it
//! needs a line in [`ImageMask`] or [`TextMask`] too.

#![warn(missing_docs)]

pub mod image;
mod kept;
mod random_mask;
mod ratio;
pub mod text;

pub use image::{draw_images, ImageStrategy};
pub use kept::Kept;
pub use random_mask::{random_mask, RandomMask};
pub use ratio::{Ratio, Strength};
pub use text::{draw_texts, Captions, TextStrategy, TokenFrequencies};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Strategy of dropping image patches. Of n patches int(n * (1 - ratio)) are kept, whatever the strategy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ImageMask {
    /// Every patch is encoded.
    #[default]
    Keep,
    /// Uniformly random patches are dropped (FLIP section 3).
    Random(Ratio),
    /// Random, but with a bias towards keeping the centre of the image.
    Centred {
        /// Fraction of patches dropped.
        ratio: Ratio,
        /// Strength of the bias: added to the noise (0 to 1) of a corner patch, and in proportion to
        /// the distance from the centre elsewhere; 0 is `Random`, 1 or more is nearly a disc.
        strength: Strength,
    },
    /// Random within the cells of a grid: every cell keeps its share of patches, so that no large area
    /// goes unseen. Cells are the smallest squares that keep at least one patch (2 x 2 at 0.5 and 0.75);
    /// shares that are not whole are rounded up or down at random.
    Grid(Ratio),
    /// One block of neighbouring patches at a random place is kept: the square that holds them, or the
    /// nearest to it, with a last row that may be incomplete.
    Block(Ratio),
}

impl ImageMask {
    /// Patches kept of an image of `grid` x `grid` patches.
    pub fn kept(&self, grid: usize) -> usize {
        let patches = grid * grid;
        self.strategy().map_or(patches, |strategy| strategy.kept(patches))
    }

    /// Draws the mask of `batch` images, which are those from `first` on of an epoch.
    pub fn draw(&self, grid: usize, batch: usize, seed: u64, epoch: u64, first: u64) -> Kept {
        match self.strategy() {
            None => Kept::all(batch, grid * grid),
            Some(strategy) => draw_images(strategy.as_ref(), grid, batch, seed, epoch, first),
        }
    }

    /// The strategy behind the recipe's words; `None` where everything is kept.
    fn strategy(&self) -> Option<Box<dyn ImageStrategy>> {
        match *self {
            ImageMask::Keep => None,
            ImageMask::Random(ratio) => Some(Box::new(image::Random { ratio })),
            ImageMask::Centred { ratio, strength } => Some(Box::new(image::Centred { ratio, strength })),
            ImageMask::Grid(ratio) => Some(Box::new(image::Grid { ratio })),
            ImageMask::Block(ratio) => Some(Box::new(image::Block { ratio })),
        }
    }
}

/// Strategy of dropping caption tokens. Of n positions int(n * (1 - ratio)) are kept, whatever the strategy
/// and however short the caption; where the model reads the end-of-text token, that one is always kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum TextMask {
    /// Every token is encoded.
    #[default]
    Keep,
    /// Uniformly random positions are dropped, padding included.
    Random(Ratio),
    /// Padding is dropped first, then random tokens (FLIP table 1c).
    Prioritised(Ratio),
    /// The end of the caption is dropped.
    Truncate(Ratio),
    /// One run of neighbouring tokens is kept, at a random place; padding only after the last token.
    Block(Ratio),
    /// Padding first, then frequent words with a higher probability (CLIPF, arXiv 2412.16148).
    Frequency(Ratio),
}

impl TextMask {
    /// Positions kept of `context`.
    pub fn kept(&self, context: usize) -> usize {
        match *self {
            TextMask::Keep => context,
            TextMask::Random(ratio)
            | TextMask::Prioritised(ratio)
            | TextMask::Truncate(ratio)
            | TextMask::Block(ratio)
            | TextMask::Frequency(ratio) => ratio.kept(context),
        }
    }

    /// True if `draw` needs the counts of tokens in the training captions.
    pub fn needs_frequencies(&self) -> bool {
        matches!(self, TextMask::Frequency(_))
    }

    /// Draws the mask of captions, which are the rows `first_row..` of the batch of this step. Without
    /// `frequencies` all tokens count as equally rare, and `Frequency` is `Prioritised`.
    pub fn draw(
        &self,
        captions: &Captions<'_>,
        frequencies: Option<&TokenFrequencies>,
        seed: u64,
        step: u64,
        first_row: u64,
    ) -> Kept {
        self.draw_rows(captions, frequencies, seed, step, |row| first_row + row as u64)
    }

    /// As [`draw`](Self::draw), of captions that do not follow each other in the batch: `row_of` gives the number of each.
    pub fn draw_rows(
        &self,
        captions: &Captions<'_>,
        frequencies: Option<&TokenFrequencies>,
        seed: u64,
        step: u64,
        row_of: impl Fn(usize) -> u64,
    ) -> Kept {
        match self.strategy(frequencies) {
            None => Kept::all(captions.lengths.len(), captions.context),
            Some(strategy) => draw_texts(strategy.as_ref(), captions, seed, step, row_of),
        }
    }

    /// The strategy behind the recipe's words; `None` where everything is kept.
    fn strategy<'a>(&self, frequencies: Option<&'a TokenFrequencies>) -> Option<Box<dyn TextStrategy + 'a>> {
        match *self {
            TextMask::Keep => None,
            TextMask::Random(ratio) => Some(Box::new(text::Random { ratio })),
            TextMask::Prioritised(ratio) => Some(Box::new(text::Prioritised { ratio })),
            TextMask::Truncate(ratio) => Some(Box::new(text::Truncate { ratio })),
            TextMask::Block(ratio) => Some(Box::new(text::Block { ratio })),
            TextMask::Frequency(ratio) => match frequencies {
                None => Some(Box::new(text::Prioritised { ratio })),
                Some(frequencies) => Some(Box::new(text::Frequency { ratio, frequencies })),
            },
        }
    }
}
