//! The image encoder.

use super::arenas::Purpose;
use super::head::{HeadParts, Pooling};
use super::names::Names;
use super::tower::{image_shape, Blocks};
use crate::kernel::arena::Arena;
use crate::kernel::backend::{Backend, Input, Needs, Pixels, SavedNorm, TokenGradients, Weights};
use crate::kernel::tokens::{Added, Sequences};
use crate::kernel::transformer::{Activations, Backward, Gradients, Keep, Scaled};
use crate::kernel::view::{Number, View, ViewMut};
use crate::mask::Kept;
use crate::model::config::{ImagePool, ModelConfig};
use crate::model::input::{ImageInput, PatchValues};
use crate::model::position;
use crate::model::spec::{CLASS_TOKEN, IMAGE_POSITIONS};
use crate::parameter::Parameter;

/// Places of the parameters of an image encoder, and its options.
#[derive(Debug, Clone)]
pub(super) struct ImageEncoder {
    /// [patch values, width].
    patch: usize,
    patch_bias: Option<usize>,
    class_token: Option<usize>,
    /// Tokens before the patches.
    prefix: usize,
    /// [prefix + grid^2, width], the class token's first, where they are learned.
    positions: Option<usize>,
    pre_norm: Option<Scaled<usize>>,
    pub blocks: Blocks,
    pixels: Pixels,
    patch_values: usize,
    /// Patches along a side of the image that positions are of.
    pub grid: usize,
}

/// The memory of a pass.
pub(super) struct Parts<'a, E> {
    activations: Activations<'a, E>,
    pub head: HeadParts<'a, E>,
    floats: ViewMut<'a, f32>,
    /// [batch * kept, patch values].
    pixels: ViewMut<'a, E>,
    ids: ViewMut<'a, u32>,
    /// [prefix + grid^2, width], made of learned positions of another grid; then the gradient of it.
    table: ViewMut<'a, f32>,
    pre_norm: SavedNorm<'a, E>,
    scatter: ViewMut<'a, u32>,
}

impl ImageEncoder {
    pub fn new(config: &ModelConfig, parameters: &[Parameter]) -> Self {
        let (names, image) = (Names::new(parameters), &config.image);
        let pooling = match image.pool {
            ImagePool::Mean => Pooling::Mean,
            ImagePool::ClassToken => Pooling::Place,
            ImagePool::Patches => Pooling::Patches { prefix: image.prefix() },
            ImagePool::Attention => Pooling::Attention,
        };
        let three = |of: [f64; 3]| of.map(|x| x as f32);
        ImageEncoder {
            patch: names.place("image.patch.weight"),
            patch_bias: names.find("image.patch.bias"),
            class_token: names.find(CLASS_TOKEN),
            prefix: image.prefix(),
            positions: names.find(IMAGE_POSITIONS),
            pre_norm: image.pre_norm.then(|| names.norm("image.pre_norm")),
            blocks: Blocks::new(config, &names, "image", image_shape(config), pooling),
            pixels: Pixels { mean: three(image.pixels.mean), deviation: three(image.pixels.std) },
            patch_values: image.patch_values(),
            grid: image.grid(),
        }
    }

    pub fn take<'a, E: Number>(&self, arena: &mut Arena<'a>, needs: Needs, purpose: Purpose) -> Parts<'a, E> {
        let Purpose { batch, kept, grid, floats, keep, .. } = purpose;
        let shape = &self.blocks.shape;
        let (width, tokens, rows) = (shape.width, self.prefix + kept, batch * kept);
        let values = rows * self.patch_values;
        let resampled = self.positions.is_some() && grid != self.grid;
        let scattered = self.positions.is_some() && keep != Keep::Nothing;
        Parts {
            activations: Activations::take(arena, needs, shape, batch, tokens, keep),
            head: self.blocks.head.take(arena, needs, batch, tokens, keep),
            floats: arena.take(if floats { values } else { 0 }),
            pixels: arena.take(values),
            ids: arena.take(rows),
            table: arena.take(if resampled { (self.prefix + grid * grid) * width } else { 0 }),
            pre_norm: SavedNorm::take(arena, if self.pre_norm.is_some() { batch * tokens } else { 0 }, width),
            scatter: arena.take(if scattered { (needs.scatter)(rows) } else { 0 }),
        }
    }

    /// Values that belong to a grid: the positions of its patches, [grid^2, width], where they are fixed; of learned positions, for
    /// another grid than their own, the matrix that makes those of this grid of them, [prefix + grid^2, prefix + own grid^2].
    pub fn table(&self, grid: usize) -> Option<Vec<f32>> {
        match self.positions {
            None => {
                let all = Kept::all(1, grid * grid);
                Some(position::sin_cos(&all, grid, self.grid, self.blocks.shape.width))
            }
            Some(_) if grid != self.grid => Some(position::resampling(grid, self.grid, self.prefix)),
            Some(_) => None,
        }
    }

    /// Unit embeddings in the head's parts. `table` is that of the grid of the images.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        state: &mut B::State,
        table: Option<View<f32>>,
        input: &ImageInput,
        parts: &mut Parts<B::Element>,
    ) -> Result<(), B::Error> {
        let backend = weights.backend;
        match &input.patches {
            PatchValues::Bytes(bytes) => {
                backend.normalise(state, parts.pixels.reborrow(), bytes, self.pixels)?
            }
            PatchValues::Floats(floats) => {
                backend.write(parts.floats.reborrow(), floats)?;
                backend.round(parts.pixels.reborrow(), parts.floats.view())?
            }
        }
        self.embed(weights, table, input, parts)?;
        let Parts { activations, head, pre_norm: saved, .. } = parts;
        if let Some(norm) = self.pre_norm {
            let norm = weights.norm(norm, self.blocks.shape.norm_eps);
            let (x, mut room) = (activations.x.reborrow(), activations.wide.cast::<f32>());
            let room = room.part(0, x.len());
            backend.layer_norm_in_place(x, saved, norm, room)?;
        }
        if matches!(self.blocks.head.pooling, Pooling::Place) {
            backend.clear(head.places.reborrow())?;
        }
        self.blocks.forward(weights, activations, head)
    }

    fn sequences(&self, kept: &Kept, width: usize) -> Sequences {
        Sequences { batch: kept.batch, kept: kept.kept, prefix: self.prefix, width }
    }

    /// Tokens of the patches, in `activations.x`.
    fn embed<B: Backend>(
        &self,
        weights: &Weights<B>,
        table: Option<View<f32>>,
        input: &ImageInput,
        parts: &mut Parts<B::Element>,
    ) -> Result<(), B::Error> {
        let (backend, width) = (weights.backend, self.blocks.shape.width);
        backend.write(parts.ids.reborrow(), &input.kept.ids)?;
        let (class_position, positions) = match (self.positions.map(|place| weights.vector(place)), table) {
            (None, Some(fixed)) => (None, fixed),
            (Some(learned), matrix) => {
                let table = match matrix {
                    Some(matrix) => {
                        backend.resample(parts.table.reborrow(), matrix, learned, width)?;
                        parts.table.view()
                    }
                    None => learned,
                };
                let first = self.prefix * width;
                (self.class_token.map(|_| table.part(0, first)), table.part(first, table.len() - first))
            }
            (None, None) => unreachable!("fixed positions have a table"),
        };
        let added = Added {
            bias: self.patch_bias.map(|bias| weights.vector(bias)),
            positions,
            class_token: self.class_token.map_or(positions.part(0, 0), |place| weights.vector(place)),
            class_position,
        };
        let Activations { x, wide, .. } = &mut parts.activations;
        let (of, mut room) = (self.sequences(&input.kept, width), wide.cast::<f32>());
        let room = room.part(0, of.batch * of.kept * width);
        let (pixels, ids) = (parts.pixels.view(), parts.ids.view());
        backend.embed_patches(x.reborrow(), pixels, weights.weight(self.patch), added, ids, of, room)
    }

    /// Adds to the gradients of all parameters. `ids` are the positions of the kept patches.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        table: Option<View<f32>>,
        (ids, purpose): (&[u32], Purpose),
        parts: &mut Parts<B::Element>,
        dz: View<f32>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let (backend, width) = (weights.backend, self.blocks.shape.width);
        let Parts { activations, head, pixels, table: dtable, pre_norm, scatter, .. } = parts;
        self.blocks.backward(weights, activations, head, dz, gradients)?;
        let Backward { mut dx, mut rounded, mut scratch, .. } = activations.backward();
        if let Some(norm) = self.pre_norm {
            // The gradient of its output is what the first block left rounded.
            backend.clear(dx.reborrow())?;
            let (dnorm, scale) = (gradients.at([norm.scale, norm.shift]), weights.vector(norm.scale));
            let (to, room) = (dx.reborrow(), scratch.reborrow());
            backend.layer_norm_backward(to, None, dnorm, rounded.view(), pre_norm, scale, room)?;
        }

        let of = Sequences { batch: purpose.batch, kept: purpose.kept, prefix: self.prefix, width };
        let (class_token, positions) = match (self.class_token, self.positions) {
            (Some(class_token), positions) => {
                let (class_token, positions) = gradients.with(class_token, positions);
                (Some(class_token), positions)
            }
            (None, Some(positions)) => (None, Some(gradients.with(positions, None).0)),
            (None, None) => (None, None),
        };
        let resampled = table.filter(|_| positions.is_some()).map(|matrix| (matrix, dtable.reborrow()));
        let tokens = TokenGradients { class_token, positions, resampled };
        backend.token_gradients(tokens, ids, dx.view(), of, scatter.reborrow(), scratch.reborrow())?;

        let mut dy = rounded.part(0, of.batch * of.kept * width);
        backend.patch_rows(dy.reborrow(), dx.view(), of)?;
        let (dw, db) = gradients.with(self.patch, self.patch_bias);
        let x = Input::Rows { values: pixels.view(), width: self.patch_values };
        backend.weight_gradient(dw, db, x, dy.view(), scratch)
    }
}
