//! The image encoder on kernels.

use std::sync::{Arc, Mutex, PoisonError};

use super::memory::{Arenas, Purpose};
use super::tower::{Head, HeadSaved, PooledTokens, Recorded};
use super::values::{find, place, Parameters};
use super::{image_shape, length};
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::Grid;
use crate::kernel::gemm::{weight_gradient, Left};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::tokens::{self, PatchTokens};
use crate::kernel::transformer::{Activations, Norm, Part};
use crate::kernel::{patches, Cpu as Kernels};
use crate::mask::Kept;
use crate::model::config::{ImagePool, ModelConfig, Recompute};
use crate::model::input::{ImageInput, PatchValues};
use crate::model::position;
use crate::model::spec::{CLASS_TOKEN, IMAGE_POSITIONS};
use crate::parameter::Parameter;

/// The image encoder: options, places of its parameters, and memory.
#[derive(Debug)]
pub(super) struct FusedImages<K> {
    config: ModelConfig,
    places: Places,
    head: Head,
    arenas: Arenas<K>,
    /// Sin-cos positions of the grid that was last asked for.
    sin_cos: Mutex<Option<(usize, Arc<Vec<f32>>)>>,
}

/// Places of parameters in the list of all; none of what the model lacks.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// [patch * patch * 3, width].
    patch: usize,
    patch_bias: Option<usize>,
    class_token: usize,
    /// [1 + grid^2, width], the class token's first, where they are learned.
    positions: Option<usize>,
    /// The scale; its shift is behind it.
    pre_norm: Option<usize>,
    /// The first of the blocks.
    stack: usize,
}

/// What the backward pass needs besides the arena.
struct Pass<K: Element> {
    encoder: Arc<FusedImages<K>>,
    parameters: Parameters<K>,
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
    pub fn new(config: &ModelConfig, parameters: &[Parameter], recompute: Recompute) -> Self {
        let norm = place(parameters, "image.norm.scale");
        FusedImages {
            places: Places {
                patch: place(parameters, "image.patch.weight"),
                patch_bias: find(parameters, "image.patch.bias"),
                class_token: place(parameters, CLASS_TOKEN),
                positions: find(parameters, IMAGE_POSITIONS),
                pre_norm: find(parameters, "image.pre_norm.scale"),
                stack: norm - config.image.depth * Part::ALL.len(),
            },
            head: Head {
                norm_eps: config.image.norm_eps as f32,
                length: length(config.normalisation),
                norm,
                projection: place(parameters, "image.projection"),
            },
            arenas: Arenas::new(recompute),
            sin_cos: Mutex::default(),
            config: config.clone(),
        }
    }

    /// Unit embeddings [batch, embed_dim], and the backward pass where `record`.
    pub fn forward(
        self: Arc<Self>,
        kernels: &Kernels,
        parameters: Parameters<K>,
        input: &ImageInput,
        record: bool,
    ) -> (Vec<f32>, Option<Box<dyn Recorded>>) {
        let (width, values) = (self.config.image.width, self.config.image.patch_values());
        let kept = &input.kept;
        let (rows, tokens) = (kept.ids.len(), 1 + kept.kept);
        let purpose = Purpose { batch: kept.batch, tokens, record };
        let stack = parameters.stack(image_shape(&self.config), self.places.stack);
        let mut arena = self.arenas.take(stack.shape(), purpose);

        let mut pixels = vec![K::default(); rows * values];
        match &input.patches {
            PatchValues::Bytes(bytes) => {
                let norm = &self.config.image.pixels;
                let [mean, deviation] = [norm.mean, norm.std].map(|three| three.map(|x| x as f32));
                patches::from_bytes(kernels, &mut pixels, bytes, mean, deviation)
            }
            PatchValues::Floats(floats) => patches::from_floats(kernels, &mut pixels, floats),
        }
        let table = self.table(&parameters, input.grid);
        let (class_position, of_patches) = match self.places.positions {
            Some(_) => (Some(&table[..width]), &table[width..]),
            None => (None, &table[..]),
        };
        let to = PatchTokens {
            to: Grid::new(&mut arena.x, width),
            bias: self.places.patch_bias.map(|bias| parameters.vector(bias)),
            positions: of_patches,
            ids: &kept.ids,
            kept: kept.kept,
            prefix: 1,
            width,
        };
        parameters.weight(self.places.patch).forward(kernels, &to, Left::whole(&pixels, values), rows);
        let mut class = parameters.vector(self.places.class_token).to_vec();
        if let Some(position) = class_position {
            class.iter_mut().zip(position).for_each(|(class, position)| *class += position);
        }
        tokens::class_token(&mut arena.x, &class, tokens);

        let pre_norm = self.places.pre_norm.map(|norm| {
            let Norm { scale, shift } = parameters.norm(norm);
            let mut y = vec![0.0; arena.x.len()];
            let mut normal = vec![K::default(); y.len()];
            let mut rstd = vec![0.0; kept.batch * tokens];
            let eps = self.config.image.norm_eps as f32;
            layer_norm::forward(kernels, &mut y, &mut normal, &mut rstd, &arena.x, scale, shift, eps);
            arena.x.copy_from_slice(&y);
            (normal, rstd)
        });
        stack.forward(kernels, &mut arena);
        let pooled = self.pooled(kept.batch);
        let (z, head) = self.head.forward(kernels, &parameters, &arena.x, tokens, &pooled);
        if !record {
            self.arenas.give_back(purpose, arena);
            return (z, None);
        }
        let pass = Pass {
            purpose,
            parameters,
            arena,
            patches: pixels,
            kept: kept.clone(),
            grid: input.grid,
            pre_norm,
            head,
            encoder: self,
        };
        (z, Some(Box::new(pass)))
    }

    /// Positions of the patches of an image of `grid` x `grid`, [grid^2, width]; learned ones with a row for
    /// the class token before them.
    fn table(&self, parameters: &Parameters<K>, grid: usize) -> Arc<Vec<f32>> {
        let (own, width) = (self.config.image.grid(), self.config.image.width);
        match self.places.positions.map(|positions| parameters.vector(positions)) {
            Some(positions) if grid == own => Arc::new(positions.to_vec()),
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

    fn pooled(&self, batch: usize) -> PooledTokens {
        match self.config.image.pool {
            ImagePool::Mean => None,
            ImagePool::ClassToken => Some(vec![0; batch]),
        }
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
        let Pass { encoder, parameters, purpose, mut arena, patches, kept, grid, pre_norm, head } = *self;
        let (width, values) = (encoder.config.image.width, encoder.config.image.patch_values());
        let places = encoder.places;
        let (rows, tokens) = (kept.ids.len(), purpose.tokens);
        let [before @ .., dscale, dshift, dprojection] = gradients else {
            unreachable!("an image encoder has a norm and a projection")
        };
        let blocks = encoder.config.image.depth * Part::ALL.len();
        let (before, dstack) = before.split_at_mut(before.len() - blocks);
        let mut before = before.iter_mut();
        let mut next = |there: bool| there.then(|| before.next()).flatten().map(|slice| &mut **slice);
        let (Some(dpatch), dbias, Some(dclass), mut dpositions, dpre_scale, dpre_shift) = (
            next(true),
            next(places.patch_bias.is_some()),
            next(true),
            next(places.positions.is_some()),
            next(places.pre_norm.is_some()),
            next(places.pre_norm.is_some()),
        ) else {
            unreachable!("an image encoder has a patch embedding and a class token")
        };

        let pooled = encoder.pooled(kept.batch);
        let of_head = [&mut **dscale, dshift, dprojection];
        encoder.head.backward(kernels, &parameters, arena.dx(), of_head, of_z, &head, tokens, &pooled);
        let stack = parameters.stack(image_shape(&encoder.config), places.stack);
        stack.backward(kernels, &mut arena, dstack);
        if let (Some((normal, rstd)), Some(norm), Some(dscale), Some(dshift)) =
            (&pre_norm, places.pre_norm, dpre_scale, dpre_shift)
        {
            let (dx, dy) = arena.dx_and_room();
            patches::from_floats(kernels, dy, dx);
            dx.fill(0.0);
            let saved = Saved { normal, rstd };
            let scale = parameters.vector(norm);
            layer_norm::backward(kernels, dx, None, dscale, dshift, dy, saved, scale);
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
            encoder.resample_back(dpositions, &dtable, grid);
        }
        tokens::patch_rows(kernels, dy, dx, kept.kept, 1, width);
        let x = Left::Columns { data: &patches, stride: values };
        weight_gradient(kernels, dpatch, dbias, x, (dy, width), (rows, values, width));
        encoder.arenas.give_back(purpose, arena);
    }
}
