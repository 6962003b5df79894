//! Each operation as a call of the kernel of its name.

use std::convert::Infallible;

use super::{slice, slice_mut, CpuBackend, Done, NEEDS};
use crate::kernel::activation::Activation;
use crate::kernel::adamw::{AdamW, Tensor, Values};
use crate::kernel::attention::{self, Attention};
use crate::kernel::attention_pool::{self, AttentionPool};
use crate::kernel::backend::{
    Activated, Backend, HeldBytes, Input, Needs, Norm, Pixels, Pool, Read, SavedNorm, Size, TokenGradients,
    Updated,
};
use crate::kernel::contrastive::{self, Loss};
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Activate, ActivateBackward, Add, Grid, Write};
use crate::kernel::gemm::weight::Weight;
use crate::kernel::gemm::{weight_gradient, Left, Packed};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::tokens::{self, Added, PatchTokens, Sequences};
use crate::kernel::unit_norm::{self, Length};
use crate::kernel::view::{View, ViewMut};
use crate::kernel::{global_norm, patches, pool};

impl<K: Element> Backend for CpuBackend<K> {
    type Element = K;
    type Copy = Packed<K>;
    type Weight<'a> = Weight<'a, K>;
    type Rounded<'a> = View<'a, f32>;
    type State = ();

    const NEEDS: Needs = NEEDS;
    const PREFETCHES: bool = false;

    fn state(&self) -> Done {
        Ok(())
    }
    fn incoming_bytes(_: &()) -> usize {
        0
    }

    fn new_copy(&self, size: Size) -> Result<Option<Packed<K>>, Infallible> {
        let copied = K::GROUP > 1 && size.read == Read::Weight;
        Ok(copied.then(|| Packed::zeroed(&self.cpu, size.rows, size.columns)))
    }
    fn fill_copy(&self, copy: &mut Packed<K>, master: View<f32>) -> Done {
        self.fill_copy_from_host(copy, slice(master))
    }
    fn fill_copy_from_host(&self, copy: &mut Packed<K>, values: &[f32]) -> Done {
        copy.pack(&self.cpu, values);
        Ok(())
    }
    fn weight<'a>(
        &self,
        copy: Option<&'a Packed<K>>,
        master: Option<View<'a, f32>>,
        size: Size,
    ) -> Weight<'a, K> {
        match (copy, master) {
            (Some(copy), _) => Weight::packed(copy),
            (None, Some(master)) => Weight::master(slice(master), size.rows, size.columns),
            (None, None) => unreachable!("a weight has a copy or its master"),
        }
    }
    fn rounded<'a>(&self, _: Option<&'a Packed<K>>, master: View<'a, f32>) -> View<'a, f32> {
        master
    }

    fn read_wide(&self, from: View<K>) -> Result<Vec<f32>, Infallible> {
        Ok(slice(from).iter().map(|value| value.to_f32()).collect())
    }
    fn round(&self, to: ViewMut<K>, from: View<f32>) -> Done {
        patches::from_floats(&self.cpu, slice_mut(to), slice(from));
        Ok(())
    }
    fn normalise(&self, _: &mut (), to: ViewMut<K>, bytes: &[u8], pixels: Pixels) -> Done {
        patches::from_bytes(&self.cpu, slice_mut(to), bytes, pixels.mean, pixels.deviation);
        Ok(())
    }
    fn prefetch(&self, _: &mut (), _: HeldBytes) -> Done {
        Ok(())
    }

    fn embed_patches(
        &self,
        x: ViewMut<f32>,
        pixels: View<K>,
        weight: Weight<K>,
        added: Added,
        ids: View<u32>,
        of: Sequences,
        _: ViewMut<f32>,
    ) -> Done {
        let Sequences { kept, prefix, width, .. } = of;
        let x = slice_mut(x);
        if prefix == 1 {
            let position = added.class_position.map(slice);
            tokens::class_token(x, slice(added.class_token), position, of.tokens());
        }
        let to = PatchTokens {
            to: Grid::new(x, width),
            bias: added.bias.map(slice),
            positions: slice(added.positions),
            ids: slice(ids),
            kept,
            prefix,
            width,
        };
        weight.forward(&self.cpu, &to, Left::whole(slice(pixels), weight.k), ids.len());
        Ok(())
    }
    fn patch_rows(&self, to: ViewMut<K>, dx: View<f32>, of: Sequences) -> Done {
        tokens::patch_rows(&self.cpu, slice_mut(to), slice(dx), of.kept, of.prefix, of.width);
        Ok(())
    }
    fn resample(&self, table: ViewMut<f32>, matrix: View<f32>, learned: View<f32>, width: usize) -> Done {
        tokens::resample(slice_mut(table), slice(matrix), slice(learned), width);
        Ok(())
    }
    fn token_gradients(
        &self,
        gradients: TokenGradients,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        _: ViewMut<u32>,
        _: ViewMut<f32>,
    ) -> Done {
        let TokenGradients { class_token, positions, resampled } = gradients;
        let (class_token, positions) = (class_token.map(slice_mut), positions.map(slice_mut));
        let matrix = resampled.as_ref().map(|(matrix, _)| slice(*matrix));
        tokens::gradients(&self.cpu, class_token, positions.map(|to| (to, matrix)), ids, slice(dx), of);
        Ok(())
    }
    fn gather(
        &self,
        x: ViewMut<f32>,
        (table, ids): (View<f32>, View<u32>),
        (positions, places): (View<f32>, View<u32>),
        width: usize,
    ) -> Done {
        let (table, ids) = (slice(table), slice(ids));
        tokens::gather::<K>(&self.cpu, slice_mut(x), table, ids, slice(positions), slice(places), width);
        Ok(())
    }
    fn scatter_add(
        &self,
        table: ViewMut<f32>,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        _: ViewMut<u32>,
    ) -> Done {
        tokens::scatter_add(&self.cpu, slice_mut(table), ids, slice(dx), |r| of.row(r), of.width);
        Ok(())
    }

    fn layer_norm(&self, y: ViewMut<K>, saved: &mut SavedNorm<K>, x: View<f32>, norm: Norm) -> Done {
        self.norm(slice_mut(y), saved, slice(x), norm);
        Ok(())
    }
    fn layer_norm_in_place(
        &self,
        x: ViewMut<f32>,
        saved: &mut SavedNorm<K>,
        norm: Norm,
        room: ViewMut<f32>,
    ) -> Done {
        let (x, y) = (slice_mut(x), slice_mut(room));
        self.norm(y, saved, x, norm);
        x.copy_from_slice(y);
        Ok(())
    }
    fn layer_norm_backward(
        &self,
        dx: ViewMut<f32>,
        copy: Option<ViewMut<K>>,
        gradients: [ViewMut<f32>; 2],
        dy: View<K>,
        saved: &SavedNorm<K>,
        scale: View<f32>,
        _: ViewMut<f32>,
    ) -> Done {
        self.norm_backward(slice_mut(dx), copy.map(slice_mut), gradients, slice(dy), saved, scale);
        Ok(())
    }

    fn linear(&self, y: ViewMut<K>, x: View<K>, weight: Weight<K>, bias: View<f32>) -> Done {
        let to = Write { to: Grid::new(slice_mut(y), weight.n), bias: Some(slice(bias)) };
        weight.forward(&self.cpu, &to, Left::whole(slice(x), weight.k), x.len() / weight.k);
        Ok(())
    }
    fn linear_add(&self, y: ViewMut<f32>, x: View<K>, weight: Weight<K>, bias: View<f32>) -> Done {
        let to = Add { to: Grid::new(slice_mut(y), weight.n), bias: Some(slice(bias)) };
        weight.forward(&self.cpu, &to, Left::whole(slice(x), weight.k), x.len() / weight.k);
        Ok(())
    }
    fn linear_activate(
        &self,
        to: Activated<K>,
        x: View<K>,
        weight: Weight<K>,
        bias: View<f32>,
        activation: Activation,
    ) -> Done {
        let to = Activate {
            before: Grid::new(slice_mut(to.before), weight.n),
            after: Grid::new(slice_mut(to.after), weight.n),
            bias: slice(bias),
            activation,
        };
        weight.forward(&self.cpu, &to, Left::whole(slice(x), weight.k), x.len() / weight.k);
        Ok(())
    }
    fn linear_activate_backward(
        &self,
        to: Activated<K>,
        dy: View<K>,
        weight: Weight<K>,
        activation: Activation,
    ) -> Done {
        let to = ActivateBackward {
            before: Grid::new(slice_mut(to.before), weight.k),
            gradient: Grid::new(slice_mut(to.after), weight.k),
            activation,
        };
        weight.backward(&self.cpu, &to, Left::whole(slice(dy), weight.n), dy.len() / weight.n);
        Ok(())
    }
    fn linear_backward(&self, dx: ViewMut<K>, dy: View<K>, weight: Weight<K>) -> Done {
        let to = Write { to: Grid::new(slice_mut(dx), weight.k), bias: None };
        weight.backward(&self.cpu, &to, Left::whole(slice(dy), weight.n), dy.len() / weight.n);
        Ok(())
    }
    fn project(&self, y: ViewMut<f32>, x: View<K>, weight: Weight<K>) -> Done {
        let to = Write { to: Grid::new(slice_mut(y), weight.n), bias: None };
        weight.forward(&self.cpu, &to, Left::whole(slice(x), weight.k), x.len() / weight.k);
        Ok(())
    }
    fn project_backward(&self, dx: ViewMut<f32>, dy: View<K>, weight: Weight<K>) -> Done {
        let to = Write { to: Grid::new(slice_mut(dx), weight.k), bias: None };
        weight.backward(&self.cpu, &to, Left::whole(slice(dy), weight.n), dy.len() / weight.n);
        Ok(())
    }
    fn weight_gradient(
        &self,
        dw: ViewMut<f32>,
        db: Option<ViewMut<f32>>,
        x: Input<K>,
        dy: View<K>,
        _: ViewMut<f32>,
    ) -> Done {
        let (x, k) = match &x {
            Input::Rows { values, width } => (Left::Columns { data: slice(*values), stride: *width }, *width),
            Input::Normed { saved, norm, .. } => {
                let (data, stride) = (slice(saved.normal.view()), norm.scale.len());
                let (scale, shift) = (slice(norm.scale), slice(norm.shift));
                (Left::ScaledColumns { data, stride, scale, shift }, stride)
            }
        };
        let n = dw.len() / k;
        let (dw, db) = (slice_mut(dw), db.map(slice_mut));
        weight_gradient(&self.cpu, dw, db, x, (slice(dy), n), (dy.len() / n, k, n));
        Ok(())
    }

    fn attention(&self, out: ViewMut<K>, lse: ViewMut<f32>, qkv: View<K>, of: Attention) -> Done {
        attention::forward(&self.cpu, slice_mut(out), slice_mut(lse), slice(qkv), of);
        Ok(())
    }
    fn attention_backward(
        &self,
        dqkv: ViewMut<K>,
        out: ViewMut<K>,
        dout: View<K>,
        qkv: View<K>,
        lse: View<f32>,
        of: Attention,
        _: ViewMut<f32>,
    ) -> Done {
        let (dqkv, out) = (slice_mut(dqkv), slice_mut(out));
        attention::backward(&self.cpu, dqkv, out, slice(dout), slice(qkv), slice(lse), of);
        Ok(())
    }

    fn norm_and_pool(
        &self,
        pooled: ViewMut<K>,
        saved: &mut SavedNorm<K>,
        x: View<f32>,
        norm: Norm,
        pool: Pool,
        mut room: ViewMut<K>,
    ) -> Done {
        let (cpu, width, pooled, x) = (&self.cpu, norm.scale.len(), slice_mut(pooled), slice(x));
        let tokens = x.len() / pooled.len();
        match pool {
            Pool::Mean => {
                let mut normed = room.cast::<f32>();
                let normed = slice_mut(normed.part(0, x.len()));
                self.norm(normed, saved, x, norm);
                pool::forward(cpu, pooled, normed, pool::Pool::Mean, tokens, width);
            }
            Pool::At(places) => {
                let (mut chosen, mut normed) = (vec![0.0; pooled.len()], vec![0.0; pooled.len()]);
                pool::forward(cpu, &mut chosen, x, pool::Pool::At(slice(places)), tokens, width);
                self.norm(&mut normed, saved, &chosen, norm);
                patches::from_floats(cpu, pooled, &normed);
            }
        }
        Ok(())
    }
    fn norm_and_pool_backward(
        &self,
        dx: ViewMut<f32>,
        gradients: [ViewMut<f32>; 2],
        dpooled: View<f32>,
        saved: &SavedNorm<K>,
        scale: View<f32>,
        pool: Pool,
        mut room: ViewMut<K>,
        _: ViewMut<f32>,
    ) -> Done {
        let (cpu, width, dx, dpooled) = (&self.cpu, scale.len(), slice_mut(dx), slice(dpooled));
        let tokens = dx.len() / dpooled.len();
        let dnormed = slice_mut(room.part(0, saved.normal.len()));
        match pool {
            Pool::Mean => {
                pool::backward(cpu, dnormed, dpooled, pool::Pool::Mean, tokens, width);
                dx.fill(0.0);
                self.norm_backward(dx, None, gradients, dnormed, saved, scale);
            }
            Pool::At(places) => {
                patches::from_floats(cpu, dnormed, dpooled);
                let mut dchosen = vec![0.0; dpooled.len()];
                self.norm_backward(&mut dchosen, None, gradients, dnormed, saved, scale);
                pool::backward(cpu, dx, &dchosen, pool::Pool::At(slice(places)), tokens, width);
            }
        }
        Ok(())
    }
    fn mean_of_patches(&self, pooled: ViewMut<f32>, x: View<f32>, of: Sequences) -> Done {
        pool::patches(&self.cpu, slice_mut(pooled), slice(x), of);
        Ok(())
    }
    fn mean_of_patches_backward(&self, dx: ViewMut<f32>, dpooled: View<f32>, of: Sequences) -> Done {
        pool::patches_backward(&self.cpu, slice_mut(dx), slice(dpooled), of);
        Ok(())
    }
    fn attend(
        &self,
        out: ViewMut<K>,
        lse: ViewMut<f32>,
        query: View<f32>,
        kv: View<K>,
        of: AttentionPool,
    ) -> Done {
        attention_pool::forward(&self.cpu, slice_mut(out), slice_mut(lse), slice(query), slice(kv), of);
        Ok(())
    }
    fn attend_backward(
        &self,
        (dkv, dquery): (ViewMut<K>, ViewMut<f32>),
        _: ViewMut<f32>,
        dout: View<K>,
        query: View<f32>,
        kv: View<K>,
        lse: View<f32>,
        of: AttentionPool,
    ) -> Done {
        let gradients = (slice_mut(dkv), slice_mut(dquery));
        attention_pool::backward(&self.cpu, gradients, slice(dout), slice(query), slice(kv), slice(lse), of);
        Ok(())
    }
    fn unit_norm(&self, z: ViewMut<f32>, norms: ViewMut<f32>, x: View<f32>, length: Length) -> Done {
        unit_norm::forward(&self.cpu, slice_mut(z), slice_mut(norms), slice(x), length);
        Ok(())
    }
    fn unit_norm_backward(
        &self,
        dx: ViewMut<f32>,
        dz: View<f32>,
        z: View<f32>,
        norms: View<f32>,
        length: Length,
    ) -> Done {
        unit_norm::backward(&self.cpu, slice_mut(dx), slice(dz), slice(z), slice(norms), length);
        Ok(())
    }

    fn contrastive(
        &self,
        _: &mut (),
        dz: [ViewMut<f32>; 2],
        z: [View<f32>; 2],
        scale: f32,
        width: usize,
    ) -> Result<Loss, Infallible> {
        let ([dimages, dtexts], [images, texts]) = (dz.map(slice_mut), z.map(slice));
        Ok(contrastive::loss_and_gradients(&self.cpu, dimages, dtexts, images, texts, scale, width))
    }
    fn add_scaled(&self, to: ViewMut<f32>, from: View<f32>, factor: View<f32>) -> Done {
        let factor = slice(factor)[0];
        slice_mut(to).iter_mut().zip(slice(from)).for_each(|(to, from)| *to += factor * from);
        Ok(())
    }
    fn sum_of_squares(&self, _: &mut (), values: &[View<f32>]) -> Result<f64, Infallible> {
        let sums = values.iter().map(|&values| global_norm::sum_of_squares(&self.cpu, slice(values)));
        Ok(sums.fold(0.0, |sum, square| sum + square))
    }
    fn adamw(&self, _: &mut (), parameters: Vec<Updated<Packed<K>>>, rule: &AdamW) -> Done {
        let tensor = |Updated { p, m, v, g, copy, columns, decays }| {
            let [p, m, v, g] = [p, m, v, g].map(slice_mut);
            Tensor { values: Values { p, m, v, g }, copy, columns, decays }
        };
        rule.update_all(&self.cpu, parameters.into_iter().map(tensor).collect());
        Ok(())
    }
}

impl<K: Element> CpuBackend<K> {
    fn norm<Y: Element>(&self, y: &mut [Y], saved: &mut SavedNorm<K>, x: &[f32], norm: Norm) {
        let (normal, rstd) = (slice_mut(saved.normal.reborrow()), slice_mut(saved.rstd.reborrow()));
        let (scale, shift) = (slice(norm.scale), slice(norm.shift));
        layer_norm::forward(&self.cpu, y, normal, rstd, x, scale, shift, norm.eps);
    }

    fn norm_backward(
        &self,
        dx: &mut [f32],
        copy: Option<&mut [K]>,
        gradients: [ViewMut<f32>; 2],
        dy: &[K],
        saved: &SavedNorm<K>,
        scale: View<f32>,
    ) {
        let [dscale, dshift] = gradients.map(slice_mut);
        let saved = Saved { normal: slice(saved.normal.view()), rstd: slice(saved.rstd.view()) };
        layer_norm::backward(&self.cpu, dx, copy, dscale, dshift, dy, saved, slice(scale));
    }
}
