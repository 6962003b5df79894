//! Image-text retrieval: recall at 1, 5 and 10, both ways.
//!
//! An image may have several captions, a caption belongs to one image. With two images of two
//! captions each, texts 0 and 1 belong to image 0, texts 2 and 3 to image 1. Image to text counts an
//! image as found if any of its captions is among the first k of all texts; text to image counts a
//! caption as found if its image is among the first k of all images. Samples of one image (rows of a table
//! that name the same file) are one image with the captions of all. Captions that occur twice are not merged:
//! only one's own counts. Of equal similarities the one with the lower index comes first.
//!
//! Similarities are computed in tiles, counted and forgotten: memory is the embeddings, 4 bytes a number
//! (a million images and five million captions of 512 numbers: 12 GB), never images times captions.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::examples::{Gallery, Row};
use super::products::{Products, TILE_COLUMNS, TILE_ROWS};
use super::{Embedder, Evaluated, Evaluator, EvaluatorError, Material};
use crate::data::SourceConfig;
use crate::kernel::threads::Threads;
use crate::mask::ImageMask;
use crate::record::Evaluation;

const CUTOFFS: [u32; 3] = [1, 5, 10];

/// Image-text retrieval: recall at 1, 5 and 10, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Name of the result.
    pub name: String,
    /// Images with one or several captions each. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Captions of an image that take part.
    #[serde(default)]
    pub captions: RetrievalCaptions,
    /// Mask of the images (FLIP table 1d). Default: none is dropped.
    #[serde(default)]
    pub image_mask: ImageMask,
}

/// Captions of an image that take part in retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RetrievalCaptions {
    /// Every one, and every line of one that has several (as CLIP_benchmark's shards write them); an image
    /// is found by any of its captions.
    #[default]
    All,
    /// The first few of every image: of COCO's, which have five to seven, papers take `AtMost(5)`.
    AtMost(usize),
    /// The first, which the built-in scenes make the most complete one.
    First,
}

impl Evaluator for RetrievalConfig {
    fn kind(&self) -> &'static str {
        "retrieval"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn data(&self) -> Option<&SourceConfig> {
        self.data.as_ref()
    }
    fn captions(&self) -> bool {
        true
    }
    fn image_mask(&self) -> &ImageMask {
        &self.image_mask
    }
    fn evaluate(
        &self,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Evaluated, EvaluatorError> {
        let (mut images, mut texts, mut owner) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = SeenImages::default();
        let mut gallery = Gallery::default();
        while let Some(batch) = (material.test)()? {
            let of_images = embedder.embed_images(&batch)?;
            let (mut captions, mut owners) = (Vec::new(), Vec::new());
            let rows: Vec<Row> = batch.images.iter().map(|name| seen.row(*name)).collect();
            for (of_image, row) in batch.captions.iter().zip(&rows) {
                let taken = &mut seen.captions[row.image as usize];
                let before = captions.len();
                self.captions.take(of_image, *taken, &mut captions);
                *taken += captions.len() - before;
                owners.resize(captions.len(), row.image);
            }
            let of_texts = embedder.embed_texts(&captions)?;
            gallery.take(&batch, &rows, &of_images, (&of_texts, &captions, &owners), embedder.dim);
            let new = of_images.chunks_exact(embedder.dim).zip(&rows).filter(|(_, row)| row.new);
            images.extend(new.flat_map(|(image, _)| image));
            texts.extend(of_texts);
            owner.extend(owners);
        }
        sort_by_owner(&mut texts, &mut owner, embedder.dim);
        if owner.is_empty() {
            return Err(EvaluatorError::NothingToMeasure {
                name: self.name.clone(),
                detail: "the data has no samples".into(),
            });
        }
        let ranks = Ranks::of(&images, &texts, &owner, embedder.dim, material.stop)?;
        let mut metrics = Vec::new();
        for (direction, ranks) in [("image_to_text", &ranks.of_images), ("text_to_image", &ranks.of_texts)] {
            let found = |k: u32| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len() as f64;
            metrics.extend(CUTOFFS.map(|k| (format!("{direction}_recall_at_{k}"), found(k))));
        }
        metrics.push(("captions".into(), owner.len() as f64));
        let evaluation = Evaluation {
            kind: self.kind().into(),
            dataset: self.name.clone(),
            task: "image-text".into(),
            metrics,
            n: seen.captions.len() as u64,
            per_class: Vec::new(),
            confusions: Vec::new(),
        };
        Ok(Evaluated { evaluation, examples: gallery.finish() })
    }
}

/// The images so far.
#[derive(Default)]
struct SeenImages {
    /// By what the source calls an image of which it has several samples.
    named: HashMap<u64, u32>,
    /// Captions of each that take part.
    captions: Vec<usize>,
}

impl SeenImages {
    /// The image of a sample.
    fn row(&mut self, name: Option<u64>) -> Row {
        let next = self.captions.len() as u32;
        let image = name.map_or(next, |name| *self.named.entry(name).or_insert(next));
        let new = image == next;
        if new {
            self.captions.push(0);
        }
        Row { image, new }
    }
}

/// Brings texts [n, dim] into the order of their images; those of an image stay in theirs.
fn sort_by_owner(texts: &mut Vec<f32>, owner: &mut Vec<u32>, dim: usize) {
    if owner.is_sorted() {
        return;
    }
    let mut order: Vec<usize> = (0..owner.len()).collect();
    order.sort_by_key(|&text| owner[text]);
    *texts = order.iter().flat_map(|&text| &texts[text * dim..][..dim]).copied().collect();
    *owner = order.iter().map(|&text| owner[text]).collect();
}

impl RetrievalCaptions {
    /// Appends those of an image that take part beside the `taken` ones of its earlier samples.
    fn take(self, of_image: &[String], taken: usize, to: &mut Vec<String>) {
        let lines = of_image.iter().flat_map(|text| text.lines());
        let lines = lines.filter(|line| !line.trim().is_empty()).map(str::to_owned);
        match self {
            RetrievalCaptions::All => to.extend(lines),
            RetrievalCaptions::AtMost(most) => to.extend(lines.take(most.saturating_sub(taken))),
            RetrievalCaptions::First => to.extend(lines.take(1usize.saturating_sub(taken))),
        }
    }
}

/// Number of answers before the right one, 0 being best.
#[derive(Debug, PartialEq, Eq)]
struct Ranks {
    /// [images] texts before the best of an image's own captions; `u32::MAX` where it has none.
    of_images: Vec<u32>,
    /// [texts] images before a text's own image.
    of_texts: Vec<u32>,
}

impl Ranks {
    /// `images` is [images, dim], `texts` is [texts, dim], `owner` is [texts], the image of each text,
    /// in rising order.
    fn of(
        images: &[f32],
        texts: &[f32],
        owner: &[u32],
        dim: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, EvaluatorError> {
        debug_assert!(owner.is_sorted());
        let count = images.len() / dim;
        let mut products = Products::new()?;
        // The first text of each image, and the end.
        let begin: Vec<usize> =
            (0..=count as u32).map(|image| owner.partition_point(|owner| *owner < image)).collect();
        let mut own = vec![0.0; owner.len()];
        // The best of each image's captions: (similarity, text).
        let mut best: Vec<Option<(f32, usize)>> = vec![None; count];
        for image in 0..count {
            let (from, to) = (begin[image], begin[image + 1]);
            if from == to {
                continue;
            }
            let similarities = products.of(&images[image * dim..][..dim], &texts[from * dim..to * dim], dim);
            own[from..to].copy_from_slice(similarities);
            for (text, &similarity) in (from..to).zip(similarities) {
                if best[image].is_none_or(|(most, _)| similarity > most) {
                    best[image] = Some((similarity, text));
                }
            }
        }
        let mut of_images = vec![0; count];
        let mut of_texts = vec![0; owner.len()];
        for (row_tile, images) in images.chunks(TILE_ROWS * dim).enumerate() {
            if stop() {
                break;
            }
            let first_image = row_tile * TILE_ROWS;
            let rows = images.len() / dim;
            for (column_tile, texts) in texts.chunks(TILE_COLUMNS * dim).enumerate() {
                let first_text = column_tile * TILE_COLUMNS;
                let columns = texts.len() / dim;
                products.of(images, texts, dim);
                let tile = Tile { similarities: products.last(), columns, first_image, first_text };
                let threads = products.cpu.threads();
                tile.count_texts(threads, &best, &mut of_images[first_image..][..rows]);
                tile.count_images(threads, &begin, &own, &mut of_texts[first_text..][..columns]);
            }
        }
        for (rank, best) in of_images.iter_mut().zip(&best) {
            if best.is_none() {
                *rank = u32::MAX;
            }
        }
        Ok(Ranks { of_images, of_texts })
    }
}

/// Similarities of some images with some texts.
struct Tile<'a> {
    /// [images, columns]
    similarities: &'a [f32],
    columns: usize,
    first_image: usize,
    first_text: usize,
}

impl Tile<'_> {
    /// Adds to each image the texts that come before its best one.
    fn count_texts(&self, threads: &Threads, best: &[Option<(f32, usize)>], ranks: &mut [u32]) {
        let per_piece = ranks.len().div_ceil(4 * threads.count()).max(1);
        threads.each(ranks.chunks_mut(per_piece).enumerate(), |_, (piece, ranks)| {
            for (at, rank) in ranks.iter_mut().enumerate() {
                let row = piece * per_piece + at;
                let Some((most, text)) = best[self.first_image + row] else { continue };
                let row = &self.similarities[row * self.columns..][..self.columns];
                // Earlier texts are before it when equal, later ones are not.
                let (earlier, later) = row.split_at(text.saturating_sub(self.first_text).min(self.columns));
                *rank += earlier.iter().map(|&similarity| u32::from(similarity >= most)).sum::<u32>();
                *rank += later.iter().map(|&similarity| u32::from(similarity > most)).sum::<u32>();
            }
        });
    }

    /// Adds to each text the images that come before its own.
    fn count_images(&self, threads: &Threads, begin: &[usize], own: &[f32], ranks: &mut [u32]) {
        let per_piece = self.columns.div_ceil(4 * threads.count()).next_multiple_of(16);
        threads.each(ranks.chunks_mut(per_piece).enumerate(), |_, (piece, ranks)| {
            let first = piece * per_piece;
            let own = &own[self.first_text + first..][..ranks.len()];
            for (image, row) in self.similarities.chunks_exact(self.columns).enumerate() {
                let row = &row[first..][..ranks.len()];
                // Texts of this image and of earlier ones, then those of later images: to these this
                // image is an earlier one, which comes first when equal.
                let split = begin[self.first_image + image + 1].saturating_sub(self.first_text + first);
                let split = split.min(ranks.len());
                for ((rank, &similarity), &own) in ranks[..split].iter_mut().zip(row).zip(own) {
                    *rank += u32::from(similarity > own);
                }
                for ((rank, &similarity), &own) in
                    ranks[split..].iter_mut().zip(&row[split..]).zip(&own[split..])
                {
                    *rank += u32::from(similarity >= own);
                }
            }
        });
    }
}
