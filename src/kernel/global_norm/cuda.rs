//! The length of all gradients together on a GPU: two launches for any number of tensors.

use crate::kernel::cuda::{Gpu, GpuError, Launch, View, ViewMut};

const BLOCK: u32 = 256;
/// Values of a piece: few enough that a thread sums them in f32.
const PIECE: usize = 1 << 16;

/// Pieces of tensors, in the memory of a GPU; made once, as gradients stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces(Vec<u64>);

impl Pieces {
    pub fn new<'a>(tensors: impl IntoIterator<Item = View<'a, f32>>) -> Self {
        let mut words = Vec::new();
        for tensor in tensors {
            for at in (0..tensor.len()).step_by(PIECE) {
                let piece = tensor.part(at, PIECE.min(tensor.len() - at));
                words.extend([piece.address(), piece.len() as u64]);
            }
        }
        Pieces(words)
    }

    /// The table that [`sum_of_squares`] reads, two words a piece.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// total, one number, = the sum of the squares of all tensors of `pieces`. `partial` is scratch memory of one number a
/// piece.
///
/// # Safety
/// The tensors that the pieces were made of are alive.
pub unsafe fn sum_of_squares<G: Gpu>(
    gpu: &G,
    mut total: ViewMut<'_, f64>,
    mut partial: ViewMut<'_, f64>,
    pieces: View<'_, u64>,
) -> Result<(), GpuError> {
    let n = pieces.len() / 2;
    assert!(total.len() == 1 && partial.len() >= n, "scratch memory of {n} pieces");
    let each = Launch::new("global_norm", "global_norm_partial", n, BLOCK).output(&mut partial).input(pieces);
    gpu.launch(each)?;
    let all = Launch::new("global_norm", "global_norm_total", 1, BLOCK).output(&mut total);
    gpu.launch(all.input(partial.view()).size(n))
}
