//! The operations of the encoders on a [`Gpu`], in [`Bf16`]: launches of its kernels and products.

use super::{
    Activated, Backend, HeldBytes, Input, Needs, Norm, Pixels, Pool, Read, SavedNorm, Size, TokenGradients,
    Updated, Widths,
};
use crate::kernel::activation::Activation;
use crate::kernel::adamw::cuda::Tensor;
use crate::kernel::adamw::AdamW;
use crate::kernel::attention::{self, cuda::HEADS, Attention};
use crate::kernel::attention_pool::{self, AttentionPool};
use crate::kernel::contrastive::tiles::Contrastive;
use crate::kernel::contrastive::{self, Loss};
use crate::kernel::cuda::phase::Phase;
use crate::kernel::cuda::{Gpu, GpuError, Incoming, Update};
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::{add_product, product, Matrix, Weight};
use crate::kernel::tokens::cuda::{Scatter, ScatterViews};
use crate::kernel::tokens::{Added, Sequences};
use crate::kernel::transformer::Shape;
use crate::kernel::unit_norm::Length;
use crate::kernel::view::{View, ViewMut};
use crate::kernel::{gemm, layer_norm, patches, pool, tokens, unit_norm};

/// Memory that a GPU's operations keep: images on their way, tables of the update, scratch memory of the loss.
pub struct State<G: Gpu> {
    incoming: Incoming<G>,
    update: Update<G>,
    loss: Contrastive<G>,
}

/// The sizes of blocks that a GPU has no kernels for; `None` where it has.
pub fn lacking(shape: &Shape) -> Option<String> {
    let head = shape.width / shape.heads;
    if !HEADS.contains(&head) {
        return Some(format!("heads of a width in {HEADS:?}, not {head} (width / heads)"));
    }
    let even = shape.width.is_multiple_of(8) && shape.hidden.is_multiple_of(8);
    (!even).then(|| format!("widths that 8 divides, not {} and {}", shape.width, shape.hidden))
}

type Done = Result<(), GpuError>;

/// Memory of a pass. To compute attention's output anew would be half of attention's forward pass.
pub const NEEDS: Needs = Needs {
    keeps_attention: true,
    norms_pooled_alone: false,
    scratch: |Widths { rows, width, widest, statistics }| {
        let sums = layer_norm::cuda::partial_len(rows, width).max(gemm::cuda::partial_len(rows, widest));
        sums.max(statistics)
    },
    scatter: |rows| 3 * rows + 1,
};

impl<G: Gpu> Backend for G {
    type Element = Bf16;
    type Copy = G::Buffer<Bf16>;
    type Weight<'a> = Weight<'a>;
    type Rounded<'a> = View<'a, Bf16>;
    type State = State<G>;

    const NEEDS: Needs = NEEDS;
    const PREFETCHES: bool = true;

    fn state(&self) -> Result<State<G>, GpuError> {
        Ok(State {
            incoming: Incoming::new(self)?,
            update: Update::new(self)?,
            loss: Contrastive::new(self)?,
        })
    }
    fn incoming_bytes(state: &State<G>) -> usize {
        state.incoming.bytes()
    }

    fn new_copy(&self, size: Size) -> Result<Option<G::Buffer<Bf16>>, GpuError> {
        match size.read {
            Read::Master => Ok(None),
            Read::Weight | Read::Rounded => self.zeros(size.rows * size.columns).map(Some),
        }
    }
    fn fill_copy(&self, copy: &mut G::Buffer<Bf16>, master: View<f32>) -> Done {
        patches::cuda::from_floats(self, self.view_mut(copy), master)
    }
    fn fill_copy_from_host(&self, copy: &mut G::Buffer<Bf16>, values: &[f32]) -> Done {
        let values = self.upload(values)?;
        self.fill_copy(copy, self.view(&values))
    }
    fn weight<'a>(
        &self,
        copy: Option<&'a G::Buffer<Bf16>>,
        _: Option<View<'a, f32>>,
        size: Size,
    ) -> Weight<'a> {
        let copy = copy.unwrap_or_else(|| unreachable!("every weight has a copy"));
        Weight { values: self.view(copy), k: size.rows, n: size.columns }
    }
    fn rounded<'a>(&self, copy: Option<&'a G::Buffer<Bf16>>, _: View<'a, f32>) -> View<'a, Bf16> {
        self.view(copy.unwrap_or_else(|| unreachable!("what is read rounded has a copy")))
    }

    fn read_wide(&self, from: View<Bf16>) -> Result<Vec<f32>, GpuError> {
        Ok(self.read(from)?.into_iter().map(Bf16::to_f32).collect())
    }
    fn round(&self, to: ViewMut<Bf16>, from: View<f32>) -> Done {
        patches::cuda::from_floats(self, to, from)
    }
    fn normalise(&self, state: &mut State<G>, to: ViewMut<Bf16>, bytes: &[u8], pixels: Pixels) -> Done {
        state.incoming.read(self, bytes, |bytes| {
            patches::cuda::from_bytes(self, to, bytes, pixels.mean, pixels.deviation)
        })
    }
    fn prefetch(&self, state: &mut State<G>, bytes: HeldBytes) -> Done {
        state.incoming.send(self, bytes)
    }

    fn embed_patches(
        &self,
        x: ViewMut<f32>,
        pixels: View<Bf16>,
        weight: Weight,
        added: Added,
        ids: View<u32>,
        of: Sequences,
        mut room: ViewMut<f32>,
    ) -> Done {
        // Not rounded: it becomes part of the residual stream.
        gemm::cuda::forward(self, room.reborrow(), pixels, weight)?;
        tokens::cuda::from_patches(self, x, room.view(), added, ids, of)
    }
    fn patch_rows(&self, to: ViewMut<Bf16>, dx: View<f32>, of: Sequences) -> Done {
        tokens::cuda::patch_rows(self, to, dx, of)
    }
    fn resample(&self, table: ViewMut<f32>, matrix: View<f32>, learned: View<f32>, width: usize) -> Done {
        let (rows, from) = (table.len() / width, learned.len() / width);
        let (left, right) = (Matrix::rows(matrix, from), Matrix::rows(learned, width));
        product(self, table, left, right, (rows, from, width))
    }
    fn token_gradients(
        &self,
        gradients: TokenGradients,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        room: ViewMut<u32>,
        mut scratch: ViewMut<f32>,
    ) -> Done {
        let TokenGradients { class_token, positions, resampled } = gradients;
        let Sequences { batch, prefix, width, .. } = of;
        // The sum over the first tokens of all sequences is a product with ones: cuBLASLt sums long columns quickly.
        let mut ones = scratch.part(0, batch);
        self.write(ones.reborrow(), &vec![1.0; batch])?;
        let left = Matrix::rows(ones.view(), batch);
        let firsts = Matrix { values: dx, stride: of.tokens() * width, transposed: false };
        let add_firsts = |to: ViewMut<f32>| match prefix {
            0 => Ok(()),
            _ => add_product(self, to, left, firsts, (1, batch, width)),
        };
        class_token.map_or(Ok(()), &add_firsts)?;
        let Some(mut positions) = positions else { return Ok(()) };
        let Some((matrix, mut dtable)) = resampled else {
            add_firsts(positions.part(0, prefix * width))?;
            let patches = positions.len() - prefix * width;
            return self.scatter_add(positions.part(prefix * width, patches), ids, dx, of, room);
        };
        self.clear(dtable.reborrow())?;
        add_firsts(dtable.part(0, prefix * width))?;
        let patches = dtable.len() - prefix * width;
        self.scatter_add(dtable.part(prefix * width, patches), ids, dx, of, room)?;
        let (from, rows) = (positions.len() / width, dtable.len() / width);
        let (left, right) = (Matrix::columns(matrix, from), Matrix::rows(dtable.view(), width));
        add_product(self, positions, left, right, (from, rows, width))
    }
    fn gather(
        &self,
        x: ViewMut<f32>,
        table: (View<Bf16>, View<u32>),
        positions: (View<f32>, View<u32>),
        width: usize,
    ) -> Done {
        tokens::cuda::gather(self, x, table, positions, width)
    }
    fn scatter_add(
        &self,
        table: ViewMut<f32>,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        mut room: ViewMut<u32>,
    ) -> Done {
        let Scatter { named, starts, order } = Scatter::new(ids, |r| of.row(r));
        let (lists, rows) = (named.len(), order.len());
        let words = [named, starts, order].concat();
        self.write(room.part(0, words.len()), &words)?;
        let room = room.view();
        let scatter = ScatterViews {
            named: room.part(0, lists),
            starts: room.part(lists, lists + 1),
            order: room.part(2 * lists + 1, rows),
        };
        tokens::cuda::scatter_add(self, table, scatter, dx, of.width)
    }

    fn layer_norm(&self, y: ViewMut<Bf16>, saved: &mut SavedNorm<Bf16>, x: View<f32>, norm: Norm) -> Done {
        let (normal, rstd) = (saved.normal.reborrow(), saved.rstd.reborrow());
        layer_norm::cuda::forward(self, y, normal, rstd, x, norm.scale, norm.shift, norm.eps)
    }
    fn layer_norm_in_place(
        &self,
        x: ViewMut<f32>,
        saved: &mut SavedNorm<Bf16>,
        norm: Norm,
        _: ViewMut<f32>,
    ) -> Done {
        let (normal, rstd) = (saved.normal.reborrow(), saved.rstd.reborrow());
        layer_norm::cuda::in_place(self, x, normal, rstd, norm.scale, norm.shift, norm.eps)
    }
    fn layer_norm_backward(
        &self,
        dx: ViewMut<f32>,
        copy: Option<ViewMut<Bf16>>,
        gradients: [ViewMut<f32>; 2],
        dy: View<Bf16>,
        saved: &SavedNorm<Bf16>,
        scale: View<f32>,
        scratch: ViewMut<f32>,
    ) -> Done {
        let ([dscale, dshift], saved) = (gradients, (saved.normal.view(), saved.rstd.view()));
        layer_norm::cuda::backward(self, dx, copy, dscale, dshift, scratch, dy, saved, scale)
    }

    fn linear(&self, y: ViewMut<Bf16>, x: View<Bf16>, weight: Weight, bias: View<Bf16>) -> Done {
        gemm::cuda::forward_bias(self, y, x, weight, bias)
    }
    fn linear_add(&self, y: ViewMut<f32>, x: View<Bf16>, weight: Weight, bias: View<f32>) -> Done {
        gemm::cuda::add(self, y, x, weight, bias)
    }
    fn linear_activate(
        &self,
        to: Activated<Bf16>,
        x: View<Bf16>,
        weight: Weight,
        bias: View<Bf16>,
        activation: Activation,
    ) -> Done {
        gemm::cuda::activate(self, (to.after, to.before), x, weight, bias, activation)
    }
    fn linear_activate_backward(
        &self,
        to: Activated<Bf16>,
        dy: View<Bf16>,
        weight: Weight,
        activation: Activation,
    ) -> Done {
        gemm::cuda::activate_backward(self, (to.after, to.before), dy, weight, activation)
    }
    fn linear_backward(&self, dx: ViewMut<Bf16>, dy: View<Bf16>, weight: Weight) -> Done {
        gemm::cuda::backward(self, dx, dy, weight)
    }
    fn project(&self, y: ViewMut<f32>, x: View<Bf16>, weight: Weight) -> Done {
        gemm::cuda::forward(self, y, x, weight)
    }
    fn project_backward(&self, dx: ViewMut<f32>, dy: View<Bf16>, weight: Weight) -> Done {
        gemm::cuda::backward(self, dx, dy, weight)
    }
    fn weight_gradient(
        &self,
        dw: ViewMut<f32>,
        db: Option<ViewMut<f32>>,
        x: Input<Bf16>,
        dy: View<Bf16>,
        scratch: ViewMut<f32>,
    ) -> Done {
        match x {
            Input::Rows { values, width } => {
                let n = dw.len() / width;
                gemm::cuda::weight_gradient(self, dw, db, scratch, (values, width), (dy, n))
            }
            Input::Normed { saved, norm, mut room } => {
                let (normal, width) = (saved.normal.view(), norm.scale.len());
                layer_norm::cuda::again(self, room.reborrow(), normal, norm.scale, norm.shift)?;
                self.weight_gradient(dw, db, Input::Rows { values: room.view(), width }, dy, scratch)
            }
        }
    }

    fn attention(&self, out: ViewMut<Bf16>, lse: ViewMut<f32>, qkv: View<Bf16>, of: Attention) -> Done {
        attention::cuda::forward(self, out, lse, qkv, of)
    }
    fn attention_backward(
        &self,
        dqkv: ViewMut<Bf16>,
        out: ViewMut<Bf16>,
        dout: View<Bf16>,
        qkv: View<Bf16>,
        lse: View<f32>,
        of: Attention,
        mut scratch: ViewMut<f32>,
    ) -> Done {
        let saved = attention::cuda::Saved { qkv, out: out.view(), lse };
        attention::cuda::backward(self, dqkv, scratch.part(0, of.saved()), dout, saved, of)
    }

    fn norm_and_pool(
        &self,
        pooled: ViewMut<Bf16>,
        saved: &mut SavedNorm<Bf16>,
        x: View<f32>,
        norm: Norm,
        pool: Pool,
        mut room: ViewMut<Bf16>,
    ) -> Done {
        let (width, tokens) = (norm.scale.len(), x.len() / pooled.len());
        let mut normed = room.part(0, x.len());
        self.layer_norm(normed.reborrow(), saved, x, norm)?;
        pool::cuda::forward(self, pooled, normed.view(), pool, tokens, width)
    }
    fn norm_and_pool_backward(
        &self,
        mut dx: ViewMut<f32>,
        gradients: [ViewMut<f32>; 2],
        dpooled: View<f32>,
        saved: &SavedNorm<Bf16>,
        scale: View<f32>,
        pool: Pool,
        mut room: ViewMut<Bf16>,
        scratch: ViewMut<f32>,
    ) -> Done {
        let (width, tokens) = (scale.len(), dx.len() / dpooled.len());
        let mut dnormed = room.part(0, dx.len());
        pool::cuda::backward(self, dnormed.reborrow(), dpooled, pool, tokens, width)?;
        self.clear(dx.reborrow())?;
        self.layer_norm_backward(dx, None, gradients, dnormed.view(), saved, scale, scratch)
    }
    fn mean_of_patches(&self, pooled: ViewMut<f32>, x: View<f32>, of: Sequences) -> Done {
        pool::cuda::patches(self, pooled, x, of)
    }
    fn mean_of_patches_backward(&self, dx: ViewMut<f32>, dpooled: View<f32>, of: Sequences) -> Done {
        pool::cuda::patches_backward(self, dx, dpooled, of)
    }
    fn attend(
        &self,
        out: ViewMut<Bf16>,
        lse: ViewMut<f32>,
        query: View<f32>,
        kv: View<Bf16>,
        of: AttentionPool,
    ) -> Done {
        attention_pool::cuda::forward(self, out, lse, query, kv, of)
    }
    fn attend_backward(
        &self,
        gradients: (ViewMut<Bf16>, ViewMut<f32>),
        dqueries: ViewMut<f32>,
        dout: View<Bf16>,
        query: View<f32>,
        kv: View<Bf16>,
        lse: View<f32>,
        of: AttentionPool,
    ) -> Done {
        let saved = attention_pool::cuda::Saved { query, kv, lse };
        attention_pool::cuda::backward(self, gradients, dqueries, dout, saved, of)
    }
    fn unit_norm(&self, z: ViewMut<f32>, norms: ViewMut<f32>, x: View<f32>, length: Length) -> Done {
        unit_norm::cuda::forward(self, z, norms, x, length)
    }
    fn unit_norm_backward(
        &self,
        dx: ViewMut<f32>,
        dz: View<f32>,
        z: View<f32>,
        norms: View<f32>,
        length: Length,
    ) -> Done {
        unit_norm::cuda::backward(self, dx, dz, z, norms, length)
    }

    fn contrastive(
        &self,
        state: &mut State<G>,
        [dimages, dtexts]: [ViewMut<f32>; 2],
        [images, texts]: [View<f32>; 2],
        scale: f32,
        width: usize,
    ) -> Result<Loss, GpuError> {
        state.loss.loss_and_gradients(self, (dimages, dtexts), (images, texts), scale, width)
    }
    fn add_scaled(&self, to: ViewMut<f32>, from: View<f32>, factor: View<f32>) -> Done {
        contrastive::cuda::add_scaled(self, to, from, factor)
    }
    fn sum_of_squares(&self, state: &mut State<G>, values: &[View<f32>]) -> Result<f64, GpuError> {
        state.update.sum_of_squares(self, values.iter().copied())
    }
    fn adamw(&self, state: &mut State<G>, parameters: Vec<Updated<G::Buffer<Bf16>>>, rule: &AdamW) -> Done {
        let tensor = |Updated { p, m, v, g, copy, decays, .. }| Tensor {
            p,
            m,
            v,
            g,
            copy: copy.map(|copy| self.view_mut(copy)),
            decays,
        };
        let tensors: Vec<Tensor> = parameters.into_iter().map(tensor).collect();
        state.update.adamw(self, &tensors, rule)
    }

    fn mark(&self, phase: Phase) -> Done {
        Gpu::mark(self, phase)
    }
    fn lap(&self) -> Result<Vec<(Phase, f64)>, GpuError> {
        Gpu::lap(self)
    }
}
