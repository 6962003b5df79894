//! Storage of embeddings: names of files, and what stands in front of the rows.

use std::io::{self, Read};
use std::path::Path;

use super::EmbeddingsError;

/// Room for the header of either format that has one in front.
pub(super) const HEADER: u64 = 128;

/// Storage of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One tensor `embeddings` [n, embed_dim].
    Safetensors,
    /// A NumPy array [n, embed_dim].
    Npy,
    /// Columns `key` and `embedding`.
    Parquet,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Result<Format, EmbeddingsError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            Some("npy") => Ok(Format::Npy),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(EmbeddingsError::Refused(format!(
                "--out {}: expected a name that ends in .safetensors, .npy or .parquet",
                path.display()
            ))),
        }
    }

    /// Header in front of `rows` rows: exactly [`HEADER`] bytes, or none.
    pub(super) fn header(self, rows: u64, width: usize) -> Option<Vec<u8>> {
        let mut header = match self {
            Format::Parquet => return None,
            Format::Safetensors => {
                let bytes = rows * 4 * width as u64;
                let text = format!(
                    "{{\"embeddings\":{{\"dtype\":\"F32\",\"shape\":[{rows},{width}],\"data_offsets\":[0,{bytes}]}}}}"
                );
                [&(HEADER - 8).to_le_bytes()[..], text.as_bytes()].concat()
            }
            Format::Npy => {
                let text =
                    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
                [&b"\x93NUMPY\x01\x00"[..], &(HEADER as u16 - 10).to_le_bytes(), text.as_bytes()].concat()
            }
        };
        // Both formats fill up with spaces; NumPy ends the line.
        header.resize(HEADER as usize, b' ');
        if self == Format::Npy {
            header[HEADER as usize - 1] = b'\n';
        }
        Some(header)
    }
}

/// Reads rows of f32, as many as there are keys.
pub(super) fn read_rows(from: &mut impl Read, rows: usize, width: usize) -> io::Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * rows * width];
    from.read_exact(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_length_whatever_the_numbers() {
        for format in [Format::Safetensors, Format::Npy] {
            for (rows, width) in [(0, 1), (17, 512), (u64::MAX / (4 << 20), 1 << 20)] {
                assert_eq!(format.header(rows, width).unwrap().len() as u64, HEADER);
            }
        }
        let header = Format::Npy.header(3, 4).unwrap();
        assert!(header.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'") && header.ends_with(b" \n"));
    }
}
