//! LayerNorm in double precision, as its formula reads.

/// `y` for rows of the width of `scale`.
pub fn forward(x: &[f64], scale: &[f64], shift: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(scale.len()) {
        let (normal, _) = normalise(row, eps);
        y.extend(normal.iter().zip(scale).zip(shift).map(|((n, a), b)| n * a + b));
    }
    y
}

/// Gradients with respect to `x`, `scale`, `shift`.
pub fn backward(dy: &[f64], x: &[f64], scale: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let width = scale.len();
    let (mut dx, mut dscale, mut dshift) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
    for (row, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let (normal, rstd) = normalise(row, eps);
        let g: Vec<f64> = dy.iter().zip(scale).map(|(d, a)| d * a).collect();
        let mean = g.iter().sum::<f64>() / width as f64;
        let dot = g.iter().zip(&normal).map(|(g, n)| g * n).sum::<f64>() / width as f64;
        dx.extend(g.iter().zip(&normal).map(|(g, n)| rstd * (g - mean - n * dot)));
        for i in 0..width {
            dscale[i] += dy[i] * normal[i];
            dshift[i] += dy[i];
        }
    }
    (dx, dscale, dshift)
}

fn normalise(row: &[f64], eps: f64) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let rstd = 1.0 / (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
    (row.iter().map(|x| (x - mean) * rstd).collect(), rstd)
}
