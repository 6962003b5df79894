//! Attention of one learned query over the tokens of each sequence: for head h, `p = softmax over tokens of q k^T / sqrt(head)`,
//! `out = p v`.
//!
//! | slice | shape |
//! |---|---|
//! | `query` | [heads * head] f32 |
//! | `kv` | [batch * tokens, 2 * heads * head]: keys of all heads, then values |
//! | `out` | [batch, heads * head] |
//! | `lse` | [batch * heads] f32: log of the sum of exponentials of the scores |
//! | `dout`, `dkv`, `dquery` | as `out`, `kv`, `query` |
//!
//! `dkv` is `=`, `dquery` is `+=`. Sums are f32 and taken in the order of tokens and sequences.

pub mod cuda;

use super::element::Element;
use super::Cpu;

/// Sizes of an attention pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionPool {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    pub heads: usize,
    /// Width of a head.
    pub head: usize,
}

impl AttentionPool {
    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// 1 / sqrt(head).
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }

    fn check(&self, query: usize, kv: usize, pooled: usize, lse: usize) {
        let width = self.width();
        assert!(query == width && kv == self.batch * self.tokens * 2 * width, "keys and values of {self:?}");
        assert!(pooled == self.batch * width && lse == self.batch * self.heads, "outputs of {self:?}");
    }
}

/// The keys and values of a head in a sequence [tokens, 2 * width].
#[derive(Clone, Copy)]
struct Head<'a, E> {
    kv: &'a [E],
    width: usize,
    /// First column.
    at: usize,
    head: usize,
}

impl<'a, E> Head<'a, E> {
    fn keys(self) -> impl Iterator<Item = &'a [E]> {
        self.kv.chunks(2 * self.width).map(move |row| &row[self.at..self.at + self.head])
    }

    fn values(self) -> impl Iterator<Item = &'a [E]> {
        let at = self.width + self.at;
        self.kv.chunks(2 * self.width).map(move |row| &row[at..at + self.head])
    }
}

fn dot<A: Element, B: Element>(a: &[A], b: &[B]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum()
}

/// to += share * from.
fn add_share<E: Element>(to: &mut [f32], share: f32, from: &[E]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += share * from.to_f32());
}

fn put<E: Element>(to: &mut [E], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = E::from_f32(*from));
}

/// out, lse = attention of the query.
pub fn forward<E: Element>(
    cpu: &Cpu,
    out: &mut [E],
    lse: &mut [f32],
    query: &[f32],
    kv: &[E],
    of: AttentionPool,
) {
    let (width, scale) = (of.width(), of.scale());
    of.check(query.len(), kv.len(), out.len(), lse.len());
    let pieces = out.chunks_mut(width).zip(lse.chunks_mut(of.heads)).zip(kv.chunks(of.tokens * 2 * width));
    cpu.threads.each(pieces, |_, ((out, lse), kv)| {
        let heads = out.chunks_mut(of.head).zip(query.chunks(of.head)).zip(lse).enumerate();
        for (h, ((out, query), lse)) in heads {
            let head = Head { kv, width, at: h * of.head, head: of.head };
            let scores: Vec<f32> = head.keys().map(|key| scale * dot(query, key)).collect();
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f32 = scores.iter().map(|score| (score - most).exp()).sum();
            *lse = most + total.ln();
            let mut sums = vec![0.0; of.head];
            for (score, value) in scores.iter().zip(head.values()) {
                add_share(&mut sums, (score - *lse).exp(), value);
            }
            put(out, &sums);
        }
    });
}

/// dkv, dquery = gradients of [`forward`] for the gradient `dout` of its output.
pub fn backward<E: Element>(
    cpu: &Cpu,
    (dkv, dquery): (&mut [E], &mut [f32]),
    dout: &[E],
    query: &[f32],
    kv: &[E],
    lse: &[f32],
    of: AttentionPool,
) {
    let (width, scale) = (of.width(), of.scale());
    of.check(query.len(), kv.len(), dout.len(), lse.len());
    assert!(dkv.len() == kv.len() && dquery.len() == width, "gradients of {of:?}");
    let sequence = of.tokens * 2 * width;
    let mut dqueries = vec![0.0; of.batch * width];
    let pieces =
        dkv.chunks_mut(sequence).zip(dqueries.chunks_mut(width)).zip(kv.chunks(sequence)).enumerate();
    cpu.threads.each(pieces, |_, (b, ((dkv, dquery), kv))| {
        for (h, dquery) in dquery.chunks_mut(of.head).enumerate() {
            let columns = h * of.head..(h + 1) * of.head;
            let (query, dout) = (&query[columns.clone()], &dout[b * width..][columns.clone()]);
            let head = Head { kv, width, at: columns.start, head: of.head };
            let share = |key: &[E]| (scale * dot(query, key) - lse[b * of.heads + h]).exp();
            let shares: Vec<f32> = head.keys().map(share).collect();
            let dshares: Vec<f32> = head.values().map(|value| dot(dout, value)).collect();
            let mean: f32 = shares.iter().zip(&dshares).map(|(share, dshare)| share * dshare).sum();
            for (t, (key, row)) in head.keys().zip(dkv.chunks_mut(2 * width)).enumerate() {
                let dscore = scale * shares[t] * (dshares[t] - mean);
                add_share(dquery, dscore, key);
                let (dkeys, dvalues) = row.split_at_mut(width);
                let along = |factor: f32, from: &[f32]| from.iter().map(|x| factor * x).collect::<Vec<f32>>();
                put(&mut dkeys[columns.clone()], &along(dscore, query));
                let dout: Vec<f32> = dout.iter().map(|x| x.to_f32()).collect();
                put(&mut dvalues[columns.clone()], &along(shares[t], &dout));
            }
        }
    });
    for of_sequence in dqueries.chunks(width) {
        dquery.iter_mut().zip(of_sequence).for_each(|(sum, part)| *sum += part);
    }
}
