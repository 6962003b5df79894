//! Activations, taken once for a batch size and a number of tokens and used again in every step.

use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::element::Element;
use crate::kernel::transformer::{Activations, Shape};

/// What an arena is for: pairs, tokens of each, and whether a backward pass follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purpose {
    pub batch: usize,
    pub tokens: usize,
    pub record: bool,
}

/// Arenas that are not in use.
#[derive(Debug)]
pub(super) struct Arenas<K>(Arc<Mutex<Vec<(Purpose, Activations<K>)>>>);

impl<K> Clone for Arenas<K> {
    fn clone(&self) -> Self {
        Arenas(self.0.clone())
    }
}

/// Arenas kept for later: training and evaluation.
const KEPT: usize = 2;

impl<K: Element> Arenas<K> {
    pub fn new() -> Self {
        Arenas(Arc::new(Mutex::new(Vec::new())))
    }

    /// An arena; what is in it is left over from its last use.
    pub fn take(&self, shape: &Shape, purpose: Purpose) -> Activations<K> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|(made_for, _)| *made_for == purpose) {
            Some(index) => free.swap_remove(index).1,
            // Without a backward pass one block's memory serves all.
            None => Activations::new(shape, purpose.batch, purpose.tokens, !purpose.record),
        }
    }

    pub fn give_back(&self, purpose: Purpose, arena: Activations<K>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() >= KEPT {
            free.remove(0);
        }
        free.push((purpose, arena));
    }
}
