//! A stack of pre-norm transformer blocks, forward and backward, as both encoders use it:
//!
//! ```text
//! x += out(attention(qkv(norm1(x))))
//! x += down(activation(up(norm2(x))))
//! ```
//!
//! `x` is the residual stream, [batch * tokens, width], in f32 and in place; products are of
//! [`Backend::Element`](super::backend::Backend::Element). Values that a
//! block saves for its backward pass are listed in [`Activations`]; parameter gradients are `+=`. The activation and the outputs
//! of the norms are computed anew in the backward pass.

mod activations;
mod backward;
mod forward;
pub mod reference;

pub use activations::{Activations, Backward, Keep};

use super::activation::Activation;
use super::attention::Attention;
use super::view::ViewMut;

/// Sizes of a stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width inside the MLP.
    pub hidden: usize,
    pub activation: Activation,
    /// A token sees only itself and those before it.
    pub causal: bool,
    /// Added to the variance inside the square root of LayerNorm.
    pub norm_eps: f32,
}

impl Shape {
    /// Attention over `batch` sequences of `tokens`.
    pub fn attention(&self, batch: usize, tokens: usize) -> Attention {
        let head = self.width / self.heads;
        Attention { batch, tokens, heads: self.heads, head, causal: self.causal }
    }
}

/// Parameters of a LayerNorm, or something of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled<T> {
    /// `[width]`.
    pub scale: T,
    pub shift: T,
}

/// Parameters of a linear layer, or something of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear<T> {
    /// [in, out].
    pub weight: T,
    /// `[out]`.
    pub bias: T,
}

/// Parameters of a block, or something of each: places in a list, values, sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<T> {
    pub norm1: Scaled<T>,
    /// Out are queries, keys, values; within each, head after head.
    pub qkv: Linear<T>,
    pub out: Linear<T>,
    pub norm2: Scaled<T>,
    pub up: Linear<T>,
    pub down: Linear<T>,
}

impl<T> Block<T> {
    /// One for each name of a parameter.
    pub fn from_names(mut of: impl FnMut(&str) -> T) -> Self {
        let mut norm =
            |name: &str| Scaled { scale: of(&format!("{name}.scale")), shift: of(&format!("{name}.shift")) };
        let (norm1, norm2) = (norm("norm1"), norm("norm2"));
        let mut linear =
            |name: &str| Linear { weight: of(&format!("{name}.weight")), bias: of(&format!("{name}.bias")) };
        Block {
            norm1,
            qkv: linear("attention.qkv"),
            out: linear("attention.out"),
            norm2,
            up: linear("mlp.up"),
            down: linear("mlp.down"),
        }
    }
}

/// Blocks by the places of their parameters in a list.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    pub shape: &'a Shape,
    pub blocks: &'a [Block<usize>],
}

/// Gradients by the places of their parameters in a list; none of those that a pass has nothing to do with.
#[derive(Debug)]
pub struct Gradients<'a>(pub Vec<Option<ViewMut<'a, f32>>>);

impl Gradients<'_> {
    /// The gradients of the parameters at these places, which differ.
    pub fn at<const N: usize>(&mut self, places: [usize; N]) -> [ViewMut<'_, f32>; N] {
        let found = self.0.get_disjoint_mut(places);
        let found = found.unwrap_or_else(|_| unreachable!("places {places:?} differ"));
        found.map(|gradient| match gradient {
            Some(gradient) => gradient.reborrow(),
            None => unreachable!("there is no gradient at one of {places:?}"),
        })
    }

    /// The gradient of a parameter and that of another one, where the model has it.
    pub fn with(
        &mut self,
        place: usize,
        other: Option<usize>,
    ) -> (ViewMut<'_, f32>, Option<ViewMut<'_, f32>>) {
        match other {
            Some(other) => {
                let [first, second] = self.at([place, other]);
                (first, Some(second))
            }
            None => {
                let [only] = self.at([place]);
                (only, None)
            }
        }
    }
}
