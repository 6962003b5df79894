//! The pre-norm transformer block both towers share:
//! h = x + Attention(LayerNorm(x)), y = h + MLP(LayerNorm(h)).

use dfdx::prelude::*;

use super::config::Activation;
use super::gradients::Leaves;
use super::layer::{rows_of, LayerNorm, Linear, Matrix, Sequences};
use crate::parameter::{rounded, Ranges};

/// Multi-head self-attention. The heads of q, k and v are contiguous groups of columns.
#[derive(Debug, Clone)]
pub(crate) struct Attention<E: Dtype, D: Storage<E>> {
    /// [width, 3 width]: columns of q, of k, of v.
    qkv: Linear<E, D>,
    /// [width, width].
    out: Linear<E, D>,
    heads: usize,
}

/// Two linear layers around a non-linearity.
#[derive(Debug, Clone)]
pub(crate) struct Mlp<E: Dtype, D: Storage<E>> {
    /// [width, hidden].
    up: Linear<E, D>,
    /// [hidden, width].
    down: Linear<E, D>,
    activation: Activation,
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Block<E: Dtype, D: Storage<E>> {
    norm1: LayerNorm<E, D>,
    attention: Attention<E, D>,
    norm2: LayerNorm<E, D>,
    mlp: Mlp<E, D>,
}

/// Options of the blocks of a tower.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockOptions {
    pub heads: usize,
    pub activation: Activation,
    pub norm_eps: f64,
}

impl<E: Dtype, D: Ranges<E>> Block<E, D> {
    pub fn new<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        name: &str,
        options: BlockOptions,
    ) -> Result<Self, D::Err> {
        let BlockOptions { heads, activation, norm_eps } = options;
        Ok(Block {
            norm1: LayerNorm::new(leaves, &format!("{name}.norm1"), norm_eps)?,
            attention: Attention {
                qkv: Linear::new(leaves, &format!("{name}.attention.qkv"))?,
                out: Linear::new(leaves, &format!("{name}.attention.out"))?,
                heads,
            },
            norm2: LayerNorm::new(leaves, &format!("{name}.norm2"), norm_eps)?,
            mlp: Mlp::new(leaves, &format!("{name}.mlp"), activation)?,
        })
    }

    /// [batch * tokens, width] -> the same. `hidden` [batch, tokens, tokens] is added to the attention
    /// logits: 0 where a token is seen, minus infinity where not.
    pub fn forward<T: Tape<E, D>>(
        &self,
        x: Matrix<E, D, T>,
        batch: usize,
        hidden: Option<&Sequences<E, D>>,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        let seen = self.attention.forward(self.norm1.forward(x.retaped::<T>())?, batch, hidden)?;
        let x = x.try_add(seen)?;
        let thought = self.mlp.forward(self.norm2.forward(x.retaped::<T>())?)?;
        x.try_add(thought)
    }
}

impl<E: Dtype, D: Ranges<E>> Mlp<E, D> {
    pub fn new<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        name: &str,
        activation: Activation,
    ) -> Result<Self, D::Err> {
        let up = Linear::new(leaves, &format!("{name}.up"))?;
        Ok(Mlp { up, down: Linear::new(leaves, &format!("{name}.down"))?, activation })
    }

    /// [rows, width] -> [rows, width].
    pub fn forward<T: Tape<E, D>>(&self, x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
        self.down.forward(self.activation.forward(self.up.forward(x)?)?)
    }
}

impl<E: Dtype, D: Ranges<E>> Attention<E, D> {
    fn forward<T: Tape<E, D>>(
        &self,
        x: Matrix<E, D, T>,
        batch: usize,
        hidden: Option<&Sequences<E, D>>,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        let (rows, width) = *x.shape();
        let (tokens, head) = (rows / batch, width / self.heads);
        let by_head = (batch, tokens, self.heads, head);

        let query = self.third(0, x.retaped::<T>())?.try_mul(rounded::<E>(1.0 / (head as f64).sqrt()))?;
        let key = self.third(1, x.retaped::<T>())?;
        let value = self.third(2, x)?;
        let query = query.try_reshape_like(&by_head)?.try_permute::<_, Axes4<0, 2, 1, 3>>()?;
        let key = key.try_reshape_like(&by_head)?.try_permute::<_, Axes4<0, 2, 3, 1>>()?;
        let value = value.try_reshape_like(&by_head)?.try_permute::<_, Axes4<0, 2, 1, 3>>()?;

        let logits = query.try_matmul(key)?;
        let logits = match hidden {
            Some(hidden) => {
                let shape = *logits.shape();
                logits.try_add(hidden.clone().try_broadcast_like::<_, Axis<1>>(&shape)?)?
            }
            None => logits,
        };
        let context = logits.try_softmax::<Axis<3>>()?.try_matmul(value)?;
        let context = context.try_permute::<_, Axes4<0, 2, 1, 3>>()?.try_reshape_like(&(rows, width))?;
        self.out.forward(context)
    }

    /// q, k or v: [rows, width] -> [rows, width]. The weights are cut rather than the product, which has
    /// more rows. Each third is cut once a pass: dfdx's backward of a slice overwrites.
    fn third<T: Tape<E, D>>(&self, which: usize, x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
        let (rows, width) = *x.shape();
        let columns = which * width..(which + 1) * width;
        let weight = self.qkv.weight.retaped::<T>().try_slice((0..width, columns.clone()))?;
        let y = x.try_matmul(weight)?;
        match &self.qkv.bias {
            Some(bias) => y.try_add(rows_of(bias.retaped::<T>().try_slice((0..1, columns))?, rows)?),
            None => Ok(y),
        }
    }
}
