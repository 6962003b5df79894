//! Multinomial logistic regression with an L2 penalty: the objective of scikit-learn's
//! `LogisticRegression`, divided by the number of samples.
//!
//! mean over samples of -ln softmax(x W + b)[class]  +  |W|^2 / (2 C n), biases not penalised

use super::lbfgs::minimise;
use super::products::{Products, TILE_ROWS};
use super::tally::{Ranking, Tally};
use crate::kernel::gemm::{weight_gradient, Left};

/// Samples whose logits are in memory at a time, and whose gradients are summed in 32 bits.
const BLOCK: usize = 4096;
/// Steps of L-BFGS where nothing else is asked for, at most: CLIP's.
pub(super) const ITERATIONS: usize = 1000;
/// Largest component of the gradient at the end.
const TOLERANCE: f64 = 1e-6;

/// A linear classifier.
#[derive(Debug, Clone)]
pub(super) struct Classifier {
    /// [classes, dim]
    weights: Vec<f32>,
    /// [classes]
    bias: Vec<f32>,
    /// As the minimiser has it: weights [dim, classes], then biases.
    parameters: Vec<f64>,
    pub iterations: usize,
}

/// Settings of a fit.
#[derive(Clone, Copy)]
pub(super) struct Fit<'a> {
    /// The inverse strength of the penalty.
    pub c: f64,
    /// Steps, at most.
    pub iterations: usize,
    /// Ends the search early; what it has by then is of no use.
    pub stop: &'a dyn Fn() -> bool,
}

/// Labelled rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Samples<'a> {
    /// [n, dim]
    pub rows: &'a [f32],
    /// [n], below `count`
    pub classes: &'a [usize],
    pub dim: usize,
    /// Number of classes.
    pub count: usize,
}

impl Classifier {
    /// Fits to the samples, from zeros or from another fit.
    pub fn fit(
        products: &mut Products,
        samples: Samples<'_>,
        Fit { c, iterations, stop }: Fit<'_>,
        from: Option<&Classifier>,
    ) -> Self {
        let Samples { dim, count, .. } = samples;
        let start = from.map_or_else(|| vec![0.0; (dim + 1) * count], |from| from.parameters.clone());
        let objective =
            |parameters: &[f64], gradient: &mut [f64]| objective(products, samples, c, parameters, gradient);
        let found = minimise(objective, start, TOLERANCE, iterations, stop);
        let (weights, bias) = rounded(&found.at, dim, count);
        Classifier { weights, bias, parameters: found.at, iterations: found.iterations }
    }

    /// Share of samples that it gets right.
    pub fn tried(&self, products: &mut Products, samples: Samples<'_>) -> Tally {
        let mut tally = Tally::new(samples.count);
        self.each(products, samples, |class, logits| tally.add(class, Ranking::of(logits, class)));
        tally
    }

    /// Calls `see` with the class of each sample and its logits.
    pub fn each(&self, products: &mut Products, samples: Samples<'_>, mut see: impl FnMut(usize, &[f32])) {
        let Samples { rows, classes, dim, count } = samples;
        for (rows, classes) in rows.chunks(TILE_ROWS * dim).zip(classes.chunks(TILE_ROWS)) {
            let logits = products.plus(rows, &self.weights, dim, Some(&self.bias)).chunks_exact(count);
            logits.zip(classes).for_each(|(logits, &class)| see(class, logits));
        }
    }
}

/// Weights [classes, dim] and biases in 32 bits.
fn rounded(parameters: &[f64], dim: usize, count: usize) -> (Vec<f32>, Vec<f32>) {
    let (weights, bias) = parameters.split_at(dim * count);
    let transposed = (0..count).flat_map(|class| (0..dim).map(move |d| weights[d * count + class] as f32));
    (transposed.collect(), bias.iter().map(|bias| *bias as f32).collect())
}

fn objective(
    products: &mut Products,
    samples: Samples<'_>,
    c: f64,
    parameters: &[f64],
    gradient: &mut [f64],
) -> f64 {
    let Samples { rows, classes, dim, count } = samples;
    let n = classes.len() as f64;
    let (weights, bias) = rounded(parameters, dim, count);
    let mut loss = 0.0;
    gradient.fill(0.0);
    let (mut of_weights, mut of_bias) = (vec![0.0f32; dim * count], vec![0.0f32; count]);
    let mut errors = Vec::new();
    for (rows, classes) in rows.chunks(BLOCK * dim).zip(classes.chunks(BLOCK)) {
        errors.clear();
        errors.extend_from_slice(products.plus(rows, &weights, dim, Some(&bias)));
        let mut losses = vec![0.0f64; classes.len()];
        let threads = products.cpu.threads();
        let pieces = errors.chunks_mut(256 * count).zip(losses.chunks_mut(256)).zip(classes.chunks(256));
        threads.each(pieces, |_, ((errors, losses), classes)| {
            for ((logits, loss), &class) in errors.chunks_exact_mut(count).zip(losses).zip(classes) {
                *loss = cross_entropy(logits, class);
            }
        });
        loss += losses.iter().sum::<f64>();
        of_weights.fill(0.0);
        of_bias.fill(0.0);
        let x = Left::Columns { data: rows, stride: dim };
        let sizes = (classes.len(), dim, count);
        weight_gradient(&products.cpu, &mut of_weights, Some(&mut of_bias), x, (&errors, count), sizes);
        let block = of_weights.iter().chain(&of_bias);
        gradient.iter_mut().zip(block).for_each(|(sum, block)| *sum += f64::from(*block));
    }
    gradient.iter_mut().for_each(|gradient| *gradient /= n);
    let weights = &parameters[..dim * count];
    gradient.iter_mut().zip(weights).for_each(|(gradient, weight)| *gradient += weight / (c * n));
    loss / n + weights.iter().map(|weight| weight * weight).sum::<f64>() / (2.0 * c * n)
}

/// The loss of one sample; its logits become the gradient: softmax less 1 at the class.
fn cross_entropy(logits: &mut [f32], class: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let right = f64::from(logits[class] - largest);
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        let exponential = f64::from(*logit - largest).exp();
        sum += exponential;
        *logit = exponential as f32;
    }
    logits.iter_mut().for_each(|share| *share = (f64::from(*share) / sum) as f32);
    logits[class] -= 1.0;
    sum.ln() - right
}
