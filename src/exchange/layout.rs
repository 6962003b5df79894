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
    /// [outputs, inputs], and beside it an input and a bias: our vector is the output (the query of timm's attention pool).
    Output,
    /// Not stored: an identity stands for a projection that the other tool leaves out.
    Identity,
}

/// The name of a part that is zero and not stored (biases that a layer of another tool lacks).
pub(super) const ZEROS: &str = "";

/// The tensors that, side by side, make one of our parameters: one, or those of query, key and value.
#[derive(Debug, Clone)]
pub(super) struct Original {
    pub names: Vec<String>,
    /// Of each of them.
    pub shape: Vec<usize>,
    pub layout: Layout,
    /// Tensors that ours is made of besides, with their shapes: what its outputs are multiplied by; or, of
    /// [`Layout::Output`], input and bias.
    pub beside: Vec<(String, Vec<usize>)>,
}

impl Original {
    fn new(names: Vec<String>, shape: Vec<usize>, layout: Layout) -> Self {
        Original { names, shape, layout, beside: Vec::new() }
    }

    /// One tensor of exactly our shape and order.
    pub fn same(name: impl Into<String>, ours: &[usize]) -> Self {
        Original::new(vec![name.into()], ours.to_vec(), Layout::Same)
    }

    /// One tensor of our values in our order under another shape.
    pub fn reshaped(name: impl Into<String>, shape: Vec<usize>) -> Self {
        Original::new(vec![name.into()], shape, Layout::Same)
    }

    /// A linear layer of PyTorch: a matrix [outputs, inputs], or a bias.
    pub fn torch_linear(name: impl Into<String>, ours: &[usize]) -> Self {
        let layout = if ours.len() == 2 { Layout::Transposed } else { Layout::Same };
        Original::new(vec![name.into()], ours.iter().rev().copied().collect(), layout)
    }

    /// A convolution of PyTorch without overlap.
    pub fn convolution(name: impl Into<String>, patch: usize, width: usize) -> Self {
        Original::new(vec![name.into()], vec![width, 3, patch, patch], Layout::Convolution)
    }

    /// The output, a vector of `width`, of a linear layer of PyTorch for one stored input.
    pub fn output(layer: &str, input: impl Into<String>, width: usize) -> Self {
        let beside = vec![(input.into(), vec![1, 1, width]), (format!("{layer}.bias"), vec![width])];
        let names = vec![format!("{layer}.weight")];
        Original { beside, ..Original::new(names, vec![width, width], Layout::Output) }
    }

    /// The identity, which is not stored.
    pub fn identity(ours: &[usize]) -> Self {
        Original::new(vec![ZEROS.into()], ours.to_vec(), Layout::Identity)
    }

    /// Multiplied, output by output, by a stored vector (layer scale).
    pub fn times(mut self, factors: impl Into<String>, outputs: usize) -> Self {
        self.beside.push((factors.into(), vec![outputs]));
        self
    }

    /// The same in three tensors: query, key and value.
    pub fn in_thirds(mut self, names: [String; 3]) -> Self {
        let outputs = match self.layout {
            Layout::Same => self.shape.last_mut(),
            Layout::Transposed | Layout::Convolution | Layout::Output | Layout::Identity => {
                self.shape.first_mut()
            }
        };
        if let Some(outputs) = outputs {
            *outputs /= 3;
        }
        Original { names: names.to_vec(), ..self }
    }
}

/// The original of a slot of ours in a format.
pub(super) type OriginalOf<'a> = &'a dyn Fn(Slot, &ModelConfig) -> Original;

/// Reads every parameter of the model from `tensors`, in the model's order. Tensors that `ignored` accepts
/// may be there.
pub(super) fn gather(
    source: &Path,
    config: &ModelConfig,
    original: OriginalOf<'_>,
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
        let data = joined(source, &shape, &original, tensors)?;
        found.push(NamedTensor { name: slot.name(), shape, data });
    }
    Ok(found)
}

/// The values of a parameter of a shape.
fn joined(
    source: &Path,
    shape: &[usize],
    original: &Original,
    tensors: &mut dyn Tensors,
) -> Result<Vec<f32>, ExchangeError> {
    let mut read = |name: &str| {
        let theirs = tensors.read(name)?;
        if let Some(index) = theirs.iter().position(|value| !value.is_finite()) {
            let (path, tensor, value) = (source.to_path_buf(), name.to_owned(), theirs[index]);
            return Err(ExchangeError::NotFinite { path, tensor, index, value });
        }
        Ok(theirs)
    };
    if let (Layout::Output, [weight], [input, bias]) =
        (original.layout, &original.names[..], &original.beside[..])
    {
        let (weight, input, bias) = (read(weight)?, read(&input.0)?, read(&bias.0)?);
        return Ok(output(&weight, &input, &bias));
    }
    let (inputs, columns) = matrix(shape);
    let outputs = columns / original.names.len();
    let mut data = Vec::new();
    if original.layout == Layout::Identity {
        return Ok((0..inputs * columns)
            .map(|at| if at / columns == at % columns { 1.0 } else { 0.0 })
            .collect());
    }
    for (part, name) in original.names.iter().enumerate() {
        if name == ZEROS {
            data.resize(inputs * columns, 0.0);
            continue;
        }
        let theirs = read(name)?;
        if original.names.len() == 1 && original.layout == Layout::Same {
            data = theirs;
            break;
        }
        data.resize(inputs * columns, 0.0);
        each_place(original.layout, inputs, outputs, |i, o, place| {
            data[i * columns + part * outputs + o] = theirs[place];
        });
    }
    for (factors, _) in &original.beside {
        let factors = read(factors)?;
        for row in data.chunks_exact_mut(columns) {
            row.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
        }
    }
    Ok(data)
}

/// weight [outputs, inputs] input + bias.
fn output(weight: &[f32], input: &[f32], bias: &[f32]) -> Vec<f32> {
    let dot = |row: &[f32]| row.iter().zip(input).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    weight.chunks(input.len()).zip(bias).map(|(row, bias)| (dot(row) + f64::from(*bias)) as f32).collect()
}

/// Maker of the values of a tensor.
type Values<'a> = Box<dyn Fn() -> Vec<f32> + 'a>;

/// The tensors of `original` out of `ours`: name, shape, and what makes the values.
pub(super) fn apart<'a>(ours: &'a NamedTensor, original: &Original) -> Vec<(String, Vec<usize>, Values<'a>)> {
    if let (Layout::Output, [input, bias]) = (original.layout, &original.beside[..]) {
        // Of the identity our vector is the output for itself.
        let width = ours.data.len();
        let one = move |at: usize| if at.is_multiple_of(width + 1) { 1.0 } else { 0.0 };
        let identity: Values = Box::new(move || (0..width * width).map(one).collect());
        let (weight, input, bias) = (original.names[0].clone(), input.clone(), bias.clone());
        return vec![
            (weight, original.shape.clone(), identity),
            (input.0, input.1, Box::new(move || ours.data.clone())),
            (bias.0, bias.1, Box::new(move || vec![0.0; width])),
        ];
    }
    let part = |(part, name): (usize, &String)| {
        let of = original.clone();
        let values: Values = Box::new(move || scatter(ours, &of, part));
        (name.clone(), original.shape.clone(), values)
    };
    original.names.iter().enumerate().map(part).collect()
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
    // What several of ours are multiplied by is there once.
    let mut seen = BTreeMap::new();
    for original in originals {
        let own = original.names.iter().map(|name| (name, &original.shape));
        let beside = original.beside.iter().map(|(name, shape)| (name, shape));
        for (name, expected) in own.chain(beside).filter(|(name, _)| *name != ZEROS) {
            match seen.get(name).cloned().or_else(|| found.remove(name)) {
                None => mismatch.missing.push(name.clone()),
                Some(shape) => {
                    let single = |shape: &[usize]| shape.iter().all(|&axis| axis == 1);
                    if shape != *expected && !(single(&shape) && single(expected)) {
                        mismatch.reshaped.push((name.clone(), expected.clone(), shape.clone()));
                    }
                    seen.insert(name.clone(), shape);
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
                        Layout::Same | Layout::Identity => i * outputs + o,
                        Layout::Transposed | Layout::Output => o * inputs + i,
                        Layout::Convolution => (o * 3 + i % 3) * (inputs / 3) + i / 3,
                    };
                    visit(i, o, place);
                }
            }
        }
    }
}
