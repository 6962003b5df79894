//! Tensors on their way into a snapshot.

use std::fmt;

use crate::parameter::NamedTensor;

/// A tensor lent for writing.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Dotted path, unique within its file.
    pub name: &'a str,
    /// Logical shape; its product is `data.len()`.
    pub shape: &'a [usize],
    /// Row-major values.
    pub data: &'a [f32],
}

impl<'a> From<&'a NamedTensor> for TensorView<'a> {
    fn from(tensor: &'a NamedTensor) -> Self {
        TensorView { name: &tensor.name, shape: &tensor.shape, data: &tensor.data }
    }
}

/// Reason for which values cannot be written.
pub type NoValues = Box<dyn std::error::Error + Send + Sync>;

/// A file of tensors whose values are asked for one after the other, when they are written: they need not be in memory
/// together, nor on this machine.
pub struct TensorFile<'a> {
    /// File stem, for example `model`.
    pub stem: &'a str,
    /// Name and shape of each tensor, in any order.
    pub outline: Vec<(String, Vec<usize>)>,
    /// Shows the values of a tensor, by its place in the outline.
    pub show: Box<Show<'a>>,
}

/// See [`TensorFile::show`]; the function that it is given is called once.
pub type Show<'a> = dyn FnMut(usize, &mut dyn FnMut(&[f32])) -> Result<(), NoValues> + 'a;

impl fmt::Debug for TensorFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile")
            .field("stem", &self.stem)
            .field("outline", &self.outline)
            .finish_non_exhaustive()
    }
}

impl<'a> TensorFile<'a> {
    /// A file of tensors that are in memory.
    pub(super) fn lent(stem: &'a str, tensors: &'a [TensorView<'a>]) -> TensorFile<'a> {
        let outline = tensors.iter().map(|tensor| (tensor.name.to_string(), tensor.shape.to_vec())).collect();
        let show = move |index: usize, see: &mut dyn FnMut(&[f32])| {
            see(tensors[index].data);
            Ok(())
        };
        TensorFile { stem, outline, show: Box::new(show) }
    }

    /// Places in the outline, in the order of the file: by name, so that the same tensors give the same bytes.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.outline.len()).collect();
        order.sort_by_key(|&index| &self.outline[index].0);
        order
    }
}
