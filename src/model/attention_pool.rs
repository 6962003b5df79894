//! Attention of one learned query over all tokens of an image, with an MLP behind it: the head of SigLIP's image towers
//! (timm's `AttentionPoolLatent`, whose latent and query projection are one vector here).

use dfdx::prelude::*;

use super::block::Mlp;
use super::config::Activation;
use super::gradients::Leaves;
use super::layer::{rows_of, LayerNorm, Linear, Matrix};
use super::spec::ATTENTION_POOL;
use crate::parameter::{rounded, Ranges};

/// y = out(attention(query, keys, values)), then y + mlp(norm(y)).
#[derive(Debug, Clone)]
pub(crate) struct AttentionPool<E: Dtype, D: Storage<E>> {
    /// [width].
    query: Matrix<E, D>,
    /// [width, 2 width]: columns of keys, then of values.
    kv: Linear<E, D>,
    out: Linear<E, D>,
    norm: LayerNorm<E, D>,
    mlp: Mlp<E, D>,
    heads: usize,
}

impl<E: Dtype, D: Ranges<E>> AttentionPool<E, D> {
    pub fn new<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        heads: usize,
        activation: Activation,
        norm_eps: f64,
    ) -> Result<Self, D::Err> {
        let name = |part: &str| format!("{ATTENTION_POOL}.{part}");
        Ok(AttentionPool {
            query: leaves.take(&name("query"))?,
            kv: Linear::new(leaves, &name("kv"))?,
            out: Linear::new(leaves, &name("out"))?,
            norm: LayerNorm::new(leaves, &name("norm"), norm_eps)?,
            mlp: Mlp::new(leaves, &name("mlp"), activation)?,
            heads,
        })
    }

    /// [batch * tokens, width] -> [batch, width].
    pub fn forward<T: Tape<E, D>>(
        &self,
        x: Matrix<E, D, T>,
        batch: usize,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        let (rows, width) = *x.shape();
        let (tokens, head) = (rows / batch, width / self.heads);
        let by_head = (batch, tokens, self.heads, head);
        let key = self.half(0, x.retaped::<T>())?.try_reshape_like(&by_head)?;
        let value = self.half(1, x)?.try_reshape_like(&by_head)?;
        let key = key.try_permute::<_, Axes4<0, 2, 3, 1>>()?;
        let value = value.try_permute::<_, Axes4<0, 2, 1, 3>>()?;
        let query = self.query.retaped::<T>().try_mul(rounded::<E>(1.0 / (head as f64).sqrt()))?;
        let query = query.try_reshape_like(&(self.heads, 1, head))?;
        let query = query.try_broadcast_like::<_, Axis<0>>(&(batch, self.heads, 1, head))?;
        let shares = query.try_matmul(key)?.try_softmax::<Axis<3>>()?;
        let mixed = shares.try_matmul(value)?.try_reshape_like(&(batch, width))?;
        let y = self.out.forward(mixed)?;
        let thought = self.mlp.forward(self.norm.forward(y.retaped::<T>())?)?;
        y.try_add(thought)
    }

    /// Keys or values: [rows, width] -> [rows, width]. The weights are cut rather than the product; see the attention of blocks.
    fn half<T: Tape<E, D>>(&self, which: usize, x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
        let (rows, width) = *x.shape();
        let columns = which * width..(which + 1) * width;
        let weight = self.kv.weight.retaped::<T>().try_slice((0..width, columns.clone()))?;
        let y = x.try_matmul(weight)?;
        match &self.kv.bias {
            Some(bias) => y.try_add(rows_of(bias.retaped::<T>().try_slice((0..1, columns))?, rows)?),
            None => Ok(y),
        }
    }
}
