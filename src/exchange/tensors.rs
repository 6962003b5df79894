//! Tensors of a checkpoint by name, and numbers streamed from a file.

use std::fs::File;
use std::io::{self, Read};

use super::error::ExchangeError;
use super::numbers::Numbers;

/// Bytes converted at a time. A multiple of every element's size.
pub(super) const CHUNK: usize = 1 << 16;

/// Tensors of a checkpoint, known by name and shape before any is read.
pub(super) trait Tensors {
    /// Every name and shape.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;
    /// The type of the numbers of one of them; `F32` where there is none of that name.
    fn numbers(&self, name: &str) -> Numbers;
    /// The values of one of them, row-major.
    fn read(&mut self, name: &str) -> Result<Vec<f32>, ExchangeError>;
}

/// Streams `elements` numbers, which the header has shown to be in the file.
pub(super) fn values<const SIZE: usize>(
    file: &mut File,
    elements: usize,
    convert: impl Fn([u8; SIZE]) -> f32,
) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(elements);
    let mut bytes = [0; CHUNK];
    while values.len() < elements {
        let count = (elements - values.len()).min(CHUNK / SIZE);
        let bytes = &mut bytes[..count * SIZE];
        file.read_exact(bytes)?;
        let (elements, _) = bytes.as_chunks::<SIZE>();
        values.extend(elements.iter().map(|element| convert(*element)));
    }
    Ok(values)
}
