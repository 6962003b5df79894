//! Checkpoints of other tools, in and out.
//!
//! | format | what is read | direction |
//! |---|---|---|
//! | open_clip | `open_clip_config.json` (or the name of an architecture) and safetensors or a pickle | both |
//! | transformers | Hugging Face CLIP: `config.json` and safetensors, sharded or not, or a pickle | both |
//! | t5x | the official FLIP checkpoints: a msgpack index and zarr folders | in |
//! | ONNX | a graph for each encoder | out |
//!
//! A format says two things: which [`ModelConfig`] its own configuration means, and where each of our
//! parameters lies in its tensors (`layout::Original`). Reading and writing follow from the second, so a
//! checkpoint that comes in and goes out again is the same bit for bit: tensors are only ever transposed,
//! permuted, cut and joined. What a configuration asks for and the model does not have is an error that names
//! the option; so is every tensor that is missing, left over or of another shape, and every value that is
//! not a number.
//!
//! Tensors are streamed from disk one after the other; the largest is held twice, nothing else is.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use flip::exchange::{import, obstacles, Format, ImportOptions};
//!
//! // A folder with open_clip_config.json and open_clip_model.safetensors, as open_clip's hub has it.
//! let imported = import(Path::new("ViT-B-32"), &ImportOptions::default())?;
//! println!("{}: {} parameters", imported.format, imported.config.parameter_counts().total());
//! for obstacle in obstacles(&imported.config, Format::Transformers) {
//!     println!("transformers has no model.{}: {}", obstacle.field, obstacle.why);
//! }
//! # Ok::<(), flip::exchange::ExchangeError>(())
//! ```

mod architectures;
mod described;
mod detect;
mod error;
mod export;
mod file_start;
mod flip_t5x;
mod format;
mod layout;
mod numbers;
mod onnx;
mod open_clip;
mod open_tokenizer;
mod options;
mod pickle;
mod plain;
mod preprocessing;
mod safetensors_file;
mod slot;
mod tensors;
mod timm;
mod tokenizer_files;
mod transformers;
mod weights;

use std::path::Path;

use crate::data::text::{Preparation, TokenizerConfig};
use crate::model::ModelConfig;
use crate::parameter::NamedTensor;
use described::Described;
use tensors::Tensors;

pub use error::{ExchangeError, Obstacle, Problem};
pub use export::{export, obstacles, Exported, Outgoing};
pub use format::Format;
pub use numbers::{Numbers, Stored};

/// Options that a checkpoint does not tell, or that shall be other than it says.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Instead of looking at the files.
    pub format: Option<Format>,
    /// Architecture of open_clip by its name, as `ViT-B-32`, where no configuration lies beside the weights.
    pub model: Option<String>,
    /// Side of the images, pixels. Learned positions are resampled as open_clip does: bicubic, antialiased.
    pub image_size: Option<usize>,
    /// Instead of the tokenizer that lies beside the weights.
    pub tokenizer: Option<TokenizerConfig>,
    /// Attention heads, for t5x checkpoints of sizes that are not the paper's.
    pub image_heads: Option<usize>,
    /// Attention heads, for t5x checkpoints of sizes that are not the paper's.
    pub text_heads: Option<usize>,
}

/// A checkpoint of another tool as a model of ours.
#[derive(Debug, Clone)]
pub struct Imported {
    pub format: Format,
    pub config: ModelConfig,
    /// Every parameter of the model, in the model's order.
    pub tensors: Vec<NamedTensor>,
    /// The tokenizer, where one was found or given. Without one, `config.text.tokenizer` only says of which kind
    /// it would have to be.
    pub tokenizer: Option<TokenizerConfig>,
    /// True if the model was trained with open_clip's built-in tokenizer: then captions are cleaned as
    /// open_clip does, whatever the files of the tokenizer say.
    pub built_in_tokenizer: bool,
    /// Notes for a person, a sentence each.
    pub notes: Vec<String>,
    /// How it was stored, for the way back.
    pub stored: Stored,
    /// How captions are prepared besides the tokenizer's own files.
    text: Preparation,
}

/// Reads the checkpoint at `source`: a folder, or a file of weights in one.
///
/// # Errors
/// Whatever is missing, broken, or more than the model can express; every message names the file and the
/// field or the tensor.
pub fn import(source: &Path, options: &ImportOptions) -> Result<Imported, ExchangeError> {
    let place = detect::place(source, options.format, options.model.is_some())?;
    let (described, mut tensors): (Described, Box<dyn Tensors>) = match place.format {
        Format::OpenClip => {
            let told = match options.model.as_deref() {
                Some(name) => Some(open_clip_by_name(source, name)?),
                None if place.folder.join(open_clip::CONFIG).is_file() => {
                    Some(open_clip::describe(&place.folder)?)
                }
                None => None,
            };
            let opened = weights::open(&place, open_clip::WEIGHTS)?;
            let described = match told {
                Some(described) => described,
                None => open_clip_of_weights(&place, &opened)?,
            };
            (described, opened.tensors)
        }
        Format::Transformers => {
            let described = transformers::describe(&place.folder)?;
            (described, weights::open(&place, transformers::WEIGHTS)?.tensors)
        }
        Format::FlipT5x => {
            let checkpoint = flip_t5x::Checkpoint::open(&place.folder)?;
            (checkpoint.describe(options.image_heads, options.text_heads)?, Box::new(checkpoint))
        }
        Format::Onnx => return Err(ExchangeError::WriteOnly(place.format)),
    };
    let Described { mut config, built_in_tokenizer, mut notes, original, text } = described;
    let violations = config.check();
    if !violations.is_empty() {
        return Err(ExchangeError::config(
            &place.folder,
            violations.into_iter().map(|v| Problem { field: v.field, problem: v.problem }).collect(),
        ));
    }
    let constant: fn(&str) -> bool = match place.format {
        Format::Transformers => transformers::is_buffer,
        Format::FlipT5x => flip_t5x::is_constant,
        Format::OpenClip | Format::Onnx => |_| false,
    };
    let gathered = layout::gather(&place.folder, &config, &*original, constant, tensors.as_mut());
    let mut stored = stored(&config, &*original, tensors.as_ref());
    let mut tensors = gathered.map_err(|error| match options.format {
        None => place.other_config(error),
        Some(_) => error,
    })?;
    if let Some(size) = options.image_size.filter(|&size| size != config.image.size) {
        resize(&place.folder, &mut config, &mut tensors, size, &mut notes)?;
        // What was resampled was never stored.
        stored.others.insert(slot::Slot::Positions(slot::Tower::Image).name(), Numbers::F32);
    }
    let tokenizer = options.tokenizer.clone().or_else(|| detect::tokenizer(&place.folder));
    match &tokenizer {
        Some(tokenizer) => config.text.tokenizer = tokenizer.clone(),
        None => notes.push(format!(
            "no tokenizer lies beside the weights; texts need one of the kind {:?}",
            config.text.tokenizer
        )),
    }
    Ok(Imported { format: place.format, config, tensors, tokenizer, built_in_tokenizer, notes, stored, text })
}

/// How the parameters of a model are stored.
fn stored(config: &ModelConfig, original: layout::OriginalOf<'_>, tensors: &dyn Tensors) -> Stored {
    let each = slot::slots(config).into_iter().map(|slot| {
        let original = original(slot, config);
        let numbers = original.names.first().map_or(Numbers::F32, |name| tensors.numbers(name));
        (slot.name(), numbers, slot.shape(config).iter().product())
    });
    let scale = original(slot::Slot::LogitScale, config).names;
    let vector_scale = tensors.shapes().iter().any(|(name, shape)| scale.contains(name) && shape.len() == 1);
    Stored::of(&each.collect::<Vec<_>>(), vector_scale)
}

/// The architecture that open_clip has under a name.
fn open_clip_by_name(source: &Path, name: &str) -> Result<Described, ExchangeError> {
    match architectures::of(name) {
        Some(config) => open_clip::described(source, config),
        None => Err(ExchangeError::NoCheckpoint {
            path: source.to_path_buf(),
            reason: format!(
                "--model {name}: expected a plain vision transformer: {}",
                architectures::names()
            ),
        }),
    }
}

/// The architecture that weights without a configuration tell: those of OpenAI's archives.
fn open_clip_of_weights(place: &detect::Place, opened: &weights::Opened) -> Result<Described, ExchangeError> {
    let path = place.weights.as_ref().unwrap_or(&place.folder);
    let told = opened.is_script.then(|| architectures::of_openai(&opened.tensors.shapes())).flatten();
    match told {
        Some(config) => open_clip::described(path, config),
        None => Err(ExchangeError::NoCheckpoint {
            path: path.clone(),
            reason: format!(
                "no {} lies beside these weights; name their architecture with --model: {}",
                open_clip::CONFIG,
                architectures::names()
            ),
        }),
    }
}

/// Brings the model to images of another size.
fn resize(
    source: &Path,
    config: &mut ModelConfig,
    tensors: &mut [NamedTensor],
    size: usize,
    notes: &mut Vec<String>,
) -> Result<(), ExchangeError> {
    let before = config.clone();
    config.image.size = size;
    let violations = config.check();
    if !violations.is_empty() {
        let problems =
            violations.into_iter().map(|v| Problem { field: v.field, problem: v.problem }).collect();
        return Err(ExchangeError::config(source, problems));
    }
    notes.extend(before.resample_positions(tensors, config));
    Ok(())
}
