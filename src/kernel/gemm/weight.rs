//! The weight of a linear layer, [k, n], as products find it.

use super::epilogue::Epilogue;
use super::{product, Left, Packed, Right};
use crate::kernel::element::Element;
use crate::kernel::Cpu;

/// A weight that products multiply by, forward and backward.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a, E> {
    pub k: usize,
    pub n: usize,
    values: Values<'a, E>,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a, E> {
    /// A copy, rounded and laid out.
    Packed(&'a Packed<E>),
    /// The master itself, row-major.
    Master(&'a [E]),
}

impl<'a, E: Element> Weight<'a, E> {
    /// Reads a copy.
    pub fn packed(packed: &'a Packed<E>) -> Self {
        Weight { k: packed.k, n: packed.n, values: Values::Packed(packed) }
    }

    /// Reads `master`, [k, n], where it is. Of f32 products alone: there is nothing to round.
    pub fn master(master: &'a [f32], k: usize, n: usize) -> Self {
        assert!(E::GROUP == 1 && master.len() == k * n, "an f32 master of [{k}, {n}]");
        Weight { k, n, values: Values::Master(bytemuck::cast_slice(master)) }
    }

    /// epilogue(left x weight), left [m, k].
    pub fn forward(&self, cpu: &Cpu, epilogue: &impl Epilogue, left: Left<E>, m: usize) {
        let right = match self.values {
            Values::Packed(packed) => Right::Packed(packed),
            Values::Master(data) => Right::Rows { data, stride: self.n },
        };
        product(cpu, epilogue, left, right, (m, self.k, self.n));
    }

    /// epilogue(left x weight^T), left [m, n].
    pub fn backward(&self, cpu: &Cpu, epilogue: &impl Epilogue, left: Left<E>, m: usize) {
        let right = match self.values {
            Values::Packed(packed) => Right::PackedTransposed(packed),
            Values::Master(data) => Right::Columns { data, stride: self.n },
        };
        product(cpu, epilogue, left, right, (m, self.n, self.k));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::element::Bf16;
    use crate::kernel::gemm::epilogue::{Grid, Write};
    use crate::kernel::isa::Isa;

    /// Small whole numbers: every sum is exact.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
    }

    fn both_ways<E: Element>(cpu: &Cpu, weight: Weight<E>, m: usize) -> (Vec<f32>, Vec<f32>) {
        let stored = |n| numbers(n).into_iter().map(E::from_f32).collect::<Vec<E>>();
        let (k, n) = (weight.k, weight.n);
        let (mut y, mut x) = (vec![0.0; m * n], vec![0.0; m * k]);
        weight.forward(
            cpu,
            &Write { to: Grid::new(&mut y, n), bias: None },
            Left::whole(&stored(m * k), k),
            m,
        );
        weight.backward(
            cpu,
            &Write { to: Grid::new(&mut x, k), bias: None },
            Left::whole(&stored(m * n), n),
            m,
        );
        (y, x)
    }

    #[test]
    fn copies_and_masters_give_the_same_products() {
        let (m, k, n) = (5, 70, 130);
        let values = numbers(k * n);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let cpu = Cpu::new(isa, 2).unwrap();
            let mut packed = Packed::<f32>::zeroed(&cpu, k, n);
            packed.pack(&cpu, &values);
            let mut rounded = Packed::<Bf16>::zeroed(&cpu, k, n);
            rounded.pack(&cpu, &values);
            let want = both_ways(&cpu, Weight::packed(&packed), m);
            assert_eq!(both_ways(&cpu, Weight::<f32>::master(&values, k, n), m), want, "{isa:?}");
            assert_eq!(both_ways(&cpu, Weight::packed(&rounded), m), want, "{isa:?}");
            let dot = |row: usize, column: usize| {
                let x = numbers(m * k);
                (0..k).map(|i| x[row * k + i] * values[i * n + column]).sum::<f32>()
            };
            assert_eq!(want.0[3 * n + 99], dot(3, 99));
        }
    }
}
