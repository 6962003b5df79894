//! Kernels for NVIDIA GPUs: what a launch is, and who carries it out. The `.cu` file of an operation lies beside its
//! launcher, in the folder of the operation; both keep the contract of the operation on the CPU.
//!
//! Launchers are plain Rust over a [`Machine`]: they check lengths, choose the grid and order the arguments. So is what is
//! composed of them, up to whole [encoders](crate::kernel::encoder). A machine is a GPU (the module `driver`, feature
//! `cuda`) or, in tests, an emulation on the processor, so that grids, arguments and the logic of every kernel are tested
//! where there is no GPU.
//!
//! - Matrix products are the machine's own: cuBLASLt's on a GPU, plain loops in tests; see [`product`].
//! - Activations and weights are [`Bf16`]; sums, the residual stream, statistics, the loss and the optimizer are f32.
//! - No atomics: a sum has one order, so a run is reproducible bit by bit on the same kind of GPU.
//! - Sizes are `u32`: a slice has fewer than 2^32 elements.
//!
//! Compiled at build time by nvcc, which dfdx's own build needs anyway, to machine code for compute capability 8.0 and
//! 9.0 and to PTX that later GPUs compile: NVRTC would want its library and seconds of every start.

pub mod copies;
#[cfg(feature = "cuda")]
mod cublaslt;
#[cfg(feature = "cuda")]
pub mod driver;
#[cfg(feature = "cuda")]
mod event;
pub mod phase;
pub mod product;
pub mod rates;
pub mod room;
#[cfg(feature = "cuda")]
mod staging;

use std::marker::PhantomData;

use super::element::Bf16;
use phase::Phase;
use product::Product;

/// The sources, by name of the operation; [`Launch::module`] is one of them.
pub const MODULES: [&str; 10] = [
    "activation",
    "adamw",
    "attention",
    "contrastive",
    "gemm",
    "global_norm",
    "layer_norm",
    "patches",
    "pool",
    "tokens",
];

/// A number that kernels read and write.
pub trait Number: bytemuck::Pod + Send + Sync {}

impl Number for f32 {}
impl Number for f64 {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for Bf16 {}

/// Why a machine could not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    #[error("the GPU failed at {at}: {why}")]
    Failed { at: String, why: String },
    #[error(
        "the GPU has no room left at {at}: a smaller batch or micro_batch, or recompute: Blocks, needs less"
    )]
    OutOfMemory { at: String },
    #[error("the GPU has no kernel {0}; this binary was put together wrongly")]
    NoKernel(&'static str),
}

/// Something with memory of its own that runs kernels and matrix products, one after the other in the order of the calls.
pub trait Machine {
    /// Memory of the machine.
    type Buffer<T: Number>;
    /// A point in what is launched, or in what is copied beside it.
    type Point;

    /// Memory filled with zeros.
    fn zeros<T: Number>(&self, len: usize) -> Result<Self::Buffer<T>, MachineError>;
    fn upload<T: Number>(&self, values: &[T]) -> Result<Self::Buffer<T>, MachineError>;
    /// Waits for all that was launched before.
    fn download<T: Number>(&self, buffer: &Self::Buffer<T>) -> Result<Vec<T>, MachineError>;
    fn view<'a, T: Number>(&self, buffer: &'a Self::Buffer<T>) -> View<'a, T>;
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Self::Buffer<T>) -> ViewMut<'a, T>;

    /// Copies from the host to memory that is there already.
    fn write<T: Number>(&self, to: ViewMut<T>, values: &[T]) -> Result<(), MachineError>;
    /// Copies to the host what was computed before; waits for it.
    fn read<T: Number>(&self, from: View<T>) -> Result<Vec<T>, MachineError>;
    /// to = from, of one length.
    fn copy<T: Number>(&self, to: ViewMut<T>, from: View<T>) -> Result<(), MachineError>;
    /// Fills with zeros.
    fn clear<T: Number>(&self, to: ViewMut<T>) -> Result<(), MachineError>;

    /// The point behind all that was launched so far.
    fn point(&self) -> Result<Self::Point, MachineError>;

    /// What is launched from now on begins when the point is reached.
    fn wait_for(&self, point: &Self::Point) -> Result<(), MachineError>;

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
    ) -> Result<Self::Point, MachineError>;

    /// What was launched since the last mark, or since the lap began, is this phase.
    fn mark(&self, _phase: Phase) -> Result<(), MachineError> {
        Ok(())
    }

    /// Seconds of the phases since the last call, by the machine's clock, in the order in which they were marked; from the
    /// first call on marks are kept. Time in which nothing ran counts for the phase that came after it. Waits for the last
    /// of them.
    fn lap(&self) -> Result<Vec<(Phase, f64)>, MachineError> {
        Ok(Vec::new())
    }

    /// Whether [`multiply`](Self::multiply) takes the product with its epilogue; any can be had without one.
    ///
    /// # Errors
    /// The machine cannot be asked.
    fn fuses(&self, product: &Product) -> Result<bool, MachineError>;

    /// Starts a matrix product.
    ///
    /// # Safety
    /// The memory that it names must be as large as its sizes say, and alive until the next download; what is written
    /// must not overlap what is read.
    unsafe fn multiply(&self, product: &Product) -> Result<(), MachineError>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments must be those the kernel declares, and the memory they point to must be large enough for what
    /// the kernel reads and writes, and alive until the next download.
    unsafe fn launch(&self, launch: Launch) -> Result<(), MachineError>;
}

/// Memory of a machine that is read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a T>,
}

/// Memory of a machine that is written.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a mut T>,
}

impl<'a, T: Number> View<'a, T> {
    /// `len` elements at an address of the machine.
    ///
    /// # Safety
    /// They must be readable by its kernels for `'a`.
    pub unsafe fn new(address: u64, len: usize) -> Self {
        View { address, len, of: PhantomData }
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Where it begins, as a number for tables that kernels read.
    pub fn address(&self) -> u64 {
        self.address
    }
    /// The elements from `at` on, `len` of them.
    pub fn part(&self, at: usize, len: usize) -> View<'a, T> {
        assert!(at + len <= self.len, "elements {at} to {} of {}", at + len, self.len);
        View { address: self.address + (at * size_of::<T>()) as u64, len, of: PhantomData }
    }
}

impl<'a, T: Number> ViewMut<'a, T> {
    /// `len` elements at an address of the machine.
    ///
    /// # Safety
    /// They must be writable by its kernels for `'a`, and nobody else may use them.
    pub unsafe fn new(address: u64, len: usize) -> Self {
        ViewMut { address, len, of: PhantomData }
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Where it begins, as a number for tables that kernels read.
    pub fn address(&self) -> u64 {
        self.address
    }
    /// The same memory for the time of a call.
    pub fn again(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, of: PhantomData }
    }
    /// The same memory as other numbers, as many as there is room for.
    pub fn as_room<U: Number>(&mut self) -> ViewMut<'_, U> {
        assert!(self.address.is_multiple_of(align_of::<U>() as u64), "numbers at {:#x}", self.address);
        let len = self.len * size_of::<T>() / size_of::<U>();
        ViewMut { address: self.address, len, of: PhantomData }
    }
    pub fn read(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, of: PhantomData }
    }
    /// The elements from `at` on, `len` of them.
    pub fn part(&mut self, at: usize, len: usize) -> ViewMut<'_, T> {
        assert!(at + len <= self.len, "elements {at} to {} of {}", at + len, self.len);
        ViewMut { address: self.address + (at * size_of::<T>()) as u64, len, of: PhantomData }
    }
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
    /// Each in the lower bytes of a word, as all machines are little-endian.
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
    pub fn input<T>(mut self, view: View<T>) -> Self {
        self.arguments.push(view.address);
        self
    }
    /// A null pointer where there is none.
    pub fn optional<T>(mut self, view: Option<View<T>>) -> Self {
        self.arguments.push(view.map_or(0, |view| view.address));
        self
    }
    pub fn output<T>(mut self, view: &mut ViewMut<T>) -> Self {
        self.arguments.push(view.address);
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
