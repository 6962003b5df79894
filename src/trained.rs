//! A finished (or running) run, opened for use: model, weights of the newest checkpoint, tokenizer.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointError};
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::data::DataError;
use crate::model::{Flip, GraphDevice, ModelConfig, ModelError, Precision};
use crate::parameter::NamedTensor;
use crate::recipe::{model_of, ModelUnknown};
use crate::record::RunPaths;
use crate::train::inputs::{whole_images, whole_texts};
use crate::train::run::MODEL;

/// The weights of a run, on the host.
#[derive(Debug)]
pub struct Weights {
    /// Architecture.
    pub config: ModelConfig,
    /// Parameters by name, with their shapes.
    pub tensors: Vec<NamedTensor>,
    /// The checkpoint they are from.
    pub checkpoint: PathBuf,
    /// Pairs seen up to there; none where the checkpoint is another tool's.
    pub samples: Option<u64>,
    /// Whose checkpoint they were imported from, where they were.
    pub origin: Option<String>,
}

/// A run whose weights can be used.
pub struct Trained<D: GraphDevice> {
    /// The model with the weights of the checkpoint.
    pub model: Flip<f32, D>,
    /// None where the weights were imported without one.
    pub tokenizer: Option<Tokenizer>,
    /// The checkpoint the weights are from.
    pub checkpoint: PathBuf,
}

/// A run that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum TrainedError {
    #[error(transparent)]
    Architecture(#[from] ModelUnknown),
    #[error("{path}: these weights do not start the model of the recipe:\n{differences}")]
    OtherModel { path: PathBuf, differences: String },
    #[error(
        "the tokenizer of the recipe is not that of {path}: {difference}. Its token embedding is of its own tokenizer \
         only; write model.text.tokenizer: Json({path:?}), or leave out `model`"
    )]
    OtherTokenizer { path: PathBuf, difference: String },
    #[error("{path}: no usable checkpoint; is this the folder of a run (with recipe.ron and checkpoints/)?")]
    NoCheckpoint { path: PathBuf },
    #[error("the folder has no tokenizer.json, without which texts cannot be embedded; import it again with --tokenizer")]
    NoTokenizer,
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] DataError),
}

impl Weights {
    /// Opens a run, of whose checkpoints a damaged one is passed over for the one before it; or one checkpoint of a
    /// run.
    pub fn open(path: &Path) -> Result<Self, TrainedError> {
        let config = model_of(path)?;
        let snapshot = if checkpoint::run_of(path) == path {
            let found = checkpoint::newest(&RunPaths::new(path).checkpoints())?;
            for (path, reason) in &found.refused {
                tracing::warn!(target: "flip::checkpoint", path = %path.display(), %reason, "checkpoint refused");
            }
            found.snapshot.ok_or_else(|| TrainedError::NoCheckpoint { path: path.into() })?
        } else {
            checkpoint::read(path)?
        };
        let samples = snapshot.state["samples"].as_u64();
        let origin = snapshot.state["imported"]["format"].as_str().map(String::from);
        let tensors = snapshot.tensors(MODEL)?;
        Ok(Weights { config, tensors, checkpoint: snapshot.path, samples, origin })
    }

    /// Makes a model start from these weights. Returns what was changed in them, where something was.
    ///
    /// # Errors
    /// An option that decides what the weights mean is another in `model`; or a tensor is missing, left over or of
    /// another shape. Everything of that kind is named.
    pub fn start<D: GraphDevice>(mut self, model: &mut Flip<f32, D>) -> Result<Option<String>, TrainedError> {
        let note = self.config.resample_positions(&mut self.tensors, model.config());
        let mut differences: Vec<String> =
            model.config().unlike(&self.config).iter().map(ToString::to_string).collect();
        if differences.is_empty() {
            match model.import(&self.tensors) {
                Ok(()) => return Ok(note),
                Err(ModelError::Weights(mismatch)) => differences.push(mismatch.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(TrainedError::OtherModel { path: self.checkpoint, differences: differences.join("\n") })
    }
}

/// The tokenizer of a run that starts from the weights at `path`: the one that lies with them, with which the one
/// of the recipe has to agree; or the recipe's, where none lies there. A vocabulary that the recipe would train is
/// not trained again.
pub fn tokenizer_of(path: &Path, config: &TokenizerConfig) -> Result<Option<Tokenizer>, TrainedError> {
    let file = RunPaths::new(checkpoint::run_of(path)).tokenizer();
    if !file.is_file() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::load(&file)?;
    if !matches!(config, TokenizerConfig::Train(_)) {
        if let Some(difference) = Tokenizer::open(config)?.differs(&tokenizer) {
            return Err(TrainedError::OtherTokenizer { path: file, difference });
        }
    }
    Ok(Some(tokenizer))
}

impl<D: GraphDevice> Trained<D> {
    /// Opens the run in `folder`; a damaged checkpoint is passed over for the one before it.
    pub fn open(folder: &Path, device: &D) -> Result<Self, TrainedError> {
        let weights = Weights::open(folder)?;
        let mut model = D::fuse(Flip::new(device, &weights.config, 0)?, Precision::F32.into())?;
        model.import(&weights.tensors)?;
        let file = RunPaths::new(checkpoint::run_of(folder)).tokenizer();
        let tokenizer = file.exists().then(|| Tokenizer::load(&file)).transpose()?;
        Ok(Trained { model, tokenizer, checkpoint: weights.checkpoint })
    }

    /// Unit-length embeddings [n, embed_dim] of texts.
    pub fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>, TrainedError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(TrainedError::NoTokenizer)?;
        let context = self.model.config().text.context;
        let mut tokens = Vec::with_capacity(texts.len() * context);
        for text in texts {
            tokens.extend(tokenizer.encode(text, context)?.0);
        }
        Ok(self.model.embed_texts(&whole_texts(&tokens, context))?)
    }

    /// Unit-length embeddings [n, embed_dim] of [n, size, size, 3] images of the model's size.
    pub fn embed_images(&self, pixels: &[u8]) -> Result<Vec<f32>, ModelError> {
        let image = &self.model.config().image;
        self.model.embed_images(&whole_images(pixels, image.size, image.patch))
    }
}
