//! Safetensors files, one or several with an index: tensors by name, streamed from disk as f32.
//!
//! Read with plain reads instead of a memory map: a file that another process cuts short is then an error
//! and not a fault, and no `unsafe` is needed; the pages are cached by the system either way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;

use super::error::ExchangeError;
use super::file_start::is_pickle;
use super::numbers::Numbers;
use super::options::read_object;
use super::tensors::{values, Tensors, CHUNK};
use crate::whole_file;

/// No header is larger; a larger one is damage, and is not read into memory.
const LARGEST_HEADER: u64 = 100_000_000;
/// Ending of the list of shards.
pub(super) const INDEX: &str = ".index.json";

/// Files of weights, their headers read and checked.
pub(super) struct Weights {
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, Entry>,
}

/// Place of a tensor.
struct Entry {
    file: usize,
    info: TensorInfo,
    /// First byte, from the start of the file.
    start: u64,
}

impl Weights {
    /// Opens a safetensors file, or the files that an index names.
    pub fn open(path: &Path) -> Result<Self, ExchangeError> {
        let mut weights = Weights { files: Vec::new(), entries: BTreeMap::new() };
        if path.to_string_lossy().ends_with(INDEX) {
            weights.open_shards(path)?;
        } else {
            weights.open_file(path.to_path_buf())?;
        }
        Ok(weights)
    }

    /// Every file that an index names; every tensor must be in the file that the index says.
    fn open_shards(&mut self, index: &Path) -> Result<(), ExchangeError> {
        let mut object = read_object(index)?;
        let Some(Value::Object(map)) = object.remove("weight_map") else {
            return Err(ExchangeError::broken(
                index,
                "expected an object weight_map of tensor and file names",
            ));
        };
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in map {
            let plain =
                file.as_str().filter(|file| Path::new(file).file_name().is_some_and(|name| name == *file));
            match plain {
                Some(file) => shards.entry(file.into()).or_default().push(tensor),
                None => {
                    let reason = format!("expected the name of a file beside it, got {file}");
                    return Err(ExchangeError::tensor(index, &tensor, reason));
                }
            }
        }
        let folder = index.parent().unwrap_or(Path::new(""));
        for (file, tensors) in shards {
            let number = self.files.len();
            self.open_file(folder.join(&file))?;
            for tensor in tensors {
                if self.entries.get(&tensor).is_none_or(|entry| entry.file != number) {
                    return Err(ExchangeError::tensor(index, &tensor, format!("is not in {file}")));
                }
            }
        }
        Ok(())
    }

    fn open_file(&mut self, path: PathBuf) -> Result<(), ExchangeError> {
        let number = self.files.len();
        let mut file = File::open(&path).map_err(ExchangeError::io("read", &path))?;
        let (metadata, values) = read_header(&mut file, &path)?;
        for (name, info) in metadata.tensors() {
            let info = info.clone();
            let entry = Entry { file: number, start: values + info.data_offsets.0 as u64, info };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(ExchangeError::tensor(
                    &path,
                    &name,
                    "is in another file of the same checkpoint too",
                ));
            }
        }
        self.files.push((path, file));
        Ok(())
    }
}

impl Tensors for Weights {
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.info.shape.clone())).collect()
    }

    fn numbers(&self, name: &str) -> Numbers {
        match self.entries.get(name).map(|entry| entry.info.dtype) {
            Some(Dtype::F16) => Numbers::F16,
            Some(Dtype::BF16) => Numbers::Bf16,
            _ => Numbers::F32,
        }
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, ExchangeError> {
        let Some(entry) = self.entries.get(name) else {
            let folder = self.files.first().map_or(PathBuf::new(), |(path, _)| path.clone());
            return Err(ExchangeError::tensor(&folder, name, "is missing"));
        };
        let (path, file) = &mut self.files[entry.file];
        let elements = entry.info.shape.iter().product();
        file.seek(SeekFrom::Start(entry.start)).map_err(ExchangeError::io("read", path))?;
        let values = match entry.info.dtype {
            Dtype::F32 => values(file, elements, f32::from_le_bytes),
            Dtype::F16 => values(file, elements, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => values(file, elements, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => {
                let reason = format!("holds {other}; F32, F16 and BF16 are read");
                return Err(ExchangeError::tensor(path, name, reason));
            }
        };
        values.map_err(ExchangeError::io("read", path))
    }
}

/// The header of a file and where its values start. Whatever it claims is held against the file's length.
fn read_header(file: &mut File, path: &Path) -> Result<(Metadata, u64), ExchangeError> {
    let io = ExchangeError::io("read", path);
    let broken = |reason: String| ExchangeError::broken(path, reason);
    let length = file.metadata().map_err(io)?.len();
    let Some(after_word) = length.checked_sub(8) else {
        return Err(broken(format!("{length} bytes are too few for a safetensors file")));
    };
    let mut word = [0; 8];
    file.read_exact(&mut word).map_err(ExchangeError::io("read", path))?;
    if let Some(what) = foreign(&word) {
        return Err(broken(format!("not a safetensors file but {what}")));
    }
    let header_length = u64::from_le_bytes(word);
    if header_length > after_word.min(LARGEST_HEADER) {
        return Err(broken(format!(
            "not a safetensors file, or a truncated one: a header of {header_length} bytes does not fit into {length}"
        )));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(ExchangeError::io("read", path))?;
    // Parsing checks that the tensors lie one after another, without gap or overlap, and are as long as their
    // shapes say.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| broken(format!("its header is malformed: {error}")))?;
    let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    let there = after_word - header_length;
    if end != there {
        return Err(broken(format!(
            "its header describes {end} bytes of values where there are {there}: truncated?"
        )));
    }
    Ok((metadata, 8 + header_length))
}

/// Kind of a file that begins with these bytes, where it is known and no safetensors file.
fn foreign(start: &[u8; 8]) -> Option<String> {
    match start {
        start if is_pickle(start) => Some("a pickle of PyTorch; name it by itself".into()),
        b"version " => Some("a pointer of Git LFS; fetch the file itself with `git lfs pull`".into()),
        [b'<', b'!' | b'h', ..] => Some("a page of HTML; was the download answered by an error?".into()),
        _ => None,
    }
}

/// A tensor about to be written: its values are made when it is its turn.
pub(super) struct Outgoing<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub numbers: Numbers,
    pub values: Box<dyn Fn() -> Vec<f32> + 'a>,
}

impl Outgoing<'_> {
    /// Writes the values.
    ///
    /// # Errors
    /// Half precision has no such number, or the file cannot be written.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for values in (self.values)().chunks(CHUNK / 4) {
            let bytes: Vec<u8> = match self.numbers {
                Numbers::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Numbers::Bf16 => {
                    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
                }
                Numbers::F16 => {
                    if let Some(large) = values.iter().find(|value| !f16::from_f32(**value).is_finite()) {
                        let problem = format!("{}: {large} is too large for half precision", self.name);
                        return Err(io::Error::other(problem));
                    }
                    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
                }
            };
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// Writes a safetensors file, sorted by name, as PyTorch's loaders want it.
pub(super) fn write(path: &Path, mut tensors: Vec<Outgoing>) -> Result<(), ExchangeError> {
    // Wide numbers first, so that none lies askew.
    tensors.sort_by(|a, b| b.numbers.bytes().cmp(&a.numbers.bytes()).then_with(|| a.name.cmp(&b.name)));
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for tensor in &tensors {
        let start = end;
        end += tensor.numbers.bytes() * tensor.shape.iter().product::<usize>();
        let dtype = match tensor.numbers {
            Numbers::F32 => Dtype::F32,
            Numbers::F16 => Dtype::F16,
            Numbers::Bf16 => Dtype::BF16,
        };
        let info = TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        infos.push((tensor.name.clone(), info));
    }
    let written = || {
        // transformers refuses files that do not say which framework they are for.
        let about = [("format".to_string(), "pt".to_string())].into();
        let metadata = Metadata::new(Some(about), infos).map_err(io::Error::other)?;
        let mut header = serde_json::to_vec(&metadata)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        whole_file::replace_with(path, |out| {
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            tensors.iter().try_for_each(|tensor| tensor.write(out))
        })
    };
    written().map_err(ExchangeError::io("write", path))
}
