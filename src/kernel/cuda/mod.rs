//! Kernels for NVIDIA GPUs: what a launch is, and who carries it out. The `.cu` file of an operation lies beside its
//! launcher, in the folder of the operation; both keep the contract of the operation on the CPU.
//!
//! Launchers are plain Rust over a [`Gpu`]: they check lengths, choose the grid and order the arguments. So is what is
//! composed of them: the [backend](crate::kernel::backend::gpu). A GPU is a GPU (the module `driver`, feature
//! `cuda`) or, in tests, an emulation on the processor, so that grids, arguments and the logic of every kernel are tested
//! where there is no GPU.
//!
//! - Matrix products are the GPU's own: cuBLASLt's on a GPU, plain loops in tests; see [`product`].
//! - Activations and weights are [`Bf16`](crate::kernel::element::Bf16); sums, the residual stream, statistics, the loss and the optimizer are f32.
//! - No atomics: a sum has one order, so a run is reproducible bit by bit on the same kind of GPU.
//! - Sizes are `u32`: a slice has fewer than 2^32 elements.
//!
//! Compiled at build time by nvcc, which dfdx's own build needs anyway, to machine code for compute capability 8.0 and
//! 9.0 and to PTX that later GPUs compile: NVRTC would want its library and seconds of every start.

#[cfg(feature = "cuda")]
mod cublaslt;
#[cfg(feature = "cuda")]
pub mod driver;
#[cfg(feature = "cuda")]
mod event;
mod incoming;
pub mod phase;
pub mod product;
pub mod rates;
#[cfg(feature = "cuda")]
mod staging;
mod update;

pub use incoming::Incoming;
pub use update::Update;

use super::backend::Memory;
pub use super::view::{Number, View, ViewMut};
use phase::Phase;
use product::Product;

/// The sources, by name of the operation; [`Launch::module`] is one of them.
pub const MODULES: [&str; 11] = [
    "activation",
    "adamw",
    "attention",
    "attention_pool",
    "contrastive",
    "gemm",
    "global_norm",
    "layer_norm",
    "patches",
    "pool",
    "tokens",
];

/// A GPU could not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    #[error("the GPU failed at {at}: {why}")]
    Failed { at: String, why: String },
    #[error(
        "the GPU has no room left at {at}: a smaller batch or micro_batch, or recompute: Blocks, needs less"
    )]
    OutOfMemory { at: String },
    #[error("the GPU has no kernel {0}; this binary was put together wrongly")]
    NoKernel(&'static str),
}

/// Something that runs kernels and matrix products, one after the other in the order of the calls: a GPU, or in tests an
/// emulation.
pub trait Gpu: Memory<Error = GpuError> + Send + Sync {
    /// A point in what is launched, or in what is copied beside it.
    type Point: Send;

    /// The point behind all that was launched so far.
    fn point(&self) -> Result<Self::Point, GpuError>;

    /// Later launches begin when the point is reached.
    fn wait_for(&self, point: &Self::Point) -> Result<(), GpuError>;

    /// Copies from the host beside what is launched, once `after` is reached; the values may change as soon as this is
    /// over. The memory has them at the point that is returned.
    ///
    /// # Safety
    /// Whatever uses the memory was launched before `after`; nothing that is launched later does, and it is not freed,
    /// before [`wait_for`](Self::wait_for) the point that is returned.
    unsafe fn write_beside<T: Number>(
        &self,
        to: ViewMut<T>,
        values: &[T],
        after: &Self::Point,
    ) -> Result<Self::Point, GpuError>;

    /// Ends a phase: all that was launched since the last mark, or since the lap began.
    fn mark(&self, _phase: Phase) -> Result<(), GpuError> {
        Ok(())
    }

    /// Seconds of the phases since the last call, by the GPU's clock, in the order in which they were marked; from the
    /// first call on marks are kept. Time in which nothing ran counts for the phase that came after it. Waits for the last
    /// of them.
    fn lap(&self) -> Result<Vec<(Phase, f64)>, GpuError> {
        Ok(Vec::new())
    }

    /// True if [`multiply`](Self::multiply) takes the product with its epilogue; any can be had without one.
    ///
    /// # Errors
    /// The GPU cannot be asked.
    fn fuses(&self, product: &Product) -> Result<bool, GpuError>;

    /// Starts a matrix product.
    ///
    /// # Safety
    /// The memory that it names must be as large as its sizes say, and alive until the next download; what is written
    /// must not overlap what is read.
    unsafe fn multiply(&self, product: &Product) -> Result<(), GpuError>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments must be those the kernel declares, and the memory they point to must be large enough for what
    /// the kernel reads and writes, and alive until the next download.
    unsafe fn launch(&self, launch: Launch) -> Result<(), GpuError>;
}

/// A kernel, its grid and its arguments.
#[derive(Debug, Clone)]
pub struct Launch {
    pub module: &'static str,
    pub kernel: &'static str,
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of shared memory whose size is known now only.
    pub shared_bytes: u32,
    /// Each in the lower bytes of a word, as all GPUs are little-endian.
    pub arguments: Vec<u64>,
}

impl Launch {
    /// `blocks` blocks of `block` threads.
    pub fn new(module: &'static str, kernel: &'static str, blocks: usize, block: u32) -> Self {
        Launch {
            module,
            kernel,
            grid: [count(blocks), 1, 1],
            block,
            shared_bytes: 0,
            arguments: Vec::with_capacity(12),
        }
    }
    pub fn rows(mut self, rows: usize) -> Self {
        self.grid[1] = count(rows);
        self
    }
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared_bytes = count(bytes);
        self
    }
    pub fn input<T: Number>(mut self, view: View<T>) -> Self {
        self.arguments.push(view.address());
        self
    }
    /// A null pointer where there is none.
    pub fn optional<T: Number>(mut self, view: Option<View<T>>) -> Self {
        self.arguments.push(view.map_or(0, |view| view.address()));
        self
    }
    pub fn output<T: Number>(mut self, view: &mut ViewMut<T>) -> Self {
        self.arguments.push(view.address());
        self
    }
    pub fn size(mut self, size: usize) -> Self {
        self.arguments.push(u64::from(count(size)));
        self
    }
    pub fn number(mut self, number: f32) -> Self {
        self.arguments.push(u64::from(number.to_bits()));
        self
    }
}

/// A size as kernels take it.
fn count(size: usize) -> u32 {
    u32::try_from(size).expect("slices have fewer than 2^32 elements, as the launchers ask")
}

/// Blocks of `block` threads that have a thread for each of `n` pieces.
pub(crate) fn blocks(n: usize, block: u32) -> usize {
    n.div_ceil(block as usize)
}
