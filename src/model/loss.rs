//! The symmetric contrastive loss: every image of a batch should find its caption among all, and every
//! caption its image. Logits are exp(s) <z_image, z_text>, s the logit scale; the loss is the mean of
//! both cross-entropies over the batch.

use dfdx::prelude::*;

use super::config::{LogitScaleClip, Normalisation};
use super::layer::Matrix;
use crate::kernel::contrastive::host::loss_of_cosines;
use crate::parameter::rounded;

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
    logit_scale: Matrix<E, D, T>,
    clip: LogitScaleClip,
) -> Result<Tensor<(), E, D, T>, D::Err> {
    let shape = *images.shape();
    let scale = logit_scale.try_reshape_like(&())?;
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
    loss_of_cosines(n, scale, |i, j| {
        let (image, text) = (&images[i * width..][..width], &texts[j * width..][..width]);
        image.iter().zip(text).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss and gradient of the image embeddings, with the factor 100.
    fn at_100(images: &[f32], texts: &[f32], n: usize) -> (f32, Vec<f32>) {
        let device = Cpu::default();
        let matrix = |values: &[f32]| device.tensor_from_vec(values.to_vec(), (n, values.len() / n));
        let logit_scale = device.tensor_from_vec(vec![100f32.ln()], (1, 1));
        let (images, texts) = (matrix(images), matrix(texts));
        let loss = contrastive(
            images.leaky_trace(),
            texts.leaky_trace(),
            logit_scale.retaped(),
            LogitScaleClip::AfterUpdate,
        )
        .unwrap();
        let value = loss.as_vec()[0];
        (value, loss.backward().get(&images).as_vec())
    }

    #[test]
    fn is_right_where_a_bare_exponential_overflows() {
        let one_hot: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        let opposite: Vec<f32> = one_hot.iter().map(|x| -x).collect();
        let alike = vec![0.5; 16];
        let cases = [
            ("matching", &one_hot, &one_hot, 0.0),
            ("opposite", &one_hot, &opposite, 100.0 + 3f64.ln()),
            ("all alike", &alike, &alike, 4f64.ln()),
        ];
        for (name, images, texts, expected) in cases {
            let (loss, gradient) = at_100(images, texts, 4);
            assert!((f64::from(loss) - expected).abs() < 2e-5, "{name}: {loss}");
            assert!(gradient.iter().all(|x| x.is_finite()), "{name}: {gradient:?}");
            let on_host = host_contrastive(images, texts, 4, 100.0);
            assert!((on_host - expected).abs() < 1e-9, "{name}: {on_host}");
        }
    }

    #[test]
    fn normalises_with_either_epsilon() {
        let z = Cpu::default().tensor_from_vec(vec![3e-8f64, 4e-8], (1, 2));
        let added = unit_length(z.clone(), Normalisation::AddEps).unwrap().as_vec();
        assert!((added[0] - 3.0 / 6.0).abs() < 1e-12 && (added[1] - 4.0 / 6.0).abs() < 1e-12);
        let larger = unit_length(z, Normalisation::MaxEps).unwrap().as_vec();
        assert!((larger[0] - 0.6).abs() < 1e-12);
    }
}
