//! The loss in double precision, as its formula reads.

/// (loss, dimages, dtexts, dscale) for `images` and `texts` of [n, width].
pub fn loss_and_gradients(
    images: &[f64],
    texts: &[f64],
    scale: f64,
    width: usize,
) -> (f64, Vec<f64>, Vec<f64>, f64) {
    let n = images.len() / width;
    let cosine = |i: usize, j: usize| -> f64 {
        images[i * width..][..width].iter().zip(&texts[j * width..]).map(|(a, b)| a * b).sum()
    };
    let cosines: Vec<f64> = (0..n * n).map(|ij| cosine(ij / n, ij % n)).collect();
    let lse = |x: Vec<f64>| {
        let largest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        largest + x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
    };
    let rows: Vec<f64> = (0..n).map(|i| lse((0..n).map(|j| scale * cosines[i * n + j]).collect())).collect();
    let columns: Vec<f64> =
        (0..n).map(|j| lse((0..n).map(|i| scale * cosines[i * n + j]).collect())).collect();
    let (mut dimages, mut dtexts) = (vec![0.0; images.len()], vec![0.0; texts.len()]);
    let (mut loss, mut dscale) = (0.0, 0.0);
    for i in 0..n {
        loss += (rows[i] + columns[i] - 2.0 * scale * cosines[i * n + i]) / (2 * n) as f64;
        for j in 0..n {
            let logit = scale * cosines[i * n + j];
            let own = if i == j { 2.0 } else { 0.0 };
            let g = ((logit - rows[i]).exp() + (logit - columns[j]).exp() - own) / (2 * n) as f64;
            dscale += g * cosines[i * n + j];
            for c in 0..width {
                dimages[i * width + c] += scale * g * texts[j * width + c];
                dtexts[j * width + c] += scale * g * images[i * width + c];
            }
        }
    }
    (loss, dimages, dtexts, dscale)
}
