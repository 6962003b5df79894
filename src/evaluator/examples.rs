//! Images that a person gets to look at, with what the model found for them. They are chosen while the
//! data streams past, so that no image has to be kept or read again.

use super::similarity::dot;
use crate::data::Batch;
use crate::record::{Answer, Example};

/// Images that are asked about.
const ASKED: usize = 8;
/// Answers kept for each.
const ANSWERS: usize = 5;

/// A square image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Side, pixels.
    pub size: usize,
    /// [size, size, 3] bytes.
    pub pixels: Vec<u8>,
}

/// The best of a stream; of equals the earlier one is better.
#[derive(Debug)]
pub(crate) struct Best<T> {
    most: usize,
    /// Best first.
    kept: Vec<(f32, T)>,
}

impl<T> Best<T> {
    pub fn new(most: usize) -> Self {
        Best { most, kept: Vec::new() }
    }

    /// Takes what `make` makes, if it is good enough.
    pub fn offer(&mut self, score: f32, make: impl FnOnce() -> T) {
        let full = self.kept.len() >= self.most;
        if full && self.kept.last().is_none_or(|(worst, _)| *worst >= score) {
            return;
        }
        let at = self.kept.partition_point(|(kept, _)| *kept >= score);
        self.kept.truncate(self.most - 1);
        self.kept.insert(at, (score, make()));
    }

    pub fn finish(self) -> Vec<(f32, T)> {
        self.kept
    }
}

/// An image of a batch; `None` where the batch has no pixels.
pub(super) fn thumbnail(batch: &Batch, row: usize) -> Option<Thumbnail> {
    let bytes = batch.size * batch.size * 3;
    let pixels = batch.pixels.get(row * bytes..(row + 1) * bytes)?.to_vec();
    (bytes > 0).then_some(Thumbnail { size: batch.size, pixels })
}

/// The image of a row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number among all images.
    pub image: u32,
    /// True if no row before was of it.
    pub new: bool,
}

/// Some images of the first batch, spread over it, and the best answers of all batches.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    asked: Vec<Asked>,
    started: bool,
}

#[derive(Debug)]
struct Asked {
    index: u32,
    thumbnail: Thumbnail,
    caption: String,
    image: Vec<f32>,
    text: Vec<f32>,
    texts: Best<(String, bool)>,
    images: Best<(Option<Thumbnail>, bool)>,
}

impl Gallery {
    /// Takes a batch of these rows. `images` is [batch, dim]; `texts` is
    /// [captions, dim], with `owners` and `captions` beside: the image, counted over all, and the text.
    pub fn take(
        &mut self,
        batch: &Batch,
        rows: &[Row],
        images: &[f32],
        (texts, captions, owners): (&[f32], &[String], &[u32]),
        dim: usize,
    ) {
        if !self.started {
            self.started = true;
            self.ask(batch, rows, images, (texts, captions, owners), dim);
        }
        for asked in &mut self.asked {
            for (row, image) in images.chunks_exact(dim).enumerate().filter(|(row, _)| rows[*row].new) {
                let own = rows[row].image == asked.index;
                asked.images.offer(dot(&asked.text, image), || (thumbnail(batch, row), own));
            }
            for ((text, caption), owner) in texts.chunks_exact(dim).zip(captions).zip(owners) {
                let own = *owner == asked.index;
                asked.texts.offer(dot(&asked.image, text), || (caption.clone(), own));
            }
        }
    }

    fn ask(
        &mut self,
        batch: &Batch,
        rows: &[Row],
        images: &[f32],
        (texts, captions, owners): (&[f32], &[String], &[u32]),
        dim: usize,
    ) {
        let new: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].new).collect();
        let some = ASKED.min(new.len());
        for row in (0..some).map(|i| new[i * new.len() / some]) {
            let index = rows[row].image;
            let caption = owners.iter().position(|owner| *owner == index);
            let (Some(thumbnail), Some(at)) = (thumbnail(batch, row), caption) else { continue };
            self.asked.push(Asked {
                index,
                thumbnail,
                caption: captions[at].clone(),
                image: images[row * dim..][..dim].to_vec(),
                text: texts[at * dim..][..dim].to_vec(),
                texts: Best::new(ANSWERS),
                images: Best::new(ANSWERS),
            });
        }
    }

    pub fn finish(self) -> Vec<Example<Thumbnail>> {
        let example = |asked: Asked| Example {
            image: asked.thumbnail,
            caption: asked.caption,
            texts: asked
                .texts
                .finish()
                .into_iter()
                .map(|(similarity, (what, right))| Answer { what, similarity, right })
                .collect(),
            images: asked
                .images
                .finish()
                .into_iter()
                .filter_map(|(similarity, (what, right))| Some(Answer { what: what?, similarity, right }))
                .collect(),
        };
        self.asked.into_iter().map(example).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order_and_the_earlier_of_equals() {
        let mut best = Best::new(3);
        for (score, what) in [(1.0, 'a'), (3.0, 'b'), (2.0, 'c'), (3.0, 'd'), (0.0, 'e'), (2.0, 'f')] {
            best.offer(score, || what);
        }
        let kept: String = best.finish().into_iter().map(|(_, what)| what).collect();
        assert_eq!(kept, "bdc");
        let mut none = Best::new(0);
        none.offer(1.0, || unreachable!("there is no room") as char);
        assert!(none.finish().is_empty());
    }
}
