//! The image encoder on kernels.

use std::sync::{Arc, Mutex, PoisonError};

use dfdx::tensor::Cpu;

use super::memory::{Arenas, Purpose};
use super::tower::{Head, HeadSaved, Masters, Places, Recorded, Supply};
use super::{image_shape, length};
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::Grid;
use crate::kernel::gemm::{product, weight_gradient, Left, Packed, Right};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::tokens::{self, PatchTokens};
use crate::kernel::transformer::{Activations, Norm, Stack};
use crate::kernel::{patches, Cpu as Kernels};
use crate::mask::Kept;
use crate::model::config::{ImagePool, ImagePositions, ModelConfig, Recompute};
use crate::model::input::{ImageInput, PatchValues};
use crate::model::position;
use crate::parameter::Parameter;

/// Weights as kernels read them, and memory.
#[derive(Debug, Clone)]
pub(super) struct FusedImages<K> {
    config: ModelConfig,
    /// [patch * patch * 3, width].
    patch: Packed<K>,
    patch_bias: Option<Vec<f32>>,
    class_token: Vec<f32>,
    /// [1 + grid^2, width], the class token's first, where they are learned.
    positions: Option<Vec<f32>>,
    pre_norm: Option<Norm>,
    stack: Stack<K>,
    head: Head<K>,
    arenas: Arenas<K>,
    /// Sin-cos positions of the grid that was last asked for.
    sin_cos: Arc<Mutex<Option<(usize, Arc<Vec<f32>>)>>>,
}

/// What the backward pass needs besides the arena.
struct Pass<K: Element> {
    tower: Arc<FusedImages<K>>,
    purpose: Purpose,
    arena: Activations<K>,
    /// [batch * kept, patch * patch * 3].
    patches: Vec<K>,
    kept: Kept,
    grid: usize,
    pre_norm: Option<(Vec<K>, Vec<f32>)>,
    head: HeadSaved<K>,
}

impl<K: Element> FusedImages<K> {
    pub fn new(kernels: &Kernels, config: &ModelConfig, recompute: Recompute) -> Self {
        let (image, shape) = (&config.image, image_shape(config));
        let width = image.width;
        let norm = || Norm { scale: vec![0.0; width], shift: vec![0.0; width] };
        FusedImages {
            patch: Packed::zeroed(kernels, image.patch_values(), width),
            patch_bias: image.patch_bias.then(|| vec![0.0; width]),
            class_token: vec![0.0; width],
            positions: (image.positions == ImagePositions::Learned).then(Vec::new),
            pre_norm: image.pre_norm.then(norm),
            stack: Stack::new(shape),
            head: Head::zeroed(
                kernels,
                width,
                config.embed_dim,
                image.norm_eps as f32,
                length(config.normalisation),
            ),
            arenas: Arenas::new(recompute),
            sin_cos: Arc::default(),
            config: config.clone(),
        }
    }

    /// Copies the masters, given in the order of the model's walk.
    pub fn load(&mut self, kernels: &Kernels, parameters: &[&Parameter<f32, Cpu>], supply: Supply<'_>) {
        let mut masters = Masters::new(parameters, supply);
        masters.weight(|values| self.patch.pack(kernels, values));
        if let Some(bias) = &mut self.patch_bias {
            *bias = masters.read().to_vec();
        }
        self.class_token = masters.read().to_vec();
        if let Some(positions) = &mut self.positions {
            *positions = masters.read().to_vec();
        }
        if let Some(norm) = &mut self.pre_norm {
            *norm = masters.norm();
        }
        masters.stack(kernels, &mut self.stack);
        self.head.norm = masters.norm();
        masters.weight(|values| self.head.projection.pack(kernels, values));
    }

    /// Unit embeddings [batch, embed_dim], and the way back where `record`.
    pub fn forward(
        self: Arc<Self>,
        kernels: &Kernels,
        input: &ImageInput,
        record: bool,
    ) -> (Vec<f32>, Option<Box<dyn Recorded>>) {
        let (width, values) = (self.config.image.width, self.config.image.patch_values());
        let kept = &input.kept;
        let (rows, tokens) = (kept.ids.len(), 1 + kept.kept);
        let purpose = Purpose { batch: kept.batch, tokens, record };
        let mut arena = self.arenas.take(self.stack.shape(), purpose);

        let mut pixels = vec![K::default(); rows * values];
        match &input.patches {
            PatchValues::Bytes(bytes) => {
                let norm = &self.config.image.pixels;
                let [mean, deviation] = [norm.mean, norm.std].map(|three| three.map(|x| x as f32));
                patches::from_bytes(kernels, &mut pixels, bytes, mean, deviation)
            }
            PatchValues::Floats(floats) => patches::from_floats(kernels, &mut pixels, floats),
        }
        let table = self.table(input.grid);
        let (class_position, of_patches) = match &self.positions {
            Some(_) => (Some(&table[..width]), &table[width..]),
            None => (None, &table[..]),
        };
        let to = PatchTokens {
            to: Grid::new(&mut arena.x, width),
            bias: self.patch_bias.as_deref(),
            positions: of_patches,
            ids: &kept.ids,
            kept: kept.kept,
            prefix: 1,
            width,
        };
        product(
            kernels,
            &to,
            Left::whole(&pixels, values),
            Right::Packed(&self.patch),
            (rows, values, width),
        );
        let mut class = self.class_token.clone();
        if let Some(position) = class_position {
            class.iter_mut().zip(position).for_each(|(class, position)| *class += position);
        }
        tokens::class_token(&mut arena.x, &class, tokens);

        let pre_norm = self.pre_norm.as_ref().map(|Norm { scale, shift }| {
            let mut y = vec![0.0; arena.x.len()];
            let mut normal = vec![K::default(); y.len()];
            let mut rstd = vec![0.0; kept.batch * tokens];
            let eps = self.config.image.norm_eps as f32;
            layer_norm::forward(kernels, &mut y, &mut normal, &mut rstd, &arena.x, scale, shift, eps);
            arena.x.copy_from_slice(&y);
            (normal, rstd)
        });
        self.stack.forward(kernels, &mut arena);
        let (z, head) = self.head.forward(kernels, &arena.x, tokens, &self.places(kept.batch));
        if !record {
            self.arenas.give_back(purpose, arena);
            return (z, None);
        }
        let pass = Pass {
            purpose,
            arena,
            patches: pixels,
            kept: kept.clone(),
            grid: input.grid,
            pre_norm,
            head,
            tower: self,
        };
        (z, Some(Box::new(pass)))
    }

    /// Positions of the patches of a picture of `grid` x `grid`, [grid^2, width]; learned ones with a row for
    /// the class token before them.
    fn table(&self, grid: usize) -> Arc<Vec<f32>> {
        let (own, width) = (self.config.image.grid(), self.config.image.width);
        match &self.positions {
            Some(positions) if grid == own => Arc::new(positions.clone()),
            Some(positions) => {
                let mut table = vec![0.0; (1 + grid * grid) * width];
                let matrix = position::resampling::<f32>(grid, own);
                for (to, shares) in table.chunks_mut(width).zip(matrix.chunks(1 + own * own)) {
                    add_rows(to, shares, positions);
                }
                Arc::new(table)
            }
            None => {
                let mut cached = self.sin_cos.lock().unwrap_or_else(PoisonError::into_inner);
                match &*cached {
                    Some((of, table)) if *of == grid => table.clone(),
                    _ => {
                        let table = Arc::new(position::sin_cos(&Kept::all(1, grid * grid), grid, own, width));
                        *cached = Some((grid, table.clone()));
                        table
                    }
                }
            }
        }
    }

    fn places(&self, batch: usize) -> Places {
        match self.config.image.pool {
            ImagePool::Mean => None,
            ImagePool::ClassToken => Some(vec![0; batch]),
        }
    }

    /// Keeps no master, so that they can be changed in place.
    pub fn release(&mut self) {
        self.stack.release();
    }

    /// Bytes of the arenas that are not in use.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes()
    }

    /// Adds to `dpositions` [1 + own grid^2, width] what the positions of another grid got, `dtable`.
    fn resample_back(&self, dpositions: &mut [f32], dtable: &[f32], grid: usize) {
        let (own, width) = (self.config.image.grid(), self.config.image.width);
        let matrix = position::resampling::<f32>(grid, own);
        for (from, shares) in dtable.chunks(width).zip(matrix.chunks(1 + own * own)) {
            for (to, &share) in dpositions.chunks_mut(width).zip(shares) {
                if share != 0.0 {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += share * from);
                }
            }
        }
    }
}

/// to += the rows of `table`, each times its share.
fn add_rows(to: &mut [f32], shares: &[f32], table: &[f32]) {
    for (row, &share) in table.chunks(to.len()).zip(shares) {
        if share != 0.0 {
            to.iter_mut().zip(row).for_each(|(to, row)| *to += share * row);
        }
    }
}

impl<K: Element> Recorded for Pass<K> {
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]) {
        let Pass { tower, purpose, mut arena, patches, kept, grid, pre_norm, head } = *self;
        let (width, values) = (tower.config.image.width, tower.config.image.patch_values());
        let (rows, tokens) = (kept.ids.len(), purpose.tokens);
        let [before @ .., dscale, dshift, dprojection] = gradients else {
            unreachable!("an image encoder has a norm and a projection")
        };
        let (before, dstack) = before.split_at_mut(before.len() - tower.stack.layout().entries().len());
        let mut before = before.iter_mut();
        let mut next = |there: bool| there.then(|| before.next()).flatten().map(|slice| &mut **slice);
        let (Some(dpatch), dbias, Some(dclass), mut dpositions, dpre_scale, dpre_shift) = (
            next(true),
            next(tower.patch_bias.is_some()),
            next(true),
            next(tower.positions.is_some()),
            next(tower.pre_norm.is_some()),
            next(tower.pre_norm.is_some()),
        ) else {
            unreachable!("an image encoder has a patch embedding and a class token")
        };

        let places = tower.places(kept.batch);
        let of_head = [&mut **dscale, dshift, dprojection];
        tower.head.backward(kernels, arena.dx(), of_head, of_z, &head, tokens, &places);
        tower.stack.backward(kernels, &mut arena, dstack);
        if let (Some((normal, rstd)), Some(norm), Some(dscale), Some(dshift)) =
            (&pre_norm, &tower.pre_norm, dpre_scale, dpre_shift)
        {
            let (dx, dy) = arena.dx_and_room();
            patches::from_floats(kernels, dy, dx);
            dx.fill(0.0);
            let saved = Saved { normal, rstd };
            layer_norm::backward(kernels, dx, None, dscale, dshift, dy, saved, &norm.scale);
        }

        let (dx, dy) = arena.dx_and_room();
        let (dx, dy) = (&*dx, &mut dy[..rows * width]);
        let mut of_class = vec![0.0; width];
        for sequence in dx.chunks(tokens * width) {
            of_class.iter_mut().zip(sequence).for_each(|(to, from)| *to += from);
        }
        dclass.iter_mut().zip(&of_class).for_each(|(to, from)| *to += from);
        if let Some(dpositions) = &mut dpositions {
            let mut dtable = vec![0.0; (1 + grid * grid) * width];
            dtable[..width].copy_from_slice(&of_class);
            let source = |r: usize| r / kept.kept * tokens + 1 + r % kept.kept;
            tokens::scatter_add(kernels, &mut dtable[width..], &kept.ids, dx, source, width);
            tower.resample_back(dpositions, &dtable, grid);
        }
        tokens::patch_rows(kernels, dy, dx, kept.kept, 1, width);
        let x = Left::Columns { data: &patches, stride: values };
        weight_gradient(kernels, dpatch, dbias, x, (dy, width), (rows, values, width));
        tower.arenas.give_back(purpose, arena);
    }
}
