//! The outcome of a mask.

/// Positions kept, for a whole batch: `ids[b * kept + k]` is the position of the k-th kept patch (or token)
/// of row b, 0 <= id < `of`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// [batch, kept], row-major.
    pub ids: Vec<u32>,
    /// Number of rows.
    pub batch: usize,
    /// Positions kept in each row.
    pub kept: usize,
    /// Positions that each row is drawn from.
    pub of: usize,
}

impl Kept {
    /// Everything, in order.
    pub fn all(batch: usize, of: usize) -> Self {
        let ids = (0..batch).flat_map(|_| 0..of as u32).collect();
        Kept { ids, batch, kept: of, of }
    }
}
