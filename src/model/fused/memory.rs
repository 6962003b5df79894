//! Activations, taken once for a batch size and a number of tokens and used again in every step.

use std::sync::{Arc, Mutex, PoisonError};

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
    free: Arc<Mutex<Vec<(Purpose, Activations<K>)>>>,
    recompute: Recompute,
}

impl<K> Clone for Arenas<K> {
    fn clone(&self) -> Self {
        Arenas { free: self.free.clone(), recompute: self.recompute }
    }
}

/// What a forward pass keeps.
pub(super) fn keep(record: bool, recompute: Recompute) -> Keep {
    match (record, recompute) {
        (false, _) => Keep::Nothing,
        (true, Recompute::None) => Keep::Everything,
        (true, Recompute::Blocks) => Keep::Inputs,
    }
}

/// Arenas kept for later: training and evaluation.
const KEPT: usize = 2;

impl<K: Element> Arenas<K> {
    pub fn new(recompute: Recompute) -> Self {
        Arenas { free: Arc::default(), recompute }
    }

    /// Bytes of the arenas that are not in use.
    pub fn bytes(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(|(_, arena)| arena.held()).sum()
    }

    /// An arena; what is in it is left over from its last use.
    pub fn take(&self, shape: &Shape, purpose: Purpose) -> Activations<K> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|(made_for, _)| *made_for == purpose) {
            Some(index) => free.swap_remove(index).1,
            None => {
                Activations::new(shape, purpose.batch, purpose.tokens, keep(purpose.record, self.recompute))
            }
        }
    }

    pub fn give_back(&self, purpose: Purpose, arena: Activations<K>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() >= KEPT {
            free.remove(0);
        }
        free.push((purpose, arena));
    }
}
