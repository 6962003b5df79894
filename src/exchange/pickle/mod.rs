//! PyTorch's pickles, `.pt`, `.pth` and `.bin`: tensors by name, streamed from disk as f32.
//!
//! A pickle is a program, and loading one in Python runs it. Here it is read as data: the few calls that tensors are made of
//! have a [meaning](globals), everything else is refused by name, and nothing is run. Three layouts are read, as
//! `torch.load` tells them apart: the zip archive that `torch.save` writes since 1.6, the older sequence of pickles with
//! values behind, and the archives of TorchScript, as OpenAI's models come.

mod archive;
mod globals;
mod machine;
mod value;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::error::ExchangeError;
use super::numbers::Numbers;
use super::tensors::{values, Tensors};
use archive::{Contents, Span};
use machine::{Pickle, Unreadable};
use value::{Dtype, Id, TensorView, Value, Values};

/// Prefixes that wrappers of models leave, `DistributedDataParallel` and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// Attributes of OpenAI's archives that are no parameters.
const NO_PARAMETERS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];
/// Modules within modules are not nested deeper.
const DEEPEST: usize = 64;

/// The tensors of a file.
pub(super) struct Pickled {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, TensorView>,
    /// Where the bytes of each storage lie.
    storages: HashMap<String, Span>,
    /// True for an archive of TorchScript.
    pub is_script: bool,
}

impl Pickled {
    /// Opens a file and reads all but the values.
    pub fn open(path: &Path) -> Result<Self, ExchangeError> {
        let io = |error| ExchangeError::io("read", path)(error);
        let mut file = File::open(path).map_err(io)?;
        let mut start = [0; 4];
        let some = file.read(&mut start).map_err(io)?;
        file.rewind().map_err(io)?;
        let contents = match &start[..some] {
            [b'P', b'K', ..] => archive::zip(&mut file),
            _ => archive::sequence(&mut file),
        };
        let Contents { pickle, storages, is_script } = contents.map_err(|error| match error {
            Unreadable::Io(error) => io(error),
            Unreadable::Malformed(reason) => ExchangeError::broken(path, reason),
        })?;
        let mut tensors = named(&pickle).map_err(|reason| ExchangeError::broken(path, reason))?;
        unwrap(&mut tensors);
        if is_script {
            tensors.retain(|name, _| {
                let attribute = name.rsplit('.').next().unwrap_or(name);
                !NO_PARAMETERS.contains(&attribute) && attribute != "attn_mask"
            });
        }
        Ok(Pickled { path: path.to_path_buf(), file, tensors, storages, is_script })
    }

    fn values_of(&mut self, name: &str) -> Result<Vec<f32>, ExchangeError> {
        let wrong = |reason: String| ExchangeError::tensor(&self.path, name, reason);
        let view = self.tensors.get(name).ok_or_else(|| wrong("is missing".into()))?;
        let dtype = view.storage.dtype;
        let span = *self
            .storages
            .get(&view.storage.key)
            .ok_or_else(|| wrong(format!("its storage {:?} is not in the file", view.storage.key)))?;
        let there = view.storage.len.min(span.len / dtype.bytes());
        let (elements, read) = extent(view, there).map_err(wrong)?;
        let start = span.start + view.offset * dtype.bytes();
        self.file.seek(SeekFrom::Start(start)).map_err(ExchangeError::io("read", &self.path))?;
        let file = &mut self.file;
        let stored = match dtype {
            Dtype::F32 => values(file, read, f32::from_le_bytes),
            Dtype::F16 => values(file, read, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::Bf16 => values(file, read, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::Other(other, _) => {
                return Err(wrong(format!("holds {other}; float32, float16 and bfloat16 are read")))
            }
        };
        let stored = stored.map_err(ExchangeError::io("read", &self.path))?;
        Ok(row_major(view, stored, elements))
    }
}

impl Tensors for Pickled {
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let shape = |view: &TensorView| view.shape.iter().map(|&axis| axis as usize).collect();
        self.tensors.iter().map(|(name, view)| (name.clone(), shape(view))).collect()
    }

    fn numbers(&self, name: &str) -> Numbers {
        match self.tensors.get(name).map(|view| view.storage.dtype) {
            Some(Dtype::F16) => Numbers::F16,
            Some(Dtype::Bf16) => Numbers::Bf16,
            _ => Numbers::F32,
        }
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, ExchangeError> {
        self.values_of(name)
    }
}

/// Elements of a view, and those of its storage from its first to its last, of which there are `there`.
///
/// # Errors
/// The view reaches beyond its storage, or repeats elements of it.
fn extent(view: &TensorView, there: u64) -> Result<(usize, usize), String> {
    let sizes = || {
        let elements = view.shape.iter().try_fold(1u64, |product, &axis| product.checked_mul(axis))?;
        if elements == 0 {
            return Some((0, 0));
        }
        let steps = view.shape.iter().zip(&view.strides);
        let last = steps
            .clone()
            .try_fold(0u64, |sum, (&axis, &stride)| sum.checked_add((axis - 1).checked_mul(stride)?))?;
        let end = view.offset.checked_add(last)?.checked_add(1)?;
        (end <= there && elements <= last + 1).then_some((elements, last + 1))
    };
    let (elements, read) = sizes().ok_or_else(|| {
        format!(
            "a view of shape {:?} with strides {:?} from element {} does not fit into its storage of {there} elements",
            view.shape, view.strides, view.offset
        )
    })?;
    Ok((elements as usize, read as usize))
}

/// Elements in the order of the shape, out of the storage from the first element of the view on.
fn row_major(view: &TensorView, stored: Vec<f32>, elements: usize) -> Vec<f32> {
    let mut expected = 1;
    let is_contiguous = view.shape.iter().zip(&view.strides).rev().all(|(&axis, &stride)| {
        let fits = axis == 1 || stride == expected;
        expected *= axis;
        fits
    });
    if is_contiguous || elements == 0 {
        return stored;
    }
    let mut index = vec![0u64; view.shape.len()];
    let mut at = 0u64;
    let mut values = Vec::with_capacity(elements);
    for _ in 0..elements {
        values.push(stored[at as usize]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis];
            if index[axis] < view.shape[axis] {
                break;
            }
            at -= view.shape[axis] * view.strides[axis];
            index[axis] = 0;
        }
    }
    values
}

/// The tensors of a checkpoint: of its `state_dict` if it has one, else of the dictionary itself, or of a module with all
/// modules inside.
///
/// # Errors
/// There are none, or two of a name.
fn named(pickle: &Pickle) -> Result<BTreeMap<String, TensorView>, String> {
    let Pickle { values, root } = pickle;
    let mut tensors = BTreeMap::new();
    match values.get(*root) {
        Value::Module(_) => {
            collect(values, *root, &mut Vec::new(), &mut HashSet::new(), &mut tensors)?;
        }
        _ => {
            let dict = values.entry(*root, "state_dict").unwrap_or(*root);
            let Value::Dict(entries) = values.get(dict) else {
                return Err("expected a dictionary of tensors, or one with a state_dict".into());
            };
            for &(name, value) in entries {
                if let (Some(name), Value::Tensor(view)) = (values.text(name), values.get(value)) {
                    tensors.insert(name.to_owned(), view.clone());
                }
            }
        }
    }
    match tensors.is_empty() {
        true => Err("holds no tensors by name; expected a state_dict, or a checkpoint with one".into()),
        false => Ok(tensors),
    }
}

/// Adds the tensors of a module and of the modules inside, by the path of their names.
fn collect(
    values: &Values,
    module: Id,
    path: &mut Vec<String>,
    seen: &mut HashSet<Id>,
    tensors: &mut BTreeMap<String, TensorView>,
) -> Result<(), String> {
    let Value::Module(Some(attributes)) = *values.get(module) else { return Ok(()) };
    let Value::Dict(entries) = values.get(attributes) else { return Ok(()) };
    if path.len() > DEEPEST || !seen.insert(module) {
        return Err("modules that hold themselves, or are nested without end".into());
    }
    for &(name, value) in entries {
        let Some(name) = values.text(name) else { continue };
        path.push(name.to_owned());
        match values.get(value) {
            Value::Tensor(view) => {
                tensors.insert(path.join("."), view.clone());
            }
            Value::Module(_) => collect(values, value, path, seen, tensors)?,
            _ => {}
        }
        path.pop();
    }
    Ok(())
}

/// Takes away what wrappers of the model put before all names.
fn unwrap(tensors: &mut BTreeMap<String, TensorView>) {
    while let Some(prefix) =
        WRAPPERS.into_iter().find(|prefix| tensors.keys().all(|name| name.starts_with(prefix)))
    {
        let wrapped = std::mem::take(tensors);
        tensors.extend(wrapped.into_iter().map(|(name, view)| (name[prefix.len()..].to_owned(), view)));
    }
}

#[cfg(test)]
mod tests {
    use super::value::Storage;
    use super::*;

    fn view(offset: u64, shape: &[u64], strides: &[u64]) -> TensorView {
        let storage = Storage { key: "0".into(), dtype: Dtype::F32, len: 8 };
        TensorView { storage, offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn views_stay_within_their_storage() {
        for (offset, shape, strides, expected) in [
            (0, &[8][..], &[1][..], Some((8, 8))),
            (2, &[2, 3], &[3, 1], Some((6, 6))),
            (1, &[2, 2], &[4, 2], Some((4, 7))),
            (7, &[], &[], Some((1, 1))),
            (0, &[0, 5], &[5, 1], Some((0, 0))),
            (0, &[9], &[1], None),
            (1, &[8], &[1], None),
            (0, &[8], &[2], None),
            (8, &[1], &[1], None),
            (u64::MAX, &[1], &[1], None),
            (0, &[2], &[u64::MAX], None),
            (0, &[u64::MAX, u64::MAX], &[0, 0], None),
            // Elements that are repeated: a few bytes could ask for any amount of memory.
            (0, &[1 << 40], &[0], None),
            (0, &[3, 3], &[1, 1], None),
        ] {
            assert_eq!(
                extent(&view(offset, shape, strides), 8).ok(),
                expected,
                "{offset} {shape:?} {strides:?}"
            );
        }
    }

    #[test]
    fn elements_come_in_the_order_of_the_shape() {
        let stored: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let transposed = row_major(&view(0, &[3, 2], &[1, 3]), stored.clone(), 6);
        assert_eq!(transposed, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(row_major(&view(0, &[2, 3], &[3, 1]), stored.clone(), 6), stored);
        assert_eq!(row_major(&view(0, &[3], &[2]), stored[..5].to_vec(), 3), [0.0, 2.0, 4.0]);
    }
}
