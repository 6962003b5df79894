//! Memory that kernels pack operands into: aligned to cache lines, grown on first use and then kept.

use bytemuck::{Pod, Zeroable};

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

// SAFETY: plain words without padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// A buffer that starts on a cache line.
#[derive(Debug, Clone, Default)]
pub struct Scratch(Vec<Line>);

impl Scratch {
    /// A zeroed buffer for `len` values.
    pub fn zeroed<T: Pod>(len: usize) -> Self {
        Scratch(vec![Line([0; 16]); (len * size_of::<T>()).div_ceil(64)])
    }

    /// Room for `len` values, with whatever was left there.
    pub fn room<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 16]));
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// Its first `len` values.
    pub fn view<T: Pod>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(&self.0)[..len]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.0.len() * 64
    }
}
