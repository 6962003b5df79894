//! A matrix product as a GPU takes it: addresses and sizes. Launchers that check them are in
//! [`gemm::cuda`](crate::kernel::gemm::cuda).

/// The numbers of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    F32,
    Bf16,
}

/// A number that products take and leave.
pub trait Factor: super::Number {
    const KIND: Kind;
}

impl Factor for f32 {
    const KIND: Kind = Kind::F32;
}
impl Factor for crate::kernel::element::Bf16 {
    const KIND: Kind = Kind::Bf16;
}

/// A row-major matrix in the memory of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operand {
    pub address: u64,
    /// Elements from a row to the next, of what lies in memory.
    pub stride: usize,
    /// The product takes its transpose.
    pub transposed: bool,
}

/// Operation on the sums before they are rounded. Vectors and `before` have the numbers of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    Nothing,
    /// to = sums + bias; `[n]`.
    Bias {
        bias: u64,
    },
    /// before = sums + bias, to = gelu(before) with the tanh of the approximation; before is [m, n] without gaps.
    Gelu {
        bias: u64,
        before: u64,
    },
    /// to = sums * gelu'(before).
    GeluBackward {
        before: u64,
    },
    /// to = sums, and columns `[n]` = the sums of the columns of the right side. It is the gradient of a bias where the
    /// product is that of a weight.
    ColumnSums {
        columns: u64,
    },
}

/// to [m, n] = epilogue(left [m, k] right [k, n]); sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// The numbers of both sides.
    pub from: Kind,
    pub left: Operand,
    pub right: Operand,
    pub to: u64,
    /// Elements from a row of the output to the next.
    pub to_stride: usize,
    pub to_kind: Kind,
    /// The sums are added to the output's values.
    pub adds: bool,
    pub epilogue: Epilogue,
}

/// A matrix as it lies in memory to a library that counts by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByColumns {
    pub address: u64,
    pub rows: usize,
    pub columns: usize,
    /// Elements from a column to the next.
    pub leading: usize,
    /// The product takes its transpose.
    pub transposed: bool,
}

impl Product {
    /// The factors and the output as a library takes them that counts by columns, to which a row-major matrix is its own
    /// transpose: to^T = right^T left^T. So its first factor is our right side, and what an epilogue does along its rows it
    /// does along our columns.
    pub fn by_columns(&self) -> [ByColumns; 3] {
        let &Product { m, k, n, left, right, to, to_stride, .. } = self;
        let lies = |Operand { address, stride, transposed }, rows, columns| {
            let [rows, columns] = if transposed { [columns, rows] } else { [rows, columns] };
            ByColumns { address, rows: columns, columns: rows, leading: stride, transposed }
        };
        let to = Operand { address: to, stride: to_stride, transposed: false };
        [lies(right, k, n), lies(left, m, k), lies(to, m, n)]
    }
}
