//! The length of all gradients together.

pub mod cuda;

use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// Values summed in f32 before they join a sum in f64.
const BLOCK: usize = 4096;
/// Blocks that one thread takes at a time.
const TOGETHER: usize = 32;

/// Sum of the squares of `x`, in blocks of fixed size and order.
pub fn sum_of_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut sums = vec![0.0f64; x.len().div_ceil(BLOCK * TOGETHER)];
    cpu.threads.each(sums.iter_mut().zip(x.chunks(BLOCK * TOGETHER)), |_, (sum, x)| {
        *sum = dispatch!(cpu.isa, l => x.chunks(BLOCK).map(|x| block(l, x) as f64).sum());
    });
    sums.iter().sum()
}

#[inline(always)]
fn block<L: Lanes>(l: L, x: &[f32]) -> f32 {
    let mut sums = [l.zero(); 4];
    for four in x.chunks(4 * L::N) {
        for (i, sum) in sums.iter_mut().enumerate() {
            let x = l.load(&four[(i * L::N).min(four.len())..]);
            *sum = l.fma(x, x, *sum);
        }
    }
    l.sum(l.add(l.add(sums[0], sums[1]), l.add(sums[2], sums[3])))
}
