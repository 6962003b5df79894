//! Multi-head self-attention over short sequences: a whole head stays in one thread's cache.
//!
//! For every sequence b and head h, with q, k, v of [tokens, head]:
//! `S = q k^T / sqrt(head)`, `P = softmax over keys of S`, `out = P v`.
//!
//! | slice | shape |
//! |---|---|
//! | `qkv` | [batch * tokens, 3 * heads * head]: queries of all heads, then keys, then values |
//! | `out` | [batch * tokens, heads * head] |
//! | `lse` | [batch * heads * tokens] f32: log of the sum of exponentials of each row of S; all that is saved |
//! | `dout`, `dqkv` | as `out`, `qkv` |
//!
//! The backward pass takes S, P and the output anew. Every gradient is `=`. Products are of `E`; softmax is f32.

mod backward;
pub mod cuda;
mod forward;
pub mod reference;

pub use backward::backward;
pub use forward::forward;

use super::gemm::small::{left_words, right_words};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    pub heads: usize,
    /// Width of a head.
    pub head: usize,
    /// A token sees only itself and those before it.
    pub causal: bool,
}

impl Attention {
    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Values of `lse`.
    pub fn saved(&self) -> usize {
        self.batch * self.heads * self.tokens
    }

    /// 1 / sqrt(head).
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }

    /// Columns of a row of S: a multiple of every vector.
    fn columns(&self) -> usize {
        self.tokens.next_multiple_of(16)
    }

    /// Number of keys that query `i` sees.
    #[inline(always)]
    fn seen(&self, i: usize) -> usize {
        if self.causal {
            i + 1
        } else {
            self.tokens
        }
    }

    /// Words of the largest packed operand of one head.
    fn operand_words(&self, group: usize) -> usize {
        let (t, h) = (self.tokens, self.head);
        let right = right_words(h, t, group).max(right_words(t, h, group));
        let left = left_words(t, t, group).max(left_words(t, h, group));
        right.max(left).next_multiple_of(16)
    }
}
