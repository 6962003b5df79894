//! What both encoders do after their blocks: final norm, pooling, projection, unit length.

use dfdx::tensor::Cpu;

use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Grid, Write};
use crate::kernel::gemm::weight::Master;
use crate::kernel::gemm::{product, weight_gradient, Left, Packed, Right};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::patches;
use crate::kernel::pool::{self, Pool};
use crate::kernel::transformer::{Norm, Stack};
use crate::kernel::unit_norm::{self, Length};
use crate::kernel::Cpu as Kernels;
use crate::parameter::Parameter;

/// A forward pass that remembers how to go back.
pub(super) trait Recorded {
    /// Adds to the gradients of all parameters of the tower, in the order of the model's walk, what the gradient
    /// [batch, embed_dim] of the embeddings contributes.
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]);
}

/// Parameters of the head, as kernels read them.
#[derive(Debug, Clone)]
pub(super) struct Head<K> {
    pub norm: Norm,
    pub norm_eps: f32,
    /// [width, embed_dim].
    pub projection: Packed<K>,
    pub length: Length,
}

/// Which token stands for a sequence: one each, or all of them.
pub(super) type Places = Option<Vec<u32>>;

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

impl<K: Element> Head<K> {
    pub fn zeroed(kernels: &Kernels, width: usize, embed_dim: usize, norm_eps: f32, length: Length) -> Self {
        let norm = Norm { scale: vec![0.0; width], shift: vec![0.0; width] };
        Head { norm, norm_eps, projection: Packed::zeroed(kernels, width, embed_dim), length }
    }

    /// Unit embeddings [batch, embed_dim] of x [batch * tokens, width].
    pub fn forward(
        &self,
        kernels: &Kernels,
        x: &[f32],
        tokens: usize,
        places: &Places,
    ) -> (Vec<f32>, HeadSaved<K>) {
        let (width, embed_dim) = (self.norm.scale.len(), self.projection.n);
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
        let Norm { scale, shift } = &self.norm;
        layer_norm::forward(kernels, &mut normed, &mut normal, &mut rstd, from, scale, shift, self.norm_eps);
        match places {
            Some(_) => patches::from_floats(kernels, &mut pooled, &normed),
            None => pool::forward(kernels, &mut pooled, &normed, Pool::Mean, tokens, width),
        }
        let mut raw = vec![0.0f32; batch * embed_dim];
        let to = Write { to: Grid::new(&mut raw, embed_dim), bias: None };
        let right = Right::Packed(&self.projection);
        product(kernels, &to, Left::whole(&pooled, width), right, (batch, width, embed_dim));
        let (mut z, mut norms) = (vec![0.0; raw.len()], vec![0.0; batch]);
        unit_norm::forward(kernels, &mut z, &mut norms, &raw, self.length);
        (z.clone(), HeadSaved { normal, rstd, pooled, z, norms })
    }

    /// Sets dx [batch * tokens, width], and adds to the gradients of scale, shift and projection.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        kernels: &Kernels,
        dx: &mut [f32],
        [dscale, dshift, dprojection]: [&mut [f32]; 3],
        of_z: &[f32],
        saved: &HeadSaved<K>,
        tokens: usize,
        places: &Places,
    ) {
        let (width, embed_dim) = (self.norm.scale.len(), self.projection.n);
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
        let right = Right::PackedTransposed(&self.projection);
        product(kernels, &to, Left::whole(&rounded, embed_dim), right, (batch, embed_dim, width));

        let norm = Saved { normal: &saved.normal, rstd: &saved.rstd };
        let scale = &self.norm.scale;
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

/// Changes the values of a weight before it is read, or fills them in where its master was given up.
pub(super) type Supply<'a> = Option<&'a mut dyn FnMut(&mut [f32])>;

/// The masters of a tower, read one after the other in the order of the model's walk.
pub(super) struct Masters<'a, 's> {
    rest: std::slice::Iter<'a, &'a Parameter<f32, Cpu>>,
    supply: Supply<'s>,
    /// One master's values.
    values: Vec<f32>,
}

impl<'a, 's> Masters<'a, 's> {
    pub fn new(parameters: &'a [&'a Parameter<f32, Cpu>], supply: Supply<'s>) -> Self {
        Masters { rest: parameters.iter(), supply, values: Vec::new() }
    }

    /// The next one's values; none after the last.
    pub fn read(&mut self) -> &[f32] {
        self.values.clear();
        if let Some(parameter) = self.rest.next() {
            self.values.resize(parameter.len(), 0.0);
            parameter.master.copy_into(&mut self.values);
        }
        &self.values
    }

    /// Reads the next one, a weight. One that was given up and that nobody supplies is not read: what was read before
    /// stands.
    pub fn weight(&mut self, read: impl FnOnce(&[f32])) {
        let Some(parameter) = self.rest.next() else { return read(&[]) };
        if parameter.given_up && self.supply.is_none() {
            return;
        }
        self.values.clear();
        self.values.resize(parameter.len(), 0.0);
        if !parameter.given_up {
            parameter.master.copy_into(&mut self.values);
        }
        if let Some(supply) = &mut self.supply {
            supply(&mut self.values);
        }
        read(&self.values)
    }

    /// All parameters of the blocks. Weights of f32 products stay where they are.
    pub fn stack<K: Element>(&mut self, kernels: &Kernels, stack: &mut Stack<K>) {
        for entry in stack.layout().entries().to_vec() {
            match (entry.part.is_weight(), K::GROUP) {
                (true, 1) => stack.lend_part(entry.block, entry.part, self.lend()),
                (true, _) => self.weight(|values| stack.load_part(kernels, entry.block, entry.part, values)),
                (false, _) => stack.load_part(kernels, entry.block, entry.part, self.read()),
            }
        }
    }

    /// The next one, to be read later.
    fn lend(&mut self) -> Master {
        let parameter = self.rest.next().map(|parameter| parameter.master.clone());
        Master::new(move |to| match &parameter {
            Some(master) => master.copy_into(to),
            None => unreachable!("the walk over a model ends before its blocks do"),
        })
    }

    /// The next two: a norm's scale and shift.
    pub fn norm(&mut self) -> Norm {
        Norm { scale: self.read().to_vec(), shift: self.read().to_vec() }
    }
}
