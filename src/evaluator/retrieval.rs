//! Image-text retrieval: recall at 1, 5 and 10, both ways.
//!
//! A picture may have several captions, a caption belongs to one picture. With two pictures of two
//! captions each, texts 0 and 1 belong to picture 0, texts 2 and 3 to picture 1. Image to text counts a
//! picture as found if any of its captions is among the first k of all texts; text to image counts a
//! caption as found if its picture is among the first k of all pictures. Captions that occur twice are
//! not merged: only one's own counts.

use super::similarity::dot;
use super::{Batches, Embedder, Evaluation, EvaluatorError, RetrievalCaptions, RetrievalConfig};

const CUTOFFS: [u32; 3] = [1, 5, 10];

/// Pictures whose similarities are computed against one text after the other; they stay in cache.
const TILE: usize = 32;

pub(super) fn evaluate(
    config: &RetrievalConfig,
    batches: &mut Batches<'_>,
    embedder: &mut Embedder<'_>,
) -> Result<Evaluation, EvaluatorError> {
    let (mut images, mut texts, mut owner) = (Vec::new(), Vec::new(), Vec::new());
    let mut pictures = 0u32;
    while let Some(batch) = batches()? {
        images.extend(embedder.embed_images(&batch)?);
        let mut captions = Vec::new();
        for of_picture in &batch.captions {
            let taken = match config.captions {
                RetrievalCaptions::All => of_picture.len(),
                RetrievalCaptions::First => 1,
            };
            for caption in of_picture.iter().take(taken) {
                captions.push(caption.clone());
                owner.push(pictures);
            }
            pictures += 1;
        }
        texts.extend(embedder.embed_texts(&captions)?);
    }
    if owner.is_empty() {
        return Err(EvaluatorError::NothingToMeasure {
            name: config.name.clone(),
            detail: "the data has no samples".into(),
        });
    }
    let ranks = Ranks::of(&images, &texts, &owner, embedder.dim);
    let mut metrics = Vec::new();
    for (direction, ranks) in [("image_to_text", &ranks.of_images), ("text_to_image", &ranks.of_texts)] {
        let found = |k: u32| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len() as f64;
        metrics.extend(CUTOFFS.map(|k| (format!("{direction}_recall_at_{k}"), found(k))));
    }
    metrics.push(("captions".into(), owner.len() as f64));
    Ok(Evaluation {
        kind: "retrieval".into(),
        dataset: config.name.clone(),
        task: "image-text".into(),
        metrics,
        n: u64::from(pictures),
        per_class: Vec::new(),
    })
}

/// How many come before the right one, 0 being best. Among equal similarities the lower index comes first.
#[derive(Debug, PartialEq, Eq)]
struct Ranks {
    /// [pictures] texts before the best of a picture's own captions; `u32::MAX` where it has none.
    of_images: Vec<u32>,
    /// [texts] pictures before a text's own picture.
    of_texts: Vec<u32>,
}

impl Ranks {
    /// `images` is [pictures, dim], `texts` is [texts, dim], `owner` is [texts], the picture of each text.
    /// Similarities are computed, counted and forgotten: memory grows with pictures plus texts.
    fn of(images: &[f32], texts: &[f32], owner: &[u32], dim: usize) -> Self {
        let pictures = images.len() / dim;
        let own: Vec<f32> = owner
            .iter()
            .zip(texts.chunks_exact(dim))
            .map(|(&picture, text)| dot(&images[picture as usize * dim..][..dim], text))
            .collect();
        // The best of each picture's captions: (similarity, text).
        let mut best: Vec<Option<(f32, usize)>> = vec![None; pictures];
        for (text, (&picture, &similarity)) in owner.iter().zip(&own).enumerate() {
            let best = &mut best[picture as usize];
            if best.is_none_or(|(most, _)| similarity > most) {
                *best = Some((similarity, text));
            }
        }
        let mut of_images = vec![0; pictures];
        let mut of_texts = vec![0; owner.len()];
        for (tile, tile_images) in images.chunks(TILE * dim).enumerate() {
            for (text, vector) in texts.chunks_exact(dim).enumerate() {
                for (slot, image) in tile_images.chunks_exact(dim).enumerate() {
                    let picture = tile * TILE + slot;
                    let similarity = dot(image, vector);
                    let right = owner[text] as usize;
                    of_texts[text] +=
                        u32::from(similarity > own[text] || (similarity == own[text] && picture < right));
                    of_images[picture] += match best[picture] {
                        Some((most, own)) => {
                            u32::from(similarity > most || (similarity == most && text < own))
                        }
                        None => 0,
                    };
                }
            }
        }
        for (rank, best) in of_images.iter_mut().zip(&best) {
            if best.is_none() {
                *rank = u32::MAX;
            }
        }
        Ranks { of_images, of_texts }
    }
}
