//! Operations that the encoders are written over, and memory for them: once on the processor ([`cpu`]), in f32 or bfloat16, once
//! on a GPU ([`gpu`]), in bfloat16.
//!
//! - A backend's operations take views of its own memory, and run one after the other in the order of the calls.
//! - Activations are [rows, width], a row a token. `E` is [`Backend::Element`]: what activations are stored in and products are
//!   taken of. The residual stream, statistics, masters and gradients of parameters are f32.
//! - Gradients: parameters `+=`, activations `=`, unless the operation says otherwise.
//! - No operation takes memory, other than small vectors of the host. Scratch memory comes with the call.

pub mod cpu;
pub mod gpu;
mod sizes;
mod weights;

use std::sync::Arc;

use super::activation::Activation;
use super::adamw::AdamW;
use super::arena::Arena;
use super::attention::Attention;
use super::attention_pool::AttentionPool;
use super::contrastive::Loss;
use super::cuda::phase::Phase;
use super::tokens::{Added, Sequences};
use super::unit_norm::Length;
use super::view::{Number, View, ViewMut};
pub use sizes::{Needs, Read, Size, Widths};
pub use weights::Weights;

/// Memory of a device.
pub trait Memory {
    type Buffer<T: Number>: Send;
    /// The device fails, or has no room.
    type Error: std::fmt::Display + std::fmt::Debug;

    /// Memory filled with zeros.
    fn zeros<T: Number>(&self, len: usize) -> Result<Self::Buffer<T>, Self::Error>;
    fn view<'a, T: Number>(&self, buffer: &'a Self::Buffer<T>) -> View<'a, T>;
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Self::Buffer<T>) -> ViewMut<'a, T>;
    /// Copies from the host.
    fn write<T: Number>(&self, to: ViewMut<T>, values: &[T]) -> Result<(), Self::Error>;
    /// Copies to the host what was computed before; waits for it.
    fn read<T: Number>(&self, from: View<T>) -> Result<Vec<T>, Self::Error>;
    /// to = from, of one length.
    fn copy<T: Number>(&self, to: ViewMut<T>, from: View<T>) -> Result<(), Self::Error>;
    /// Fills with zeros.
    fn clear<T: Number>(&self, to: ViewMut<T>) -> Result<(), Self::Error>;

    /// A copy of values of the host.
    fn upload<T: Number>(&self, values: &[T]) -> Result<Self::Buffer<T>, Self::Error> {
        let mut buffer = self.zeros(values.len())?;
        self.write(self.view_mut(&mut buffer), values)?;
        Ok(buffer)
    }

    /// All values; waits for what was computed before.
    fn download<T: Number>(&self, buffer: &Self::Buffer<T>) -> Result<Vec<T>, Self::Error> {
        self.read(self.view(buffer))
    }
}

/// Parameters of a LayerNorm, and what is added to the variance inside its square root.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    pub scale: View<'a, f32>,
    pub shift: View<'a, f32>,
    pub eps: f32,
}

/// Values that a LayerNorm leaves for its backward pass: its input without mean and deviation [rows, width], and 1 / deviation
/// of each row.
#[derive(Debug)]
pub struct SavedNorm<'a, E> {
    pub normal: ViewMut<'a, E>,
    pub rstd: ViewMut<'a, f32>,
}

impl<'a, E: Number> SavedNorm<'a, E> {
    pub fn take(arena: &mut Arena<'a>, rows: usize, width: usize) -> Self {
        SavedNorm { normal: arena.take(rows * width), rstd: arena.take(rows) }
    }
}

/// The input of a linear layer, as the gradient of its weight takes it.
#[derive(Debug)]
pub enum Input<'a, E> {
    /// Rows of `width`.
    Rows { values: View<'a, E>, width: usize },
    /// The output of a norm, made again from what it saved. `room` is scratch memory, as large as it.
    Normed { saved: &'a SavedNorm<'a, E>, norm: Norm<'a>, room: ViewMut<'a, E> },
}

/// Tokens of a sequence that make its vector.
#[derive(Debug, Clone, Copy)]
pub enum Pool<'a> {
    /// The mean of all.
    Mean,
    /// One: position `at[b]` of sequence b, which the caller has checked.
    At(View<'a, u32>),
}

/// Factors that stored bytes are normalised with, of the three channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels {
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
}

/// Gradients of the class token and of learned positions.
#[derive(Debug)]
pub struct TokenGradients<'a> {
    /// `[width]`, where there is one.
    pub class_token: Option<ViewMut<'a, f32>>,
    /// [prefix + own grid^2, width], the class token's first, where positions are learned.
    pub positions: Option<ViewMut<'a, f32>>,
    /// Matrix that made the positions of this grid of the learned ones, [prefix + grid^2, prefix + own grid^2], and room for the gradient of
    /// what it made, [prefix + grid^2, width]; none for the own grid.
    pub resampled: Option<(View<'a, f32>, ViewMut<'a, f32>)>,
}

/// A parameter with its moments, its gradient and the copy that products read of it. All values are of one length.
#[derive(Debug)]
pub struct Updated<'a, C> {
    pub p: ViewMut<'a, f32>,
    pub m: ViewMut<'a, f32>,
    pub v: ViewMut<'a, f32>,
    pub g: ViewMut<'a, f32>,
    pub copy: Option<&'a mut C>,
    /// Values of a row.
    pub columns: usize,
    /// The decay of the rule is applied.
    pub decays: bool,
}

/// Bytes that stay as they are for as long as somebody has them.
pub type HeldBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The outcome of an operation of a backend.
pub type Done<B> = Result<(), <B as Memory>::Error>;
/// Activations of a backend that an operation reads.
pub type In<'a, B> = View<'a, <B as Backend>::Element>;
/// Activations of a backend that an operation writes.
pub type Out<'a, B> = ViewMut<'a, <B as Backend>::Element>;
/// Values that a LayerNorm of a backend saves.
pub type Saved<'a, B> = SavedNorm<'a, <B as Backend>::Element>;

/// Operations of the encoders, the loss and the update, and their memory.
#[allow(clippy::too_many_arguments)]
pub trait Backend: Memory + Sized {
    /// See the module.
    type Element: Number;
    /// A copy of a parameter, rounded and laid out as kernels read it.
    type Copy;
    /// The weight of a linear layer [k, n], as products read it.
    type Weight<'a>: Copy;
    /// A parameter that is read rounded to the element type: a copy, or the master.
    type Rounded<'a>: Copy;
    /// Memory that operations keep from step to step.
    type State;

    /// Memory of a pass.
    const NEEDS: Needs;
    /// Images can travel to the device while others are computed.
    const PREFETCHES: bool;

    /// Memory for operations to keep, before the first step.
    fn state(&self) -> Result<Self::State, Self::Error>;
    /// Bytes of memory that images arrive in.
    fn incoming_bytes(state: &Self::State) -> usize;

    /// Zeros for the copy of a parameter, where kernels do not read the master.
    fn new_copy(&self, size: Size) -> Result<Option<Self::Copy>, Self::Error>;
    /// Makes a copy of a master.
    fn fill_copy(&self, copy: &mut Self::Copy, master: View<f32>) -> Done<Self>;
    /// Makes a copy of values of the host.
    fn fill_copy_from_host(&self, copy: &mut Self::Copy, values: &[f32]) -> Done<Self>;
    /// The weight of a linear layer: its copy, where there is one.
    fn weight<'a>(
        &self,
        copy: Option<&'a Self::Copy>,
        master: Option<View<'a, f32>>,
        size: Size,
    ) -> Self::Weight<'a>;
    /// A parameter that is read rounded: its copy, where there is one.
    fn rounded<'a>(&self, copy: Option<&'a Self::Copy>, master: View<'a, f32>) -> Self::Rounded<'a>;

    /// Activations on the host, as wide as they are computed with; waits for them.
    fn read_wide(&self, from: In<Self>) -> Result<Vec<f32>, Self::Error>;
    /// to = from, rounded.
    fn round(&self, to: Out<Self>, from: View<f32>) -> Done<Self>;
    /// to = (bytes / 255 - mean) / deviation of each channel, the innermost of three.
    fn normalise(&self, state: &mut Self::State, to: Out<Self>, bytes: &[u8], pixels: Pixels) -> Done<Self>;
    /// Sends bytes that [`normalise`](Self::normalise) will be asked for, beside what is computed.
    fn prefetch(&self, state: &mut Self::State, bytes: HeldBytes) -> Done<Self>;

    /// x [batch * (prefix + kept), width] = the class token, then the patch embedding of `pixels` with what is added to it.
    /// `ids` [batch * kept] name rows of the positions, which the caller has checked. `room` is scratch memory of
    /// [batch * kept, width].
    fn embed_patches(
        &self,
        x: ViewMut<f32>,
        pixels: In<Self>,
        weight: Self::Weight<'_>,
        added: Added,
        ids: View<u32>,
        of: Sequences,
        room: ViewMut<f32>,
    ) -> Done<Self>;
    /// to [batch * kept, width] = the rows of dx [batch * (prefix + kept), width] that came from patches, rounded.
    fn patch_rows(&self, to: Out<Self>, dx: View<f32>, of: Sequences) -> Done<Self>;
    /// table [rows, width] = matrix [rows, from] learned [from, width].
    fn resample(
        &self,
        table: ViewMut<f32>,
        matrix: View<f32>,
        learned: View<f32>,
        width: usize,
    ) -> Done<Self>;
    /// Adds to the gradients of class token and positions what dx [batch * (prefix + kept), width] contributes. `room` is of
    /// [`Needs::scatter`].
    fn token_gradients(
        &self,
        gradients: TokenGradients,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        room: ViewMut<u32>,
        scratch: ViewMut<f32>,
    ) -> Done<Self>;
    /// `x[row]` = `table[ids[row]] + positions[places[row]]`, x being [rows, width]; the caller has checked ids and places.
    fn gather(
        &self,
        x: ViewMut<f32>,
        table: (Self::Rounded<'_>, View<u32>),
        positions: (View<f32>, View<u32>),
        width: usize,
    ) -> Done<Self>;
    /// `table[ids[r]]` += the row of dx [batch * (prefix + kept), width] that stands for `ids[r]`, for every r in order. `room` is
    /// of [`Needs::scatter`].
    fn scatter_add(
        &self,
        table: ViewMut<f32>,
        ids: &[u32],
        dx: View<f32>,
        of: Sequences,
        room: ViewMut<u32>,
    ) -> Done<Self>;

    /// y, saved = layer_norm(x).
    fn layer_norm(&self, y: Out<Self>, saved: &mut Saved<Self>, x: View<f32>, norm: Norm) -> Done<Self>;
    /// As [`layer_norm`](Self::layer_norm), of which x itself becomes the output. `room` is scratch memory, as large as x.
    fn layer_norm_in_place(
        &self,
        x: ViewMut<f32>,
        saved: &mut Saved<Self>,
        norm: Norm,
        room: ViewMut<f32>,
    ) -> Done<Self>;
    /// dx, dscale, dshift += gradients for the gradient `dy`; `copy`, where there is one, = dx rounded.
    fn layer_norm_backward(
        &self,
        dx: ViewMut<f32>,
        copy: Option<Out<Self>>,
        gradients: [ViewMut<f32>; 2],
        dy: In<Self>,
        saved: &Saved<Self>,
        scale: View<f32>,
        scratch: ViewMut<f32>,
    ) -> Done<Self>;

    /// y [rows, n] = x [rows, k] weight + bias.
    fn linear(
        &self,
        y: Out<Self>,
        x: In<Self>,
        weight: Self::Weight<'_>,
        bias: Self::Rounded<'_>,
    ) -> Done<Self>;
    /// y [rows, n] += x [rows, k] weight + bias: the residual stream.
    fn linear_add(
        &self,
        y: ViewMut<f32>,
        x: In<Self>,
        weight: Self::Weight<'_>,
        bias: View<f32>,
    ) -> Done<Self>;
    /// before [rows, n] = x [rows, k] weight + bias; after = activation(before).
    fn linear_activate(
        &self,
        to: Activated<Self::Element>,
        x: In<Self>,
        weight: Self::Weight<'_>,
        bias: Self::Rounded<'_>,
        activation: Activation,
    ) -> Done<Self>;
    /// after [rows, k] = (dy [rows, n] weight^T) activation'(before); then before = activation(before), which the gradient of
    /// the weight needs.
    fn linear_activate_backward(
        &self,
        to: Activated<Self::Element>,
        dy: In<Self>,
        weight: Self::Weight<'_>,
        activation: Activation,
    ) -> Done<Self>;
    /// dx [rows, k] = dy [rows, n] weight^T.
    fn linear_backward(&self, dx: Out<Self>, dy: In<Self>, weight: Self::Weight<'_>) -> Done<Self>;
    /// y [rows, n] = x [rows, k] weight, in f32.
    fn project(&self, y: ViewMut<f32>, x: In<Self>, weight: Self::Weight<'_>) -> Done<Self>;
    /// dx [rows, k] = dy [rows, n] weight^T, in f32.
    fn project_backward(&self, dx: ViewMut<f32>, dy: In<Self>, weight: Self::Weight<'_>) -> Done<Self>;
    /// dw [k, n] += x [rows, k]^T dy [rows, n]; db, where there is one, += the sums of the columns of dy.
    fn weight_gradient(
        &self,
        dw: ViewMut<f32>,
        db: Option<ViewMut<f32>>,
        x: Input<Self::Element>,
        dy: In<Self>,
        scratch: ViewMut<f32>,
    ) -> Done<Self>;

    /// out, lse = attention(qkv); see [`attention`](super::attention) for the shapes.
    fn attention(&self, out: Out<Self>, lse: ViewMut<f32>, qkv: In<Self>, of: Attention) -> Done<Self>;
    /// dqkv = gradient of [`attention`](Self::attention) for the gradient `dout` of its output; `out` is that output, and is
    /// written where it was not kept.
    fn attention_backward(
        &self,
        dqkv: Out<Self>,
        out: Out<Self>,
        dout: In<Self>,
        qkv: In<Self>,
        lse: View<f32>,
        of: Attention,
        scratch: ViewMut<f32>,
    ) -> Done<Self>;

    /// pooled [batch, width] = pool(layer_norm(x)), x being [batch * tokens, width]. `room` is scratch memory of three times as
    /// many elements as x has.
    fn norm_and_pool(
        &self,
        pooled: Out<Self>,
        saved: &mut Saved<Self>,
        x: View<f32>,
        norm: Norm,
        pool: Pool,
        room: Out<Self>,
    ) -> Done<Self>;
    /// dx [batch * tokens, width] = gradient of [`norm_and_pool`](Self::norm_and_pool) for the gradient `dpooled` of its output;
    /// dscale, dshift += theirs. `room` is scratch memory of as many elements as dx has.
    fn norm_and_pool_backward(
        &self,
        dx: ViewMut<f32>,
        gradients: [ViewMut<f32>; 2],
        dpooled: View<f32>,
        saved: &Saved<Self>,
        scale: View<f32>,
        pool: Pool,
        room: Out<Self>,
        scratch: ViewMut<f32>,
    ) -> Done<Self>;
    /// pooled [batch, width] = the mean of the rows of x [batch * (prefix + kept), width] that come from patches.
    fn mean_of_patches(&self, pooled: ViewMut<f32>, x: View<f32>, of: Sequences) -> Done<Self>;
    /// dx = gradient of [`mean_of_patches`](Self::mean_of_patches) for the gradient `dpooled` of its output.
    fn mean_of_patches_backward(&self, dx: ViewMut<f32>, dpooled: View<f32>, of: Sequences) -> Done<Self>;
    /// out, lse = attention of a query over keys and values; see [`attention_pool`](super::attention_pool) for the shapes.
    fn attend(
        &self,
        out: Out<Self>,
        lse: ViewMut<f32>,
        query: View<f32>,
        kv: In<Self>,
        of: AttentionPool,
    ) -> Done<Self>;
    /// dkv = and dquery += gradients of [`attend`](Self::attend) for the gradient `dout` of its output. `dqueries`
    /// [batch, width] is scratch memory.
    fn attend_backward(
        &self,
        gradients: (Out<Self>, ViewMut<f32>),
        dqueries: ViewMut<f32>,
        dout: In<Self>,
        query: View<f32>,
        kv: In<Self>,
        lse: View<f32>,
        of: AttentionPool,
    ) -> Done<Self>;
    /// z [rows, width] = x / length; norms `[rows]` = |x|.
    fn unit_norm(&self, z: ViewMut<f32>, norms: ViewMut<f32>, x: View<f32>, length: Length) -> Done<Self>;
    /// dx = gradient of [`unit_norm`](Self::unit_norm) for the gradient `dz`.
    fn unit_norm_backward(
        &self,
        dx: ViewMut<f32>,
        dz: View<f32>,
        z: View<f32>,
        norms: View<f32>,
        length: Length,
    ) -> Done<Self>;

    /// The contrastive loss of pairs of unit vectors z, [n, width] of images and texts; dz = its gradients. Waits for it.
    fn contrastive(
        &self,
        state: &mut Self::State,
        dz: [ViewMut<f32>; 2],
        z: [View<f32>; 2],
        scale: f32,
        width: usize,
    ) -> Result<Loss, Self::Error>;
    /// to += factor * from, the factor being one number.
    fn add_scaled(&self, to: ViewMut<f32>, from: View<f32>, factor: View<f32>) -> Done<Self>;
    /// The sum of the squares of all values. Waits for it.
    fn sum_of_squares(&self, state: &mut Self::State, values: &[View<f32>]) -> Result<f64, Self::Error>;
    /// One update of all parameters and of their copies, which leaves gradients of zero.
    fn adamw(
        &self,
        state: &mut Self::State,
        parameters: Vec<Updated<Self::Copy>>,
        rule: &AdamW,
    ) -> Done<Self>;

    /// Ends a phase of a step: what was launched since the last mark.
    fn mark(&self, _phase: Phase) -> Done<Self> {
        Ok(())
    }
    /// Seconds of the phases since the last call, where the device takes them.
    fn lap(&self) -> Result<Vec<(Phase, f64)>, Self::Error> {
        Ok(Vec::new())
    }
}

/// Both sides of an activation; in a backward pass `after` is the gradient of `before`.
#[derive(Debug)]
pub struct Activated<'a, E> {
    pub before: ViewMut<'a, E>,
    pub after: ViewMut<'a, E>,
}
