//! The attention pool at the end of an image encoder, from normed tokens to one vector; see the composed graph's of the same name.

use super::names::Names;
use crate::kernel::activation::Activation;
use crate::kernel::arena::Arena;
use crate::kernel::attention_pool::AttentionPool;
use crate::kernel::backend::{Activated, Backend, Input, SavedNorm, Weights};
use crate::kernel::transformer::{Gradients, Keep, Linear, Scaled, Shape};
use crate::kernel::view::{Number, View, ViewMut};
use crate::model::spec::ATTENTION_POOL;

/// Places of the parameters, and sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatentPool {
    query: usize,
    kv: Linear<usize>,
    out: Linear<usize>,
    norm: Scaled<usize>,
    up: Linear<usize>,
    down: Linear<usize>,
    heads: usize,
    width: usize,
    hidden: usize,
    activation: Activation,
    norm_eps: f32,
}

/// Memory for a pass.
pub(super) struct LatentParts<'a, E> {
    /// [batch * tokens, 2 width]: keys and values; and their gradient.
    kv: ViewMut<'a, E>,
    dkv: ViewMut<'a, E>,
    /// [batch * heads].
    lse: ViewMut<'a, f32>,
    /// [batch, width]: what the query sees.
    mixed: ViewMut<'a, E>,
    norm: SavedNorm<'a, E>,
    /// [batch, width]: output of the norm; then gradients.
    normed: ViewMut<'a, E>,
    /// [batch, hidden].
    before: ViewMut<'a, E>,
    after: ViewMut<'a, E>,
    /// [batch, width]: gradients.
    rounded: ViewMut<'a, E>,
    dqueries: ViewMut<'a, f32>,
}

impl LatentPool {
    pub fn new(names: &Names, shape: &Shape) -> Self {
        let place = |part: &str| names.place(&format!("{ATTENTION_POOL}.{part}"));
        let linear = |part: &str| Linear {
            weight: place(&format!("{part}.weight")),
            bias: place(&format!("{part}.bias")),
        };
        LatentPool {
            query: place("query"),
            kv: linear("kv"),
            out: linear("out"),
            norm: names.norm(&format!("{ATTENTION_POOL}.norm")),
            up: linear("mlp.up"),
            down: linear("mlp.down"),
            heads: shape.heads,
            width: shape.width,
            hidden: shape.hidden,
            activation: shape.activation,
            norm_eps: shape.norm_eps,
        }
    }

    pub fn take<'a, E: Number>(
        &self,
        arena: &mut Arena<'a>,
        (batch, tokens): (usize, usize),
        keep: Keep,
    ) -> LatentParts<'a, E> {
        let &LatentPool { heads, width, hidden, .. } = self;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        LatentParts {
            kv: arena.take(batch * tokens * 2 * width),
            dkv: arena.take(backward(batch * tokens * 2 * width)),
            lse: arena.take(batch * heads),
            mixed: arena.take(batch * width),
            norm: SavedNorm::take(arena, batch, width),
            normed: arena.take(batch * width),
            before: arena.take(batch * hidden),
            after: arena.take(batch * hidden),
            rounded: arena.take(backward(batch * width)),
            dqueries: arena.take(backward(batch * width)),
        }
    }

    fn sizes<E: Number>(&self, parts: &LatentParts<E>) -> AttentionPool {
        let batch = parts.lse.len() / self.heads;
        let tokens = parts.kv.len() / (2 * self.width * batch);
        AttentionPool { batch, tokens, heads: self.heads, head: self.width / self.heads }
    }

    /// y [batch, width] from normed tokens [batch * tokens, width].
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        mut y: ViewMut<f32>,
        tokens: View<B::Element>,
        parts: &mut LatentParts<B::Element>,
    ) -> Result<(), B::Error> {
        let (backend, of) = (weights.backend, self.sizes(parts));
        let LatentParts { kv, lse, mixed, norm: saved, normed, before, after, .. } = parts;
        let (weight, bias) = (weights.weight(self.kv.weight), weights.rounded(self.kv.bias));
        backend.linear(kv.reborrow(), tokens, weight, bias)?;
        backend.attend(mixed.reborrow(), lse.reborrow(), weights.vector(self.query), kv.view(), of)?;
        backend.clear(y.reborrow())?;
        let (weight, bias) = (weights.weight(self.out.weight), weights.vector(self.out.bias));
        backend.linear_add(y.reborrow(), mixed.view(), weight, bias)?;
        backend.layer_norm(normed.reborrow(), saved, y.view(), weights.norm(self.norm, self.norm_eps))?;
        let to = Activated { before: before.reborrow(), after: after.reborrow() };
        let (weight, bias) = (weights.weight(self.up.weight), weights.rounded(self.up.bias));
        backend.linear_activate(to, normed.view(), weight, bias, self.activation)?;
        let (weight, bias) = (weights.weight(self.down.weight), weights.vector(self.down.bias));
        backend.linear_add(y, after.view(), weight, bias)
    }

    /// From the gradient `dy` of the output, which is used up, to `dtokens` of the normed tokens, which `saved` and `norm` make
    /// again; adds to the gradients of all parameters. `room` is as large as the tokens.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        mut dy: ViewMut<f32>,
        (dtokens, room): (ViewMut<B::Element>, ViewMut<B::Element>),
        (saved_tokens, norm_of_tokens): (&SavedNorm<B::Element>, Scaled<usize>),
        parts: &mut LatentParts<B::Element>,
        (gradients, mut scratch): (&mut Gradients, ViewMut<f32>),
    ) -> Result<(), B::Error> {
        let (backend, of, width) = (weights.backend, self.sizes(parts), self.width);
        let LatentParts { kv, dkv, lse, mixed, norm: saved, normed, before, after, rounded, dqueries } =
            parts;
        backend.round(rounded.reborrow(), dy.view())?;
        let to = Activated { before: before.reborrow(), after: after.reborrow() };
        let weight = weights.weight(self.down.weight);
        backend.linear_activate_backward(to, rounded.view(), weight, self.activation)?;
        let [dw, db] = gradients.at([self.down.weight, self.down.bias]);
        let x = Input::Rows { values: before.view(), width: self.hidden };
        backend.weight_gradient(dw, Some(db), x, rounded.view(), scratch.reborrow())?;
        let norm = weights.norm(self.norm, self.norm_eps);
        let [dw, db] = gradients.at([self.up.weight, self.up.bias]);
        let x = Input::Normed { saved, norm, room: normed.reborrow() };
        backend.weight_gradient(dw, Some(db), x, after.view(), scratch.reborrow())?;
        backend.linear_backward(normed.reborrow(), after.view(), weights.weight(self.up.weight))?;
        let (copy, dnorm) = (Some(rounded.reborrow()), gradients.at([self.norm.scale, self.norm.shift]));
        let to = dy.reborrow();
        backend.layer_norm_backward(to, copy, dnorm, normed.view(), saved, norm.scale, scratch.reborrow())?;

        let [dw, db] = gradients.at([self.out.weight, self.out.bias]);
        let x = Input::Rows { values: mixed.view(), width };
        backend.weight_gradient(dw, Some(db), x, rounded.view(), scratch.reborrow())?;
        backend.linear_backward(normed.reborrow(), rounded.view(), weights.weight(self.out.weight))?;
        let [dquery] = gradients.at([self.query]);
        let query = weights.vector(self.query);
        let to = (dkv.reborrow(), dquery);
        backend.attend_backward(to, dqueries.reborrow(), normed.view(), query, kv.view(), lse.view(), of)?;
        let [dw, db] = gradients.at([self.kv.weight, self.kv.bias]);
        let norm = weights.norm(norm_of_tokens, self.norm_eps);
        let x = Input::Normed { saved: saved_tokens, norm, room };
        backend.weight_gradient(dw, Some(db), x, dkv.view(), scratch)?;
        backend.linear_backward(dtokens, dkv.view(), weights.weight(self.kv.weight))
    }
}
