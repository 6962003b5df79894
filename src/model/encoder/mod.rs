//! Both encoders, whole, on a backend: from pixels and ids to unit embeddings, and back to the gradients of all parameters. They
//! compute what the composed graph computes, from operations that a [`Backend`] has.
//!
//! An encoder knows the places of its parameters in the list of all. A forward pass takes an arena, which is made in the first
//! step and used again in every other; the [`Pass`] that it leaves is what its backward pass needs.

mod arenas;
mod attention_pool;
mod bytes;
mod head;
mod image;
mod names;
mod text;
mod tower;

use super::config::{ModelConfig, Recompute};
use super::input::{ImageInput, PatchValues, TextInput};
use crate::kernel::arena::Arena;
use crate::kernel::backend::{Backend, HeldBytes, Read, Size, Weights};
use crate::kernel::transformer::{Gradients, Keep};
use crate::kernel::view::{View, ViewMut};
use crate::mask::Kept;
use crate::parameter::{Parameter, Role, Tower};
pub use arenas::Pass;
use arenas::{Arenas, Purpose};
pub use bytes::{arena_bytes, gpu_bytes, gpu_lacks, gpu_rates, GpuBytes};
use image::ImageEncoder;
use text::TextEncoder;

/// Sizes of parameters, and how kernels read them.
pub fn sizes(parameters: &[Parameter]) -> Vec<Size> {
    let size = |parameter: &Parameter| {
        let (rows, columns) = parameter.matrix();
        let read = match parameter.role {
            Role::Weight => Read::Weight,
            _ if parameter.rounded => Read::Rounded,
            _ => Read::Master,
        };
        Size { rows, columns, read }
    };
    parameters.iter().map(size).collect()
}

/// Both encoders and their memory.
pub struct Encoders<B: Backend> {
    image: ImageEncoder,
    text: TextEncoder,
    arenas: Arenas<B>,
    /// Tables of the grids that images came with so far; see [`ImageEncoder::table`].
    tables: Vec<(usize, B::Buffer<f32>)>,
    pub state: B::State,
    /// Values that recorded passes keep.
    keep: Keep,
}

fn keep(recompute: Recompute) -> Keep {
    match recompute {
        Recompute::None => Keep::Everything,
        Recompute::Blocks => Keep::Inputs,
    }
}

impl<B: Backend> Encoders<B> {
    /// The encoders of a model with this list of parameters.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(
        backend: &B,
        config: &ModelConfig,
        parameters: &[Parameter],
        recompute: Recompute,
    ) -> Result<Self, B::Error> {
        Ok(Encoders {
            image: ImageEncoder::new(config, parameters),
            text: TextEncoder::new(config, parameters),
            arenas: Arenas::new(),
            tables: Vec::new(),
            state: backend.state()?,
            keep: keep(recompute),
        })
    }

    /// Sends the images of a coming micro-batch, beside what is computed.
    ///
    /// # Errors
    /// The device fails.
    pub fn prefetch(&mut self, backend: &B, bytes: HeldBytes) -> Result<(), B::Error> {
        backend.prefetch(&mut self.state, bytes)
    }

    /// Bytes of the arenas that are not in use, and of the memory that images arrive in.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes() + B::incoming_bytes(&self.state)
    }

    fn purpose(&self, tower: Tower, kept: &Kept, record: bool) -> Purpose {
        let keep = if record { self.keep } else { Keep::Nothing };
        Purpose { tower, batch: kept.batch, kept: kept.kept, grid: 0, floats: false, keep }
    }

    /// z = unit embeddings [batch, embed_dim] of a checked input, and the pass where `record`. `features` get what is projected to
    /// the embeddings, [batch, width].
    ///
    /// # Errors
    /// The device fails, or has no room.
    pub fn encode_images(
        &mut self,
        weights: &Weights<B>,
        input: &ImageInput,
        z: ViewMut<f32>,
        record: bool,
        features: Option<&mut Vec<f32>>,
    ) -> Result<Option<Pass<B>>, B::Error> {
        let (backend, grid) = (weights.backend, input.grid);
        let floats = matches!(input.patches, PatchValues::Floats(_));
        let purpose = Purpose { grid, floats, ..self.purpose(Tower::Image, &input.kept, record) };
        if let Some(table) = self.image.table(grid).filter(|_| self.tables.iter().all(|(of, _)| *of != grid))
        {
            self.tables.push((grid, backend.upload(&table)?));
        }
        let Encoders { image, arenas, tables, state, .. } = self;
        let bytes = Arena::measure(|arena| image.take::<B::Element>(arena, B::NEEDS, purpose));
        let mut memory = arenas.take(backend, purpose, bytes)?;
        let mut parts = image.take(&mut Arena::new(backend.view_mut(&mut memory)), B::NEEDS, purpose);
        let table = tables.iter().find(|(of, _)| *of == grid).map(|(_, table)| backend.view(table));
        image.forward(weights, state, table, input, &mut parts)?;
        backend.copy(z, parts.head.z.view())?;
        if let Some(features) = features {
            *features = backend.read_wide(parts.head.pooled.view())?;
        }
        let ids = if record { input.kept.ids.clone() } else { Vec::new() };
        Ok(arenas.keep(Pass { purpose, memory, bytes, ids, tokens: Vec::new() }, record))
    }

    /// As [`encode_images`](Self::encode_images), of captions. Kept tokens of a causal encoder come in the order of the caption.
    ///
    /// # Errors
    /// The device fails, or has no room.
    pub fn encode_texts(
        &mut self,
        weights: &Weights<B>,
        input: &TextInput,
        z: ViewMut<f32>,
        record: bool,
    ) -> Result<Option<Pass<B>>, B::Error> {
        let (backend, purpose) = (weights.backend, self.purpose(Tower::Text, &input.kept, record));
        let Encoders { text, arenas, .. } = self;
        let bytes = Arena::measure(|arena| text.take::<B::Element>(arena, B::NEEDS, purpose));
        let mut memory = arenas.take(backend, purpose, bytes)?;
        let mut parts = text.take(&mut Arena::new(backend.view_mut(&mut memory)), B::NEEDS, purpose);
        text.forward(weights, input, &mut parts)?;
        backend.copy(z, parts.head.z.view())?;
        let (ids, tokens) = match record {
            true => (input.kept.ids.clone(), input.tokens.clone()),
            false => (Vec::new(), Vec::new()),
        };
        Ok(arenas.keep(Pass { purpose, memory, bytes, ids, tokens }, record))
    }

    /// Adds to the gradients of all parameters of an encoder what the gradient `dz` [batch, embed_dim] of the embeddings of a
    /// pass contributes.
    ///
    /// # Errors
    /// The device fails.
    pub fn backward(
        &mut self,
        weights: &Weights<B>,
        mut pass: Pass<B>,
        dz: View<f32>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let (backend, purpose) = (weights.backend, pass.purpose);
        let mut arena = Arena::new(backend.view_mut(&mut pass.memory));
        if purpose.tower == Tower::Image {
            let mut parts = self.image.take(&mut arena, B::NEEDS, purpose);
            let table = self.tables.iter().find(|(of, _)| *of == purpose.grid);
            let table = table.map(|(_, table)| backend.view(table));
            self.image.backward(weights, table, (&pass.ids, purpose), &mut parts, dz, gradients)?;
        } else {
            let mut parts = self.text.take(&mut arena, B::NEEDS, purpose);
            let read = [&*pass.tokens, &*pass.ids];
            self.text.backward(weights, read, purpose, &mut parts, dz, gradients)?;
        }
        self.arenas.keep(pass, false);
        Ok(())
    }
}
