//! What both encoders do after their blocks.

use super::HeadSizes;
use crate::kernel::cuda::copies::{Copies, Reads};
use crate::kernel::cuda::room::Room;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::Weight;
use crate::kernel::pool::cuda::Pool;
use crate::kernel::transformer::cuda::Activations;
use crate::kernel::transformer::Keep;
use crate::kernel::{gemm, layer_norm, patches, pool, unit_norm};

/// The head of an encoder among its parameters: the norm's scale and shift, the projection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub sizes: HeadSizes,
    pub width: usize,
    /// The number of its first parameter.
    pub first: usize,
    /// Whether all tokens are pooled; else one of each sequence.
    pub mean: bool,
}

/// Parameters of a head.
pub(super) const PARAMETERS: usize = 3;

/// Memory of a head for a pass.
pub(super) struct HeadParts<'a> {
    /// [batch * tokens, width], the norm's input without mean and deviation.
    normal: ViewMut<'a, Bf16>,
    rstd: ViewMut<'a, f32>,
    /// The token that stands for each sequence.
    pub places: ViewMut<'a, u32>,
    /// [batch, width].
    pooled: ViewMut<'a, Bf16>,
    /// [batch, embed_dim]: the projection; then a gradient.
    raw: ViewMut<'a, f32>,
    pub z: ViewMut<'a, f32>,
    norms: ViewMut<'a, f32>,
    /// [batch, embed_dim] and [batch, width]: gradients.
    rounded: ViewMut<'a, Bf16>,
    of_pooled: ViewMut<'a, f32>,
}

impl Head {
    pub fn reads(&self) -> [(Reads, usize); PARAMETERS] {
        let &Head { width, sizes, .. } = self;
        [(Reads::Float, width), (Reads::Float, width), (Reads::Half, width * sizes.embed_dim)]
    }

    pub fn take<'a>(&self, room: &mut Room<'a>, batch: usize, tokens: usize, keep: Keep) -> HeadParts<'a> {
        let (width, embed_dim) = (self.width, self.sizes.embed_dim);
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        HeadParts {
            normal: room.take(batch * tokens * width),
            rstd: room.take(batch * tokens),
            places: room.take(batch),
            pooled: room.take(batch * width),
            raw: room.take(batch * embed_dim),
            z: room.take(batch * embed_dim),
            norms: room.take(batch),
            rounded: room.take(backward(batch * embed_dim)),
            of_pooled: room.take(backward(batch * width)),
        }
    }

    fn projection<'a, M: Machine>(&self, machine: &M, copies: &'a Copies<M>) -> Weight<'a> {
        Weight { values: copies.half(machine, self.first + 2), k: self.width, n: self.sizes.embed_dim }
    }

    /// parts.z = unit embeddings of `activations.x`.
    pub fn forward<M: Machine>(
        &self,
        machine: &M,
        copies: &Copies<M>,
        activations: &mut Activations,
        parts: &mut HeadParts,
        tokens: usize,
    ) -> Result<(), MachineError> {
        let HeadParts { normal, rstd, places, pooled, raw, z, norms, .. } = parts;
        let (scale, shift) = (copies.float(machine, self.first), copies.float(machine, self.first + 1));
        let Activations { x, normed, .. } = activations;
        let saved = (normal.again(), rstd.again());
        let eps = self.sizes.norm_eps;
        layer_norm::cuda::forward(machine, normed.again(), saved.0, saved.1, x.read(), scale, shift, eps)?;
        let pool = if self.mean { Pool::Mean } else { Pool::At(places.read()) };
        pool::cuda::forward(machine, pooled.again(), normed.read(), pool, tokens, self.width)?;
        gemm::cuda::forward(machine, raw.again(), pooled.read(), self.projection(machine, copies))?;
        unit_norm::cuda::forward(machine, z.again(), norms.again(), raw.read(), self.sizes.length)
    }

    /// Sets `activations.dx`, and adds to the gradients of scale, shift and projection.
    #[allow(clippy::too_many_arguments)]
    pub fn backward<M: Machine>(
        &self,
        machine: &M,
        copies: &Copies<M>,
        activations: &mut Activations,
        parts: &mut HeadParts,
        gradients: &mut [ViewMut<f32>],
        dz: View<f32>,
        tokens: usize,
    ) -> Result<(), MachineError> {
        let [dscale, dshift, dprojection] = gradients else {
            unreachable!("a head has a norm and a projection")
        };
        let HeadParts { normal, rstd, places, pooled, raw, z, norms, rounded, of_pooled } = parts;
        let Activations { dx, normed, partial, .. } = activations;
        let length = self.sizes.length;
        unit_norm::cuda::backward(machine, raw.again(), dz, z.read(), norms.read(), length)?;
        patches::cuda::from_floats(machine, rounded.again(), raw.read())?;
        let (x, dy) = ((pooled.read(), self.width), (rounded.read(), self.sizes.embed_dim));
        gemm::cuda::weight_gradient(machine, dprojection.again(), None, partial.again(), x, dy)?;
        let projection = self.projection(machine, copies);
        gemm::cuda::backward(machine, of_pooled.again(), rounded.read(), projection)?;
        let pool = if self.mean { Pool::Mean } else { Pool::At(places.read()) };
        pool::cuda::backward(machine, normed.again(), of_pooled.read(), pool, tokens, self.width)?;
        machine.clear(dx.again())?;
        layer_norm::cuda::backward(
            machine,
            dx.again(),
            None,
            dscale.again(),
            dshift.again(),
            partial.again(),
            normed.read(),
            (normal.read(), rstd.read()),
            copies.float(machine, self.first),
        )
    }
}
