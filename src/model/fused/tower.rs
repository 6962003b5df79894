//! What both encoders do after their blocks: final norm, pooling, projection, unit length.

use super::values::Parameters;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Grid, Write};
use crate::kernel::gemm::{weight_gradient, Left};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::patches;
use crate::kernel::pool::{self, Pool};
use crate::kernel::transformer::Norm;
use crate::kernel::unit_norm::{self, Length};
use crate::kernel::Cpu as Kernels;

/// A forward pass that remembers how to go back.
pub(super) trait Recorded {
    /// Adds to the gradients of all parameters of the tower, in the order of the list, what the gradient
    /// [batch, embed_dim] of the embeddings contributes.
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]);
}

/// The head of an encoder: its options, and where its parameters are in the list of all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub norm_eps: f32,
    pub length: Length,
    /// Scale of the norm; its shift is behind it.
    pub norm: usize,
    /// [width, embed_dim].
    pub projection: usize,
}

/// Which token stands for a sequence: one each, or all of them.
pub(super) type PooledTokens = Option<Vec<u32>>;

/// What the head keeps of a forward pass.
#[derive(Debug)]
pub(super) struct HeadSaved<K> {
    /// The norm's input without mean and deviation; of all tokens, or of the pooled ones.
    normal: Vec<K>,
    rstd: Vec<f32>,
    /// [batch, width].
    pooled: Vec<K>,
    z: Vec<f32>,
    norms: Vec<f32>,
}

impl Head {
    /// Unit embeddings [batch, embed_dim] of x [batch * tokens, width].
    pub fn forward<K: Element>(
        &self,
        kernels: &Kernels,
        parameters: &Parameters<K>,
        x: &[f32],
        tokens: usize,
        places: &PooledTokens,
    ) -> (Vec<f32>, HeadSaved<K>) {
        let (Norm { scale, shift }, projection) =
            (parameters.norm(self.norm), parameters.weight(self.projection));
        let (width, embed_dim) = (projection.k, projection.n);
        let batch = x.len() / (tokens * width);
        let mut pooled = vec![K::default(); batch * width];
        // The norm is one of each token alone, so where one token is pooled only that one needs it.
        let chosen = places.as_ref().map(|places| {
            let mut chosen = vec![0.0; batch * width];
            pool::forward(kernels, &mut chosen, x, Pool::At(places), tokens, width);
            chosen
        });
        let from = chosen.as_deref().unwrap_or(x);
        let mut normed = vec![0.0f32; from.len()];
        let mut normal = vec![K::default(); from.len()];
        let mut rstd = vec![0.0; from.len() / width];
        layer_norm::forward(kernels, &mut normed, &mut normal, &mut rstd, from, scale, shift, self.norm_eps);
        match places {
            Some(_) => patches::from_floats(kernels, &mut pooled, &normed),
            None => pool::forward(kernels, &mut pooled, &normed, Pool::Mean, tokens, width),
        }
        let mut raw = vec![0.0f32; batch * embed_dim];
        let to = Write { to: Grid::new(&mut raw, embed_dim), bias: None };
        projection.forward(kernels, &to, Left::whole(&pooled, width), batch);
        let (mut z, mut norms) = (vec![0.0; raw.len()], vec![0.0; batch]);
        unit_norm::forward(kernels, &mut z, &mut norms, &raw, self.length);
        (z.clone(), HeadSaved { normal, rstd, pooled, z, norms })
    }

    /// Sets dx [batch * tokens, width], and adds to the gradients of scale, shift and projection.
    #[allow(clippy::too_many_arguments)]
    pub fn backward<K: Element>(
        &self,
        kernels: &Kernels,
        parameters: &Parameters<K>,
        dx: &mut [f32],
        [dscale, dshift, dprojection]: [&mut [f32]; 3],
        of_z: &[f32],
        saved: &HeadSaved<K>,
        tokens: usize,
        places: &PooledTokens,
    ) {
        let (Norm { scale, .. }, projection) =
            (parameters.norm(self.norm), parameters.weight(self.projection));
        let (width, embed_dim) = (projection.k, projection.n);
        let batch = of_z.len() / embed_dim;
        let mut of_raw = vec![0.0; of_z.len()];
        unit_norm::backward(kernels, &mut of_raw, of_z, &saved.z, &saved.norms, self.length);
        let mut rounded = vec![K::default(); of_raw.len()];
        patches::from_floats(kernels, &mut rounded, &of_raw);
        let pooled = Left::Columns { data: &saved.pooled, stride: width };
        let sizes = (batch, width, embed_dim);
        weight_gradient(kernels, dprojection, None, pooled, (&rounded, embed_dim), sizes);
        let mut of_pooled = vec![0.0f32; batch * width];
        let to = Write { to: Grid::new(&mut of_pooled, width), bias: None };
        projection.backward(kernels, &to, Left::whole(&rounded, embed_dim), batch);

        let norm = Saved { normal: &saved.normal, rstd: &saved.rstd };
        let mut of_normed = vec![K::default(); saved.normal.len()];
        match places {
            None => {
                pool::backward(kernels, &mut of_normed, &of_pooled, Pool::Mean, tokens, width);
                dx.fill(0.0);
                layer_norm::backward(kernels, dx, None, dscale, dshift, &of_normed, norm, scale);
            }
            Some(places) => {
                patches::from_floats(kernels, &mut of_normed, &of_pooled);
                let mut of_chosen = vec![0.0; batch * width];
                layer_norm::backward(kernels, &mut of_chosen, None, dscale, dshift, &of_normed, norm, scale);
                pool::backward(kernels, dx, &of_chosen, Pool::At(places), tokens, width);
            }
        }
    }
}
