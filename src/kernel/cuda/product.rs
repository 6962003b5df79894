//! A matrix product as a machine takes it: addresses and sizes. Launchers that check them are in
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

/// A row-major matrix in the memory of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operand {
    pub address: u64,
    /// Elements from a row to the next, of what lies in memory.
    pub stride: usize,
    /// Whether the product takes its transpose.
    pub transposed: bool,
}

/// What becomes of the sums before they are rounded. Vectors and `before` have the numbers of the output.
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
    /// Whether the sums are added to what is there.
    pub adds: bool,
    pub epilogue: Epilogue,
}
