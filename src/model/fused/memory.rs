//! Activations, taken once for a batch size and a number of tokens and used again in every step.

use std::sync::{Mutex, PoisonError};

use crate::kernel::element::Element;
use crate::kernel::transformer::{Activations, Keep, Shape};
use crate::model::config::Recompute;

/// What an arena is for: pairs, tokens of each, and whether a backward pass follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purpose {
    pub batch: usize,
    pub tokens: usize,
    pub record: bool,
}

/// Arenas that are not in use.
#[derive(Debug)]
pub(super) struct Arenas<K> {
    free: Mutex<Free<K>>,
    recompute: Recompute,
}

#[derive(Debug)]
struct Free<K> {
    arenas: Vec<(Purpose, Activations<K>)>,
    /// Arenas in use, and how many ever were at a time: as many are kept, where a step records several micro-batches
    /// before it goes back.
    out: usize,
    most: usize,
}

impl<K> Default for Free<K> {
    fn default() -> Self {
        Free { arenas: Vec::new(), out: 0, most: 0 }
    }
}

/// What a forward pass keeps.
pub(in crate::model) fn keep(record: bool, recompute: Recompute) -> Keep {
    match (record, recompute) {
        (false, _) => Keep::Nothing,
        (true, Recompute::None) => Keep::Everything,
        (true, Recompute::Blocks) => Keep::Inputs,
    }
}

/// Arenas kept for later, at least: training and evaluation.
const KEPT: usize = 2;

impl<K: Element> Arenas<K> {
    pub fn new(recompute: Recompute) -> Self {
        Arenas { free: Mutex::default(), recompute }
    }

    /// Bytes of the arenas that are not in use.
    pub fn bytes(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.arenas.iter().map(|(_, arena)| arena.held()).sum()
    }

    /// An arena; what is in it is left over from its last use.
    pub fn take(&self, shape: &Shape, purpose: Purpose) -> Activations<K> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.out += 1;
        free.most = free.most.max(free.out);
        match free.arenas.iter().position(|(made_for, _)| *made_for == purpose) {
            Some(index) => free.arenas.swap_remove(index).1,
            None => {
                Activations::new(shape, purpose.batch, purpose.tokens, keep(purpose.record, self.recompute))
            }
        }
    }

    pub fn give_back(&self, purpose: Purpose, arena: Activations<K>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.out = free.out.saturating_sub(1);
        if free.arenas.len() >= free.most.max(KEPT) {
            free.arenas.remove(0);
        }
        free.arenas.push((purpose, arena));
    }
}
