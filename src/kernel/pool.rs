//! From the tokens of a sequence to one vector.

pub mod cuda;

use super::element::Element;
use super::tokens::Sequences;
use super::Cpu;

/// Tokens of a sequence that make its vector.
#[derive(Debug, Clone, Copy)]
pub enum Pool<'a> {
    /// The mean of all.
    Mean,
    /// One: position `at[b]` of sequence b (a class token: zeros).
    At(&'a [u32]),
}

/// out [batch, width] from x [batch, tokens, width].
pub fn forward<X: Element, Y: Element>(
    cpu: &Cpu,
    out: &mut [Y],
    x: &[X],
    pool: Pool,
    tokens: usize,
    width: usize,
) {
    assert_eq!(x.len(), out.len() * tokens, "sequences of {tokens} tokens");
    let pieces = out.chunks_mut(width).zip(x.chunks(tokens * width)).enumerate();
    cpu.threads.each(pieces, |_, (b, (out, x))| match pool {
        Pool::Mean => {
            let mut sum = vec![0.0f32; width];
            for row in x.chunks(width) {
                for (sum, x) in sum.iter_mut().zip(row) {
                    *sum += x.to_f32();
                }
            }
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = Y::from_f32(sum / tokens as f32);
            }
        }
        Pool::At(at) => {
            for (out, x) in out.iter_mut().zip(&x[at[b] as usize * width..]) {
                *out = Y::from_f32(x.to_f32());
            }
        }
    });
}

/// dx [batch, tokens, width] = gradient for the gradient `dout` [batch, width] of [`forward`].
pub fn backward<X: Element>(cpu: &Cpu, dx: &mut [X], dout: &[f32], pool: Pool, tokens: usize, width: usize) {
    assert_eq!(dx.len(), dout.len() * tokens, "sequences of {tokens} tokens");
    let pieces = dx.chunks_mut(tokens * width).zip(dout.chunks(width)).enumerate();
    cpu.threads.each(pieces, |_, (b, (dx, dout))| match pool {
        Pool::Mean => {
            let (first, rest) = dx.split_at_mut(width);
            for (dx, d) in first.iter_mut().zip(dout) {
                *dx = X::from_f32(d / tokens as f32);
            }
            rest.chunks_mut(width).for_each(|row| row.copy_from_slice(first));
        }
        Pool::At(at) => {
            dx.fill(X::default());
            for (dx, &d) in dx[at[b] as usize * width..].iter_mut().zip(dout) {
                *dx = X::from_f32(d);
            }
        }
    });
}

/// out [batch, width] = the mean of the rows of x [batch * (prefix + kept), width] that come from patches.
pub fn patches(cpu: &Cpu, out: &mut [f32], x: &[f32], of: Sequences) {
    let width = of.width;
    assert!(out.len() == of.batch * width && x.len() == of.rows() * width, "tokens of {of:?}");
    let pieces = out.chunks_mut(width).zip(x.chunks(of.tokens() * width));
    cpu.threads.each(pieces, |_, (out, x)| {
        out.fill(0.0);
        for row in x[of.prefix * width..].chunks(width) {
            out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        out.iter_mut().for_each(|sum| *sum /= of.kept as f32);
    });
}

/// dx = gradient of [`patches`] for the gradient `dout` of its output.
pub fn patches_backward(cpu: &Cpu, dx: &mut [f32], dout: &[f32], of: Sequences) {
    let width = of.width;
    assert!(dout.len() == of.batch * width && dx.len() == of.rows() * width, "tokens of {of:?}");
    let pieces = dx.chunks_mut(of.tokens() * width).zip(dout.chunks(width));
    cpu.threads.each(pieces, |_, (dx, dout)| {
        let (prefix, patches) = dx.split_at_mut(of.prefix * width);
        prefix.fill(0.0);
        for row in patches.chunks_mut(width) {
            row.iter_mut().zip(dout).for_each(|(dx, d)| *dx = d / of.kept as f32);
        }
    });
}
