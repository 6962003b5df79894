//! The text encoder: a transformer over the kept tokens. Padding is a token like any other, as in the
//! official code.

use dfdx::prelude::*;

use super::block::{Block, BlockOptions};
use super::config::{Normalisation, TextPool, TextTowerConfig};
use super::gradients::Leaves;
use super::input::TextInput;
use super::layer::{LayerNorm, Linear, Matrix, Sequences};
use super::loss::unit_length;
use super::spec::{TEXT_POSITIONS, TOKENS};
use crate::parameter::{rounded, Ranges};

/// Token embedding, positions, blocks, norm, pool, projection.
#[derive(Debug, Clone)]
pub(crate) struct TextTower<E: Dtype, D: Storage<E>> {
    /// [vocab_size, width].
    tokens: Matrix<E, D>,
    /// [context, width].
    positions: Matrix<E, D>,
    blocks: Vec<Block<E, D>>,
    norm: LayerNorm<E, D>,
    projection: Linear<E, D>,
    config: TextTowerConfig,
    normalisation: Normalisation,
}

impl<E: Dtype, D: Ranges<E>> TextTower<E, D> {
    pub fn new<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        config: &TextTowerConfig,
        normalisation: Normalisation,
    ) -> Result<Self, D::Err> {
        let &TextTowerConfig { heads, activation, norm_eps, .. } = config;
        let options = BlockOptions { heads, activation, norm_eps };
        Ok(TextTower {
            tokens: leaves.take(TOKENS)?,
            positions: leaves.take(TEXT_POSITIONS)?,
            blocks: (0..config.depth)
                .map(|i| Block::new(leaves, &format!("text.blocks.{i}"), options))
                .collect::<Result<_, _>>()?,
            norm: LayerNorm::new(leaves, "text.norm", norm_eps)?,
            projection: Linear::projection(leaves, "text")?,
            config: config.clone(),
            normalisation,
        })
    }

    /// Unit embeddings [batch, embed_dim] of a checked input. Everything is recorded on `tape`, which the parameters come with.
    pub fn encode<T: Tape<E, D>>(&self, tape: T, input: &TextInput) -> Result<Matrix<E, D, T>, D::Err> {
        let (batch, kept, width) = (input.kept.batch, input.kept.kept, self.config.width);
        let rows = |ids: &[u32]| {
            self.device().try_tensor_from_vec(ids.iter().map(|&id| id as usize).collect(), (ids.len(),))
        };
        let tokens = self.tokens.clone().put_tape(tape).try_gather(rows(&input.tokens)?)?;
        let positions = self.positions.retaped::<T>().try_gather(rows(&input.kept.ids)?)?;
        let mut x: Matrix<E, D, T> = tokens.try_add(positions)?;
        let hidden = self.config.causal.then(|| self.hidden(input)).transpose()?;
        for block in &self.blocks {
            x = block.forward(x, batch, hidden.as_ref())?;
        }
        let pooled = match pooled_tokens(input, self.config.pool) {
            None => {
                self.norm.forward(x)?.try_reshape_like(&(batch, kept, width))?.try_mean::<_, Axis<1>>()?
            }
            // The norm is one of each token alone, so only the pooled token needs it.
            Some(places) => {
                let places = self.device().try_tensor_from_vec(places, (batch,))?;
                self.norm.forward(x.try_reshape_like(&(batch, kept, width))?.try_select(places)?)?
            }
        };
        unit_length(self.projection.forward(pooled)?, self.normalisation)
    }

    /// The mask of the attention logits, [batch, kept, kept]: minus infinity for tokens that come later in the
    /// caption, in whatever order they were kept.
    fn hidden(&self, input: &TextInput) -> Result<Sequences<E, D>, D::Err> {
        let (batch, kept) = (input.kept.batch, input.kept.kept);
        let (seen, unseen) = (rounded::<E>(0.0), rounded::<E>(f64::NEG_INFINITY));
        let mut hidden = Vec::with_capacity(batch * kept * kept);
        for row in input.kept.ids.chunks_exact(kept) {
            for &query in row {
                hidden.extend(row.iter().map(|&key| if key <= query { seen } else { unseen }));
            }
        }
        self.device().try_tensor_from_vec(hidden, (batch, kept, kept))
    }

    fn device(&self) -> &D {
        self.tokens.device()
    }
}

/// The kept token of each row that stands for the caption; none where all do.
pub(crate) fn pooled_tokens(input: &TextInput, pool: TextPool) -> Option<Vec<usize>> {
    let kept = input.kept.kept;
    match pool {
        TextPool::Mean => None,
        TextPool::First => Some(input.kept.ids.chunks_exact(kept).map(|row| first(row, u32::lt)).collect()),
        TextPool::Last => Some(input.kept.ids.chunks_exact(kept).map(|row| first(row, u32::gt)).collect()),
        TextPool::Token(id) => {
            let place = |row: &[u32]| row.iter().position(|&token| token == id).unwrap_or(0);
            Some(input.tokens.chunks_exact(kept).map(place).collect())
        }
        TextPool::EndOfText => Some(input.tokens.chunks_exact(kept).map(|row| first(row, u32::gt)).collect()),
    }
}

/// Index of the first element that no other one beats.
fn first(row: &[u32], beats: impl Fn(&u32, &u32) -> bool) -> usize {
    (1..row.len()).fold(0, |best, i| if beats(&row[i], &row[best]) { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Kept;

    #[test]
    fn pools_the_first_position_the_last_or_the_first_largest_id() {
        let kept = Kept { ids: vec![3, 0, 2, 1, 2, 4], batch: 2, kept: 3, of: 5 };
        let input = TextInput { tokens: vec![5, 9, 9, 7, 1, 7], kept };
        assert_eq!(pooled_tokens(&input, TextPool::First), Some(vec![1, 0]));
        assert_eq!(pooled_tokens(&input, TextPool::EndOfText), Some(vec![1, 0]));
        assert_eq!(pooled_tokens(&input, TextPool::Last), Some(vec![0, 2]));
        assert_eq!(pooled_tokens(&input, TextPool::Token(7)), Some(vec![0, 0]));
        assert_eq!(pooled_tokens(&input, TextPool::Token(1)), Some(vec![0, 1]));
        assert_eq!(pooled_tokens(&input, TextPool::Mean), None);
    }
}
