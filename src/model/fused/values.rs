//! The parameters of both encoders as kernels of the CPU read them: masters where they lie, and beside each weight of
//! bfloat16 products a copy, rounded and laid out (the mirror).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::tensor::Cpu;

use crate::kernel::element::Element;
use crate::kernel::gemm::weight::Weight;
use crate::kernel::gemm::Packed;
use crate::kernel::transformer::{Norm, Part, Shape, Stack};
use crate::kernel::Cpu as Kernels;
use crate::parameter::{Flat, Parameter, Role, Tower};

/// Copies by place in the list of parameters; none of those that are read where they lie.
pub(super) type Copies<K> = Vec<Option<Packed<K>>>;

/// The copies, which may be behind their masters.
#[derive(Debug)]
pub(super) struct Mirror<K> {
    parameters: Arc<Vec<Parameter>>,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
pub(super) struct State<K> {
    /// Cloned only while a tape that was never run backward still holds it.
    pub copies: Arc<Copies<K>>,
    pub stale: bool,
}

/// The parameters at the time of a pass.
#[derive(Debug)]
pub(super) struct Parameters<K> {
    parameters: Arc<Vec<Parameter>>,
    masters: Flat<f32, Cpu>,
    copies: Arc<Copies<K>>,
}

/// Whether products read a copy of a parameter.
fn copied<K: Element>(parameter: &Parameter) -> bool {
    K::GROUP > 1 && parameter.role == Role::Weight
}

/// The place of the parameter of a name that every model has.
pub(super) fn place(parameters: &[Parameter], name: &str) -> usize {
    find(parameters, name).unwrap_or_else(|| unreachable!("the list of parameters has no {name}"))
}

/// The place of the parameter of a name, where the model has one.
pub(super) fn find(parameters: &[Parameter], name: &str) -> Option<usize> {
    parameters.iter().position(|parameter| parameter.name == name)
}

impl<K: Element> Mirror<K> {
    pub fn new(kernels: &Kernels, parameters: &Arc<Vec<Parameter>>) -> Self {
        let copy = |parameter: &Parameter| {
            let (k, n) = parameter.matrix();
            copied::<K>(parameter).then(|| Packed::zeroed(kernels, k, n))
        };
        let copies = Arc::new(parameters.iter().map(copy).collect());
        Mirror { parameters: parameters.clone(), state: Mutex::new(State { copies, stale: true }) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters, of which copies have been made anew where their masters have changed.
    pub fn current(&self, kernels: &Kernels, masters: &Flat<f32, Cpu>) -> Parameters<K> {
        let mut state = self.lock();
        if std::mem::take(&mut state.stale) {
            let copies = Arc::make_mut(&mut state.copies);
            for (place, copy) in copies.iter_mut().enumerate() {
                if let (Some(copy), Some(range)) = (copy, masters.layout().range(place)) {
                    copy.pack(kernels, &masters.tower(self.parameters[place].tower)[range]);
                }
            }
        }
        let (parameters, copies) = (self.parameters.clone(), state.copies.clone());
        Parameters { parameters, masters: masters.clone(), copies }
    }

    /// Makes values the copy of the weight at a place.
    pub fn copy(&self, kernels: &Kernels, place: usize, values: &[f32]) {
        if let Some(copy) = &mut Arc::make_mut(&mut self.lock().copies)[place] {
            copy.pack(kernels, values);
        }
    }
}

impl<K: Element> Parameters<K> {
    /// The master of the parameter at a place.
    pub fn vector(&self, place: usize) -> &[f32] {
        let range = self.masters.layout().range(place);
        &self.masters.tower(self.parameters[place].tower)[range.unwrap_or_default()]
    }

    /// The weight at a place.
    pub fn weight(&self, place: usize) -> Weight<'_, K> {
        match &self.copies[place] {
            Some(copy) => Weight::packed(copy),
            None => {
                let (k, n) = self.parameters[place].matrix();
                Weight::master(self.vector(place), k, n)
            }
        }
    }

    /// The norm whose scale is at a place, its shift behind it.
    pub fn norm(&self, place: usize) -> Norm<'_> {
        Norm { scale: self.vector(place), shift: self.vector(place + 1) }
    }

    /// The blocks whose first parameter is at a place.
    pub fn stack(&self, shape: Shape, first: usize) -> Stack<'_, K> {
        let at = move |block: usize, part: Part| first + block * Part::ALL.len() + part as usize;
        Stack::new(shape, |i, part| self.vector(at(i, part)), |i, part| self.weight(at(i, part)))
    }
}

/// Disjoint ranges of one buffer, in its order.
pub(super) fn split(
    mut values: &mut [f32],
    ranges: impl Iterator<Item = (usize, Range<usize>)>,
) -> Vec<(usize, &mut [f32])> {
    let mut at = 0;
    let cut = ranges.map(|(place, range)| {
        let (own, rest) = std::mem::take(&mut values)[range.start - at..].split_at_mut(range.len());
        (values, at) = (rest, range.end);
        (place, own)
    });
    cut.collect()
}

/// The gradients of a tower's parameters, in the order of the list.
pub(super) fn gradients(all: &mut Flat<f32, Cpu>, tower: Tower) -> Vec<&mut [f32]> {
    let layout = all.layout().clone();
    let split = split(all.tower_mut(tower), layout.ranges(tower));
    split.into_iter().map(|(_, gradient)| gradient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_where_they_lie() {
        let mut values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let cut = split(&mut values, [(3, 0..2), (5, 4..7), (6, 7..8)].into_iter());
        let cut: Vec<(usize, Vec<f32>)> = cut.into_iter().map(|(place, own)| (place, own.to_vec())).collect();
        assert_eq!(cut, [(3, vec![0.0, 1.0]), (5, vec![4.0, 5.0, 6.0]), (6, vec![7.0])]);
    }
}
