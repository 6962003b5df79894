//! Both encoders and the contrastive loss, as a dfdx graph over sizes that a recipe names.
//!
//! One model covers FLIP (arXiv 2212.00794; the default of every option) and open_clip. It is generic over
//! the dtype, single precision for work and double for finite differences, and over the dfdx device.
//! Everything here is composed of dfdx operations: it is the readable reference that faster kernels are
//! held against.
//!
//! Parameters are a list (`spec`); their values, gradients and moments lie in one buffer for each encoder, as ranges
//! ([`Flat`]). For a pass the composed graph makes tensors of the ranges (`gradients`); kernels use them where they lie.
//!
//! Activations are [rows, width], a row a token; matrices are [inputs, outputs], y = x W + b.

mod activation;
mod attention_pool;
mod block;
mod check;
mod config;
mod cost;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod encoder;
mod engine;
mod error;
mod exchange;
mod fused;
mod grad_cache;
mod gradients;
mod image;
mod init;
mod input;
mod layer;
mod loss;
mod matrix;
mod micro_batches;
mod parts;
mod patch;
mod position;
mod prefetch;
mod resample;
mod ring_loss;
mod sharded;
mod spec;
mod text;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use dfdx::prelude::*;

pub use config::*;
pub use cost::ParameterCounts;
pub use encoder::{arena_bytes, gpu_bytes, gpu_lacks, gpu_rates, sizes, Encoders, GpuBytes, Pass};
pub use error::{ModelError, Violation};
pub use grad_cache::{LossAndGradients, Seconds};
pub use input::{ImageInput, PatchValues, TextInput};
pub use layer::{layer_norm, Matrix};
pub use loss::{host_contrastive, LOGIT_SCALE_RANGE};
pub use parts::OwnParts;
pub use patch::gather_patches;
pub use position::sin_cos_table;
use prefetch::Prefetch;
pub use prefetch::StepImages;
pub use ring_loss::{ring_loss, RingLoss};

use crate::kernel::cuda::phase::Phase;

use crate::kernel::isa::Isa;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{host_f32, rounded, widened, Flat, Layout, Parameter, Ranges, Tower, Values};
use engine::LogitScale;
pub(crate) use engine::{Engine, Update};
pub use fused::{fuse_on_gpu, DeviceStorage};
use gradients::{Leaves, TapeGradients};
use image::ImageTower;
use init::first_values;
use loss::contrastive;
use spec::{LOGIT_BIAS, LOGIT_SCALE};
use text::TextTower;

/// A device that trains: every operation of the graph, in single precision, and perhaps kernels of our own.
pub trait GraphDevice: Ranges<f32> {
    /// Makes a model compute whole encoders at a time, on kernels of our own.
    fn fuse(flip: Flip<f32, Self>, how: Fusion) -> Result<Flip<f32, Self>, ModelError>;
}

impl Fusion {
    /// Kernels for the processor this runs on.
    ///
    /// # Errors
    /// `FLIP_ISA` names an instruction set that there is not, or threads cannot be started.
    pub fn kernels(self) -> Result<Kernels, ModelError> {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = self.threads.map_or_else(cores, |threads| threads.get());
        let isa = Isa::detect().map_err(ModelError::Kernels)?;
        Kernels::new(isa, threads).map_err(ModelError::Kernels)
    }
}

/// Image encoder, text encoder and the learnable temperature.
#[derive(Debug, Clone)]
pub struct Flip<E: Dtype, D: Storage<E>> {
    config: ModelConfig,
    parameters: Arc<Vec<Parameter>>,
    /// Values of the parameters; where masters are shared out, of those that this rank keeps.
    masters: Flat<E, D>,
    /// Computes instead of the composed graph, where there is one.
    engine: Option<Arc<dyn Engine<E, D>>>,
    /// Each master of a weight is on one rank alone.
    sharded: bool,
    /// Towers that do not learn.
    frozen: [bool; Tower::ALL.len()],
    /// Of all parameters, as gradients lie on every rank.
    gradient_layout: Arc<Layout>,
    spare: Spare<E, D>,
}

/// Gradients that an update has used up: zeros, for the next step to add to. Fresh memory would have to be mapped page by
/// page in every step, which takes longer than the update itself.
type Spare<E, D> = Arc<Mutex<[Option<Values<E, D>>; Tower::ALL.len()]>>;

impl<E: Dtype, D: Ranges<E>> Flip<E, D> {
    /// A model with initial weights, a function of `seed` alone. Fails on sizes that
    /// [`ModelConfig::check`] objects to, and where the device has no room.
    pub fn new(device: &D, config: &ModelConfig, seed: u64) -> Result<Self, ModelError> {
        let violations = config.check();
        if !violations.is_empty() {
            return Err(ModelError::Sizes(violations));
        }
        let parameters = config.parameters();
        let layout = Arc::new(Layout::new(&parameters, |_| true));
        let mut masters = Flat::zeros(device, layout.clone()).map_err(ModelError::device)?;
        for (place, parameter) in parameters.iter().enumerate() {
            masters.write(place, &first_values(parameter, place, seed)).map_err(ModelError::device)?;
        }
        Ok(Flip {
            config: config.clone(),
            parameters: Arc::new(parameters),
            masters,
            engine: None,
            sharded: false,
            frozen: [false; Tower::ALL.len()],
            gradient_layout: layout,
            spare: Arc::default(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names, sizes and kinds of the parameters, in the order of all that is made of them.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Values of the parameters.
    pub fn masters(&self) -> &Flat<E, D> {
        &self.masters
    }

    /// Values of the parameters. Copies of them that kernels read are made anew before the next use.
    pub fn masters_mut(&mut self) -> &mut Flat<E, D> {
        if let Some(engine) = &self.engine {
            engine.masters_change();
        }
        &mut self.masters
    }

    /// Makes these towers learn nothing from here on, and all others learn: they are encoded without a backward pass, and have no
    /// gradients.
    pub fn freeze(&mut self, towers: &[Tower]) {
        self.frozen = Tower::ALL.map(|tower| towers.contains(&tower));
    }

    /// True if a tower learns.
    pub fn tower_learns(&self, tower: Tower) -> bool {
        !self.frozen[tower as usize]
    }

    /// True if the parameter at a place of the list learns.
    pub fn learns(&self, place: usize) -> bool {
        self.tower_learns(self.parameters[place].tower)
    }

    /// Places of the parameters that learn.
    pub fn learning(&self) -> Vec<usize> {
        (0..self.parameters.len()).filter(|&place| self.learns(place)).collect()
    }

    /// Values of the parameters for an update that keeps the copies of what it changes itself.
    pub(crate) fn masters_to_update(&mut self) -> &mut Flat<E, D> {
        &mut self.masters
    }

    /// Exchanges the values of the parameters for others that are laid out alike.
    pub fn exchange(&mut self, others: &mut Flat<E, D>) {
        std::mem::swap(self.masters_mut(), others);
    }

    /// Zeros for the gradients of the parameters of these towers, laid out as those of all are.
    fn zero_gradients(&self, towers: &[Tower]) -> Result<Flat<E, D>, D::Err> {
        let (device, layout) = (self.masters.device(), self.gradient_layout.clone());
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zeros = |tower: Tower| match towers.contains(&tower) {
            true => match spare[tower as usize].take() {
                Some(zeros) => Ok(zeros),
                None => device.allocate(layout.len(tower)),
            },
            false => device.allocate(0),
        };
        let towers = [zeros(Tower::Image)?, zeros(Tower::Text)?, zeros(Tower::Loss)?];
        Ok(Flat::new(device, layout.clone(), towers))
    }

    /// Keeps gradients of all parameters that were used up for the next step: they are zeros.
    pub(crate) fn recycle(&self, gradients: Flat<E, D>) {
        if *gradients.layout() == self.gradient_layout {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            // A tower that does not learn has no gradients.
            let kept = Tower::ALL.map(|tower| self.tower_learns(tower));
            let mut kept = kept.into_iter();
            *spare = gradients.into_towers().map(|tower| Some(tower).filter(|_| kept.next() == Some(true)));
        }
    }

    /// The engine that computes instead of the composed graph, if any.
    pub(crate) fn engine(&self) -> Option<Arc<dyn Engine<E, D>>> {
        self.engine.clone()
    }

    /// True if kernels of our own compute whole encoders. Then a row of a batch does not depend on the rows beside it.
    pub fn is_fused(&self) -> bool {
        self.engine.is_some()
    }

    /// True if [`prefetch`](Self::prefetch) is of use.
    pub fn prefetches(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.prefetches())
    }

    /// Says which images the coming step encodes, and which the one after it: to a GPU a micro-batch travels while the one
    /// before it is computed. They may yet be others, or the same ones somewhere else; then it was in vain.
    pub fn prefetch(&self, now: &StepImages, next: Option<&StepImages>) {
        if let Some(engine) = self.engine.as_ref().filter(|engine| engine.prefetches()) {
            engine.prefetch(Prefetch::new(now, next));
        }
    }

    /// Seconds of the phases of a step since the last call, by the clock of the GPU whose kernels compute the encoders;
    /// nothing of others. See [`Gpu::lap`](crate::kernel::cuda::Gpu::lap).
    ///
    /// # Errors
    /// The device fails.
    pub fn lap(&self) -> Result<Vec<(Phase, f64)>, ModelError> {
        self.engine.as_ref().map_or(Ok(Vec::new()), |engine| engine.lap()).map_err(ModelError::device)
    }

    /// Bytes that kernels hold for activations between two steps; 0 for the composed graph.
    pub fn arena_bytes(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.arena_bytes())
    }

    /// Unit embeddings of images, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_images(&self, input: &ImageInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.image.patch)?;
        let z = self.encode_images::<NoneTape>(input, None).map_err(ModelError::device)?;
        Ok(host_f32(&z))
    }

    /// Unit embeddings of images, [batch, embed_dim], and the features that are projected to them, [batch, width], both on the
    /// host: the final norm of what is pooled, from which CLIP's linear probes learn.
    ///
    /// # Errors
    /// As [`embed_images`](Self::embed_images); the model is not fused.
    pub fn embed_images_with_features(&self, input: &ImageInput) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        input.check(self.config.image.patch)?;
        let engine = self.engine.as_ref().ok_or(ModelError::NoFeatures)?;
        let (z, features) = engine.image_features(&self.masters, input).map_err(ModelError::device)?;
        Ok((host_f32(&z), features))
    }

    /// Unit embeddings of captions, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_texts(&self, input: &TextInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.text.context, self.config.text.vocab_size)?;
        let z = self.encode_texts::<NoneTape>(input, None).map_err(ModelError::device)?;
        Ok(host_f32(&z))
    }

    /// Unit embeddings of a checked input, on a tape of their own or on none; nodes add to `gradients`.
    fn encode_images<T: Tape<E, D>>(
        &self,
        input: &ImageInput,
        gradients: Option<&TapeGradients<E, D>>,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        if let Some(engine) = &self.engine {
            return Ok(engine.images(&self.masters, input, T::OWNS_TAPE)?.on(T::default(), gradients));
        }
        let mut leaves = Leaves::<E, D, T>::new(&self.parameters, &self.masters, gradients);
        let tower = ImageTower::new(&mut leaves, &self.config.image, self.config.normalisation)?;
        tower.encode(leaves.tape, input)
    }

    /// As [`encode_images`](Self::encode_images), of captions.
    fn encode_texts<T: Tape<E, D>>(
        &self,
        input: &TextInput,
        gradients: Option<&TapeGradients<E, D>>,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        if let Some(engine) = &self.engine {
            return Ok(engine.texts(&self.masters, input, T::OWNS_TAPE)?.on(T::default(), gradients));
        }
        let mut leaves = Leaves::<E, D, T>::new(&self.parameters, &self.masters, gradients);
        let tower = TextTower::new(&mut leaves, &self.config.text, self.config.normalisation)?;
        tower.encode(leaves.tape, input)
    }

    /// The contrastive loss, on the tape of both sides.
    fn loss<T: Tape<E, D>>(
        &self,
        images: Matrix<E, D, T>,
        texts: Matrix<E, D, T>,
        gradients: &TapeGradients<E, D>,
    ) -> Result<Tensor<(), E, D, T>, D::Err> {
        let Some(engine) = &self.engine else {
            let mut leaves = Leaves::<E, D, T>::new(&self.parameters, &self.masters, Some(gradients));
            let logit_scale = leaves.take(LOGIT_SCALE)?.put_tape(leaves.tape);
            return contrastive(images, texts, logit_scale, self.config.logit_scale.clip);
        };
        let (images, tape) = images.split_tape();
        let (texts, other) = texts.split_tape();
        let scale = LogitScale { value: self.logit_scale(), learns: self.logit_scale_learns() };
        Ok(engine.loss(&images, &texts, scale)?.on(tape.merge(other), Some(gradients)))
    }

    /// Place of the logit scale among the parameters.
    fn logit_scale_place(&self) -> usize {
        let place = self.parameters.iter().position(|parameter| parameter.name == LOGIT_SCALE);
        place.unwrap_or_else(|| unreachable!("the list of parameters has no {LOGIT_SCALE}"))
    }

    /// The parameter itself; not a number where the device cannot be read.
    fn raw_logit_scale(&self) -> f64 {
        self.number_at(self.logit_scale_place())
    }

    /// The parameter of one number at a place; not a number where the device cannot be read.
    fn number_at(&self, place: usize) -> f64 {
        let values = self.masters.read(place);
        values.ok().and_then(|values| values.first().copied()).map_or(f64::NAN, widened)
    }

    /// The number that is added to every logit, where the model has one.
    pub fn logit_bias(&self) -> Option<f64> {
        let place = self.parameters.iter().position(|parameter| parameter.name == LOGIT_BIAS)?;
        Some(self.number_at(place))
    }

    /// True if the logit scale has a gradient: clipped in the forward pass, it has none outside of its range.
    fn logit_scale_learns(&self) -> bool {
        let raw = self.raw_logit_scale();
        let inside = (LOGIT_SCALE_RANGE[0]..=LOGIT_SCALE_RANGE[1]).contains(&raw);
        self.config.logit_scale.clip == LogitScaleClip::AfterUpdate || inside
    }

    /// The natural log of the factor on the cosines, as the forward pass uses it.
    pub fn logit_scale(&self) -> f64 {
        let value = self.raw_logit_scale();
        match self.config.logit_scale.clip {
            LogitScaleClip::Forward => value.clamp(LOGIT_SCALE_RANGE[0], LOGIT_SCALE_RANGE[1]),
            LogitScaleClip::AfterUpdate => value,
        }
    }

    /// Brings the logit scale back into its range where the recipe wants that after every update.
    ///
    /// # Errors
    /// The device fails.
    pub fn clip_logit_scale(&mut self) -> Result<(), ModelError> {
        if self.config.logit_scale.clip == LogitScaleClip::AfterUpdate {
            let [least, most] = LOGIT_SCALE_RANGE;
            let value = self.logit_scale();
            if !(least..=most).contains(&value) {
                let (place, clipped) = (self.logit_scale_place(), rounded(value.clamp(least, most)));
                self.masters_mut().write(place, &[clipped]).map_err(ModelError::device)?;
            }
        }
        Ok(())
    }

    /// The loss, on the host, of n pairs of embeddings that all compete with each other; no gradients.
    /// `images` and `texts` are [n, embed_dim].
    pub fn contrastive_loss(&self, images: &[f32], texts: &[f32], n: usize) -> f64 {
        host_contrastive(images, texts, n, self.logit_scale().exp())
    }
}
