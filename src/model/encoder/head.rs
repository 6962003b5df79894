//! The end of both encoders, after their blocks: final norm, pooling, projection, unit length.

use super::names::Names;
use crate::kernel::arena::Arena;
use crate::kernel::backend::{Backend, Input, Needs, Pool, SavedNorm, Weights};
use crate::kernel::transformer::{Activations, Backward, Gradients, Keep, Scaled, Shape};
use crate::kernel::unit_norm::Length;
use crate::kernel::view::{Number, View, ViewMut};
use crate::model::config::{ModelConfig, Normalisation};

/// Places of the parameters of an encoder's head, and its options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    norm: Scaled<usize>,
    /// [width, embed_dim].
    projection: usize,
    width: usize,
    embed_dim: usize,
    norm_eps: f32,
    length: Length,
    /// All tokens are pooled; else one of each sequence.
    pub mean: bool,
}

/// Memory of a head for a pass.
pub(super) struct HeadParts<'a, E> {
    norm: SavedNorm<'a, E>,
    /// The token that stands for each sequence.
    pub places: ViewMut<'a, u32>,
    /// [batch, width].
    pub pooled: ViewMut<'a, E>,
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
    pub fn new(
        config: &ModelConfig,
        names: &Names,
        tower: &str,
        &Shape { width, norm_eps, .. }: &Shape,
        mean: bool,
    ) -> Self {
        let length = match config.normalisation {
            Normalisation::AddEps => Length::Plus(1e-8),
            Normalisation::MaxEps => Length::AtLeast(1e-12),
        };
        let norm = names.norm(&format!("{tower}.norm"));
        let projection = names.place(&format!("{tower}.projection"));
        Head { norm, projection, width, embed_dim: config.embed_dim, norm_eps, length, mean }
    }

    pub fn take<'a, E: Number>(
        &self,
        arena: &mut Arena<'a>,
        needs: Needs,
        batch: usize,
        tokens: usize,
        keep: Keep,
    ) -> HeadParts<'a, E> {
        let &Head { width, embed_dim, mean, .. } = self;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        let normed = if needs.norms_pooled_alone && !mean { batch } else { batch * tokens };
        HeadParts {
            norm: SavedNorm::take(arena, normed, width),
            places: arena.take(if mean { 0 } else { batch }),
            pooled: arena.take(batch * width),
            raw: arena.take(batch * embed_dim),
            z: arena.take(batch * embed_dim),
            norms: arena.take(batch),
            draw: arena.take(backward(batch * embed_dim)),
            dpooled: arena.take(backward(batch * width)),
        }
    }

    fn pool<'a>(&self, places: &'a ViewMut<u32>) -> Pool<'a> {
        match self.mean {
            true => Pool::Mean,
            false => Pool::At(places.view()),
        }
    }

    /// parts.z = unit embeddings of `activations.x`.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        parts: &mut HeadParts<B::Element>,
    ) -> Result<(), B::Error> {
        let HeadParts { norm: saved, places, pooled, raw, z, norms, .. } = parts;
        let (backend, pool) = (weights.backend, self.pool(places));
        let (x, room) = (activations.x.view(), activations.wide.reborrow());
        let norm = weights.norm(self.norm, self.norm_eps);
        backend.norm_and_pool(pooled.reborrow(), saved, x, norm, pool, room)?;
        backend.project(raw.reborrow(), pooled.view(), weights.weight(self.projection))?;
        backend.unit_norm(z.reborrow(), norms.reborrow(), raw.view(), self.length)
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
        let HeadParts { norm: saved, places, pooled, raw, z, norms, draw, dpooled } = parts;
        let (backend, pool) = (weights.backend, self.pool(places));
        let Backward { dx, wide, mut scratch, .. } = activations.backward();
        backend.unit_norm_backward(raw.reborrow(), dz, z.view(), norms.view(), self.length)?;
        backend.round(draw.reborrow(), raw.view())?;
        let [dw] = gradients.at([self.projection]);
        let x = Input::Rows { values: pooled.view(), width: self.width };
        backend.weight_gradient(dw, None, x, draw.view(), scratch.reborrow())?;
        backend.project_backward(dpooled.reborrow(), draw.view(), weights.weight(self.projection))?;
        let (dnorm, scale) =
            (gradients.at([self.norm.scale, self.norm.shift]), weights.vector(self.norm.scale));
        backend.norm_and_pool_backward(dx, dnorm, dpooled.view(), saved, scale, pool, wide, scratch)
    }
}
