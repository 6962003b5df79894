//! How fast each kernel and each kind of product is by itself, at the sizes of an image encoder's step.
//!
//! GB/s counts what a kernel must read and write once; TFLOP/s, of attention, its products without what is computed anew.

use super::copies::Target;
use super::{Machine, MachineError};
use crate::kernel::adamw::AdamW;
use crate::kernel::attention::cuda::Saved;
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::Weight;
use crate::kernel::pool::cuda::Pool;
use crate::kernel::tokens::cuda::{Added, Sequences};
use crate::kernel::transformer::Shape;
use crate::kernel::{activation, adamw, attention, gemm, global_norm, layer_norm, patches, pool, tokens};

/// What the kernels are given.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of the encoder's blocks.
    pub shape: Shape,
    /// Values of a patch.
    pub patch_values: usize,
    pub pairs: usize,
    /// Patches of each image.
    pub kept: usize,
    /// Parameters of an update.
    pub parameters: usize,
}

/// What was measured of a kernel.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Rate {
    pub kernel: &'static str,
    pub ms: f64,
    pub gb_per_s: f64,
    /// Of products.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tflop_per_s: Option<f64>,
}

/// Something that launches a kernel.
pub type Launches<'a> = dyn FnMut() -> Result<(), MachineError> + 'a;

/// Measures all of them. `seconds` says how long a launch takes.
///
/// # Errors
/// The machine fails, or has no room.
pub fn rates<M: Machine>(
    machine: &M,
    sizes: Sizes,
    mut seconds: impl FnMut(&mut Launches) -> Result<f64, MachineError>,
) -> Result<Vec<Rate>, MachineError> {
    let mut found = Vec::new();
    let mut time = |kernel, bytes: usize, flops: f64, launch: &mut Launches| {
        let seconds = seconds(launch)?;
        found.push(Rate {
            kernel,
            ms: seconds * 1e3,
            gb_per_s: bytes as f64 / seconds / 1e9,
            tflop_per_s: (flops > 0.0).then_some(flops / seconds / 1e12),
        });
        Ok(())
    };
    of_tokens(machine, &sizes, &mut time)?;
    of_blocks(machine, &sizes, &mut time)?;
    of_products(machine, &sizes, &mut time)?;
    of_updates(machine, &sizes, &mut time)?;
    Ok(found)
}

/// Takes the time of a kernel that moves so many bytes and does so many floating-point operations.
type Time<'a> = dyn FnMut(&'static str, usize, f64, &mut Launches) -> Result<(), MachineError> + 'a;

/// From pixels to tokens, and from tokens to one vector.
fn of_tokens<M: Machine>(machine: &M, sizes: &Sizes, time: &mut Time) -> Result<(), MachineError> {
    let &Sizes { shape: Shape { width, .. }, patch_values, pairs, kept, .. } = sizes;
    let pixels = pairs * kept * patch_values;
    let bytes = machine.zeros::<u8>(pixels)?;
    let mut normalised = machine.zeros::<Bf16>(pixels)?;
    time("patches", 3 * pixels, 0.0, &mut || {
        let to = machine.view_mut(&mut normalised);
        patches::cuda::from_bytes(machine, to, machine.view(&bytes), [0.5; 3], [0.5; 3])
    })?;
    let (rows, n) = (pairs * kept, pairs * (1 + kept) * width);
    let (embedded, ids) = (machine.zeros::<f32>(rows * width)?, machine.zeros::<u32>(rows)?);
    // One position: every patch is patch 0.
    let (position, class) = (machine.zeros::<f32>(width)?, machine.zeros::<f32>(width)?);
    let mut x = machine.zeros::<f32>(n)?;
    let of = Sequences { batch: pairs, kept, prefix: 1, width };
    time("tokens", 4 * (rows * width + n), 0.0, &mut || {
        let added = Added {
            bias: None,
            positions: machine.view(&position),
            class_token: machine.view(&class),
            class_position: None,
        };
        let (to, from) = (machine.view_mut(&mut x), machine.view(&embedded));
        tokens::cuda::from_patches(machine, to, from, added, machine.view(&ids), of)
    })?;
    let normed = machine.zeros::<Bf16>(n)?;
    let mut pooled = machine.zeros::<Bf16>(pairs * width)?;
    time("pool", 2 * n, 0.0, &mut || {
        let to = machine.view_mut(&mut pooled);
        pool::cuda::forward(machine, to, machine.view(&normed), Pool::Mean, 1 + kept, width)
    })
}

/// What a block is made of besides products.
fn of_blocks<M: Machine>(machine: &M, sizes: &Sizes, time: &mut Time) -> Result<(), MachineError> {
    let &Sizes { shape, pairs, kept, .. } = sizes;
    let (width, tokens) = (shape.width, 1 + kept);
    let (rows, n) = (pairs * tokens, pairs * tokens * width);
    let (scale, shift) = (machine.zeros::<f32>(width)?, machine.zeros::<f32>(width)?);
    let (mut x, mut y, mut normal) =
        (machine.zeros::<f32>(n)?, machine.zeros::<Bf16>(n)?, machine.zeros::<Bf16>(n)?);
    let mut rstd = machine.zeros::<f32>(rows)?;
    time("layer_norm", 8 * n, 0.0, &mut || {
        let (y, normal, rstd) =
            (machine.view_mut(&mut y), machine.view_mut(&mut normal), machine.view_mut(&mut rstd));
        let (scale, shift) = (machine.view(&scale), machine.view(&shift));
        layer_norm::cuda::forward(machine, y, normal, rstd, machine.view(&x), scale, shift, 1e-6)
    })?;
    let (mut dscale, mut dshift) = (machine.zeros::<f32>(width)?, machine.zeros::<f32>(width)?);
    let mut partial = machine.zeros::<f32>(layer_norm::cuda::partial_len(rows, width))?;
    let mut copy = machine.zeros::<Bf16>(n)?;
    time("layer_norm backward", 14 * n, 0.0, &mut || {
        let norm = (machine.view(&normal), machine.view(&rstd));
        layer_norm::cuda::backward(
            machine,
            machine.view_mut(&mut x),
            Some(machine.view_mut(&mut copy)),
            machine.view_mut(&mut dscale),
            machine.view_mut(&mut dshift),
            machine.view_mut(&mut partial),
            machine.view(&y),
            norm,
            machine.view(&scale),
        )
    })?;
    let mut hidden = machine.zeros::<Bf16>(rows * shape.hidden)?;
    time("activation", 4 * rows * shape.hidden, 0.0, &mut || {
        activation::cuda::replace(machine, machine.view_mut(&mut hidden), shape.activation)
    })?;
    drop(hidden);
    let of = shape.attention(pairs, tokens);
    let products = 2.0 * (pairs * of.heads * tokens * tokens) as f64 * of.head as f64;
    let qkv = machine.zeros::<Bf16>(3 * n)?;
    let (mut dqkv, mut out) = (machine.zeros::<Bf16>(3 * n)?, machine.zeros::<Bf16>(n)?);
    let (mut lse, mut dots) = (machine.zeros::<f32>(of.saved())?, machine.zeros::<f32>(of.saved())?);
    time("attention", 8 * n, 2.0 * products, &mut || {
        let (out, lse) = (machine.view_mut(&mut out), machine.view_mut(&mut lse));
        attention::cuda::forward(machine, out, lse, machine.view(&qkv), of)
    })?;
    time("attention backward", 16 * n, 5.0 * products, &mut || {
        let saved = Saved { qkv: machine.view(&qkv), out: machine.view(&out), lse: machine.view(&lse) };
        let (dqkv, dots) = (machine.view_mut(&mut dqkv), machine.view_mut(&mut dots));
        attention::cuda::backward(machine, dqkv, dots, machine.view(&y), saved, of)
    })
}

/// The products of an MLP, with what each has in its epilogue.
fn of_products<M: Machine>(machine: &M, sizes: &Sizes, time: &mut Time) -> Result<(), MachineError> {
    let &Sizes { shape: Shape { width, hidden, activation, .. }, pairs, kept, .. } = sizes;
    let rows = pairs * (1 + kept);
    let (n, wide) = (rows * width, rows * hidden);
    let flops = 2.0 * (rows * width * hidden) as f64;
    // Of 16-bit numbers: both sides, and the result.
    let moved = 2 * (n + wide + width * hidden);
    let (x, weight) = (machine.zeros::<Bf16>(n)?, machine.zeros::<Bf16>(width * hidden)?);
    let (bias, long_bias) = (machine.zeros::<f32>(width)?, machine.zeros::<Bf16>(hidden)?);
    let (mut after, mut before) = (machine.zeros::<Bf16>(wide)?, machine.zeros::<Bf16>(wide)?);
    let mut stream = machine.zeros::<f32>(n)?;
    let up = Weight { values: machine.view(&weight), k: width, n: hidden };
    let down = Weight { values: machine.view(&weight), k: hidden, n: width };
    time("product", moved, flops, &mut || {
        gemm::cuda::forward(machine, machine.view_mut(&mut after), machine.view(&x), up)
    })?;
    time("product + bias", moved, flops, &mut || {
        let to = machine.view_mut(&mut after);
        gemm::cuda::forward_bias(machine, to, machine.view(&x), up, machine.view(&long_bias))
    })?;
    time("product + bias + activation", moved + 2 * wide, flops, &mut || {
        let to = (machine.view_mut(&mut after), machine.view_mut(&mut before));
        gemm::cuda::activate(machine, to, machine.view(&x), up, machine.view(&long_bias), activation)
    })?;
    time("product to the stream", moved + 6 * n, flops, &mut || {
        let to = machine.view_mut(&mut stream);
        gemm::cuda::add(machine, to, machine.view(&after), down, machine.view(&bias))
    })?;
    time("product + slope", moved + 4 * wide, flops, &mut || {
        let to = (machine.view_mut(&mut after), machine.view_mut(&mut before));
        gemm::cuda::activate_backward(machine, to, machine.view(&x), down, activation)
    })?;
    let (mut dw, mut db) = (machine.zeros::<f32>(width * hidden)?, machine.zeros::<f32>(hidden)?);
    let mut sums = machine.zeros::<f32>(gemm::cuda::partial_len(rows, hidden))?;
    time("gradients of a layer", moved + 6 * width * hidden, flops, &mut || {
        let (dw, db) = (machine.view_mut(&mut dw), machine.view_mut(&mut db));
        let (x, dy) = ((machine.view(&x), width), (machine.view(&after), hidden));
        gemm::cuda::weight_gradient(machine, dw, Some(db), machine.view_mut(&mut sums), x, dy)
    })
}

/// The norm of all gradients, and an update.
fn of_updates<M: Machine>(machine: &M, sizes: &Sizes, time: &mut Time) -> Result<(), MachineError> {
    let n = sizes.parameters;
    let zeros = || machine.zeros::<f32>(n);
    let (mut p, mut m, mut v, mut g) = (zeros()?, zeros()?, zeros()?, zeros()?);
    let mut half = machine.zeros::<Bf16>(n)?;
    let pieces = global_norm::cuda::Pieces::new([machine.view(&g)]);
    let table = machine.upload(pieces.words())?;
    let mut partial = machine.zeros::<f64>(pieces.words().len() / 2)?;
    let mut total = machine.zeros::<f64>(1)?;
    time("global_norm", 4 * n, 0.0, &mut || {
        let (total, partial) = (machine.view_mut(&mut total), machine.view_mut(&mut partial));
        // SAFETY: the gradient is alive.
        unsafe { global_norm::cuda::sum_of_squares(machine, total, partial, machine.view(&table)) }
    })?;
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t: 1, gradient: 1.0 };
    let tensor = adamw::cuda::Tensor {
        p: machine.view_mut(&mut p),
        m: machine.view_mut(&mut m),
        v: machine.view_mut(&mut v),
        g: machine.view_mut(&mut g),
        copy: Some(Target::Half(machine.view_mut(&mut half))),
        decays: true,
    };
    let table = machine.upload(&adamw::cuda::pieces(&[tensor]))?;
    time("adamw", 34 * n, 0.0, &mut || {
        // SAFETY: the tensors are alive and used by nobody else.
        unsafe { adamw::cuda::update(machine, machine.view(&table), &rule) }
    })
}
