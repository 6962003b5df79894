//! Both encoders, the loss and the update on a machine: [`encoder`](crate::kernel::encoder) for what a recipe says, without
//! a graph. Products are of bfloat16.

use super::config::{ImagePool, ImagePositions, ModelConfig, Recompute, TextPool};
use super::fused::{image_shape, keep, length, text_shape};
use super::input::{ImageInput, PatchValues, TextInput};
use super::position;
use super::text::pooled_tokens;
use crate::kernel::contrastive::tiles::{self, Contrastive};
use crate::kernel::cuda::copies::Copies;
use crate::kernel::cuda::rates::{self, Launches, Rate};
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::encoder::image::{self, ImageEncoder, Patches};
use crate::kernel::encoder::incoming::HeldBytes;
use crate::kernel::encoder::text::{self, TextEncoder};
use crate::kernel::encoder::update::Update;
use crate::kernel::encoder::{HeadSizes, Pass};
use crate::kernel::transformer::cuda::lacking;
use crate::kernel::transformer::Keep;
use crate::mask::Kept;
use crate::parameter::Tower;

/// Both encoders and what they share. Parameters and their gradients come in the order of the list.
pub struct MachineEncoders<M: Machine> {
    images: ImageEncoder<M>,
    texts: TextEncoder<M>,
    pub loss: Contrastive<M>,
    pub update: Update<M>,
    config: ModelConfig,
}

/// Why a machine cannot compute the encoders of a model; `None` where it can.
pub fn machine_lacks(config: &ModelConfig) -> Option<String> {
    let of = |tower: &str, shape| lacking(&shape).map(|lack| format!("model.{tower} needs {lack}"));
    let embed_dim = config.embed_dim;
    let odd = || {
        let even = embed_dim.is_multiple_of(8);
        (!even).then(|| format!("model.embed_dim needs to be a multiple of 8, not {embed_dim}"))
    };
    of("image", image_shape(config)).or_else(|| of("text", text_shape(config))).or_else(odd)
}

fn image_sizes(config: &ModelConfig) -> image::Sizes {
    let image = &config.image;
    let three = |of: [f64; 3]| of.map(|x| x as f32);
    image::Sizes {
        shape: image_shape(config),
        patch_values: image.patch_values(),
        grid: image.grid(),
        patch_bias: image.patch_bias,
        learned_positions: image.positions == ImagePositions::Learned,
        pre_norm: image.pre_norm,
        mean: image.pool == ImagePool::Mean,
        head: head_sizes(config, image.norm_eps),
        mean_of_pixels: three(image.pixels.mean),
        deviation_of_pixels: three(image.pixels.std),
    }
}

fn text_sizes(config: &ModelConfig) -> text::Sizes {
    let text = &config.text;
    text::Sizes {
        shape: text_shape(config),
        vocabulary: text.vocab_size,
        context: text.context,
        mean: text.pool == TextPool::Mean,
        head: head_sizes(config, text.norm_eps),
    }
}

fn head_sizes(config: &ModelConfig, norm_eps: f64) -> HeadSizes {
    let length = length(config.normalisation);
    HeadSizes { embed_dim: config.embed_dim, norm_eps: norm_eps as f32, length }
}

impl<M: Machine> MachineEncoders<M> {
    /// Encoders whose parameters have yet to be loaded, of a model that the machine [has kernels for](machine_lacks).
    ///
    /// # Errors
    /// The machine has no room.
    pub fn new(machine: &M, config: &ModelConfig, recompute: Recompute) -> Result<Self, MachineError> {
        let keep = keep(true, recompute);
        Ok(MachineEncoders {
            images: ImageEncoder::new(machine, image_sizes(config), keep)?,
            texts: TextEncoder::new(machine, text_sizes(config), keep)?,
            loss: Contrastive::new(machine)?,
            update: Update::new(machine)?,
            config: config.clone(),
        })
    }

    /// The copies of an encoder's parameters that kernels read.
    pub fn copies(&mut self, tower: Tower) -> &mut Copies<M> {
        match tower {
            Tower::Image => &mut self.images.copies,
            Tower::Text => &mut self.texts.copies,
            Tower::Loss => unreachable!("the loss has no copies"),
        }
    }

    /// Sends the images that a coming micro-batch is made of, beside what is launched.
    pub fn send_ahead(&mut self, machine: &M, bytes: HeldBytes) -> Result<(), MachineError> {
        self.images.send_ahead(machine, bytes)
    }

    /// Bytes of the arenas that are not in use, and of the memory that images arrive in.
    pub fn arena_bytes(&self) -> usize {
        self.images.arena_bytes() + self.texts.arena_bytes()
    }

    /// z = unit embeddings [batch, embed_dim] of a checked input, and the way back where `record`.
    pub fn encode_images(
        &mut self,
        machine: &M,
        input: &ImageInput,
        z: ViewMut<f32>,
        record: bool,
    ) -> Result<Option<Pass<M>>, MachineError> {
        let (image, grid) = (&self.config.image, input.grid);
        let (own, width, learned) = (image.grid(), image.width, image.positions == ImagePositions::Learned);
        let positions = move || {
            if learned {
                position::resampling(grid, own)
            } else {
                position::sin_cos(&Kept::all(1, grid * grid), grid, own, width)
            }
        };
        let input = image::Input {
            patches: match &input.patches {
                PatchValues::Bytes(bytes) => Patches::Bytes(bytes),
                PatchValues::Floats(floats) => Patches::Floats(floats),
            },
            ids: &input.kept.ids,
            batch: input.kept.batch,
            kept: input.kept.kept,
            grid,
            positions: &positions,
        };
        self.images.forward(machine, input, z, record)
    }

    /// As [`encode_images`](Self::encode_images), of captions.
    pub fn encode_texts(
        &mut self,
        machine: &M,
        input: &TextInput,
        z: ViewMut<f32>,
        record: bool,
    ) -> Result<Option<Pass<M>>, MachineError> {
        let places: Option<Vec<u32>> = pooled_tokens(input, self.config.text.pool)
            .map(|places| places.into_iter().map(|place| place as u32).collect());
        let input = text::Input {
            tokens: &input.tokens,
            positions: &input.kept.ids,
            places: places.as_deref(),
            batch: input.kept.batch,
            kept: input.kept.kept,
        };
        self.texts.forward(machine, input, z, record)
    }

    /// Adds to the gradients of all parameters of a tower what the gradient `dz` [batch, embed_dim] of the embeddings of a
    /// pass contributes.
    pub fn send_back(
        &mut self,
        machine: &M,
        tower: Tower,
        pass: Pass<M>,
        dz: View<f32>,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        match tower {
            Tower::Image => self.images.backward(machine, pass, dz, gradients),
            _ => self.texts.backward(machine, pass, dz, gradients),
        }
    }
}

/// How fast each kernel of the image encoder is by itself, and of the update of `parameters` parameters. `seconds` says how
/// long a launch takes.
///
/// # Errors
/// The machine fails, or has no room.
pub fn machine_rates<M: Machine>(
    machine: &M,
    config: &ModelConfig,
    (pairs, kept): (usize, usize),
    parameters: usize,
    seconds: impl FnMut(&mut Launches) -> Result<f64, MachineError>,
) -> Result<Vec<Rate>, MachineError> {
    let patch_values = config.image.patch_values();
    let sizes = rates::Sizes { shape: image_shape(config), patch_values, pairs, kept, parameters };
    rates::rates(machine, sizes, seconds)
}

/// Bytes that fused encoders hold on a machine besides parameters, moments and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineBytes {
    /// What kernels read of parameters.
    pub copies: usize,
    /// Arenas of both encoders, and the memory that images arrive in.
    pub arenas: usize,
    /// Embeddings of the batch, their gradients, and scratch memory of the loss.
    pub loss: usize,
}

/// What they hold for a batch in micro-batches of `pairs` pairs, of images of the model's own size.
pub fn machine_bytes(
    config: &ModelConfig,
    recompute: Recompute,
    (batch, pairs): (usize, usize),
    kept_patches: usize,
    kept_tokens: usize,
) -> MachineBytes {
    let (images, texts) = (image_sizes(config), text_sizes(config));
    let parameters: Vec<_> = images.parameters().into_iter().chain(texts.parameters()).collect();
    let arenas =
        |keep| images.bytes(pairs, kept_patches, images.grid, keep) + texts.bytes(pairs, kept_tokens, keep);
    // Several micro-batches are encoded twice, the first time without a way back, in arenas of their own.
    let first = if pairs < batch { arenas(Keep::Nothing) } else { 0 };
    // As values of a tensor, as its gradient, and copies of both on the way between the two, of both sides.
    let embeddings = 8 * batch * config.embed_dim * size_of::<f32>();
    MachineBytes {
        copies: parameters.iter().map(|&(reads, len)| reads.bytes(len)).sum(),
        arenas: arenas(keep(true, recompute)) + first + images.incoming_bytes(pairs, kept_patches),
        loss: embeddings + tiles::bytes(batch),
    }
}
