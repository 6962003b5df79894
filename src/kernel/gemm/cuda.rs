//! Products on a GPU: [`Bf16`] with f32 sums, and whatever follows them in their epilogue where the GPU has it there,
//! else in a kernel after them. Weights are [k, n], row-major; activations have rows without gaps.
//!
//! Biases have the numbers of what they are added to, as cuBLASLt asks: [`Bf16`] before an activation and before
//! attention, f32 where a product adds to the residual stream. The gradient of a bias is f32.

use crate::kernel::activation::{self, Activation};
use crate::kernel::cuda::product::{Epilogue, Factor, Operand, Product};
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 256;
/// Rows that one block sums a column over.
const PART: usize = 128;

/// The weight of a linear layer, [k, n].
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    pub values: View<'a, Bf16>,
    pub k: usize,
    pub n: usize,
}

/// A row-major matrix that is multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    pub values: View<'a, T>,
    /// Elements from a row to the next.
    pub stride: usize,
    /// The product takes its transpose.
    pub transposed: bool,
}

impl<'a, T: Factor> Matrix<'a, T> {
    /// Rows of `width` without gaps.
    pub fn rows(values: View<'a, T>, width: usize) -> Self {
        Matrix { values, stride: width, transposed: false }
    }
    /// Rows of `width` without gaps, transposed.
    pub fn columns(values: View<'a, T>, width: usize) -> Self {
        Matrix { values, stride: width, transposed: true }
    }

    /// As an operand of [rows, columns].
    fn operand(self, rows: usize, columns: usize) -> Operand {
        let [rows, columns] = if self.transposed { [columns, rows] } else { [rows, columns] };
        let fits = columns <= self.stride && (rows - 1) * self.stride + columns <= self.values.len();
        assert!(fits, "[{rows}, {columns}] of {} numbers, {} a row", self.values.len(), self.stride);
        Operand { address: self.values.address(), stride: self.stride, transposed: self.transposed }
    }
}

impl<'a> Weight<'a> {
    fn forward(self) -> Matrix<'a, Bf16> {
        assert_eq!(self.values.len(), self.k * self.n, "a weight of [{}, {}]", self.k, self.n);
        Matrix::rows(self.values, self.n)
    }
    fn backward(self) -> Matrix<'a, Bf16> {
        Matrix { transposed: true, ..self.forward() }
    }
}

/// The product of [m, k] and [k, n] without an epilogue; `to` has rows of n without gaps.
fn plain<T: Factor, O: Factor>(
    to: &mut ViewMut<O>,
    left: Matrix<T>,
    right: Matrix<T>,
    (m, k, n): (usize, usize, usize),
) -> Product {
    assert!(m > 0 && k > 0 && n > 0 && to.len() == m * n, "a product of [{m}, {k}] and [{k}, {n}]");
    Product {
        m,
        k,
        n,
        from: T::KIND,
        left: left.operand(m, k),
        right: right.operand(k, n),
        to: to.address(),
        to_stride: n,
        to_kind: O::KIND,
        adds: false,
        epilogue: Epilogue::Nothing,
    }
}

/// to [m, n] = left [m, k] right [k, n].
pub fn product<G: Gpu, T: Factor, O: Factor>(
    gpu: &G,
    mut to: ViewMut<O>,
    left: Matrix<T>,
    right: Matrix<T>,
    sizes: (usize, usize, usize),
) -> Result<(), GpuError> {
    let product = plain(&mut to, left, right, sizes);
    // SAFETY: lengths are checked in `plain`.
    unsafe { gpu.multiply(&product) }
}

/// to [m, n] += left [m, k] right [k, n].
pub fn add_product<G: Gpu, T: Factor>(
    gpu: &G,
    mut to: ViewMut<f32>,
    left: Matrix<T>,
    right: Matrix<T>,
    sizes: (usize, usize, usize),
) -> Result<(), GpuError> {
    let product = Product { adds: true, ..plain(&mut to, left, right, sizes) };
    // SAFETY: lengths are checked in `plain`.
    unsafe { gpu.multiply(&product) }
}

/// y [rows, n] = x [rows, k] weight.
pub fn forward<G: Gpu, O: Factor>(
    gpu: &G,
    y: ViewMut<O>,
    x: View<Bf16>,
    weight: Weight,
) -> Result<(), GpuError> {
    let sizes = (x.len() / weight.k, weight.k, weight.n);
    product(gpu, y, Matrix::rows(x, weight.k), weight.forward(), sizes)
}

/// dx [rows, k] = dy [rows, n] weight^T.
pub fn backward<G: Gpu, O: Factor>(
    gpu: &G,
    dx: ViewMut<O>,
    dy: View<Bf16>,
    weight: Weight,
) -> Result<(), GpuError> {
    let sizes = (dy.len() / weight.n, weight.n, weight.k);
    product(gpu, dx, Matrix::rows(dy, weight.n), weight.backward(), sizes)
}

/// y [rows, n] = x [rows, k] weight + bias.
pub fn forward_bias<G: Gpu>(
    gpu: &G,
    mut y: ViewMut<Bf16>,
    x: View<Bf16>,
    weight: Weight,
    bias: View<Bf16>,
) -> Result<(), GpuError> {
    let (rows, n) = (x.len() / weight.k, weight.n);
    assert_eq!(bias.len(), n, "a bias of {n}");
    let left = Matrix::rows(x, weight.k);
    let product = plain(&mut y, left, weight.forward(), (rows, weight.k, n));
    let fused = Product { epilogue: Epilogue::Bias { bias: bias.address() }, ..product };
    // SAFETY: lengths are checked here and in `plain`.
    unsafe {
        if gpu.fuses(&fused)? {
            return gpu.multiply(&fused);
        }
        gpu.multiply(&product)?;
        let after = Launch::new("gemm", "gemm_add_bias_bf16", rows, BLOCK).output(&mut y).input(bias);
        gpu.launch(after.size(n))
    }
}

/// y [rows, n] += x [rows, k] weight + bias: the residual stream.
pub fn add<G: Gpu>(
    gpu: &G,
    mut y: ViewMut<f32>,
    x: View<Bf16>,
    weight: Weight,
    bias: View<f32>,
) -> Result<(), GpuError> {
    let (rows, n) = (x.len() / weight.k, weight.n);
    assert_eq!(bias.len(), n, "a bias of {n}");
    let left = Matrix::rows(x, weight.k);
    let product = Product { adds: true, ..plain(&mut y, left, weight.forward(), (rows, weight.k, n)) };
    let fused = Product { epilogue: Epilogue::Bias { bias: bias.address() }, ..product };
    // SAFETY: lengths are checked here and in `plain`.
    unsafe {
        if gpu.fuses(&fused)? {
            return gpu.multiply(&fused);
        }
        gpu.multiply(&product)?;
        let after = Launch::new("gemm", "gemm_add_bias", rows, BLOCK).output(&mut y).input(bias);
        gpu.launch(after.size(n))
    }
}

/// before [rows, n] = x [rows, k] weight + bias; after = activation(before).
pub fn activate<G: Gpu>(
    gpu: &G,
    (mut after, mut before): (ViewMut<Bf16>, ViewMut<Bf16>),
    x: View<Bf16>,
    weight: Weight,
    bias: View<Bf16>,
    activation: Activation,
) -> Result<(), GpuError> {
    let (rows, n) = (x.len() / weight.k, weight.n);
    assert!(bias.len() == n && before.len() == rows * n, "a bias and an output of {n}");
    let left = Matrix::rows(x, weight.k);
    let product = plain(&mut after, left, weight.forward(), (rows, weight.k, n));
    let epilogue = Epilogue::Gelu { bias: bias.address(), before: before.address() };
    let fused = Product { epilogue, ..product };
    // The epilogue of cuBLASLt is the approximation with tanh; the other two have a kernel.
    if activation == Activation::GeluTanh && gpu.fuses(&fused)? {
        // SAFETY: lengths are checked here and in `plain`.
        return unsafe { gpu.multiply(&fused) };
    }
    forward_bias(gpu, before.reborrow(), x, weight, bias)?;
    activation::cuda::forward(gpu, after, before.view(), activation)
}

/// gradient [rows, k] = (dy [rows, n] weight^T) activation'(before); then before = activation(before), which the gradient
/// of the weight needs.
pub fn activate_backward<G: Gpu>(
    gpu: &G,
    (mut gradient, before): (ViewMut<Bf16>, ViewMut<Bf16>),
    dy: View<Bf16>,
    weight: Weight,
    activation: Activation,
) -> Result<(), GpuError> {
    let (rows, k) = (dy.len() / weight.n, weight.k);
    assert_eq!(before.len(), rows * k, "what came before the activation");
    let left = Matrix::rows(dy, weight.n);
    let product = plain(&mut gradient, left, weight.backward(), (rows, weight.n, k));
    let fused = Product { epilogue: Epilogue::GeluBackward { before: before.address() }, ..product };
    if activation == Activation::GeluTanh && gpu.fuses(&fused)? {
        // SAFETY: lengths are checked here and in `plain`.
        unsafe { gpu.multiply(&fused) }?;
        activation::cuda::replace(gpu, before, activation)
    } else {
        // SAFETY: as above.
        unsafe { gpu.multiply(&product) }?;
        activation::cuda::through(gpu, gradient, before, activation)
    }
}

/// Numbers of the scratch memory that [`weight_gradient`] asks for, with a bias of n.
pub fn partial_len(rows: usize, n: usize) -> usize {
    rows.div_ceil(PART) * n
}

/// dw [k, n] += x [rows, k]^T dy [rows, n]; db, where there is one, += the sums of the columns of dy. `partial` is
/// scratch memory of [`partial_len`].
pub fn weight_gradient<G: Gpu>(
    gpu: &G,
    mut dw: ViewMut<f32>,
    db: Option<ViewMut<f32>>,
    mut partial: ViewMut<f32>,
    (x, k): (View<Bf16>, usize),
    (dy, n): (View<Bf16>, usize),
) -> Result<(), GpuError> {
    let rows = dy.len() / n;
    let product =
        Product { adds: true, ..plain(&mut dw, Matrix::columns(x, k), Matrix::rows(dy, n), (k, rows, n)) };
    let Some(mut db) = db else {
        // SAFETY: lengths are checked in `plain`.
        return unsafe { gpu.multiply(&product) };
    };
    assert!(db.len() == n && partial.len() >= partial_len(rows, n), "the gradient of a bias of {n}");
    let fused = Product { epilogue: Epilogue::ColumnSums { columns: partial.address() }, ..product };
    // SAFETY: lengths are checked here and in `plain`.
    unsafe {
        let parts = if gpu.fuses(&fused)? {
            gpu.multiply(&fused)?;
            1
        } else {
            gpu.multiply(&product)?;
            let parts = rows.div_ceil(PART);
            let sums = Launch::new("gemm", "gemm_column_partial", n.div_ceil(32), BLOCK).rows(parts);
            let sums = sums.output(&mut partial).input(dy).size(rows).size(PART).size(n);
            gpu.launch(sums)?;
            parts
        };
        let total = Launch::new("gemm", "gemm_column_total", blocks(n, BLOCK), BLOCK).output(&mut db);
        gpu.launch(total.input(partial.view()).size(parts).size(n))
    }
}
