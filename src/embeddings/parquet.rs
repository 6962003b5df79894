//! Embeddings as a Parquet file: columns `key` (text) and `embedding` (a list of 32-bit floats), as pyarrow,
//! pandas, polars and DuckDB read them.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::error::{at, EmbeddingsError};
use super::format::read_rows;

const SCHEMA: &str = "message embeddings {
    REQUIRED BYTE_ARRAY key (UTF8);
    REQUIRED GROUP embedding (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
}";
/// Values of a row group: what is held in memory.
const GROUP: usize = 1 << 22;

/// Writes `rows` rows of `width` floats from `from`, and their keys, a JSON string a line.
pub(super) fn write(
    path: &Path,
    rows: u64,
    width: usize,
    mut from: impl Read,
    mut keys: impl BufRead,
) -> Result<(), EmbeddingsError> {
    let file = File::create(path).map_err(at(path))?;
    // Floats neither repeat nor compress.
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by(format!("flip {}", env!("CARGO_PKG_VERSION")))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let most = (GROUP / width.max(1)).max(1) as u64;
    let mut left = rows;
    while left > 0 {
        let count = left.min(most) as usize;
        left -= count as u64;
        let names = (0..count).map(|_| name(&mut keys, path)).collect::<Result<Vec<_>, EmbeddingsError>>()?;
        let values = read_rows(&mut from, count, width).map_err(at(path))?;
        // Every value is there; a row begins where the list is not gone on with.
        let present = vec![1; values.len()];
        let repeated: Vec<i16> = (0..values.len()).map(|i| i16::from(i % width != 0)).collect();
        let mut group = writer.next_row_group()?;
        let missing = || ParquetError::General("the schema has two columns".into());
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<ByteArrayType>().write_batch(&names, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<FloatType>().write_batch(&values, Some(&present), Some(&repeated))?;
        column.close()?;
        group.close()?;
    }
    writer.into_inner()?.sync_all().map_err(at(path))?;
    Ok(())
}

/// The next key.
fn name(keys: &mut impl BufRead, path: &Path) -> Result<ByteArray, EmbeddingsError> {
    let mut line = String::new();
    keys.read_line(&mut line).map_err(at(path))?;
    let key: String = serde_json::from_str(&line)?;
    Ok(ByteArray::from(key.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    #[test]
    fn rows_and_keys_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.parquet");
        let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        write(&path, 2, 3, &bytes[..], &b"\"a\"\n\"b\\n\"\n"[..]).unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let mut seen = Vec::new();
        for row in reader.get_row_iter(None).unwrap() {
            let columns: Vec<(String, Field)> = row.unwrap().into_columns();
            let Field::Str(key) = &columns[0].1 else { panic!("{columns:?}") };
            let Field::ListInternal(list) = &columns[1].1 else { panic!("{columns:?}") };
            let floats: Vec<f32> = list
                .elements()
                .iter()
                .map(|field| match field {
                    Field::Float(value) => *value,
                    other => panic!("{other:?}"),
                })
                .collect();
            seen.push((key.clone(), floats));
        }
        assert_eq!(
            seen,
            [("a".to_string(), values[..3].to_vec()), ("b\n".to_string(), values[3..].to_vec())]
        );
    }
}
