//! Errors of a model's sizes, its input and its weights.

use std::fmt;

use crate::parameter::Mismatch;

/// A size that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path inside the model's configuration, for example `image.width`.
    pub field: String,
    /// Expected and found, and advice.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model.{}: {}", self.field, self.problem)
    }
}

/// A model cannot be built, fed or filled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error("{}", lines(.0))]
    Sizes(Vec<Violation>),
    #[error("{encoder} input: {problem}")]
    Input {
        /// `image` or `text`.
        encoder: &'static str,
        problem: String,
    },
    #[error(
        "micro-batches of {images:?} images and {texts:?} captions: expected one at least, and as many of \
         either in each"
    )]
    Batches {
        /// Rows of every image input.
        images: Vec<usize>,
        /// Rows of every text input.
        texts: Vec<usize>,
    },
    #[error("these tensors are not those of the model that the recipe describes:\n{0}")]
    Weights(Mismatch),
    #[error("the device failed: {0}")]
    Device(String),
    #[error("the kernels of this processor: {0}")]
    Kernels(String),
    #[error(transparent)]
    Ranks(#[from] crate::ranks::RanksError),
    #[error("ranks.shard: Masters needs precision: Bf16 and compute: Fused; in 32 bits, masters are what products read")]
    NoCopies,
    #[error(transparent)]
    Gpu(#[from] crate::kernel::cuda::GpuError),
    #[error("compute: Fused computes in bfloat16 on a GPU, not in 32 bits")]
    FusedF32OnGpu,
    #[error("features before the projection are those of fused encoders; this model computes operation by operation")]
    NoFeatures,
    #[error("compute: Fused has no kernels on a GPU for this model: {0}")]
    NoGpuKernels(String),
}

impl ModelError {
    pub(crate) fn device(error: impl fmt::Display) -> Self {
        ModelError::Device(error.to_string())
    }
}

impl From<std::convert::Infallible> for ModelError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

fn lines(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n")
}
