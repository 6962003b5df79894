//! Writing a snapshot: into a hidden sibling, synced, then renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Serialize;

use super::error::CheckpointError;
use super::manifest::{Fingerprint, Fingerprinting, Manifest, MANIFEST, STATE, TENSORS, VERSION};
use super::name::Name;
use super::retain::{self, sync_folder, Hidden};
use super::tensors::{NoValues, TensorFile, TensorView};
use crate::whole_file;

/// Bytes converted and written at a time; tensors are never copied as a whole.
const CHUNK: usize = 1 << 16;

/// Writes the snapshot `name` into `dir` (created where needed) and returns its folder. `tensor_files` are pairs
/// of a stem, for example `model`, and its tensors in any order. A snapshot of the same name is replaced.
///
/// On an error nothing of the new snapshot stays behind and the former ones are as they were.
///
/// `state` goes through JSON: integers, text and f32 come back exactly; a non-finite float comes back as
/// null, and an f64 may lose its last bit, so store one as `to_bits()` if it must not.
pub fn write<S: Serialize>(
    dir: &Path,
    name: Name,
    tensor_files: &[(&str, Vec<TensorView<'_>>)],
    state: &S,
) -> Result<PathBuf, CheckpointError> {
    for (tensor_file, tensors) in tensor_files {
        let wrong = tensors.iter().find(|tensor| elements(tensor.shape) != Some(tensor.data.len()));
        if let Some(tensor) = wrong {
            let reason = format!("shape {:?} does not hold {} values", tensor.shape, tensor.data.len());
            return Err(unsaveable(tensor_file, tensor.name, reason));
        }
    }
    let tensor_files = tensor_files.iter().map(|(stem, tensors)| TensorFile::lent(stem, tensors)).collect();
    write_files(dir, name, tensor_files, state)
}

/// As [`write()`], of tensors that are asked for when they are written: one file after the other by their stems, each in the
/// order of its tensors' names.
pub fn write_files<S: Serialize>(
    dir: &Path,
    name: Name,
    mut tensor_files: Vec<TensorFile<'_>>,
    state: &S,
) -> Result<PathBuf, CheckpointError> {
    tensor_files.sort_by_key(|tensor_file| tensor_file.stem);
    tensor_files.iter().try_for_each(saveable)?;
    fs::create_dir_all(dir).map_err(CheckpointError::io("create", dir))?;
    let hidden = Hidden::Writing.path(dir, name);
    retain::remove_folder(&hidden)?;

    let folder = dir.join(name.to_string());
    let written = fill(&hidden, name, tensor_files, state).and_then(|()| publish(&hidden, &folder, name));
    if let Err(error) = written {
        // The first error is the one to tell; what cannot be removed now is removed by `prepare`.
        let _ = retain::remove_folder(&hidden);
        return Err(error);
    }
    Ok(folder)
}

/// Asks for every tensor in the order in which [`write_files`] does, and writes nothing: for those who have a shard of the
/// values that another process writes.
///
/// # Errors
/// The first of the files' own.
pub fn visit(mut tensor_files: Vec<TensorFile<'_>>) -> Result<(), NoValues> {
    tensor_files.sort_by_key(|tensor_file| tensor_file.stem);
    for tensor_file in &mut tensor_files {
        for index in tensor_file.order() {
            (tensor_file.show)(index, &mut |_| {})?;
        }
    }
    Ok(())
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis))
}

fn unsaveable(part: &str, tensor: &str, reason: String) -> CheckpointError {
    CheckpointError::Unsaveable { part: part.to_string(), tensor: tensor.to_string(), reason }
}

/// Refuses what the format cannot hold.
fn saveable(tensor_file: &TensorFile<'_>) -> Result<(), CheckpointError> {
    let (stem, order) = (tensor_file.stem, tensor_file.order());
    if stem.is_empty() || !stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(unsaveable(
            stem,
            "*",
            format!("{stem:?} is not a file stem of letters, digits, - and _"),
        ));
    }
    for pair in order.windows(2) {
        let [(one, _), (other, _)] = [pair[0], pair[1]].map(|index| &tensor_file.outline[index]);
        if one == other {
            return Err(unsaveable(stem, one, "the name is there twice".into()));
        }
    }
    for (name, shape) in &tensor_file.outline {
        if name.is_empty() || name == "__metadata__" {
            return Err(unsaveable(stem, name, "safetensors reserves this name".into()));
        }
        if elements(shape).and_then(|n| n.checked_mul(4)).is_none() {
            return Err(unsaveable(stem, name, format!("no file holds a shape of {shape:?}")));
        }
    }
    Ok(())
}

/// Writes and syncs every file of the hidden folder, then the folder itself.
fn fill<S: Serialize>(
    hidden: &Path,
    name: Name,
    tensor_files: Vec<TensorFile<'_>>,
    state: &S,
) -> Result<(), CheckpointError> {
    fs::create_dir(hidden).map_err(CheckpointError::io("create", hidden))?;
    let mut files = BTreeMap::new();
    for mut tensor_file in tensor_files {
        let file = format!("{}{TENSORS}", tensor_file.stem);
        let fingerprint = write_file(&hidden.join(&file), |out| write_tensors(out, &mut tensor_file))?;
        files.insert(file, fingerprint);
    }
    let state_path = hidden.join(STATE);
    let state = to_json(&state_path, state)?;
    files.insert(STATE.to_string(), write_file(&state_path, |out| out.write_all(&state))?);

    let manifest_path = hidden.join(MANIFEST);
    let manifest = to_json(&manifest_path, &Manifest { version: VERSION, name: name.to_string(), files })?;
    write_file(&manifest_path, |out| out.write_all(&manifest))?;
    sync_folder(hidden)
}

/// Makes the finished folder appear under its name.
fn publish(hidden: &Path, folder: &Path, name: Name) -> Result<(), CheckpointError> {
    let dir = folder.parent().unwrap_or(Path::new("."));
    let replaced = Hidden::Replaced.path(dir, name);
    // A rename onto a folder that is not empty fails, so the former one steps aside first. Killed between
    // the two renames, `prepare` brings it back.
    let replaces = folder.exists();
    let renamed = |from: &Path, to: &Path| whole_file::step().and_then(|()| fs::rename(from, to));
    if replaces {
        retain::remove_folder(&replaced)?;
        renamed(folder, &replaced).map_err(CheckpointError::io("move aside", folder))?;
    }
    if let Err(source) = renamed(hidden, folder) {
        if replaces {
            let _ = fs::rename(&replaced, folder);
        }
        return Err(CheckpointError::Io { action: "create", path: folder.to_path_buf(), source });
    }
    sync_folder(dir)?;
    retain::remove_folder(&replaced)
}

fn to_json<S: Serialize>(path: &Path, value: &S) -> Result<Vec<u8>, CheckpointError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })?;
    text.push(b'\n');
    Ok(text)
}

/// Creates, fills and syncs a file.
fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Fingerprint, CheckpointError> {
    let write = || {
        whole_file::step()?;
        let mut out = BufWriter::with_capacity(CHUNK, Fingerprinting::new(File::create(path)?));
        whole_file::step()?;
        fill(&mut out)?;
        let (file, fingerprint) = out.into_inner().map_err(io::IntoInnerError::into_error)?.finish();
        whole_file::step()?;
        file.sync_all()?;
        Ok(fingerprint)
    };
    write().map_err(CheckpointError::io("write", path))
}

/// The safetensors format: length of the header as u64, header as JSON padded to 8 bytes, values.
/// The tensor_file is [saveable].
fn write_tensors(out: &mut dyn Write, tensor_file: &mut TensorFile<'_>) -> io::Result<()> {
    let order = tensor_file.order();
    let mut infos = Vec::with_capacity(order.len());
    let mut end = 0;
    for &index in &order {
        let (name, shape) = &tensor_file.outline[index];
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let info = TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) };
        infos.push((name.clone(), info));
    }
    let metadata = Metadata::new(None, infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;

    for index in order {
        let (name, shape) = &tensor_file.outline[index];
        let expected = shape.iter().product::<usize>();
        let mut written = Err(io::Error::other(format!("tensor {name} has no values; this is a bug")));
        let mut see = |values: &[f32]| {
            written = match values.len() {
                found if found == expected => write_values(out, values),
                found => Err(io::Error::other(format!("tensor {name} has {found} values, not {expected}"))),
            };
        };
        (tensor_file.show)(index, &mut see).map_err(io::Error::other)?;
        written?;
    }
    Ok(())
}

fn write_values(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = [0u8; CHUNK];
    for values in values.chunks(CHUNK / 4) {
        for (slot, value) in bytes.chunks_exact_mut(4).zip(values) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out.write_all(&bytes[..values.len() * 4])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts so many bytes, then is as full as a full disk.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = buffer.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_keeps_values_from_coming_is_told() {
        let outline = || vec![("a".to_string(), vec![2])];
        let told = |show| {
            write_tensors(&mut io::sink(), &mut TensorFile { stem: "model", outline: outline(), show })
                .unwrap_err()
                .to_string()
        };
        assert_eq!(told(Box::new(|_, _| Err("the link broke".into()))), "the link broke");
        assert_eq!(told(Box::new(|_, _| Ok(()))), "tensor a has no values; this is a bug");
        let short = told(Box::new(|_, see| {
            see(&[1.0]);
            Ok(())
        }));
        assert_eq!(short, "tensor a has 1 values, not 2");
    }

    #[test]
    fn a_full_disk_is_an_error_at_every_byte() {
        let data = vec![1.0; 3 * CHUNK / 4 + 5];
        let shape = [data.len()];
        let tensors = [TensorView { name: "a", shape: &shape, data: &data }];
        let mut whole = Vec::new();
        write_tensors(&mut whole, &mut TensorFile::lent("model", &tensors)).unwrap();
        for room in [0, 1, 8, 9, 70, 80, CHUNK, 2 * CHUNK, whole.len() - 1] {
            let error = write_tensors(&mut Disk(room), &mut TensorFile::lent("model", &tensors)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "after {room} bytes");
        }
        write_tensors(&mut Disk(whole.len()), &mut TensorFile::lent("model", &tensors)).unwrap();
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let data: Vec<f32> = (0..40_000).map(|i| i as f32 * 0.5).collect();
        let tensors = [
            TensorView { name: "a", shape: &[], data: &[f32::NEG_INFINITY] },
            TensorView { name: "b", shape: &[200, 200], data: &data },
            TensorView { name: "c", shape: &[0, 7], data: &[] },
        ];
        let mut whole = Vec::new();
        write_tensors(&mut whole, &mut TensorFile::lent("model", &tensors)).unwrap();
        let read = safetensors::SafeTensors::deserialize(&whole).unwrap();
        assert_eq!(read.len(), 3);
        for tensor in tensors {
            let view = read.tensor(tensor.name).unwrap();
            assert_eq!((view.dtype(), view.shape()), (Dtype::F32, tensor.shape));
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(values, tensor.data);
        }
    }
}
