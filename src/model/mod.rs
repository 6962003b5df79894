//! Both encoders and the contrastive loss, as a dfdx graph over sizes that a recipe names.
//!
//! One model covers FLIP (arXiv 2212.00794; the default of every option) and open_clip. It is generic over
//! the dtype, single precision for work and double for finite differences, and over the dfdx device.
//! Everything here is composed of dfdx operations: it is the readable reference that faster kernels are
//! held against.
//!
//! Activations are [rows, width], a row a token; matrices are [inputs, outputs], y = x W + b.

mod activation;
mod block;
mod check;
mod config;
mod cost;
mod error;
mod exchange;
mod image;
mod init;
mod input;
mod layer;
mod loss;
mod patch;
mod position;
mod replay;
mod text;

#[cfg(test)]
mod tests;

use dfdx::prelude::*;

pub use config::*;
pub use cost::ParameterCounts;
pub use error::{ModelError, Violation};
pub use input::{ImageInput, PatchValues, TextInput};
pub use layer::{layer_norm, Matrix};
pub use loss::{host_contrastive, LOGIT_SCALE_RANGE};
pub use patch::gather_patches;
pub use position::sin_cos_table;
pub use replay::{LossAndGradients, Seconds};

use crate::parameter::{host_f32, walk_fields, widened, Parameter, Role, Walk};
use image::ImageTower;
use init::Initialiser;
use text::TextTower;

/// A device that trains: every operation of the graph, in single precision.
pub trait GraphDevice: Device<f32> {}
impl<D: Device<f32>> GraphDevice for D {}

/// Image encoder, text encoder and the learnable temperature.
#[derive(Debug, Clone)]
pub struct Flip<E: Dtype, D: Storage<E>> {
    image: ImageTower<E, D>,
    text: TextTower<E, D>,
    logit_scale: Parameter<E, D>,
    config: ModelConfig,
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
        Self::build(&mut Initialiser::new(device, seed), config).map_err(ModelError::device)
    }

    fn build(init: &mut Initialiser<D>, config: &ModelConfig) -> Result<Self, D::Err> {
        Ok(Flip {
            image: ImageTower::new(init, &config.image, config.embed_dim, config.normalisation)?,
            text: TextTower::new(init, &config.text, config.embed_dim, config.normalisation)?,
            logit_scale: init.constant("logit_scale".into(), Role::LogitScale, 1, config.logit_scale.init)?,
            config: config.clone(),
        })
    }

    /// What was built.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Every parameter, in a fixed order.
    pub fn parameters(&self) -> Vec<&Parameter<E, D>> {
        let mut all = Vec::new();
        self.walk(&mut |parameter| all.push(parameter));
        all
    }

    /// Every parameter, in the same order.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<E, D>> {
        let mut all = Vec::new();
        self.walk_mut(&mut |parameter| all.push(parameter));
        all
    }

    /// Unit embeddings of pictures, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_images(&self, input: &ImageInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.image.patch)?;
        let z = self.image.encode::<NoneTape>(input).map_err(ModelError::device)?;
        Ok(host_f32(&z))
    }

    /// Unit embeddings of captions, [batch, embed_dim] on the host. Nothing is recorded.
    pub fn embed_texts(&self, input: &TextInput) -> Result<Vec<f32>, ModelError> {
        input.check(self.config.text.context, self.config.text.vocab_size)?;
        let z = self.text.encode::<NoneTape>(input).map_err(ModelError::device)?;
        Ok(host_f32(&z))
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
