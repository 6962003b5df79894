//! Attention in double precision, as its formula reads.

use super::Attention;

/// `out` [batch * tokens, width] for `qkv` [batch * tokens, 3 * width].
pub fn forward(qkv: &[f64], of: Attention) -> Vec<f64> {
    let mut out = vec![0.0; of.batch * of.tokens * of.width()];
    each_head(of, |at, to| {
        for i in 0..of.tokens {
            let p = probabilities(qkv, of, &at, i);
            for c in 0..of.head {
                out[to(i) + c] = (0..of.seen(i)).map(|j| p[j] * qkv[at(2, j) + c]).sum();
            }
        }
    });
    out
}

/// Gradient with respect to `qkv` for the gradient `dout` of the output.
pub fn backward(dout: &[f64], qkv: &[f64], of: Attention) -> Vec<f64> {
    let mut dqkv = vec![0.0; qkv.len()];
    let scale = 1.0 / (of.head as f64).sqrt();
    each_head(of, |at, to| {
        for i in 0..of.tokens {
            let p = probabilities(qkv, of, &at, i);
            let dout = &dout[to(i)..][..of.head];
            let dp: Vec<f64> = (0..of.seen(i))
                .map(|j| dout.iter().zip(&qkv[at(2, j)..]).map(|(a, b)| a * b).sum())
                .collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..of.seen(i) {
                let ds = scale * p[j] * (dp[j] - mean);
                for c in 0..of.head {
                    dqkv[at(0, i) + c] += ds * qkv[at(1, j) + c];
                    dqkv[at(1, j) + c] += ds * qkv[at(0, i) + c];
                    dqkv[at(2, j) + c] += p[j] * dout[c];
                }
            }
        }
    });
    dqkv
}

/// Calls `f(at, to)` for every head of every sequence: `at(which, token)` is where a query, key or value
/// (0, 1, 2) begins, `to(token)` where an output begins.
fn each_head(of: Attention, mut f: impl FnMut(&dyn Fn(usize, usize) -> usize, &dyn Fn(usize) -> usize)) {
    for b in 0..of.batch {
        for h in 0..of.heads {
            let at = |which: usize, i: usize| ((b * of.tokens + i) * 3 + which) * of.width() + h * of.head;
            let to = |i: usize| (b * of.tokens + i) * of.width() + h * of.head;
            f(&at, &to);
        }
    }
}

fn probabilities(qkv: &[f64], of: Attention, at: &dyn Fn(usize, usize) -> usize, i: usize) -> Vec<f64> {
    let scale = 1.0 / (of.head as f64).sqrt();
    let dot = |j| (0..of.head).map(|c| qkv[at(0, i) + c] * qkv[at(1, j) + c]).sum::<f64>() * scale;
    let s: Vec<f64> = (0..of.seen(i)).map(dot).collect();
    let largest = s.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let e: Vec<f64> = s.iter().map(|s| (s - largest).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}
