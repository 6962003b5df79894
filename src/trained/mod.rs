//! A trained model opened for use: weights, tokenizer, and the way in which it sees images.
//!
//! ```
//! use flip::trained::Trained;
//! # use std::sync::atomic::AtomicBool;
//! # use std::time::Duration;
//! # use flip::record::{Entry, RunFolder};
//! # let there = tempfile::tempdir()?;
//! # let run = there.path().join("run");
//! # let recipe = flip::recipe::read_text("example.ron", r#"(
//! #     name: "example", device: Cpu,
//! #     model: (
//! #         image: (size: 16, patch: 8, width: 8, depth: 1, heads: 1),
//! #         text: (tokenizer: Train(captions: 40), vocab_size: 200, context: 8, width: 8, depth: 1, heads: 1),
//! #         embed_dim: 8,
//! #     ),
//! #     data: (train: Scenes(size: 16, split: Train)),
//! #     stages: [Pretrain(
//! #         length: Steps(1), batch: 4, image_mask: Random(0.5),
//! #         schedule: Constant(lr: Absolute(1e-3), warmup: Steps(1)),
//! #     )],
//! # )"#, &[])?;
//! # let progress = flip::log::Progress::lines(Duration::from_secs(10));
//! # let folder = RunFolder::enter(&run, Entry::Start)?;
//! # flip::interpreter::run_alone(&recipe, false, &folder, &progress, &AtomicBool::new(false))?;
//! # let photo = there.path().join("photo.png");
//! # image::RgbImage::from_pixel(24, 20, image::Rgb([200, 30, 30])).save(&photo)?;
//! // The folder of a run, one of its checkpoints, or a checkpoint of open_clip or Hugging Face.
//! let trained = Trained::open(&run)?;
//! let image = trained.embed_image(&photo)?;
//! let text = trained.embed_text("a red circle")?;
//! let cosine: f32 = image.iter().zip(&text).map(|(a, b)| a * b).sum();
//! assert!(cosine.abs() <= 1.001);
//!
//! // Which of some texts an image shows: probabilities that add up to one.
//! let shares = trained.classify(&image, &["a red circle", "a blue star"])?;
//! assert!((shares[0] + shares[1] - 1.0).abs() < 1e-6);
//!
//! // A model can go to another thread.
//! let texts = std::thread::spawn(move || trained.embed_texts(&["two dogs", "a beach"])).join().unwrap()?;
//! assert_eq!(texts.len(), 2 * image.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod hash;
mod weights;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dfdx::tensor::Cpu;

use crate::checkpoint;
use crate::data::decode::{CropDecoder, Draw, ImageLimits, Transform, View};
use crate::data::load::LoaderOptions;
use crate::data::source::Source;
use crate::data::text::Tokenizer;
use crate::data::Image;
use crate::exchange::{self, ExchangeError, ImportOptions};
use crate::model::{Flip, GraphDevice, ImageInput, ModelConfig, ModelError, Precision};
use crate::parameter::NamedTensor;
use crate::record::RunPaths;
use crate::train::inputs::{whole_images, whole_texts};

pub use error::TrainedError;
pub use weights::{tokenizer_of, Weights};

/// Images or texts embedded at a time.
const BATCH: usize = 128;

/// A trained model that can be used. Its embeddings are of unit length: cosines are dot products.
pub struct Trained<D: GraphDevice = Cpu> {
    /// The model with the weights of the checkpoint.
    pub model: Flip<f32, D>,
    /// None where the weights came without one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// The checkpoint the weights are from.
    pub checkpoint: PathBuf,
    /// The tool whose checkpoint the weights were, where they are not of a run.
    pub origin: Option<String>,
    hash: OnceLock<String>,
    decoder: Mutex<CropDecoder>,
}

impl Trained {
    /// Opens a model on the processor: the folder of a run, of which a damaged checkpoint is passed over for the one
    /// before it; one checkpoint of a run; or a folder or file that `flip import` takes (open_clip, Hugging Face's CLIP, the
    /// official FLIP code), which is not written to.
    ///
    /// # Errors
    /// There is no such model, it is damaged, or it cannot be expressed here; the message names the file and the option.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TrainedError> {
        Self::open_on(path, &Cpu::default())
    }

    /// As [`Trained::open`], a run's average of the weights.
    ///
    /// # Errors
    /// As [`Trained::open`]; the stage of the checkpoint has no `ema`.
    pub fn open_average(path: impl AsRef<Path>) -> Result<Self, TrainedError> {
        let path = path.as_ref();
        Self::of_run(&Cpu::default(), path, Weights::open_average(path)?)
    }
}

impl<D: GraphDevice> Trained<D> {
    /// As [`Trained::open`], on a device.
    ///
    /// # Errors
    /// As [`Trained::open`]; the device has no room.
    pub fn open_on(path: impl AsRef<Path>, device: &D) -> Result<Self, TrainedError> {
        let path = path.as_ref();
        let run = RunPaths::new(checkpoint::run_of(path));
        if run.model().exists() || run.recipe().exists() || !path.exists() {
            return Self::of_run(device, path, Weights::open(path)?);
        }
        let imported = exchange::import(path, &ImportOptions::default());
        let mut imported = imported.map_err(|error| match error {
            ExchangeError::NoCheckpoint { path, .. } => TrainedError::NoModel { path },
            other => other.into(),
        })?;
        let tokenizer = imported.open_tokenizer()?;
        for note in &imported.notes {
            tracing::warn!(target: "flip::exchange", "{note}");
        }
        let model = (&imported.config, imported.tensors.as_slice());
        Self::with(device, model, tokenizer, path.to_owned(), Some(imported.format.to_string()))
    }

    fn of_run(device: &D, path: &Path, weights: Weights) -> Result<Self, TrainedError> {
        let file = RunPaths::new(checkpoint::run_of(path)).tokenizer();
        let tokenizer = file.exists().then(|| Tokenizer::load(&file)).transpose()?;
        let model = (&weights.config, weights.tensors.as_slice());
        Self::with(device, model, tokenizer, weights.checkpoint, weights.origin)
    }

    fn with(
        device: &D,
        (config, tensors): (&ModelConfig, &[NamedTensor]),
        tokenizer: Option<Tokenizer>,
        checkpoint: PathBuf,
        origin: Option<String>,
    ) -> Result<Self, TrainedError> {
        let mut model = D::fuse(Flip::new(device, config, 0)?, Precision::F32.into())?;
        model.import(tensors)?;
        let tokenizer = tokenizer.map(Arc::new);
        let (hash, decoder) = Default::default();
        Ok(Trained { model, tokenizer, checkpoint, origin, hash, decoder })
    }

    /// Numbers of an embedding.
    pub fn embed_dim(&self) -> usize {
        self.model.config().embed_dim
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// The weights came without one.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, TrainedError> {
        self.tokenizer.as_ref().ok_or(TrainedError::NoTokenizer)
    }

    /// The way from an image to the pixels that the model sees.
    pub fn transform(&self) -> Transform {
        self.model.config().image.eval_transform()
    }

    /// Options of a loader of images as the model sees them: one pass in stored order, the last batch whatever its size, on all
    /// cores. Set `label` where classes are needed.
    ///
    /// # Errors
    /// A tokenizer cannot be made for captions that are not looked at, where the weights came without one.
    pub fn loader_options(&self, source: Arc<dyn Source>) -> Result<LoaderOptions, TrainedError> {
        let tokenizer = match &self.tokenizer {
            Some(tokenizer) => tokenizer.clone(),
            None => Arc::new(Tokenizer::train(["a".to_string()].into_iter(), 8)?),
        };
        // Texts are embedded on their own, whole: tokens of captions are not looked at.
        let options = LoaderOptions::new(source, self.transform(), tokenizer, 1, BATCH);
        let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(LoaderOptions { keep_partial: true, workers, ..options })
    }

    /// SHA-256, in hexadecimal, of all that embeddings depend on: architecture, parameters and tokenizer. It is the same
    /// wherever the model lies; computed once.
    ///
    /// # Errors
    /// The device fails.
    pub fn hash(&self) -> Result<&str, TrainedError> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let hash = hash::of(&self.model, self.tokenizer.as_deref())?;
        Ok(self.hash.get_or_init(|| hash))
    }

    /// The embedding, `[embed_dim]`, of an image file.
    ///
    /// # Errors
    /// The file cannot be read or is no image; the model fails.
    pub fn embed_image(&self, path: impl AsRef<Path>) -> Result<Vec<f32>, TrainedError> {
        let path = path.as_ref();
        let bytes =
            std::fs::read(path).map_err(|source| TrainedError::ImageFile { path: path.into(), source })?;
        self.embed_decoded(Image::Encoded(bytes), || path.display().to_string())
    }

    /// The embedding, `[embed_dim]`, of an image in memory: the bytes of a file, or pixels.
    ///
    /// # Errors
    /// It is no image; the model fails.
    pub fn embed_image_data(&self, image: Image) -> Result<Vec<f32>, TrainedError> {
        self.embed_decoded(image, || "image".into())
    }

    fn embed_decoded(&self, image: Image, name: impl FnOnce() -> String) -> Result<Vec<f32>, TrainedError> {
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = ImageLimits::default();
        let pixels = decoder.decode_crop(image, limits, &self.transform(), View::Whole, Draw::default());
        let pixels = pixels.map_err(|defect| TrainedError::Image { name: name(), defect })?;
        drop(decoder);
        self.embed_images(&pixels)
    }

    /// Embeddings [n, embed_dim] of [n, size, size, 3] bytes: images that went through [`transform`](Self::transform). A row
    /// does not depend on those beside it.
    ///
    /// # Errors
    /// The bytes are no whole number of images; the model fails.
    pub fn embed_images(&self, pixels: &[u8]) -> Result<Vec<f32>, TrainedError> {
        let mut rows = Vec::new();
        self.each_input(pixels, |input| {
            rows.extend(self.model.embed_images(input)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// As [`embed_images`](Self::embed_images), with the features that are projected to the embeddings, [n, width]: what CLIP's
    /// linear probes learn from.
    ///
    /// # Errors
    /// As [`embed_images`](Self::embed_images).
    pub fn embed_images_with_features(&self, pixels: &[u8]) -> Result<(Vec<f32>, Vec<f32>), TrainedError> {
        let (mut rows, mut features) = (Vec::new(), Vec::new());
        self.each_input(pixels, |input| {
            let (some_rows, some_features) = self.model.embed_images_with_features(input)?;
            rows.extend(some_rows);
            features.extend(some_features);
            Ok(())
        })?;
        Ok((rows, features))
    }

    /// Calls `see` with the patches of images, a batch at a time.
    fn each_input(
        &self,
        pixels: &[u8],
        mut see: impl FnMut(&ImageInput) -> Result<(), ModelError>,
    ) -> Result<(), TrainedError> {
        let image = &self.model.config().image;
        let bytes = image.size * image.size * 3;
        if !pixels.len().is_multiple_of(bytes) {
            return Err(TrainedError::Pixels { size: image.size, bytes: pixels.len() });
        }
        for pixels in pixels.chunks(BATCH * bytes) {
            see(&whole_images(pixels, image.size, image.patch))?;
        }
        Ok(())
    }

    /// The embedding, `[embed_dim]`, of a text.
    ///
    /// # Errors
    /// The weights came without a tokenizer; the model fails.
    pub fn embed_text(&self, text: &str) -> Result<Vec<f32>, TrainedError> {
        self.embed_texts(&[text])
    }

    /// Embeddings [n, embed_dim] of texts.
    ///
    /// # Errors
    /// As [`embed_text`](Self::embed_text).
    pub fn embed_texts(&self, texts: &[impl AsRef<str>]) -> Result<Vec<f32>, TrainedError> {
        let (tokenizer, context) = (self.tokenizer()?, self.model.config().text.context);
        let mut rows = Vec::with_capacity(texts.len() * self.embed_dim());
        for texts in texts.chunks(BATCH) {
            let mut tokens = Vec::with_capacity(texts.len() * context);
            for text in texts {
                tokens.extend(tokenizer.encode(text.as_ref(), context)?.0);
            }
            rows.extend(self.model.embed_texts(&whole_texts(&tokens, context))?);
        }
        Ok(rows)
    }

    /// Probabilities that an embedded image shows each of some texts, and one of them it does: the softmax of the cosines
    /// times the learned scale.
    ///
    /// # Errors
    /// As [`embed_texts`](Self::embed_texts).
    pub fn classify(&self, image: &[f32], texts: &[impl AsRef<str>]) -> Result<Vec<f64>, TrainedError> {
        let scale = self.model.logit_scale().exp();
        let rows = self.embed_texts(texts)?;
        let dot = |row: &[f32]| row.iter().zip(image).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let logits: Vec<f64> = rows.chunks_exact(self.embed_dim()).map(|row| scale * dot(row)).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let total: f64 = shares.iter().sum();
        Ok(shares.into_iter().map(|share| share / total).collect())
    }
}

/// A model can be handed to another thread, and lent to several.
const _: fn() = || {
    fn moves<T: Send + Sync>() {}
    moves::<Trained>();
};
