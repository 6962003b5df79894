//! Files that tokenizers are read from.

use std::io::Read;
use std::path::Path;

use crate::data::DataError;

/// The bytes of a file of a tokenizer: at most 256 MiB, a hundred times those of the largest vocabularies.
///
/// # Errors
/// It cannot be read, or is longer.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    const LONGEST: u64 = 256 << 20;
    let failed = |source| DataError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        let path = path.display();
        return Err(DataError::Tokenizer(format!("{path}: expected a tokenizer of at most {LONGEST} bytes")));
    }
    Ok(bytes)
}
