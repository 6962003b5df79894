//! Embeddings brought to unit length: z = x / length, with a length that is never zero.

pub mod cuda;

use super::Cpu;

/// The rule that keeps a length from being zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// |x| + eps (FLIP: 1e-8).
    Plus(f32),
    /// max(|x|, eps) (open_clip: 1e-12).
    AtLeast(f32),
}

fn norm(x: &[f32]) -> f32 {
    // In double precision: the square of a small f32 would vanish.
    x.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt() as f32
}

/// z [rows, width] = x / length; norms `[rows]` = |x|, saved.
pub fn forward(cpu: &Cpu, z: &mut [f32], norms: &mut [f32], x: &[f32], length: Length) {
    let width = x.len() / norms.len().max(1);
    assert!(z.len() == x.len() && norms.len() * width == x.len(), "rows of one width");
    cpu.threads.each(z.chunks_mut(width).zip(norms).zip(x.chunks(width)), |_, ((z, saved), x)| {
        *saved = norm(x);
        let divisor = match length {
            Length::Plus(eps) => *saved + eps,
            Length::AtLeast(eps) => saved.max(eps),
        };
        for (z, x) in z.iter_mut().zip(x) {
            *z = x / divisor;
        }
    });
}

/// dx = gradient for the gradient `dz`: (dz - z (z . dz) * divisor / |x|) / divisor, without the second term
/// where the length does not depend on x.
pub fn backward(cpu: &Cpu, dx: &mut [f32], dz: &[f32], z: &[f32], norms: &[f32], length: Length) {
    let width = dz.len() / norms.len().max(1);
    assert!(
        dx.len() == dz.len() && z.len() == dz.len() && norms.len() * width == dz.len(),
        "rows of one width"
    );
    let pieces = dx.chunks_mut(width).zip(dz.chunks(width).zip(z.chunks(width))).zip(norms);
    cpu.threads.each(pieces, |_, ((dx, (dz, z)), &norm)| {
        let (divisor, along) = match length {
            Length::Plus(eps) => (norm + eps, if norm > 0.0 { (norm + eps) / norm } else { 0.0 }),
            Length::AtLeast(eps) if norm > eps => (norm, 1.0),
            Length::AtLeast(eps) => (eps, 0.0),
        };
        let dot: f64 = dz.iter().zip(z).map(|(&a, &b)| a as f64 * b as f64).sum();
        let along = dot as f32 * along;
        for ((dx, dz), z) in dx.iter_mut().zip(dz).zip(z) {
            *dx = (dz - z * along) / divisor;
        }
    });
}
