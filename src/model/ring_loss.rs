//! The contrastive loss of a batch whose embeddings lie on several ranks. Each holds its own rows and their gradients; those
//! of the others come by in tiles, twice: for the log-sum-exps, and with these for the gradients. No rank ever holds a
//! matrix of pairs, or all embeddings.
//!
//! With B pairs in all, embeddings of d values and R ranks of B / R pairs, a rank sends 4 (B - B / R) (4 d + 2) bytes a
//! step: images and captions of d values, and then of d + 1.

use crate::kernel::contrastive::rows::{diagonal, Gradients, LogSumExp};
use crate::kernel::contrastive::COLUMNS;
use crate::kernel::Cpu as Kernels;
use crate::ranks::ring::{ring_pass, Column};
use crate::ranks::{Parts, Ranks, RanksError};

/// The loss of all ranks, and the gradients of this rank's rows.
#[derive(Debug)]
pub struct RingLoss {
    pub loss: f64,
    /// Of the factor on the cosines.
    pub dscale: f64,
    /// [rows of this rank, embed_dim].
    pub dimages: Vec<f32>,
    pub dtexts: Vec<f32>,
}

/// Rows of this rank and where they stand.
struct Own<'a> {
    ranks: &'a dyn Ranks,
    kernels: &'a Kernels,
    bounds: Vec<usize>,
    width: usize,
    scale: f32,
}

/// Loss and gradients of `images` and `texts`, this rank's unit embeddings [rows, width] in the order of its parts.
///
/// # Errors
/// An exchange fails.
pub fn ring_loss(
    ranks: &dyn Ranks,
    kernels: &Kernels,
    parts: &Parts,
    (images, texts): (&[f32], &[f32]),
    scale: f32,
    width: usize,
) -> Result<RingLoss, RanksError> {
    let own = Own { ranks, kernels, bounds: parts.bounds(), width, scale };
    let by_image = own.log_sum_exp(images, texts)?;
    let by_text = own.log_sum_exp(texts, images)?;
    let of_images = own.gradients((images, &by_image), (texts, &by_text))?;
    let of_texts = own.gradients((texts, &by_text), (images, &by_image))?;

    // Sums in double precision: over the rows of a part where it lies, then over the parts in their order.
    let rows = parts.rows();
    let mut sums = Vec::new();
    for part in 0..parts.own().len() {
        let here = part * rows..(part + 1) * rows;
        let lse: f64 = by_image[here.clone()]
            .iter()
            .zip(&by_text[here.clone()])
            .map(|(&a, &b)| a as f64 + b as f64)
            .sum();
        let values = here.start * width..here.end * width;
        let pairs = diagonal(&images[values.clone()], &texts[values]);
        let dscale: f64 = of_images.of_scale[here].iter().sum();
        sums.extend([lse, pairs, dscale].map(f64::to_le_bytes).concat());
    }
    let mut totals = [0.0f64; 3];
    for part in ranks.gather(&sums)?.concat().chunks_exact(24) {
        for (total, value) in totals.iter_mut().zip(part.chunks_exact(8)) {
            *total +=
                f64::from_le_bytes(value.try_into().map_err(|_| RanksError::Size { expected: 8, got: 0 })?);
        }
    }
    let [lse, pairs, dscale] = totals;
    let loss = (lse - 2.0 * scale as f64 * pairs) / (2 * parts.batch()) as f64;
    Ok(RingLoss { loss, dscale, dimages: of_images.of_rows, dtexts: of_texts.of_rows })
}

impl Own<'_> {
    /// Place of the first row here, and of all.
    fn place(&self) -> (usize, usize) {
        (self.bounds[self.ranks.rank()], self.bounds[self.ranks.count()])
    }

    fn log_sum_exp(&self, rows: &[f32], others: &[f32]) -> Result<Vec<f32>, RanksError> {
        let mut sums = LogSumExp::new(rows, self.width, self.scale);
        let column = Column { values: others, width: self.width };
        ring_pass(self.ranks, &self.bounds, COLUMNS, &[column], |tile| {
            sums.add(self.kernels, &tile.columns[0])
        })?;
        Ok(sums.finish())
    }

    fn gradients<'a>(
        &self,
        (rows, lse): (&'a [f32], &'a [f32]),
        (others, lses): (&[f32], &[f32]),
    ) -> Result<Gradients<'a>, RanksError> {
        let mut gradients = Gradients::new(rows, lse, self.place(), self.width, self.scale);
        let columns = [Column { values: others, width: self.width }, Column { values: lses, width: 1 }];
        ring_pass(self.ranks, &self.bounds, COLUMNS, &columns, |tile| {
            gradients.add(self.kernels, &tile.columns[0], &tile.columns[1], tile.first);
        })?;
        Ok(gradients)
    }
}
