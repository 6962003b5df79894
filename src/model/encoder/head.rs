//! The end of both encoders, after their blocks: final norm, pooling, projection, unit length.

use super::attention_pool::{LatentParts, LatentPool};
use super::names::Names;
use crate::kernel::arena::Arena;
use crate::kernel::backend::{Backend, Input, Needs, Pool, SavedNorm, Weights};
use crate::kernel::tokens::Sequences;
use crate::kernel::transformer::{Activations, Backward, Gradients, Keep, Scaled, Shape};
use crate::kernel::unit_norm::Length;
use crate::kernel::view::{Number, View, ViewMut};
use crate::model::config::{ModelConfig, Normalisation};

/// The way from tokens to one vector.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pooling {
    /// All tokens, normed.
    Mean,
    /// The token at a place of each sequence, normed.
    Place,
    /// All tokens behind so many; then the norm.
    Patches { prefix: usize },
    /// Attention of a query over all tokens, normed.
    Attention,
}

/// Places of the parameters of an encoder's head, and its options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    norm: Scaled<usize>,
    /// [width, embed_dim], where there is one.
    projection: Option<usize>,
    projection_bias: Option<usize>,
    latent: Option<LatentPool>,
    width: usize,
    embed_dim: usize,
    norm_eps: f32,
    length: Length,
    pub pooling: Pooling,
}

/// Memory of a head for a pass.
pub(super) struct HeadParts<'a, E> {
    norm: SavedNorm<'a, E>,
    /// The token that stands for each sequence.
    pub places: ViewMut<'a, u32>,
    /// [batch, width].
    pub pooled: ViewMut<'a, E>,
    /// [batch, width]: as `pooled`, before it is normed or rounded; then its gradient.
    whole: ViewMut<'a, f32>,
    latent: Option<LatentParts<'a, E>>,
    /// [batch, embed_dim]: the projection; then its gradient.
    raw: ViewMut<'a, f32>,
    pub z: ViewMut<'a, f32>,
    norms: ViewMut<'a, f32>,
    /// [batch, embed_dim] and [batch, width]: gradients.
    draw: ViewMut<'a, E>,
    dpooled: ViewMut<'a, f32>,
}

impl Head {
    /// The head of the encoder of a name.
    pub fn new(config: &ModelConfig, names: &Names, tower: &str, shape: &Shape, pooling: Pooling) -> Self {
        let length = match config.normalisation {
            Normalisation::AddEps => Length::Plus(1e-8),
            Normalisation::MaxEps => Length::AtLeast(1e-12),
        };
        Head {
            norm: names.norm(&format!("{tower}.norm")),
            projection: names.find(&format!("{tower}.projection")),
            projection_bias: names.find(&format!("{tower}.projection_bias")),
            latent: matches!(pooling, Pooling::Attention).then(|| LatentPool::new(names, shape)),
            width: shape.width,
            embed_dim: config.embed_dim,
            norm_eps: shape.norm_eps,
            length,
            pooling,
        }
    }

    pub fn take<'a, E: Number>(
        &self,
        arena: &mut Arena<'a>,
        needs: Needs,
        batch: usize,
        tokens: usize,
        keep: Keep,
    ) -> HeadParts<'a, E> {
        let &Head { width, embed_dim, pooling, .. } = self;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        let normed = match pooling {
            Pooling::Patches { .. } => batch,
            Pooling::Place if needs.norms_pooled_alone => batch,
            _ => batch * tokens,
        };
        let whole = matches!(pooling, Pooling::Patches { .. } | Pooling::Attention);
        HeadParts {
            norm: SavedNorm::take(arena, normed, width),
            places: arena.take(if matches!(pooling, Pooling::Place) { batch } else { 0 }),
            pooled: arena.take(batch * width),
            whole: arena.take(if whole { batch * width } else { 0 }),
            latent: self.latent.map(|latent| latent.take(arena, (batch, tokens), keep)),
            raw: arena.take(batch * embed_dim),
            z: arena.take(batch * embed_dim),
            norms: arena.take(batch),
            draw: arena.take(backward(batch * embed_dim)),
            dpooled: arena.take(backward(batch * width)),
        }
    }

    fn pool<'a>(&self, places: &'a ViewMut<u32>) -> Pool<'a> {
        match self.pooling {
            Pooling::Place => Pool::At(places.view()),
            _ => Pool::Mean,
        }
    }

    /// Sequences of as many tokens as `x` [batch * tokens, width] has.
    fn sequences(&self, x: usize, batch: usize, prefix: usize) -> Sequences {
        Sequences { batch, kept: x / (batch * self.width) - prefix, prefix, width: self.width }
    }

    /// parts.z = unit embeddings of `activations.x`.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        parts: &mut HeadParts<B::Element>,
    ) -> Result<(), B::Error> {
        self.pooled(weights, activations, parts)?;
        let backend = weights.backend;
        let HeadParts { pooled, whole, raw, z, norms, .. } = parts;
        match (self.projection, self.projection_bias) {
            (None, _) => backend.copy(raw.reborrow(), whole.view())?,
            (Some(weight), None) => backend.project(raw.reborrow(), pooled.view(), weights.weight(weight))?,
            (Some(weight), Some(bias)) => {
                backend.clear(raw.reborrow())?;
                let (weight, bias) = (weights.weight(weight), weights.vector(bias));
                backend.linear_add(raw.reborrow(), pooled.view(), weight, bias)?
            }
        }
        backend.unit_norm(z.reborrow(), norms.reborrow(), raw.view(), self.length)
    }

    /// parts.pooled, and parts.whole where no projection follows.
    fn pooled<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        parts: &mut HeadParts<B::Element>,
    ) -> Result<(), B::Error> {
        let HeadParts { norm: saved, places, pooled, whole, latent, .. } = parts;
        let (backend, norm) = (weights.backend, weights.norm(self.norm, self.norm_eps));
        let x = activations.x.view();
        match (self.pooling, &self.latent, latent) {
            (Pooling::Patches { prefix }, ..) => {
                let of = self.sequences(x.len(), whole.len() / self.width, prefix);
                backend.mean_of_patches(whole.reborrow(), x, of)?;
                backend.layer_norm(pooled.reborrow(), saved, whole.view(), norm)
            }
            (Pooling::Attention, Some(latent), Some(parts)) => {
                let tokens = &mut activations.rounded;
                backend.layer_norm(tokens.reborrow(), saved, x, norm)?;
                latent.forward(weights, whole.reborrow(), tokens.view(), parts)?;
                backend.round(pooled.reborrow(), whole.view())
            }
            _ => {
                let room = activations.wide.reborrow();
                backend.norm_and_pool(pooled.reborrow(), saved, x, norm, self.pool(places), room)
            }
        }
    }

    /// Sets the gradient of the residual stream, and adds to the gradients of norm and projection.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        parts: &mut HeadParts<B::Element>,
        dz: View<f32>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let HeadParts { pooled, raw, z, norms, draw, dpooled, .. } = parts;
        let backend = weights.backend;
        let Backward { mut scratch, .. } = activations.backward();
        backend.unit_norm_backward(raw.reborrow(), dz, z.view(), norms.view(), self.length)?;
        match self.projection {
            None => backend.copy(dpooled.reborrow(), raw.view())?,
            Some(projection) => {
                backend.round(draw.reborrow(), raw.view())?;
                let (dw, db) = gradients.with(projection, self.projection_bias);
                let x = Input::Rows { values: pooled.view(), width: self.width };
                backend.weight_gradient(dw, db, x, draw.view(), scratch.reborrow())?;
                backend.project_backward(dpooled.reborrow(), draw.view(), weights.weight(projection))?;
            }
        }
        self.pooled_backward(weights, activations, parts, gradients)
    }

    /// From the gradient of the pooled vectors to that of the residual stream.
    fn pooled_backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        parts: &mut HeadParts<B::Element>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let HeadParts { norm: saved, places, pooled, whole, latent, dpooled, .. } = parts;
        let (backend, scale) = (weights.backend, weights.vector(self.norm.scale));
        let Backward { mut dx, rounded: mut dtokens, wide, mut scratch } = activations.backward();
        let norm = [self.norm.scale, self.norm.shift];
        match (self.pooling, &self.latent, latent) {
            (Pooling::Patches { prefix }, ..) => {
                let of = self.sequences(dx.len(), whole.len() / self.width, prefix);
                backend.round(pooled.reborrow(), dpooled.view())?;
                backend.clear(whole.reborrow())?;
                let (to, dy) = (whole.reborrow(), pooled.view());
                backend.layer_norm_backward(to, None, gradients.at(norm), dy, saved, scale, scratch)?;
                backend.mean_of_patches_backward(dx, whole.view(), of)
            }
            (Pooling::Attention, Some(latent), Some(parts)) => {
                let mut room = wide;
                let places = (dtokens.reborrow(), room.part(0, dx.len()));
                let (dy, tokens) = (dpooled.reborrow(), (&*saved, self.norm));
                latent.backward(weights, dy, places, tokens, parts, (gradients, scratch.reborrow()))?;
                backend.clear(dx.reborrow())?;
                let dnorm = gradients.at(norm);
                backend.layer_norm_backward(dx, None, dnorm, dtokens.view(), saved, scale, scratch)
            }
            _ => {
                let (pool, dnorm) = (self.pool(places), gradients.at(norm));
                backend.norm_and_pool_backward(dx, dnorm, dpooled.view(), saved, scale, pool, wide, scratch)
            }
        }
    }
}
