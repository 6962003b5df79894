//! The encoders and the loss on the kernels of the CPU: each one node of the dfdx tape. dfdx keeps the 32-bit
//! masters, the tape and the gradients; here are copies of the weights as products read them (the mirror, which is
//! of bf16 alone: in f32, products read the masters), activations, and both passes.

mod image;
mod memory;
mod text;
mod tower;
mod update;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

use super::config::{Activation, ModelConfig, Normalisation, Precision, Recompute};
use super::engine::{Back, Engine, Moments, Node};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use crate::kernel::element::{Bf16, Element};
use crate::kernel::transformer::{Activations, Shape as StackShape};
use crate::kernel::unit_norm::Length;
use crate::kernel::{activation, adamw, contrastive, Cpu as Kernels};
use crate::parameter::{Parameter, Role};
use image::FusedImages;
pub(super) use memory::keep;
use text::FusedTexts;
use tower::Recorded;
use update::Spare;

/// An encoder whose mirror may be behind its masters.
#[derive(Debug)]
struct Mirrored<T> {
    tower: Mutex<Arc<T>>,
    stale: AtomicBool,
}

/// Both encoders, in the number type `K` inside.
#[derive(Debug)]
pub(crate) struct Fused<K: Element> {
    kernels: Arc<Kernels>,
    images: Mirrored<FusedImages<K>>,
    texts: Mirrored<FusedTexts<K>>,
    spare: Spare,
}

impl<T: Clone> Mirrored<T> {
    fn new(tower: T) -> Self {
        Mirrored { tower: Mutex::new(Arc::new(tower)), stale: AtomicBool::new(true) }
    }

    /// The encoder, with whatever weights it has.
    fn tower(&self) -> Arc<T> {
        self.tower.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the masters are about to change, or have changed.
    fn outdate(&self, release: impl FnOnce(&mut T)) {
        let mut tower = self.tower.lock().unwrap_or_else(PoisonError::into_inner);
        // A tape that was never run back may hold it: dfdx then changes a copy of the masters.
        Arc::get_mut(&mut tower).map(release);
        self.stale.store(true, Ordering::Release);
    }

    /// The encoder with the weights of its masters, loaded where they have changed.
    fn current(&self, load: impl FnOnce(&mut T)) -> Arc<T> {
        let mut tower: MutexGuard<'_, Arc<T>> = self.tower.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stale.swap(false, Ordering::AcqRel) {
            // Cloned only while a tape that was never run back still holds it.
            load(Arc::make_mut(&mut tower));
        }
        tower.clone()
    }

    /// Loads the encoder anew.
    fn renew(&self, load: impl FnOnce(&mut T)) {
        self.stale.store(true, Ordering::Release);
        self.current(load);
    }
}

impl<K: Element> Fused<K> {
    pub fn new(kernels: Arc<Kernels>, config: &ModelConfig, recompute: Recompute) -> Self {
        Fused {
            images: Mirrored::new(FusedImages::new(&kernels, config, recompute)),
            texts: Mirrored::new(FusedTexts::new(&kernels, config, recompute)),
            spare: Spare::default(),
            kernels,
        }
    }

    /// Embeddings as a node whose way back is that of `recorded`.
    fn node(
        &self,
        parameters: &[&Parameter<f32, Cpu>],
        z: Vec<f32>,
        batch: usize,
        recorded: Option<Box<dyn Recorded>>,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let first = parameters.first();
        let device = first.map_or_else(Cpu::default, |parameter| parameter.master.device().clone());
        let width = z.len() / batch;
        let value = device.try_tensor_from_vec(z, (batch, width))?;
        let to = value.ghost();
        let masters: Vec<_> =
            parameters.iter().map(|parameter| (parameter.master.ghost(), parameter.len())).collect();
        let (kernels, spare) = (self.kernels.clone(), self.spare.clone());
        let back = recorded.map(|recorded| -> Back<f32, Cpu> {
            Box::new(move |gradients| {
                let of_z = gradients.get_or_alloc_mut(&to)?.to_vec();
                // dfdx lends one gradient at a time, the backward pass wants all of them: they are taken out
                // and put back.
                let mut taken = Vec::with_capacity(masters.len());
                for (master, len) in &masters {
                    let own = gradients.get_or_alloc_mut(master)?;
                    let mut spare = spare.lock();
                    let zeros = spare.get_or_alloc_mut(master)?;
                    // Those that were taken are empty until the update gives them back.
                    if !zeros.is_empty() {
                        **own = std::mem::take(&mut **zeros);
                    }
                    let mut gradient = std::mem::take(&mut **own);
                    // dfdx takes a master that was given up for a single value.
                    gradient.resize(*len, 0.0);
                    taken.push(gradient);
                }
                let mut slices: Vec<&mut [f32]> = taken.iter_mut().map(Vec::as_mut_slice).collect();
                recorded.backward(&kernels, &of_z, &mut slices);
                for ((master, _), gradient) in masters.iter().zip(taken) {
                    **gradients.get_or_alloc_mut(master)? = gradient;
                }
                Ok(())
            })
        });
        Ok(Node { value, back })
    }
}

impl<K: Element> Engine<f32, Cpu> for Fused<K> {
    fn masters_change(&self) {
        self.images.outdate(FusedImages::release);
        self.texts.outdate(FusedTexts::release);
    }

    fn copies_weights(&self) -> bool {
        K::GROUP > 1
    }

    fn load(
        &self,
        images: &[&Parameter<f32, Cpu>],
        texts: &[&Parameter<f32, Cpu>],
        supply: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), CpuError> {
        self.images.renew(|tower| tower.load(&self.kernels, images, Some(&mut *supply)));
        self.texts.renew(|tower| tower.load(&self.kernels, texts, Some(&mut *supply)));
        Ok(())
    }

    fn take_gradient(
        &self,
        parameter: &Parameter<f32, Cpu>,
        gradients: &mut Gradients<f32, Cpu>,
    ) -> Result<Vec<f32>, CpuError> {
        let mut values = std::mem::take(&mut **gradients.get_or_alloc_mut(&parameter.master)?);
        values.resize(parameter.len(), 0.0);
        Ok(values)
    }

    fn put_gradient(
        &self,
        parameter: &Parameter<f32, Cpu>,
        gradients: &mut Gradients<f32, Cpu>,
        values: Vec<f32>,
    ) -> Result<(), CpuError> {
        **gradients.get_or_alloc_mut(&parameter.master)? = values;
        Ok(())
    }

    fn show(
        &self,
        parameter: &Parameter<f32, Cpu>,
        held: &mut Gradients<f32, Cpu>,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), CpuError> {
        see(held.get_or_alloc_mut(&parameter.master)?);
        Ok(())
    }

    fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn arena_bytes(&self) -> usize {
        self.images.tower().arena_bytes() + self.texts.tower().arena_bytes()
    }

    fn square_sum(
        &self,
        parameters: &[&Parameter<f32, Cpu>],
        gradients: &mut Gradients<f32, Cpu>,
    ) -> Result<f64, CpuError> {
        update::square_sum(&self.kernels, parameters, gradients)
    }

    fn adamw(
        &self,
        parameters: Vec<&mut Parameter<f32, Cpu>>,
        moments: Moments<'_, f32, Cpu>,
        gradients: Gradients<f32, Cpu>,
        rule: &dyn Fn(Role) -> adamw::AdamW,
    ) -> Result<(), CpuError> {
        self.masters_change();
        update::adamw(&self.kernels, &self.spare, parameters, moments, gradients, rule)
    }

    fn images(
        &self,
        parameters: &[&Parameter<f32, Cpu>],
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let tower = self.images.current(|tower| tower.load(&self.kernels, parameters, None));
        let (z, recorded) = tower.clone().forward(&self.kernels, input, record);
        self.node(parameters, z, input.kept.batch, recorded)
    }

    fn texts(
        &self,
        parameters: &[&Parameter<f32, Cpu>],
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cpu>, CpuError> {
        let tower = self.texts.current(|tower| tower.load(&self.kernels, parameters, None));
        let table = &parameters[0].master;
        let (z, recorded) = tower.clone().forward(&self.kernels, table, input, record);
        self.node(parameters, z, input.kept.batch, recorded)
    }

    fn loss(
        &self,
        images: &Matrix<f32, Cpu>,
        texts: &Matrix<f32, Cpu>,
        logit_scale: &Parameter<f32, Cpu>,
        scale: f64,
        learning: bool,
    ) -> Result<Node<(), f32, Cpu>, CpuError> {
        let width = images.shape().1;
        let (z_images, z_texts) = (images.as_vec(), texts.as_vec());
        let (mut of_images, mut of_texts) = (vec![0.0; z_images.len()], vec![0.0; z_texts.len()]);
        let factor = scale.exp();
        let loss = contrastive::loss_and_gradients(
            &self.kernels,
            &mut of_images,
            &mut of_texts,
            &z_images,
            &z_texts,
            factor as f32,
            width,
        );
        let value = images.device().try_tensor_from_vec(vec![loss.loss as f32], ())?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let to_scale = logit_scale.master.ghost();
        let back: Back<f32, Cpu> = Box::new(move |gradients| {
            let outer = gradients.get_or_alloc_mut(&to)?[0];
            let scaled = |into: &mut [f32], from: &[f32]| {
                into.iter_mut().zip(from).for_each(|(into, from)| *into += outer * from);
            };
            scaled(gradients.get_or_alloc_mut(&to_images)?, &of_images);
            scaled(gradients.get_or_alloc_mut(&to_texts)?, &of_texts);
            // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
            let of_scale = if learning { loss.dscale * factor } else { 0.0 };
            scaled(gradients.get_or_alloc_mut(&to_scale)?, &[of_scale as f32]);
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
