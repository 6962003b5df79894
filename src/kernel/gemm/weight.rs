//! The weight of a linear layer, [k, n], as products find it.

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::epilogue::Epilogue;
use super::{product, Left, Packed, Right};
use crate::kernel::element::Element;
use crate::kernel::Cpu;

/// A weight that products multiply by, forward and backward.
#[derive(Debug, Clone)]
pub struct Weight<E> {
    pub k: usize,
    pub n: usize,
    held: Held<E>,
}

#[derive(Debug, Clone)]
enum Held<E> {
    Nothing,
    /// A copy, rounded and laid out.
    Packed(Packed<E>),
    /// No copy.
    Master(Master),
}

/// An f32 weight that somebody else keeps. It is copied to scratch memory for the time of a product, so that there is
/// no second set of weights.
#[derive(Clone)]
pub struct Master(Arc<dyn Fn(&mut [f32]) + Send + Sync>);

impl Master {
    /// `read` fills [k, n], row-major.
    pub fn new(read: impl Fn(&mut [f32]) + Send + Sync + 'static) -> Self {
        Master(Arc::new(read))
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master")
    }
}

impl<E: Element> Weight<E> {
    /// One without values; it has to get some before it is multiplied by.
    pub fn new(k: usize, n: usize) -> Self {
        Weight { k, n, held: Held::Nothing }
    }

    /// Rounds and lays out a copy of `from`, [k, n] row-major.
    pub fn pack(&mut self, cpu: &Cpu, from: &[f32]) {
        if !matches!(self.held, Held::Packed(_)) {
            self.held = Held::Packed(Packed::zeroed(cpu, self.k, self.n));
        }
        if let Held::Packed(packed) = &mut self.held {
            packed.pack(cpu, from);
        }
    }

    /// Reads `master` whenever a product needs it. Of f32 products alone: there is nothing to round.
    pub fn lend(&mut self, master: Master) {
        assert_eq!(E::GROUP, 1, "a master is f32");
        self.held = Held::Master(master);
    }

    /// Gives back what was lent.
    pub fn release(&mut self) {
        if matches!(self.held, Held::Master(_)) {
            self.held = Held::Nothing;
        }
    }

    /// epilogue(left x weight), left [m, k].
    pub fn forward(&self, cpu: &Cpu, epilogue: &impl Epilogue, left: Left<E>, m: usize) {
        let sizes = (m, self.k, self.n);
        match &self.held {
            Held::Packed(packed) => product(cpu, epilogue, left, Right::Packed(packed), sizes),
            held => self.copied(cpu, held, |data| {
                product(cpu, epilogue, left, Right::Rows { data, stride: self.n }, sizes)
            }),
        }
    }

    /// epilogue(left x weight^T), left [m, n].
    pub fn backward(&self, cpu: &Cpu, epilogue: &impl Epilogue, left: Left<E>, m: usize) {
        let sizes = (m, self.n, self.k);
        match &self.held {
            Held::Packed(packed) => product(cpu, epilogue, left, Right::PackedTransposed(packed), sizes),
            held => self.copied(cpu, held, |data| {
                product(cpu, epilogue, left, Right::Columns { data, stride: self.n }, sizes)
            }),
        }
    }

    /// Calls `multiply` with a copy of the master.
    fn copied(&self, cpu: &Cpu, held: &Held<E>, multiply: impl FnOnce(&[E])) {
        let Held::Master(master) = held else { unreachable!("a product by a weight without values") };
        let mut own = cpu.weight.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = own.room::<f32>(self.k * self.n);
        (master.0)(copy);
        multiply(bytemuck::cast_slice(copy))
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

    fn both_ways<E: Element>(cpu: &Cpu, weight: &Weight<E>, m: usize) -> (Vec<f32>, Vec<f32>) {
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
            let mut packed = Weight::<f32>::new(k, n);
            packed.pack(&cpu, &values);
            let mut rounded = Weight::<Bf16>::new(k, n);
            rounded.pack(&cpu, &values);
            let mut lent = Weight::<f32>::new(k, n);
            let master = values.clone();
            lent.lend(Master::new(move |to| to.copy_from_slice(&master)));
            let want = both_ways(&cpu, &packed, m);
            assert_eq!(both_ways(&cpu, &lent, m), want, "{isa:?}");
            assert_eq!(both_ways(&cpu, &rounded, m), want, "{isa:?}");
            let dot = |row: usize, column: usize| {
                let x = numbers(m * k);
                (0..k).map(|i| x[row * k + i] * values[i * n + column]).sum::<f32>()
            };
            assert_eq!(want.0[3 * n + 99], dot(3, 99));
        }
    }
}
