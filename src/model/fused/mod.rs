//! The encoders and the loss on the kernels of the CPU: each one node of the dfdx tape. Kernels read the masters where they
//! lie, and of weights in bfloat16 the mirror: copies as products read them. Here are the mirror, activations, and both passes.

mod image;
mod memory;
mod text;
mod tower;
mod update;
mod values;

use std::sync::Arc;

use dfdx::prelude::*;

use super::config::{Activation, ModelConfig, Normalisation, Precision, Recompute};
use super::engine::{Back, Engine, LogitScale, Node, Update};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use crate::kernel::element::{Bf16, Element};
use crate::kernel::transformer::{Activations, Shape as StackShape};
use crate::kernel::unit_norm::Length;
use crate::kernel::{activation, contrastive, Cpu as Kernels};
use crate::parameter::{Flat, Parameter, Tower};
use image::FusedImages;
pub(super) use memory::keep;
use text::FusedTexts;
use tower::Recorded;
use values::Mirror;

/// Both encoders, in the number type `K` inside.
#[derive(Debug)]
pub(crate) struct Fused<K: Element> {
    kernels: Arc<Kernels>,
    parameters: Arc<Vec<Parameter>>,
    mirror: Mirror<K>,
    images: Arc<FusedImages<K>>,
    texts: Arc<FusedTexts<K>>,
}

impl<K: Element> Fused<K> {
    pub fn new(
        kernels: Arc<Kernels>,
        config: &ModelConfig,
        parameters: &Arc<Vec<Parameter>>,
        recompute: Recompute,
    ) -> Self {
        Fused {
            mirror: Mirror::new(&kernels, parameters),
            images: Arc::new(FusedImages::new(config, parameters, recompute)),
            texts: Arc::new(FusedTexts::new(config, parameters, recompute)),
            parameters: parameters.clone(),
            kernels,
        }
    }

    /// Embeddings as a node whose backward pass is that of `recorded`.
    fn node(
        &self,
        tower: Tower,
        device: &Cpu,
        z: Vec<f32>,
        batch: usize,
        recorded: Option<Box<dyn Recorded>>,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let width = z.len() / batch;
        let value = device.try_tensor_from_vec(z, (batch, width))?;
        let (to, kernels) = (value.ghost(), self.kernels.clone());
        let back = recorded.map(|recorded| -> Back<f32, Cpu> {
            Box::new(move |entries, all| {
                let dz = entries.get_or_alloc_mut(&to)?;
                recorded.backward(&kernels, dz, &mut values::gradients(all, tower));
                Ok(())
            })
        });
        Ok(Node { value, back })
    }
}

impl<K: Element> Engine<f32, Cpu> for Fused<K> {
    fn masters_change(&self) {
        self.mirror.lock().stale = true;
    }

    fn copies_weights(&self) -> bool {
        K::GROUP > 1
    }

    fn load(&self, masters: &Flat<f32, Cpu>) -> Result<(), CpuError> {
        self.mirror.current(&self.kernels, masters);
        Ok(())
    }

    fn copy_weight(&self, place: usize, values: &[f32]) -> Result<(), CpuError> {
        self.mirror.copy(&self.kernels, place, values);
        Ok(())
    }

    fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn arena_bytes(&self) -> usize {
        self.images.arena_bytes() + self.texts.arena_bytes()
    }

    fn square_sum(&self, gradients: &Flat<f32, Cpu>, places: &[usize]) -> Result<f64, CpuError> {
        Ok(update::square_sum(&self.kernels, &self.parameters, gradients, places))
    }

    fn adamw(&self, update: Update<'_, f32, Cpu>) -> Result<(), CpuError> {
        update::adamw(&self.kernels, &self.parameters, &self.mirror, update);
        Ok(())
    }

    fn images(
        &self,
        masters: &Flat<f32, Cpu>,
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let parameters = self.mirror.current(&self.kernels, masters);
        let (z, recorded) = self.images.clone().forward(&self.kernels, parameters, input, record);
        self.node(Tower::Image, masters.device(), z, input.kept.batch, recorded)
    }

    fn texts(
        &self,
        masters: &Flat<f32, Cpu>,
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let parameters = self.mirror.current(&self.kernels, masters);
        let (z, recorded) = self.texts.clone().forward(&self.kernels, parameters, input, record);
        self.node(Tower::Text, masters.device(), z, input.kept.batch, recorded)
    }

    fn loss(
        &self,
        images: &Matrix<f32, Cpu>,
        texts: &Matrix<f32, Cpu>,
        logit_scale: LogitScale,
    ) -> Result<Node<(), f32, Cpu>, CpuError> {
        let width = images.shape().1;
        let (z_images, z_texts) = (images.as_vec(), texts.as_vec());
        let (mut dimages, mut dtexts) = (vec![0.0; z_images.len()], vec![0.0; z_texts.len()]);
        let factor = logit_scale.value.exp();
        let loss = contrastive::loss_and_gradients(
            &self.kernels,
            &mut dimages,
            &mut dtexts,
            &z_images,
            &z_texts,
            factor as f32,
            width,
        );
        let value = images.device().try_tensor_from_vec(vec![loss.loss as f32], ())?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let back: Back<f32, Cpu> = Box::new(move |entries, all| {
            let outer = entries.get_or_alloc_mut(&to)?[0];
            let scaled = |into: &mut [f32], from: &[f32]| {
                into.iter_mut().zip(from).for_each(|(into, from)| *into += outer * from);
            };
            scaled(entries.get_or_alloc_mut(&to_images)?, &dimages);
            scaled(entries.get_or_alloc_mut(&to_texts)?, &dtexts);
            // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
            let dscale = if logit_scale.learns { loss.dscale * factor } else { 0.0 };
            scaled(all.tower_mut(Tower::Loss), &[dscale as f32]);
            Ok(())
        });
        Ok(Node { value, back: Some(back) })
    }
}

/// Bytes of the activations that the fused encoders hold for a micro-batch of `pairs` pairs: both arenas, and
/// what is kept beside them, the patches and what the final norms leave.
pub fn arena_bytes(
    config: &ModelConfig,
    precision: Precision,
    recompute: Recompute,
    pairs: usize,
    kept_patches: usize,
    kept_tokens: usize,
) -> usize {
    match precision {
        Precision::F32 => arena::<f32>(config, recompute, pairs, kept_patches, kept_tokens),
        Precision::Bf16 => arena::<Bf16>(config, recompute, pairs, kept_patches, kept_tokens),
    }
}

fn arena<K: Element>(
    config: &ModelConfig,
    recompute: Recompute,
    pairs: usize,
    patches: usize,
    tokens: usize,
) -> usize {
    let keep = keep(true, recompute);
    let beside = pairs * (patches * config.image.patch_values() + (patches + 1) * config.image.width);
    Activations::<K>::bytes(&image_shape(config), pairs, patches + 1, keep)
        + Activations::<K>::bytes(&text_shape(config), pairs, tokens, keep)
        + beside * size_of::<K>()
}

pub(super) fn length(normalisation: Normalisation) -> Length {
    match normalisation {
        Normalisation::AddEps => Length::Plus(1e-8),
        Normalisation::MaxEps => Length::AtLeast(1e-12),
    }
}

fn curve(activation: Activation) -> activation::Activation {
    match activation {
        Activation::GeluTanh => activation::Activation::GeluTanh,
        Activation::GeluExact => activation::Activation::GeluExact,
        Activation::QuickGelu => activation::Activation::QuickGelu,
    }
}

/// Sizes of the image encoder's blocks.
pub(super) fn image_shape(config: &ModelConfig) -> StackShape {
    let image = &config.image;
    StackShape {
        width: image.width,
        depth: image.depth,
        heads: image.heads,
        hidden: image.hidden(),
        activation: curve(image.activation),
        causal: false,
        norm_eps: image.norm_eps as f32,
    }
}

/// Sizes of the text encoder's blocks.
pub(super) fn text_shape(config: &ModelConfig) -> StackShape {
    let text = &config.text;
    StackShape {
        width: text.width,
        depth: text.depth,
        heads: text.heads,
        hidden: text.hidden(),
        activation: curve(text.activation),
        causal: text.causal,
        norm_eps: text.norm_eps as f32,
    }
}
