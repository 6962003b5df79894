//! Copies of parameters as kernels read them: what products multiply by, and what is added beside it, in [`Bf16`]; what
//! meets the residual stream in f32. One piece of memory for each kind of number.

use super::{Machine, MachineError, View, ViewMut};
use crate::kernel::element::Bf16;
use crate::kernel::patches;

/// What kernels read of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    Half,
    Float,
}

impl Reads {
    /// Bytes of the copy of a parameter of `len` numbers.
    pub fn bytes(self, len: usize) -> usize {
        len.next_multiple_of(ALIGNMENT)
            * match self {
                Reads::Half => size_of::<Bf16>(),
                Reads::Float => size_of::<f32>(),
            }
    }
}

/// The memory of a copy.
#[derive(Debug)]
pub enum Target<'a> {
    Half(ViewMut<'a, Bf16>),
    Float(ViewMut<'a, f32>),
}

/// A parameter's place in the memory of its kind.
#[derive(Debug, Clone, Copy)]
struct Place {
    reads: Reads,
    at: usize,
    len: usize,
}

/// Every copy begins at a multiple of as many numbers: 256 bytes and more.
const ALIGNMENT: usize = 128;

/// The copies of a list of parameters, numbered as the list is.
pub struct Copies<M: Machine> {
    halves: M::Buffer<Bf16>,
    floats: M::Buffer<f32>,
    places: Vec<Place>,
}

impl<M: Machine> Copies<M> {
    /// Zeros, for what is read of each parameter and its length.
    pub fn new(machine: &M, parameters: &[(Reads, usize)]) -> Result<Self, MachineError> {
        let (mut halves, mut floats) = (0, 0);
        let places = parameters.iter().map(|&(reads, len)| {
            let end = match reads {
                Reads::Half => &mut halves,
                Reads::Float => &mut floats,
            };
            let at = *end;
            *end += len.next_multiple_of(ALIGNMENT);
            Place { reads, at, len }
        });
        let places = places.collect();
        Ok(Copies { halves: machine.zeros(halves)?, floats: machine.zeros(floats)?, places })
    }

    /// Parameters.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    fn place(&self, i: usize, reads: Reads) -> Place {
        let place = self.places[i];
        assert_eq!(place.reads, reads, "what is read of parameter {i}");
        place
    }

    /// The copy of parameter `i`, of which halves are read.
    pub fn half(&self, machine: &M, i: usize) -> View<'_, Bf16> {
        let Place { at, len, .. } = self.place(i, Reads::Half);
        machine.view(&self.halves).part(at, len)
    }

    /// The copy of parameter `i`, of which floats are read.
    pub fn float(&self, machine: &M, i: usize) -> View<'_, f32> {
        let Place { at, len, .. } = self.place(i, Reads::Float);
        machine.view(&self.floats).part(at, len)
    }

    /// Where the copy of parameter `i` is written.
    ///
    /// # Safety
    /// The copies live for `'a`, and nobody else uses this one.
    pub unsafe fn target<'a>(&mut self, machine: &M, i: usize) -> Target<'a> {
        let Place { reads, at, len } = self.places[i];
        match reads {
            Reads::Half => {
                let mut all = machine.view_mut(&mut self.halves);
                Target::Half(ViewMut::new(all.part(at, len).address(), len))
            }
            Reads::Float => {
                let mut all = machine.view_mut(&mut self.floats);
                Target::Float(ViewMut::new(all.part(at, len).address(), len))
            }
        }
    }

    /// Copies the master of parameter `i`.
    pub fn load(&mut self, machine: &M, i: usize, master: View<f32>) -> Result<(), MachineError> {
        let Place { reads, at, len } = self.places[i];
        assert_eq!(master.len(), len, "the master of parameter {i}");
        match reads {
            Reads::Half => {
                let mut all = machine.view_mut(&mut self.halves);
                patches::cuda::from_floats(machine, all.part(at, len), master)
            }
            Reads::Float => machine.copy(machine.view_mut(&mut self.floats).part(at, len), master),
        }
    }
}
