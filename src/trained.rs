//! A finished (or running) run, opened for use: recipe, weights of the newest checkpoint, tokenizer.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointError};
use crate::data::tokenizer::Tokenizer;
use crate::data::DataError;
use crate::model::{Flip, GraphDevice, ModelError};
use crate::recipe::{self, Compute, Recipe, RecipeErrors};
use crate::stage::inputs::{whole_pictures, whole_texts};
use crate::stage::training::MODEL;

/// A run whose weights can be used.
pub struct Trained<D: GraphDevice> {
    pub recipe: Recipe,
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
    #[error("{path}: no usable checkpoint; is this the folder of a run (with recipe.ron and checkpoints/)?")]
    NoCheckpoint { path: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] DataError),
}

impl<D: GraphDevice> Trained<D> {
    /// Opens the run in `folder`; a damaged checkpoint is passed over for the one before it.
    pub fn open(folder: &Path, device: &D) -> Result<Self, TrainedError> {
        let recipe = recipe::read(&folder.join("recipe.ron"), &[]).map_err(TrainedError::Recipe)?;
        let snapshot = checkpoint::newest(&folder.join("checkpoints"))?
            .snapshot
            .ok_or_else(|| TrainedError::NoCheckpoint { path: folder.into() })?;
        let model = Flip::new(device, &recipe.model, recipe.seed)?;
        let mut model = match recipe.compute {
            Compute::Reference => model,
            Compute::Fused => D::fuse(model, recipe.precision)?,
        };
        model.import(snapshot.part(MODEL)?)?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        Ok(Trained { recipe, model, tokenizer, checkpoint: snapshot.path })
    }

    /// Unit-length embeddings [n, embed_dim] of texts.
    pub fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>, TrainedError> {
        let context = self.recipe.model.text.context;
        let mut tokens = Vec::with_capacity(texts.len() * context);
        for text in texts {
            tokens.extend(self.tokenizer.encode(text, context)?.0);
        }
        Ok(self.model.embed_texts(&whole_texts(&tokens, context))?)
    }

    /// Unit-length embeddings [n, embed_dim] of [n, size, size, 3] pictures of the model's size.
    pub fn embed_pictures(&self, pixels: &[u8]) -> Result<Vec<f32>, ModelError> {
        let image = &self.recipe.model.image;
        self.model.embed_images(&whole_pictures(pixels, image.size, image.patch))
    }
}
