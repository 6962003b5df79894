//! Places of our parameters in the tensors of another tool, and the way there and back.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ExchangeError;
use super::slot::{slots, Slot};
use super::tensors::Tensors;
use crate::model::ModelConfig;
use crate::parameter::{Mismatch, NamedTensor};

/// Storage of a matrix of ours, [inputs, outputs], in another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// The same values in the same order.
    Same,
    /// [outputs, inputs].
    Transposed,
    /// [outputs, 3, patch, patch], where our rows are (row, column, channel).
    Convolution,
}

/// The tensors that, side by side, make one of our parameters: one, or those of query, key and value.
#[derive(Debug, Clone)]
pub(super) struct Original {
    pub names: Vec<String>,
    /// Of each of them.
    pub shape: Vec<usize>,
    pub layout: Layout,
}

impl Original {
    /// One tensor of exactly our shape and order.
    pub fn same(name: impl Into<String>, ours: &[usize]) -> Self {
        Original { names: vec![name.into()], shape: ours.to_vec(), layout: Layout::Same }
    }

    /// One tensor of our values in our order under another shape.
    pub fn reshaped(name: impl Into<String>, shape: Vec<usize>) -> Self {
        Original { names: vec![name.into()], shape, layout: Layout::Same }
    }

    /// A linear layer of PyTorch: a matrix [outputs, inputs], or a bias.
    pub fn torch_linear(name: impl Into<String>, ours: &[usize]) -> Self {
        let layout = if ours.len() == 2 { Layout::Transposed } else { Layout::Same };
        Original { names: vec![name.into()], shape: ours.iter().rev().copied().collect(), layout }
    }

    /// A convolution of PyTorch without overlap.
    pub fn convolution(name: impl Into<String>, patch: usize, width: usize) -> Self {
        Original {
            names: vec![name.into()],
            shape: vec![width, 3, patch, patch],
            layout: Layout::Convolution,
        }
    }

    /// The same in three tensors: query, key and value.
    pub fn in_thirds(mut self, names: [String; 3]) -> Self {
        let outputs = match self.layout {
            Layout::Same => self.shape.last_mut(),
            Layout::Transposed | Layout::Convolution => self.shape.first_mut(),
        };
        if let Some(outputs) = outputs {
            *outputs /= 3;
        }
        Original { names: names.to_vec(), ..self }
    }
}

/// The original of a slot of ours in a format.
pub(super) type OriginalOf = fn(Slot, &ModelConfig) -> Original;

/// Reads every parameter of the model from `tensors`, in the model's order. Tensors that `ignored` accepts
/// may be there.
pub(super) fn gather(
    source: &Path,
    config: &ModelConfig,
    original: OriginalOf,
    ignored: fn(&str) -> bool,
    tensors: &mut dyn Tensors,
) -> Result<Vec<NamedTensor>, ExchangeError> {
    let slots = slots(config);
    let originals: Vec<Original> = slots.iter().map(|&slot| original(slot, config)).collect();
    let mismatch = compare(&originals, tensors.shapes(), ignored);
    if !mismatch.is_empty() {
        return Err(ExchangeError::Tensors { path: source.to_path_buf(), mismatch });
    }
    let mut found = Vec::with_capacity(slots.len());
    for (slot, original) in slots.into_iter().zip(originals) {
        let shape = slot.shape(config);
        let (inputs, columns) = matrix(&shape);
        let outputs = columns / original.names.len();
        let mut data = Vec::new();
        for (part, name) in original.names.iter().enumerate() {
            let theirs = tensors.read(name)?;
            if let Some(index) = theirs.iter().position(|value| !value.is_finite()) {
                let (path, tensor, value) = (source.to_path_buf(), name.clone(), theirs[index]);
                return Err(ExchangeError::NotFinite { path, tensor, index, value });
            }
            if original.names.len() == 1 && original.layout == Layout::Same {
                data = theirs;
                break;
            }
            data.resize(inputs * columns, 0.0);
            each_place(original.layout, inputs, outputs, |i, o, place| {
                data[i * columns + part * outputs + o] = theirs[place];
            });
        }
        found.push(NamedTensor { name: slot.name(), shape, data });
    }
    Ok(found)
}

/// The values of the `part`-th tensor of `original` out of `ours`.
pub(super) fn scatter(ours: &NamedTensor, original: &Original, part: usize) -> Vec<f32> {
    if original.names.len() == 1 && original.layout == Layout::Same {
        return ours.data.clone();
    }
    let (inputs, columns) = matrix(&ours.shape);
    let outputs = columns / original.names.len();
    let mut theirs = vec![0.0; inputs * outputs];
    each_place(original.layout, inputs, outputs, |i, o, place| {
        theirs[place] = ours.data[i * columns + part * outputs + o];
    });
    theirs
}

/// Tensors that are missing, left over, or of another shape. A single number may be of any rank.
fn compare(originals: &[Original], found: Vec<(String, Vec<usize>)>, ignored: fn(&str) -> bool) -> Mismatch {
    let mut found: BTreeMap<String, Vec<usize>> = found.into_iter().collect();
    let mut mismatch = Mismatch::default();
    for original in originals {
        for name in &original.names {
            match found.remove(name) {
                None => mismatch.missing.push(name.clone()),
                Some(shape) => {
                    let single = |shape: &[usize]| shape.iter().all(|&axis| axis == 1);
                    if shape != original.shape && !(single(&shape) && single(&original.shape)) {
                        mismatch.reshaped.push((name.clone(), original.shape.clone(), shape));
                    }
                }
            }
        }
    }
    mismatch.left_over = found.into_keys().filter(|name| !ignored(name)).collect();
    mismatch
}

/// A shape of ours as a matrix: a vector is one row.
fn matrix(shape: &[usize]) -> (usize, usize) {
    let columns = shape.last().copied().unwrap_or(1);
    (shape.iter().rev().skip(1).product(), columns)
}

/// Rows and columns that are walked together, so that both sides of a transposition stay in the cache.
const TILE: usize = 32;

/// Calls `visit(i, o, place)` for every element (i, o) of a matrix [inputs, outputs] and its place there.
fn each_place(layout: Layout, inputs: usize, outputs: usize, mut visit: impl FnMut(usize, usize, usize)) {
    for first_row in (0..inputs).step_by(TILE) {
        for first_column in (0..outputs).step_by(TILE) {
            for i in first_row..inputs.min(first_row + TILE) {
                for o in first_column..outputs.min(first_column + TILE) {
                    let place = match layout {
                        Layout::Same => i * outputs + o,
                        Layout::Transposed => o * inputs + i,
                        Layout::Convolution => (o * 3 + i % 3) * (inputs / 3) + i / 3,
                    };
                    visit(i, o, place);
                }
            }
        }
    }
}
