//! The image encoder: a vision transformer that embeds only the kept patches.

use dfdx::prelude::*;

use super::attention_pool::AttentionPool;
use super::block::{Block, BlockOptions};
use super::config::{ImagePool, ImageTowerConfig, Normalisation};
use super::gradients::Leaves;
use super::input::ImageInput;
use super::layer::{LayerNorm, Linear, Matrix, Sequences};
use super::loss::unit_length;
use super::spec::{CLASS_TOKEN, IMAGE_POSITIONS};
use super::{patch, position};
use crate::parameter::Ranges;

/// Patch embedding, class token, positions, blocks, norm, pool, projection.
#[derive(Debug, Clone)]
pub(crate) struct ImageTower<E: Dtype, D: Storage<E>> {
    /// [patch * patch * 3, width].
    patch: Linear<E, D>,
    /// [width].
    class_token: Option<Matrix<E, D>>,
    /// [prefix + grid^2, width], the class token's first; none where they are computed.
    positions: Option<Matrix<E, D>>,
    pre_norm: Option<LayerNorm<E, D>>,
    blocks: Vec<Block<E, D>>,
    norm: LayerNorm<E, D>,
    attention_pool: Option<AttentionPool<E, D>>,
    projection: Option<Linear<E, D>>,
    config: ImageTowerConfig,
    normalisation: Normalisation,
}

impl<E: Dtype, D: Ranges<E>> ImageTower<E, D> {
    pub fn new<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        config: &ImageTowerConfig,
        normalisation: Normalisation,
    ) -> Result<Self, D::Err> {
        let &ImageTowerConfig { heads, activation, norm_eps, .. } = config;
        let options = BlockOptions { heads, activation, norm_eps };
        Ok(ImageTower {
            patch: Linear::new(leaves, "image.patch")?,
            class_token: leaves.find(CLASS_TOKEN)?,
            positions: leaves.find(IMAGE_POSITIONS)?,
            pre_norm: LayerNorm::find(leaves, "image.pre_norm", norm_eps)?,
            blocks: (0..config.depth)
                .map(|i| Block::new(leaves, &format!("image.blocks.{i}"), options))
                .collect::<Result<_, _>>()?,
            norm: LayerNorm::new(leaves, "image.norm", norm_eps)?,
            attention_pool: match config.pool {
                ImagePool::Attention => Some(AttentionPool::new(leaves, heads, activation, norm_eps)?),
                _ => None,
            },
            projection: Linear::find_projection(leaves, "image")?,
            config: config.clone(),
            normalisation,
        })
    }

    /// Unit embeddings [batch, embed_dim] of a checked input. Everything is recorded on `tape`, which the parameters come with.
    pub fn encode<T: Tape<E, D>>(&self, tape: T, input: &ImageInput) -> Result<Matrix<E, D, T>, D::Err> {
        let (batch, tokens, width) =
            (input.kept.batch, self.config.prefix() + input.kept.kept, self.config.width);
        let mut x = self.embed(tape, input)?;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(x)?;
        }
        for block in &self.blocks {
            x = block.forward(x, batch, None)?;
        }
        let pooled = match self.config.pool {
            ImagePool::Mean => {
                self.norm.forward(x)?.try_reshape_like(&(batch, tokens, width))?.try_mean::<_, Axis<1>>()?
            }
            // The norm is one of each token alone, so only the pooled token needs it.
            ImagePool::ClassToken => {
                let first = self.device().try_tensor_from_vec(vec![0; batch], (batch,))?;
                self.norm.forward(x.try_reshape_like(&(batch, tokens, width))?.try_select(first)?)?
            }
            ImagePool::Patches => {
                let tokens = x.try_reshape_like(&(batch, tokens, width))?;
                let patches = tokens.try_slice((0..batch, self.config.prefix().., 0..width))?;
                let patches = patches.try_reshape_like(&(batch, input.kept.kept, width))?;
                self.norm.forward(patches.try_mean::<_, Axis<1>>()?)?
            }
            ImagePool::Attention => {
                let pool = self.attention_pool.as_ref();
                let pool = pool.unwrap_or_else(|| unreachable!("the pool of this configuration is made"));
                pool.forward(self.norm.forward(x)?, batch)?
            }
        };
        let projected = match &self.projection {
            Some(projection) => projection.forward(pooled)?,
            None => pooled,
        };
        unit_length(projected, self.normalisation)
    }

    /// Class token and kept patches with their positions, [batch * (1 + kept), width].
    fn embed<T: Tape<E, D>>(&self, tape: T, input: &ImageInput) -> Result<Matrix<E, D, T>, D::Err> {
        let (kept, width) = (&input.kept, self.config.width);
        let (batch, tokens) = (kept.batch, self.config.prefix() + kept.kept);
        let patches = patch::normalised(&input.patches, &self.config.pixels);
        let patches =
            self.device().try_tensor_from_vec(patches, (kept.ids.len(), self.config.patch_values()))?;
        let mut x = self.patch.forward(patches.put_tape(tape))?;
        if self.positions.is_none() {
            let rows = position::sin_cos(kept, input.grid, self.config.grid(), width);
            x = x.try_add(self.device().try_tensor_from_vec(rows, (kept.ids.len(), width))?)?;
        }
        let x = x.try_reshape_like(&(batch, kept.kept, width))?;
        let x = match &self.class_token {
            Some(class) => {
                let class = class.retaped::<T>().try_reshape_like(&(width,))?;
                let class = class.try_broadcast_like::<_, Axes2<0, 1>>(&(batch, 1, width))?;
                (class, x).try_concat_along(Axis::<1>)?
            }
            None => x,
        };
        let x = match &self.positions {
            Some(positions) => x.try_add(self.learned_positions::<T>(positions, input)?)?,
            None => x,
        };
        x.try_reshape_like(&(batch * tokens, width))
    }

    /// Rows of the learned positions, the class token's first, [batch, prefix + kept, width].
    fn learned_positions<T: Tape<E, D>>(
        &self,
        positions: &Matrix<E, D>,
        input: &ImageInput,
    ) -> Result<Sequences<E, D, T>, D::Err> {
        let (kept, grid, prefix) = (&input.kept, self.config.grid(), self.config.prefix());
        let table = positions.retaped::<T>();
        let table = if input.grid == grid {
            table
        } else {
            let shape = (prefix + input.grid * input.grid, prefix + grid * grid);
            let resampling =
                self.device().try_tensor_from_vec(position::resampling(input.grid, grid, prefix), shape)?;
            resampling.put_tape(T::default()).try_matmul(table)?
        };
        let rows = kept.ids.chunks_exact(kept.kept);
        let rows =
            rows.flat_map(|ids| (0..prefix).chain(ids.iter().map(|&id| prefix + id as usize))).collect();
        table.try_gather(self.device().try_tensor_from_vec(rows, (kept.batch, prefix + kept.kept))?)
    }

    fn device(&self) -> &D {
        self.patch.weight.device()
    }
}
