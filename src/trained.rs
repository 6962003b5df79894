//! A finished (or running) run, opened for use: model, weights of the newest checkpoint, tokenizer.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointError};
use crate::data::tokenizer::Tokenizer;
use crate::data::DataError;
use crate::model::{Flip, GraphDevice, ModelConfig, ModelError, Precision};
use crate::parameter::NamedTensor;
use crate::recipe::{self, RecipeErrors};
use crate::stage::inputs::{whole_pictures, whole_texts};
use crate::stage::training::MODEL;

/// The weights of a run, on the host.
#[derive(Debug)]
pub struct Weights {
    pub config: ModelConfig,
    pub tensors: Vec<NamedTensor>,
    /// The checkpoint they are from.
    pub checkpoint: PathBuf,
    /// Pairs seen up to there; none where the checkpoint is another tool's.
    pub samples: Option<u64>,
}

/// A run whose weights can be used.
pub struct Trained<D: GraphDevice> {
    pub model: Flip<f32, D>,
    pub tokenizer: Tokenizer,
    /// The checkpoint the weights are from.
    pub checkpoint: PathBuf,
}

/// A run that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrainedError {
    #[error("{0}")]
    Recipe(RecipeErrors),
    #[error("{path}: {reason}")]
    ModelConfig { path: PathBuf, reason: String },
    #[error("{path}: no usable checkpoint; is this the folder of a run (with recipe.ron and checkpoints/)?")]
    NoCheckpoint { path: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] DataError),
}

impl Weights {
    /// Opens the run in `folder`; a damaged checkpoint is passed over for the one before it.
    pub fn open(folder: &Path) -> Result<Self, TrainedError> {
        let config = model_config(folder)?;
        let snapshot = checkpoint::newest(&folder.join("checkpoints"))?
            .snapshot
            .ok_or_else(|| TrainedError::NoCheckpoint { path: folder.into() })?;
        let samples = snapshot.state["samples"].as_u64();
        let mut parts = snapshot.parts;
        let Some(tensors) = parts.remove(MODEL) else {
            let there = parts.into_keys().collect::<Vec<_>>().join(", ");
            return Err(CheckpointError::NoPart { path: snapshot.path, part: MODEL.into(), there }.into());
        };
        Ok(Weights { config, tensors, checkpoint: snapshot.path, samples })
    }
}

/// The architecture: from `model.ron` where the weights were imported, from the recipe where they were trained.
fn model_config(folder: &Path) -> Result<ModelConfig, TrainedError> {
    let path = folder.join("model.ron");
    if !path.exists() {
        return Ok(recipe::read(&folder.join("recipe.ron"), &[]).map_err(TrainedError::Recipe)?.model);
    }
    let wrong = |reason: String| TrainedError::ModelConfig { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    ron::from_str(&text).map_err(|error| wrong(format!("not the description of a model: {error}")))
}

impl<D: GraphDevice> Trained<D> {
    /// Opens the run in `folder`; a damaged checkpoint is passed over for the one before it.
    pub fn open(folder: &Path, device: &D) -> Result<Self, TrainedError> {
        let weights = Weights::open(folder)?;
        let mut model = D::fuse(Flip::new(device, &weights.config, 0)?, Precision::F32.into())?;
        model.import(&weights.tensors)?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        Ok(Trained { model, tokenizer, checkpoint: weights.checkpoint })
    }

    /// Unit-length embeddings [n, embed_dim] of texts.
    pub fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>, TrainedError> {
        let context = self.model.config().text.context;
        let mut tokens = Vec::with_capacity(texts.len() * context);
        for text in texts {
            tokens.extend(self.tokenizer.encode(text, context)?.0);
        }
        Ok(self.model.embed_texts(&whole_texts(&tokens, context))?)
    }

    /// Unit-length embeddings [n, embed_dim] of [n, size, size, 3] pictures of the model's size.
    pub fn embed_pictures(&self, pixels: &[u8]) -> Result<Vec<f32>, ModelError> {
        let image = &self.model.config().image;
        self.model.embed_images(&whole_pictures(pixels, image.size, image.patch))
    }
}
