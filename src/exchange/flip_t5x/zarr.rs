//! A zarr version 2 array: `.zarray` and a file a chunk. The official reader takes a missing chunk for zeros; here
//! it is an error, as a whole checkpoint has every chunk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::{GzDecoder, ZlibDecoder};
use half::bf16;
use serde::Deserialize;
use serde_json::Value;

/// A real one has 200 bytes.
const LARGEST_METADATA: u64 = 1 << 16;
/// Deflate cannot inflate further, so a chunk that claims more is damaged, and is not made room for.
const LARGEST_INFLATION: u64 = 1032;

#[derive(Deserialize)]
struct Metadata {
    zarr_format: u64,
    shape: Vec<usize>,
    chunks: Vec<usize>,
    dtype: String,
    order: String,
    compressor: Option<Compressor>,
    filters: Option<Value>,
    #[serde(default = "dot")]
    dimension_separator: String,
}

#[derive(Deserialize)]
struct Compressor {
    id: String,
}

fn dot() -> String {
    ".".into()
}

/// Storage of a number.
#[derive(Clone, Copy)]
enum Number {
    F32,
    BF16,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::BF16 => 2,
        }
    }
}

/// Reads the array in `folder`, which the index says to be of `shape` and `dtype`.
pub(super) fn read(folder: &Path, shape: &[usize], dtype: &str) -> Result<Vec<f32>, String> {
    let metadata = metadata(&folder.join(".zarray"))?;
    let number = match (dtype, metadata.dtype.as_str()) {
        ("float32", "<f4") => Number::F32,
        ("bfloat16", "bfloat16") => Number::BF16,
        (index, zarray) => {
            return Err(format!(
                "the index says {index} and its .zarray {zarray}; float32 (<f4) and bfloat16 are read"
            ))
        }
    };
    if metadata.shape != shape {
        return Err(format!("its .zarray says shape {:?}, the index says {shape:?}", metadata.shape));
    }
    let chunks = Chunks::new(shape, &metadata.chunks, number)?;
    // First that every chunk is there and long enough, so that no room is made for what is not.
    for place in 0..chunks.count {
        let path = folder.join(chunks.name(place));
        let length = std::fs::metadata(&path).map_err(|error| chunk_error(&path, error))?.len();
        let most = match metadata.compressor {
            Some(_) => length.saturating_mul(LARGEST_INFLATION),
            None => length,
        };
        if (chunks.bytes as u64) > most {
            return Err(format!(
                "chunk {}: {length} bytes cannot hold the {} of a chunk: truncated?",
                chunks.name(place),
                chunks.bytes
            ));
        }
    }
    let mut values = vec![0.0; chunks.elements];
    for place in 0..chunks.count {
        let path = folder.join(chunks.name(place));
        let bytes = inflate(&path, metadata.compressor.as_ref(), chunks.bytes)?;
        chunks.copy(place, &bytes, &mut values);
    }
    Ok(values)
}

fn metadata(path: &Path) -> Result<Metadata, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_METADATA).read_to_end(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let metadata: Metadata =
        serde_json::from_slice(&text).map_err(|error| format!("its .zarray is malformed: {error}"))?;
    let wrong = |what: &str, got: &dyn std::fmt::Debug| Err(format!("its .zarray has {what} {got:?}"));
    if metadata.zarr_format != 2 {
        return wrong("zarr_format", &metadata.zarr_format);
    }
    if metadata.order != "C" {
        return wrong("order", &metadata.order);
    }
    if let Some(filters) =
        metadata.filters.as_ref().filter(|filters| filters.as_array().is_none_or(|f| !f.is_empty()))
    {
        return wrong("filters", filters);
    }
    if metadata.dimension_separator != "." {
        return wrong("dimension_separator", &metadata.dimension_separator);
    }
    Ok(metadata)
}

fn chunk_error(path: &Path, error: std::io::Error) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("chunk {name} is missing: the checkpoint was not copied as a whole")
        }
        _ => format!("chunk {name}: {error}"),
    }
}

/// The contents of a chunk file, which must be exactly `expected` bytes.
fn inflate(path: &PathBuf, compressor: Option<&Compressor>, expected: usize) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| chunk_error(path, error))?;
    let mut reader: Box<dyn Read> = match compressor.map(|compressor| compressor.id.as_str()) {
        None => Box::new(file),
        Some("gzip") => Box::new(GzDecoder::new(file)),
        Some("zlib") => Box::new(ZlibDecoder::new(file)),
        Some(other) => return Err(format!("its .zarray has compressor {other:?}; gzip and zlib are read")),
    };
    let mut bytes = Vec::with_capacity(expected);
    // One byte more shows a chunk that is too long, and makes the decoder check the checksum of one that is not.
    reader
        .by_ref()
        .take(expected as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| chunk_error(path, error))?;
    if bytes.len() != expected {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let more = if bytes.len() > expected { "more" } else { "fewer" };
        return Err(format!("chunk {name} holds {more} than the {expected} bytes of a chunk"));
    }
    Ok(bytes)
}

/// The grid of chunks of an array. Chunks at the far edges are stored in full; what hangs over is dropped.
struct Chunks<'a> {
    shape: &'a [usize],
    chunk: &'a [usize],
    /// Chunks along every axis.
    grid: Vec<usize>,
    count: usize,
    elements: usize,
    number: Number,
    /// Of one chunk, inflated.
    bytes: usize,
}

impl<'a> Chunks<'a> {
    fn new(shape: &'a [usize], chunk: &'a [usize], number: Number) -> Result<Self, String> {
        let product =
            |axes: &[usize], first: usize| axes.iter().try_fold(first, |n, &axis| n.checked_mul(axis));
        let grid: Vec<usize> =
            shape.iter().zip(chunk).map(|(axis, chunk)| axis.div_ceil((*chunk).max(1))).collect();
        let counted = (product(&grid, 1), product(shape, 1), product(chunk, number.bytes()));
        match counted {
            (Some(count), Some(elements), Some(bytes))
                if shape.len() == chunk.len() && !chunk.contains(&0) =>
            {
                Ok(Chunks { shape, chunk, grid, count, elements, number, bytes })
            }
            _ => Err(format!("its .zarray has chunks {chunk:?} for shape {shape:?}")),
        }
    }

    /// Indices of a chunk in the grid, row-major.
    fn indices(&self, mut place: usize) -> Vec<usize> {
        let mut indices = vec![0; self.grid.len()];
        for (index, axis) in indices.iter_mut().zip(&self.grid).rev() {
            *index = place % axis;
            place /= axis;
        }
        indices
    }

    /// The file of a chunk.
    fn name(&self, place: usize) -> String {
        match self.grid.is_empty() {
            true => "0".into(),
            false => self.indices(place).iter().map(usize::to_string).collect::<Vec<_>>().join("."),
        }
    }

    /// Puts the numbers of a chunk where they belong.
    fn copy(&self, place: usize, bytes: &[u8], values: &mut [f32]) {
        let numbers: Vec<f32> = match self.number {
            Number::F32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Number::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        };
        let corner: Vec<usize> =
            self.indices(place).iter().zip(self.chunk).map(|(i, chunk)| i * chunk).collect();
        let row = self.chunk.last().copied().unwrap_or(1);
        for (number, line) in numbers.chunks_exact(row).enumerate() {
            let mut rest = number;
            let mut inside = true;
            let mut start = corner.last().copied().unwrap_or(0);
            let mut stride = self.shape.last().copied().unwrap_or(1);
            let length = row.min(stride.saturating_sub(start));
            for axis in (0..self.shape.len().saturating_sub(1)).rev() {
                let at = corner[axis] + rest % self.chunk[axis];
                rest /= self.chunk[axis];
                inside &= at < self.shape[axis];
                start += at * stride;
                stride *= self.shape[axis];
            }
            if inside {
                values[start..start + length].copy_from_slice(&line[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_at_the_edges_hang_over() {
        let (shape, chunk) = ([3, 5], [2, 4]);
        let chunks = Chunks::new(&shape, &chunk, Number::F32).unwrap();
        assert_eq!(chunks.count, 4);
        let mut values = vec![-1.0; 15];
        for place in 0..4 {
            let (down, right) = (place / 2 * 2, place % 2 * 4);
            let numbers = (0..8).map(|i| (10 * (down + i / 4) + right + i % 4) as f32);
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            chunks.copy(place, &bytes, &mut values);
        }
        let expected: Vec<f32> = (0..15).map(|i| (10 * (i / 5) + i % 5) as f32).collect();
        assert_eq!(values, expected);
        assert_eq!(chunks.name(3), "1.1");
    }

    #[test]
    fn a_single_number_is_one_chunk() {
        let chunks = Chunks::new(&[], &[], Number::BF16).unwrap();
        assert_eq!((chunks.count, chunks.bytes, chunks.name(0)), (1, 2, "0".to_string()));
        let mut values = vec![0.0];
        chunks.copy(0, &bf16::from_f32(1.5).to_le_bytes(), &mut values);
        assert_eq!(values, [1.5]);
    }

    #[test]
    fn impossible_grids_are_refused() {
        assert!(Chunks::new(&[4], &[0], Number::F32).is_err());
        assert!(Chunks::new(&[4, 4], &[4], Number::F32).is_err());
        assert!(Chunks::new(&[usize::MAX, 4], &[1, 4], Number::F32).is_err());
    }
}
