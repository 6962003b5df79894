//! The symmetric contrastive loss: every picture of a batch should find its caption among all, and every
//! caption its picture. Logits are exp(s) <z_image, z_text>, s the logit scale; the loss is the mean of
//! both cross-entropies over the batch.

use dfdx::prelude::*;

use super::config::{LogitScaleClip, Normalisation};
use super::layer::Matrix;
use crate::parameter::{rounded, Parameter};

/// The logit scale stays within [0, ln 100].
pub const LOGIT_SCALE_RANGE: [f64; 2] = [0.0, 4.605170185988092];

/// Brings rows [batch, embed_dim] to unit length.
pub(crate) fn unit_length<E: Dtype, D: Device<E>, T: Tape<E, D>>(
    z: Matrix<E, D, T>,
    normalisation: Normalisation,
) -> Result<Matrix<E, D, T>, D::Err> {
    let shape = *z.shape();
    let norm = z.retaped::<T>().try_square()?.try_sum::<_, Axis<1>>()?.try_sqrt()?;
    let norm = match normalisation {
        Normalisation::AddEps => norm.try_add(rounded::<E>(1e-8))?,
        Normalisation::MaxEps => norm.try_clamp(1e-12, f64::INFINITY)?,
    };
    z.try_div(norm.try_broadcast_like::<_, Axis<1>>(&shape)?)
}

/// The loss of n pairs of unit embeddings [n, embed_dim]. Cross-entropies are shifted by the largest
/// logit: at the largest scale a bare exponential would overflow single precision.
pub(crate) fn contrastive<E: Dtype, D: Device<E>, T: Tape<E, D>>(
    images: Matrix<E, D, T>,
    texts: Matrix<E, D, T>,
    logit_scale: &Parameter<E, D>,
    clip: LogitScaleClip,
) -> Result<Tensor<(), E, D, T>, D::Err> {
    let shape = *images.shape();
    let scale = logit_scale.master.retaped::<T>().try_reshape_like(&())?;
    let scale = match clip {
        LogitScaleClip::Forward => scale.try_clamp(LOGIT_SCALE_RANGE[0], LOGIT_SCALE_RANGE[1])?,
        LogitScaleClip::AfterUpdate => scale,
    };
    let scale = scale.try_exp()?.try_broadcast_like::<_, Axes2<0, 1>>(&shape)?;
    let images = images.try_mul(scale)?;

    let matching = images.retaped::<T>().try_mul(texts.retaped::<T>())?.try_sum::<(usize,), Axis<1>>()?;
    let logits = images.try_matmul(texts.try_permute::<_, Axes2<1, 0>>()?)?;
    let over_texts = logits.retaped::<T>().try_logsumexp::<(usize,), Axis<1>>()?;
    let over_images = logits.try_logsumexp::<(usize,), Axis<0>>()?;
    let pairs = over_images.try_add(over_texts)?.try_mul(rounded::<E>(0.5))?.try_sub(matching)?;
    pairs.try_mean()
}

/// The loss on the host, in double precision, of n pairs of unit embeddings, each [n, embed_dim]; `scale`
/// is the factor exp(s). No matrix of n by n is stored.
pub fn host_contrastive(images: &[f32], texts: &[f32], n: usize, scale: f64) -> f64 {
    let width = images.len() / n.max(1);
    let mut over_images = vec![LogSumExp::default(); n];
    let mut total = 0.0;
    for (i, image) in images.chunks_exact(width.max(1)).enumerate() {
        let mut over_texts = LogSumExp::default();
        for (j, text) in texts.chunks_exact(width.max(1)).enumerate() {
            let cosine: f64 = image.iter().zip(text).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let logit = scale * cosine;
            over_texts.add(logit);
            over_images[j].add(logit);
            if i == j {
                total -= 2.0 * logit;
            }
        }
        total += over_texts.value();
    }
    total += over_images.iter().map(LogSumExp::value).sum::<f64>();
    total / (2 * n) as f64
}

/// ln of a sum of exponentials, one at a time, relative to the largest so far.
#[derive(Clone)]
struct LogSumExp {
    largest: f64,
    sum: f64,
}

impl Default for LogSumExp {
    fn default() -> Self {
        LogSumExp { largest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSumExp {
    fn add(&mut self, x: f64) {
        if x > self.largest {
            self.sum = self.sum * (self.largest - x).exp() + 1.0;
            self.largest = x;
        } else {
            self.sum += (x - self.largest).exp();
        }
    }

    fn value(&self) -> f64 {
        self.largest + self.sum.ln()
    }
}
