//! The loss in double precision, of cosines that are computed one at a time: no matrix of n by n is stored.

/// The loss of `n` pairs, nats: the mean over both directions of the cross-entropy of the right partner among all. `cosine(i, j)`
/// is that of image i and text j, and `scale` the factor on it.
pub fn loss_of_cosines(n: usize, scale: f64, cosine: impl Fn(usize, usize) -> f64) -> f64 {
    let mut columns = vec![LogSumExp::default(); n];
    let (mut rows, mut right) = (0.0, 0.0);
    for i in 0..n {
        let mut row = LogSumExp::default();
        for (j, column) in columns.iter_mut().enumerate() {
            let logit = scale * cosine(i, j);
            row.add(logit);
            column.add(logit);
            if i == j {
                right += logit;
            }
        }
        rows += row.value();
    }
    let columns: f64 = columns.iter().map(LogSumExp::value).sum();
    (0.5 * (rows + columns) - right) / n as f64
}

/// ln of a sum of exponentials, one at a time, relative to the largest so far.
#[derive(Debug, Clone, Copy)]
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
    fn add(&mut self, exponent: f64) {
        if exponent > self.largest {
            self.sum = self.sum * (self.largest - exponent).exp() + 1.0;
            self.largest = exponent;
        } else {
            self.sum += (exponent - self.largest).exp();
        }
    }

    fn value(&self) -> f64 {
        self.largest + self.sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::contrastive::reference;

    #[test]
    fn is_the_formula() {
        let (n, width) = (5, 3);
        let vectors = |phase: f64| -> Vec<f64> { (0..n * width).map(|i| (i as f64 + phase).sin()).collect() };
        let (images, texts) = (vectors(0.0), vectors(0.4));
        let cosine = |i: usize, j: usize| -> f64 {
            let (image, text) = (&images[i * width..][..width], &texts[j * width..][..width]);
            image.iter().zip(text).map(|(a, b)| a * b).sum()
        };
        let (expected, ..) = reference::loss_and_gradients(&images, &texts, 7.0, width);
        assert!((loss_of_cosines(n, 7.0, cosine) - expected).abs() < 1e-12);
    }
}
