//! Reading a snapshot: everything is verified before anything is handed out. That takes no more memory than a header;
//! values are read when they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::error::CheckpointError;
use super::manifest::{
    Fingerprint, Fingerprinting, Manifest, VersionOnly, MANIFEST, STATE, TENSORS, VERSION,
};
use super::name::Name;
use super::retain;
use super::snapshot::{Found, Snapshot, Stored};

/// No manifest and no header is larger; a larger one is damage, and is not read into memory.
const LARGEST_TEXT: u64 = 100_000_000;
/// Bytes converted at a time.
const CHUNK: usize = 1 << 16;

/// The newest whole snapshot in `dir`, and the newer ones that are broken. An absent folder is an empty
/// one. Changes nothing on disk.
pub fn newest(dir: &Path) -> Result<Found, CheckpointError> {
    let mut found = Found::default();
    for name in retain::snapshots(dir)?.into_iter().rev() {
        let path = dir.join(name.to_string());
        match read(&path) {
            Ok(snapshot) if snapshot.name == name => {
                found.snapshot = Some(snapshot);
                break;
            }
            Ok(snapshot) => {
                let written = snapshot.name.to_string();
                found.refused.push((path.clone(), CheckpointError::Renamed { path, written }));
            }
            Err(error) => found.refused.push((path, error)),
        }
    }
    Ok(found)
}

/// Verifies the snapshot in the folder `path`, whatever that folder is called.
pub fn read(path: &Path) -> Result<Snapshot, CheckpointError> {
    let (manifest, name) = read_manifest(&path.join(MANIFEST))?;
    let mut state = None;
    let mut files = BTreeMap::new();
    for (file, fingerprint) in &manifest.files {
        let is_plain = Path::new(file).file_name().is_some_and(|plain| plain == file.as_str());
        if !is_plain {
            return Err(CheckpointError::FileName { path: path.join(MANIFEST), file: file.clone() });
        }
        let file_path = path.join(file);
        if file == STATE {
            let text = verified(&file_path, fingerprint, |reader| {
                let mut text = Vec::new();
                reader.read_to_end(&mut text).map_err(CheckpointError::io("read", &file_path))?;
                Ok(text)
            })?;
            let value = serde_json::from_slice(&text)
                .map_err(|source| CheckpointError::Json { path: file_path.clone(), source })?;
            state = Some(value);
        } else if let Some(stem) = file.strip_suffix(TENSORS) {
            let tensors = verified(&file_path, fingerprint, |reader| {
                read_outline(reader, fingerprint.bytes, &file_path)
            })?;
            files.insert(stem.to_string(), tensors);
        } else {
            return Err(CheckpointError::FileName { path: path.join(MANIFEST), file: file.clone() });
        }
    }
    match state {
        Some(state) => Ok(Snapshot { path: path.to_path_buf(), name, state, files }),
        None => Err(CheckpointError::Missing { path: path.join(STATE) }),
    }
}

fn read_manifest(path: &Path) -> Result<(Manifest, Name), CheckpointError> {
    let (file, bytes) = open(path)?;
    if bytes > LARGEST_TEXT {
        return Err(CheckpointError::Size { path: path.to_path_buf(), expected: LARGEST_TEXT, found: bytes });
    }
    let mut text = Vec::new();
    file.take(LARGEST_TEXT).read_to_end(&mut text).map_err(CheckpointError::io("read", path))?;
    let json = |source| CheckpointError::Json { path: path.to_path_buf(), source };
    let VersionOnly { version } = serde_json::from_slice(&text).map_err(json)?;
    if version != VERSION {
        return Err(CheckpointError::Version { path: path.to_path_buf(), found: version });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(json)?;
    match manifest.name.parse() {
        Ok(name) => Ok((manifest, name)),
        Err(()) => Err(CheckpointError::Renamed { path: path.to_path_buf(), written: manifest.name }),
    }
}

fn open(path: &Path) -> Result<(File, u64), CheckpointError> {
    let open = || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    open().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::Missing { path: path.to_path_buf() },
        _ => CheckpointError::io("read", path)(source),
    })
}

/// Runs `parse` on the file and accepts its result only if size and hash are what they should be. Damage
/// that `parse` stumbles over is reported as damage, not as whatever it made `parse` believe.
fn verified<T>(
    path: &Path,
    expected: &Fingerprint,
    parse: impl FnOnce(&mut dyn Read) -> Result<T, CheckpointError>,
) -> Result<T, CheckpointError> {
    let (file, found) = open(path)?;
    if found != expected.bytes {
        return Err(CheckpointError::Size { path: path.to_path_buf(), expected: expected.bytes, found });
    }
    let mut reader = Fingerprinting::new(BufReader::with_capacity(CHUNK, file));
    let parsed = parse(&mut reader);
    if let Err(error @ CheckpointError::Io { .. }) = parsed {
        return Err(error);
    }
    io::copy(&mut reader, &mut io::sink()).map_err(CheckpointError::io("read", path))?;
    let (_, fingerprint) = reader.finish();
    if fingerprint != *expected {
        return Err(CheckpointError::Hash { path: path.to_path_buf() });
    }
    parsed
}

impl Snapshot {
    /// Reads the values of a tensor of the file with this stem, in the place of those that `values` has.
    ///
    /// # Errors
    /// The disk's.
    pub fn values(&self, stem: &str, stored: &Stored, values: &mut Vec<f32>) -> Result<(), CheckpointError> {
        let path = self.path.join(format!("{stem}{TENSORS}"));
        let (mut file, _) = open(&path)?;
        let read = || {
            file.seek(SeekFrom::Start(stored.at))?;
            read_values(&mut BufReader::with_capacity(CHUNK, file), stored.shape.iter().product(), values)
        };
        read().map_err(CheckpointError::io("read", &path))
    }
}

/// Tensors of a safetensors file of `length` bytes, of which `length` bounds every allocation. The values are not read.
fn read_outline(reader: &mut dyn Read, length: u64, path: &Path) -> Result<Vec<Stored>, CheckpointError> {
    let format = |reason: String| CheckpointError::Format { path: path.to_path_buf(), reason };
    let io = |source| CheckpointError::Io { action: "read", path: path.to_path_buf(), source };

    let after_length = length.checked_sub(8).ok_or_else(|| format("it is shorter than 8 bytes".into()))?;
    let mut word = [0u8; 8];
    reader.read_exact(&mut word).map_err(io)?;
    let header_length = u64::from_le_bytes(word);
    if header_length > after_length.min(LARGEST_TEXT) {
        return Err(format(format!("a header of {header_length} bytes does not fit into {length}")));
    }
    let mut header = vec![0u8; header_length as usize];
    reader.read_exact(&mut header).map_err(io)?;
    // Parsing checks that the tensors lie one after another and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| format(error.to_string()))?;
    let mut infos: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
    infos.sort_by(|(a, left), (b, right)| left.data_offsets.cmp(&right.data_offsets).then(a.cmp(b)));
    let end = infos.last().map_or(0, |(_, info)| info.data_offsets.1 as u64);
    if end != after_length - header_length {
        let there = after_length - header_length;
        return Err(format(format!("the header describes {end} bytes of values where there are {there}")));
    }

    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        if info.dtype != Dtype::F32 {
            return Err(format(format!("tensor {name} is {}, expected F32", info.dtype)));
        }
        let at = 8 + header_length + info.data_offsets.0 as u64;
        tensors.push(Stored { name, shape: info.shape.clone(), at });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn read_values(reader: &mut dyn Read, elements: usize, values: &mut Vec<f32>) -> io::Result<()> {
    values.clear();
    values.reserve_exact(elements);
    let mut bytes = [0u8; CHUNK];
    while values.len() < elements {
        let count = (elements - values.len()).min(CHUNK / 4);
        let bytes = &mut bytes[..count * 4];
        reader.read_exact(bytes)?;
        values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    Ok(())
}
