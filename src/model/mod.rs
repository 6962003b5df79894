//! Both encoders and the contrastive loss, as a dfdx graph over sizes that a recipe names.
//!
//! One model covers FLIP (arXiv 2212.00794; the default of every option) and open_clip. It is generic over
//! the dtype, single precision for work and double for finite differences, and over the dfdx device.
//! Everything here is composed of dfdx operations: it is the readable reference that faster kernels are
//! held against.
//!
//! Activations are [rows, width], a row a token; matrices are [inputs, outputs], y = x W + b.

mod activation;
mod agenda;
mod block;
mod check;
mod config;
mod cost;
#[cfg(feature = "cuda")]
mod cuda;
mod engine;
mod error;
mod exchange;
mod fused;
mod image;
mod init;
mod input;
mod layer;
mod lent;
mod loss;
mod machine;
mod parts;
mod patch;
mod position;
mod replay;
mod resample;
mod ring_loss;
mod shared_out;
mod spec;
mod text;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dfdx::prelude::*;

use agenda::Agenda;
pub use agenda::StepImages;
pub use config::*;
pub use cost::ParameterCounts;
pub use error::{ModelError, Violation};
pub use input::{ImageInput, PatchValues, TextInput};
pub use layer::{layer_norm, Matrix};
pub use lent::{fuse_on, Lends, Values};
pub use loss::{host_contrastive, LOGIT_SCALE_RANGE};
pub use machine::{machine_bytes, machine_lacks, machine_rates, MachineBytes, MachineEncoders, MachineTower};
pub use parts::OwnParts;
pub use patch::gather_patches;
pub use position::sin_cos_table;
pub use replay::{LossAndGradients, Seconds};
pub use ring_loss::{ring_loss, RingLoss};

use crate::kernel::cuda::phase::Phase;
use crate::kernel::element::Bf16;
use crate::kernel::isa::Isa;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{host_f32, walk_fields, widened, Parameter, ParameterSpec, Walk};
pub(crate) use engine::{Engine, Moments};
pub use fused::arena_bytes;
use fused::Fused;
use image::ImageTower;
use init::Made;
use loss::contrastive;
use spec::LOGIT_SCALE;
use text::TextTower;

/// A device that trains: every operation of the graph, in single precision, and perhaps kernels of our own.
pub trait GraphDevice: Device<f32> {
    /// Makes a model compute whole encoders at a time, on kernels of our own.
    fn fuse(flip: Flip<f32, Self>, how: Fusion) -> Result<Flip<f32, Self>, ModelError>;
}

impl GraphDevice for Cpu {
    fn fuse(mut flip: Flip<f32, Cpu>, how: Fusion) -> Result<Flip<f32, Cpu>, ModelError> {
        let Fusion { precision, recompute, .. } = how;
        let kernels = Arc::new(how.kernels()?);
        let (isa, threads) = (kernels.isa().name(), kernels.threads().count());
        tracing::info!(target: "flip::model", isa, threads, ?precision, ?recompute, "fused encoders");
        flip.engine = Some(match precision {
            Precision::F32 => Arc::new(Fused::<f32>::new(kernels, &flip.config, recompute)),
            Precision::Bf16 => Arc::new(Fused::<Bf16>::new(kernels, &flip.config, recompute)),
        });
        Ok(flip)
    }
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
    image: ImageTower<E, D>,
    text: TextTower<E, D>,
    logit_scale: Parameter<E, D>,
    config: ModelConfig,
    spec: Arc<Vec<ParameterSpec>>,
    /// Computes instead of the composed graph, where there is one.
    engine: Option<Arc<dyn Engine<E, D>>>,
    /// Whether each master of a weight is on one rank alone.
    shared_out: bool,
}

walk_fields!(Flip { image, text, logit_scale });

impl<E: Dtype, D: Device<E>> Flip<E, D> {
    /// A model with initial weights, a function of `seed` alone. Fails on sizes that
    /// [`ModelConfig::check`] objects to, and where the device has no room.
    pub fn new(device: &D, config: &ModelConfig, seed: u64) -> Result<Self, ModelError> {
        let violations = config.check();
        if !violations.is_empty() {
            return Err(ModelError::Sizes(violations));
        }
        let spec = config.parameters();
        let mut made = Made::new(device, &spec, seed).map_err(ModelError::device)?;
        Ok(Flip {
            image: ImageTower::new(&mut made, &config.image, config.normalisation),
            text: TextTower::new(&mut made, &config.text, config.normalisation),
            logit_scale: made.take(LOGIT_SCALE),
            config: config.clone(),
            spec: Arc::new(spec),
            engine: None,
            shared_out: false,
        })
    }

    /// What was built.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names, sizes and kinds of the parameters, in the order of all that is made of them.
    pub fn spec(&self) -> &[ParameterSpec] {
        &self.spec
    }

    /// Every parameter, in a fixed order.
    pub fn parameters(&self) -> Vec<&Parameter<E, D>> {
        let mut all = Vec::new();
        self.walk(&mut |parameter| all.push(parameter));
        all
    }

    /// Every parameter, in the same order. Copies of them that kernels read are made anew before the next use.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<E, D>> {
        if let Some(engine) = &self.engine {
            engine.masters_change();
        }
        let mut all = Vec::new();
        self.walk_mut(&mut |parameter| all.push(parameter));
        all
    }

    /// The parameters of the image and of the text encoder.
    fn towers(&self) -> (Vec<&Parameter<E, D>>, Vec<&Parameter<E, D>>) {
        (self.image.parameters(), self.text.parameters())
    }

    /// What computes instead of the composed graph, where there is something.
    pub(crate) fn engine(&self) -> Option<Arc<dyn Engine<E, D>>> {
        self.engine.clone()
    }

    /// Whether kernels of our own compute whole encoders. Then a row of a batch does not depend on the rows beside it.
    pub fn is_fused(&self) -> bool {
        self.engine.is_some()
    }

    /// Whether [`announce`](Self::announce) is of use.
    pub fn listens(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.listens())
    }

    /// Says which pictures the coming step encodes, and which the one after it: to a GPU a micro-batch travels while the one
    /// before it is computed. They may yet be others, or the same ones somewhere else; then it was in vain.
    pub fn announce(&self, now: &StepImages, next: Option<&StepImages>) {
        if let Some(engine) = self.engine.as_ref().filter(|engine| engine.listens()) {
            engine.announce(Agenda::new(now, next));
        }
    }

    /// Seconds of the phases of a step since the last call, by the clock of the GPU whose kernels compute the encoders;
    /// nothing of others. See [`Machine::lap`](crate::kernel::cuda::Machine::lap).
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

    /// Unit embeddings of pictures, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_images(&self, input: &ImageInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.image.patch)?;
        let z = self.encode_images::<NoneTape>(input).map_err(ModelError::device)?;
        Ok(host_f32(&z))
    }

    /// Unit embeddings of captions, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_texts(&self, input: &TextInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.text.context, self.config.text.vocab_size)?;
        let z = self.encode_texts::<NoneTape>(input).map_err(ModelError::device)?;
        Ok(host_f32(&z))
    }

    /// Unit embeddings of a checked input, on a tape of their own or on none.
    fn encode_images<T: Tape<E, D>>(&self, input: &ImageInput) -> Result<Matrix<E, D, T>, D::Err> {
        match &self.engine {
            None => self.image.encode(input),
            Some(engine) => Ok(engine.images(&self.image.parameters(), input, T::OWNS_TAPE)?.taped()),
        }
    }

    /// Unit embeddings of a checked input, on a tape of their own or on none.
    fn encode_texts<T: Tape<E, D>>(&self, input: &TextInput) -> Result<Matrix<E, D, T>, D::Err> {
        match &self.engine {
            None => self.text.encode(input),
            Some(engine) => Ok(engine.texts(&self.text.parameters(), input, T::OWNS_TAPE)?.taped()),
        }
    }

    /// The contrastive loss, on the tape of both sides.
    fn loss<T: Tape<E, D>>(
        &self,
        images: Matrix<E, D, T>,
        texts: Matrix<E, D, T>,
    ) -> Result<Tensor<(), E, D, T>, D::Err> {
        let clip = self.config.logit_scale.clip;
        let Some(engine) = &self.engine else { return contrastive(images, texts, &self.logit_scale, clip) };
        let (images, tape) = images.split_tape();
        let (texts, other) = texts.split_tape();
        let learning = self.logit_scale_learns();
        let node = engine.loss(&images, &texts, &self.logit_scale, self.logit_scale(), learning)?;
        Ok(node.on(tape.merge(other)))
    }

    /// Whether the logit scale has a gradient: clipped in the forward pass, it has none outside of its range.
    fn logit_scale_learns(&self) -> bool {
        let raw = self.logit_scale.master.as_vec().first().map_or(0.0, |&x| widened(x));
        let inside = (LOGIT_SCALE_RANGE[0]..=LOGIT_SCALE_RANGE[1]).contains(&raw);
        self.config.logit_scale.clip == LogitScaleClip::AfterUpdate || inside
    }

    /// The natural log of the factor on the cosines, as the forward pass uses it.
    pub fn logit_scale(&self) -> f64 {
        let value = self.logit_scale.master.as_vec().first().map_or(0.0, |&x| widened(x));
        match self.config.logit_scale.clip {
            LogitScaleClip::Forward => value.clamp(LOGIT_SCALE_RANGE[0], LOGIT_SCALE_RANGE[1]),
            LogitScaleClip::AfterUpdate => value,
        }
    }

    /// Brings the logit scale back into its range where the recipe wants that after every update.
    pub fn clip_logit_scale(&mut self) {
        if self.config.logit_scale.clip == LogitScaleClip::AfterUpdate {
            let [least, most] = LOGIT_SCALE_RANGE;
            let value = self.logit_scale();
            if !(least..=most).contains(&value) {
                self.logit_scale.set(&[value.clamp(least, most) as f32]);
            }
        }
    }

    /// The loss, on the host, of n pairs of embeddings that all compete with each other; no gradients.
    /// `images` and `texts` are [n, embed_dim].
    pub fn contrastive_loss(&self, images: &[f32], texts: &[f32], n: usize) -> f64 {
        host_contrastive(images, texts, n, self.logit_scale().exp())
    }
}
