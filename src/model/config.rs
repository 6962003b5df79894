//! The architecture, as a recipe describes it. FLIP's published model is the default of every option;
//! open_clip's is the other value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::{Resizing, Transform};
use crate::data::text::TokenizerConfig;

/// The architecture: two encoders and the space they share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Image encoder.
    pub image: ImageTowerConfig,
    /// Text encoder.
    pub text: TextTowerConfig,
    /// Width of the shared embedding space.
    #[schemars(range(min = 1))]
    pub embed_dim: usize,
    /// Normalisation of embeddings to unit length.
    #[serde(default)]
    pub normalisation: Normalisation,
    /// The learnable temperature.
    #[serde(default)]
    pub logit_scale: LogitScaleConfig,
    /// Value at the start of a learnable number that is added to every logit (SigLIP: -10). Only a loss on pairs of their
    /// own, as the sigmoid loss is, learns it: a softmax does not change with it. Default: the model has none.
    #[serde(default)]
    pub logit_bias: Option<f64>,
}

/// A vision transformer over the kept patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageTowerConfig {
    /// Side of the square input image, pixels. A multiple of `patch`, unless `cut_edge`.
    #[schemars(range(min = 1))]
    pub size: usize,
    /// Side of a square patch, pixels.
    #[schemars(range(min = 1))]
    pub patch: usize,
    /// The size may be no multiple of `patch`: pixels behind the last whole patch, on the right and at the bottom, are not
    /// looked at (timm).
    #[serde(default, skip_serializing_if = "is_no")]
    pub cut_edge: bool,
    /// Mean and deviation that stored bytes are normalised with.
    #[serde(default)]
    pub pixels: PixelNorm,
    /// How images of any shape become squares where nothing is drawn at random: in evaluations, `flip embed`, and exports.
    #[serde(default, skip_serializing_if = "Resizing::is_default")]
    pub resizing: Resizing,
    /// Width of a token. A multiple of `heads`; of 4 with `SinCos` positions.
    #[schemars(range(min = 1))]
    pub width: usize,
    /// Number of blocks.
    #[schemars(range(min = 1))]
    pub depth: usize,
    /// Attention heads of a block.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Hidden width of the MLP over the token width.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
    #[serde(default)]
    pub positions: ImagePositions,
    /// LayerNorm before the first block (open_clip's `ln_pre`).
    #[serde(default)]
    pub pre_norm: bool,
    /// A learned token before the patches. Off, with `pool: Mean` or `Attention`: SigLIP's towers and timm's `gap` ones.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub class_token: bool,
    #[serde(default)]
    pub pool: ImagePool,
    /// From the pooled vector to the shared space.
    #[serde(default, skip_serializing_if = "Projection::is_linear")]
    pub projection: Projection,
    /// The patch embedding has a bias (FLIP: yes, open_clip: no).
    #[serde(default = "yes")]
    pub patch_bias: bool,
    #[serde(default)]
    pub activation: Activation,
    /// Added to the variance inside the square root of LayerNorm.
    #[serde(default = "official_norm_eps")]
    pub norm_eps: f64,
}

/// A transformer over the caption's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextTowerConfig {
    /// Turns captions into token ids.
    pub tokenizer: TokenizerConfig,
    /// Rows of the token embedding; at least the size of the tokenizer's vocabulary.
    #[schemars(range(min = 1))]
    pub vocab_size: usize,
    /// Tokens of a caption; longer ones are cut, shorter ones padded.
    #[schemars(range(min = 1))]
    pub context: usize,
    /// Width of a token. A multiple of `heads`.
    #[schemars(range(min = 1))]
    pub width: usize,
    /// Number of blocks.
    #[schemars(range(min = 1))]
    pub depth: usize,
    /// Attention heads of a block.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Hidden width of the MLP over the token width.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
    /// A token sees only itself and those before it (open_clip: yes, FLIP: no).
    #[serde(default)]
    pub causal: bool,
    #[serde(default)]
    pub pool: TextPool,
    /// From the pooled vector to the shared space.
    #[serde(default, skip_serializing_if = "Projection::is_linear")]
    pub projection: Projection,
    #[serde(default)]
    pub activation: Activation,
    /// Added to the variance inside the square root of LayerNorm.
    #[serde(default = "official_norm_eps")]
    pub norm_eps: f64,
}

/// Bytes become (byte / 255 - mean) / std of their channel: red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelNorm {
    pub mean: [f64; 3],
    pub std: [f64; 3],
}

/// Position embedding of image patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ImagePositions {
    /// Fixed two-dimensional sin-cos, column first; none for the class token (FLIP).
    #[default]
    SinCos,
    /// Learned, with a row for the class token (open_clip).
    Learned,
}

/// Pooling of the image tokens to one vector, after the final LayerNorm unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ImagePool {
    /// Mean over the class token and every kept patch (FLIP).
    #[default]
    Mean,
    /// The class token (open_clip).
    ClassToken,
    /// Mean over the kept patches without the class token, then the final LayerNorm (CLIPA; open_clip's `avg` with
    /// `final_ln_after_pool`).
    Patches,
    /// Attention of one learned query over all tokens, and an MLP behind it (SigLIP; timm's `map`).
    Attention,
}

/// The last linear layer of an encoder, into the shared space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Projection {
    /// A matrix (FLIP, open_clip).
    #[default]
    Linear,
    /// A matrix and a bias (timm's heads, SigLIP's texts).
    Biased,
    /// None: the width is `embed_dim`. With `pool: Attention` alone (SigLIP's images).
    None,
}

impl Projection {
    /// True for the default.
    pub fn is_linear(&self) -> bool {
        *self == Projection::Linear
    }
}

/// Pooling of the text tokens to one vector, after the final LayerNorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TextPool {
    /// The token at position 0, or the first in the caption of those that are kept (FLIP).
    #[default]
    First,
    /// The first occurrence of the largest token id: the end-of-text token (open_clip).
    EndOfText,
    /// The token at the last position, or the last in the caption of those that are kept (open_clip's `last`). Padding counts.
    Last,
    /// The first occurrence of this token id, or the first token where there is none (open_clip's `eos`: MetaCLIP 2).
    Token(#[schemars(range(max = 4_294_967_295u32))] u32),
    /// Mean over all tokens.
    Mean,
}

/// The non-linearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (FLIP).
    #[default]
    GeluTanh,
    /// x Phi(x) (open_clip).
    GeluExact,
    /// x sigmoid(1.702 x) (OpenAI's weights).
    QuickGelu,
}

/// Normalisation of an embedding to unit length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Normalisation {
    /// z / (|z| + 1e-8) (FLIP).
    #[default]
    AddEps,
    /// z / max(|z|, 1e-12) (open_clip).
    MaxEps,
}

/// The learnable temperature, kept as the natural log of the factor on the cosine similarities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogitScaleConfig {
    /// Value at the start; ln(1/0.07) = 2.6593.
    pub init: f64,
    pub clip: LogitScaleClip,
}

/// The place where the logit scale is kept within [0, ln 100].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LogitScaleClip {
    /// In the forward pass; no gradient outside; the parameter itself is left alone (FLIP).
    #[default]
    Forward,
    /// The parameter itself, after every update (open_clip).
    AfterUpdate,
}

impl PixelNorm {
    /// ImageNet's channels (FLIP).
    pub const IMAGENET: PixelNorm = PixelNorm { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// Those of the data that OpenAI trained CLIP on (open_clip, Hugging Face).
    pub const OPENAI: PixelNorm =
        PixelNorm { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] };
}

impl Default for PixelNorm {
    fn default() -> Self {
        PixelNorm::IMAGENET
    }
}

impl ImageTowerConfig {
    /// Resizing of an image that the model shall judge to a square.
    pub fn eval_transform(&self) -> Transform {
        Transform::Evaluate { size: self.size, resizing: self.resizing }
    }

    /// Patches along a side of the image.
    pub fn grid(&self) -> usize {
        self.size / self.patch
    }

    /// Values of a patch: patch * patch * 3.
    pub fn patch_values(&self) -> usize {
        self.patch * self.patch * 3
    }

    /// Tokens before the patches: 1 or 0.
    pub fn prefix(&self) -> usize {
        usize::from(self.class_token)
    }

    /// Hidden width of the MLP.
    pub fn hidden(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}

impl TextPool {
    /// True if the token that stands for a caption is one that the tokenizer puts at its end.
    pub fn reads_end(self) -> bool {
        matches!(self, TextPool::EndOfText | TextPool::Token(_))
    }
}

impl TextTowerConfig {
    /// Hidden width of the MLP.
    pub fn hidden(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}

impl Default for LogitScaleConfig {
    fn default() -> Self {
        LogitScaleConfig { init: (1.0f64 / 0.07).ln(), clip: LogitScaleClip::default() }
    }
}

fn four() -> f64 {
    4.0
}
fn yes() -> bool {
    true
}
fn is_no(flag: &bool) -> bool {
    !*flag
}
fn is_yes(flag: &bool) -> bool {
    *flag
}
fn official_norm_eps() -> f64 {
    1e-6
}

/// Numbers inside the encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    #[default]
    F32,
    Bf16,
}

/// Implementation of the encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Compute {
    /// Composed from dfdx operations: readable, the oracle of every test.
    Reference,
    /// One node per encoder with kernels of our own; on a GPU in Bf16 alone.
    #[default]
    Fused,
}

/// Gradient checkpointing: the activations that the fused encoders keep for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Recompute {
    /// All that it needs.
    #[default]
    None,
    /// The input of each block, which is computed once more in the backward pass: about a third more work, and
    /// memory for the activations of one block instead of all.
    Blocks,
}

/// Options of the fused encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fusion {
    pub precision: Precision,
    pub recompute: Recompute,
    /// Threads of the kernels. Default: one a core.
    pub threads: Option<std::num::NonZeroUsize>,
}

impl From<Precision> for Fusion {
    fn from(precision: Precision) -> Self {
        Fusion { precision, ..Fusion::default() }
    }
}
