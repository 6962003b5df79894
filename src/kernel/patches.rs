//! Patches on their way into the patch embedding: [rows, patch * patch * 3], each flattened as (row, column,
//! channel), in the type that products take.

pub mod cuda;

use super::element::{convert, Element};
use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// Values that one thread converts at a time: a multiple of three channels and of every vector.
const BLOCK: usize = 3 * 4096;

/// out = (bytes / 255 - mean) / deviation of each channel.
pub fn from_bytes<E: Element>(cpu: &Cpu, out: &mut [E], bytes: &[u8], mean: [f32; 3], deviation: [f32; 3]) {
    assert!(out.len() == bytes.len() && bytes.len().is_multiple_of(3), "pixels of three channels");
    let factor: [f32; 48] = std::array::from_fn(|i| 1.0 / (255.0 * deviation[i % 3]));
    let offset: [f32; 48] = std::array::from_fn(|i| -mean[i % 3] / deviation[i % 3]);
    cpu.threads.each(out.chunks_mut(BLOCK).zip(bytes.chunks(BLOCK)), |_, (out, bytes)| {
        dispatch!(cpu.isa, l => {
            for (out, bytes) in out.chunks_mut(48).zip(bytes.chunks(48)) {
                normalise(l, out, bytes, &factor, &offset);
            }
        })
    });
}

#[inline(always)]
fn normalise<L: Lanes, E: Element>(
    l: L,
    out: &mut [E],
    bytes: &[u8],
    factor: &[f32; 48],
    offset: &[f32; 48],
) {
    let mut pixels = [0.0f32; 48];
    for (pixel, &byte) in pixels.iter_mut().zip(bytes) {
        *pixel = byte as f32;
    }
    for i in (0..out.len()).step_by(L::N) {
        let x = l.fma(l.load(&pixels[i..]), l.load(&factor[i..]), l.load(&offset[i..]));
        E::store(l, x, &mut out[i..]);
    }
}

/// out = floats, rounded.
pub fn from_floats<E: Element>(cpu: &Cpu, out: &mut [E], floats: &[f32]) {
    assert_eq!(out.len(), floats.len(), "values to convert");
    cpu.threads.each(
        out.chunks_mut(BLOCK).zip(floats.chunks(BLOCK)),
        |_, (out, floats)| dispatch!(cpu.isa, l => convert(l, out, floats)),
    );
}
