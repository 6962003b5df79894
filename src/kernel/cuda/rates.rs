//! Speed of each kernel and each kind of product by itself, at the sizes of an image encoder's step.
//!
//! GB/s counts what a kernel must read and write once; TFLOP/s, of attention, its products without what is computed anew.

use super::{Gpu, GpuError};
use crate::kernel::adamw::AdamW;
use crate::kernel::attention::cuda::Saved;
use crate::kernel::backend::Pool;
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::Weight;
use crate::kernel::tokens::{Added, Sequences};
use crate::kernel::transformer::Shape;
use crate::kernel::{activation, adamw, attention, gemm, global_norm, layer_norm, patches, pool, tokens};

/// Sizes that the kernels are given.
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

/// The measured speed of a kernel.
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
pub type Launches<'a> = dyn FnMut() -> Result<(), GpuError> + 'a;

/// Measures all of them. `seconds` says how long a launch takes.
///
/// # Errors
/// The GPU fails, or has no room.
pub fn rates<G: Gpu>(
    gpu: &G,
    sizes: Sizes,
    mut seconds: impl FnMut(&mut Launches) -> Result<f64, GpuError>,
) -> Result<Vec<Rate>, GpuError> {
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
    of_tokens(gpu, &sizes, &mut time)?;
    of_blocks(gpu, &sizes, &mut time)?;
    of_products(gpu, &sizes, &mut time)?;
    of_updates(gpu, &sizes, &mut time)?;
    Ok(found)
}

/// Takes the time of a kernel that moves so many bytes and does so many floating-point operations.
type Time<'a> = dyn FnMut(&'static str, usize, f64, &mut Launches) -> Result<(), GpuError> + 'a;

/// From pixels to tokens, and from tokens to one vector.
fn of_tokens<G: Gpu>(gpu: &G, sizes: &Sizes, time: &mut Time) -> Result<(), GpuError> {
    let &Sizes { shape: Shape { width, .. }, patch_values, pairs, kept, .. } = sizes;
    let pixels = pairs * kept * patch_values;
    let bytes = gpu.zeros::<u8>(pixels)?;
    let mut normalised = gpu.zeros::<Bf16>(pixels)?;
    time("patches", 3 * pixels, 0.0, &mut || {
        let to = gpu.view_mut(&mut normalised);
        patches::cuda::from_bytes(gpu, to, gpu.view(&bytes), [0.5; 3], [0.5; 3])
    })?;
    let (rows, n) = (pairs * kept, pairs * (1 + kept) * width);
    let (embedded, ids) = (gpu.zeros::<f32>(rows * width)?, gpu.zeros::<u32>(rows)?);
    // One position: every patch is patch 0.
    let (position, class) = (gpu.zeros::<f32>(width)?, gpu.zeros::<f32>(width)?);
    let mut x = gpu.zeros::<f32>(n)?;
    let of = Sequences { batch: pairs, kept, prefix: 1, width };
    time("tokens", 4 * (rows * width + n), 0.0, &mut || {
        let added = Added {
            bias: None,
            positions: gpu.view(&position),
            class_token: gpu.view(&class),
            class_position: None,
        };
        let (to, from) = (gpu.view_mut(&mut x), gpu.view(&embedded));
        tokens::cuda::from_patches(gpu, to, from, added, gpu.view(&ids), of)
    })?;
    let normed = gpu.zeros::<Bf16>(n)?;
    let mut pooled = gpu.zeros::<Bf16>(pairs * width)?;
    time("pool", 2 * n, 0.0, &mut || {
        let to = gpu.view_mut(&mut pooled);
        pool::cuda::forward(gpu, to, gpu.view(&normed), Pool::Mean, 1 + kept, width)
    })
}

/// Kernels of a block besides products.
fn of_blocks<G: Gpu>(gpu: &G, sizes: &Sizes, time: &mut Time) -> Result<(), GpuError> {
    let &Sizes { shape, pairs, kept, .. } = sizes;
    let (width, tokens) = (shape.width, 1 + kept);
    let (rows, n) = (pairs * tokens, pairs * tokens * width);
    let (scale, shift) = (gpu.zeros::<f32>(width)?, gpu.zeros::<f32>(width)?);
    let (mut x, mut y, mut normal) = (gpu.zeros::<f32>(n)?, gpu.zeros::<Bf16>(n)?, gpu.zeros::<Bf16>(n)?);
    let mut rstd = gpu.zeros::<f32>(rows)?;
    time("layer_norm", 8 * n, 0.0, &mut || {
        let (y, normal, rstd) = (gpu.view_mut(&mut y), gpu.view_mut(&mut normal), gpu.view_mut(&mut rstd));
        let (scale, shift) = (gpu.view(&scale), gpu.view(&shift));
        layer_norm::cuda::forward(gpu, y, normal, rstd, gpu.view(&x), scale, shift, 1e-6)
    })?;
    let (mut dscale, mut dshift) = (gpu.zeros::<f32>(width)?, gpu.zeros::<f32>(width)?);
    let mut partial = gpu.zeros::<f32>(layer_norm::cuda::partial_len(rows, width))?;
    let mut copy = gpu.zeros::<Bf16>(n)?;
    time("layer_norm backward", 14 * n, 0.0, &mut || {
        let norm = (gpu.view(&normal), gpu.view(&rstd));
        layer_norm::cuda::backward(
            gpu,
            gpu.view_mut(&mut x),
            Some(gpu.view_mut(&mut copy)),
            gpu.view_mut(&mut dscale),
            gpu.view_mut(&mut dshift),
            gpu.view_mut(&mut partial),
            gpu.view(&y),
            norm,
            gpu.view(&scale),
        )
    })?;
    let mut hidden = gpu.zeros::<Bf16>(rows * shape.hidden)?;
    time("activation", 4 * rows * shape.hidden, 0.0, &mut || {
        activation::cuda::replace(gpu, gpu.view_mut(&mut hidden), shape.activation)
    })?;
    drop(hidden);
    let of = shape.attention(pairs, tokens);
    let products = 2.0 * (pairs * of.heads * tokens * tokens) as f64 * of.head as f64;
    let qkv = gpu.zeros::<Bf16>(3 * n)?;
    let (mut dqkv, mut out) = (gpu.zeros::<Bf16>(3 * n)?, gpu.zeros::<Bf16>(n)?);
    let (mut lse, mut dots) = (gpu.zeros::<f32>(of.saved())?, gpu.zeros::<f32>(of.saved())?);
    time("attention", 8 * n, 2.0 * products, &mut || {
        let (out, lse) = (gpu.view_mut(&mut out), gpu.view_mut(&mut lse));
        attention::cuda::forward(gpu, out, lse, gpu.view(&qkv), of)
    })?;
    time("attention backward", 16 * n, 5.0 * products, &mut || {
        let saved = Saved { qkv: gpu.view(&qkv), out: gpu.view(&out), lse: gpu.view(&lse) };
        let (dqkv, dots) = (gpu.view_mut(&mut dqkv), gpu.view_mut(&mut dots));
        attention::cuda::backward(gpu, dqkv, dots, gpu.view(&y), saved, of)
    })
}

/// The products of an MLP, with what each has in its epilogue.
fn of_products<G: Gpu>(gpu: &G, sizes: &Sizes, time: &mut Time) -> Result<(), GpuError> {
    let &Sizes { shape: Shape { width, hidden, activation, .. }, pairs, kept, .. } = sizes;
    let rows = pairs * (1 + kept);
    let (n, wide) = (rows * width, rows * hidden);
    let flops = 2.0 * (rows * width * hidden) as f64;
    // Of 16-bit numbers: both sides, and the result.
    let moved = 2 * (n + wide + width * hidden);
    let (x, weight) = (gpu.zeros::<Bf16>(n)?, gpu.zeros::<Bf16>(width * hidden)?);
    let (bias, long_bias) = (gpu.zeros::<f32>(width)?, gpu.zeros::<Bf16>(hidden)?);
    let (mut after, mut before) = (gpu.zeros::<Bf16>(wide)?, gpu.zeros::<Bf16>(wide)?);
    let mut stream = gpu.zeros::<f32>(n)?;
    let up = Weight { values: gpu.view(&weight), k: width, n: hidden };
    let down = Weight { values: gpu.view(&weight), k: hidden, n: width };
    time("product", moved, flops, &mut || {
        gemm::cuda::forward(gpu, gpu.view_mut(&mut after), gpu.view(&x), up)
    })?;
    time("product + bias", moved, flops, &mut || {
        let to = gpu.view_mut(&mut after);
        gemm::cuda::forward_bias(gpu, to, gpu.view(&x), up, gpu.view(&long_bias))
    })?;
    time("product + bias + activation", moved + 2 * wide, flops, &mut || {
        let to = (gpu.view_mut(&mut after), gpu.view_mut(&mut before));
        gemm::cuda::activate(gpu, to, gpu.view(&x), up, gpu.view(&long_bias), activation)
    })?;
    time("product to the stream", moved + 6 * n, flops, &mut || {
        let to = gpu.view_mut(&mut stream);
        gemm::cuda::add(gpu, to, gpu.view(&after), down, gpu.view(&bias))
    })?;
    time("product + slope", moved + 4 * wide, flops, &mut || {
        let to = (gpu.view_mut(&mut after), gpu.view_mut(&mut before));
        gemm::cuda::activate_backward(gpu, to, gpu.view(&x), down, activation)
    })?;
    let (mut dw, mut db) = (gpu.zeros::<f32>(width * hidden)?, gpu.zeros::<f32>(hidden)?);
    let mut sums = gpu.zeros::<f32>(gemm::cuda::partial_len(rows, hidden))?;
    time("gradients of a layer", moved + 6 * width * hidden, flops, &mut || {
        let (dw, db) = (gpu.view_mut(&mut dw), gpu.view_mut(&mut db));
        let (x, dy) = ((gpu.view(&x), width), (gpu.view(&after), hidden));
        gemm::cuda::weight_gradient(gpu, dw, Some(db), gpu.view_mut(&mut sums), x, dy)
    })
}

/// The norm of all gradients, and an update.
fn of_updates<G: Gpu>(gpu: &G, sizes: &Sizes, time: &mut Time) -> Result<(), GpuError> {
    let n = sizes.parameters;
    let zeros = || gpu.zeros::<f32>(n);
    let (mut p, mut m, mut v, mut g) = (zeros()?, zeros()?, zeros()?, zeros()?);
    let mut half = gpu.zeros::<Bf16>(n)?;
    let pieces = global_norm::cuda::Pieces::new([gpu.view(&g)]);
    let table = gpu.upload(pieces.words())?;
    let mut partial = gpu.zeros::<f64>(pieces.words().len() / 2)?;
    let mut total = gpu.zeros::<f64>(1)?;
    time("global_norm", 4 * n, 0.0, &mut || {
        let (total, partial) = (gpu.view_mut(&mut total), gpu.view_mut(&mut partial));
        // SAFETY: the gradient is alive.
        unsafe { global_norm::cuda::sum_of_squares(gpu, total, partial, gpu.view(&table)) }
    })?;
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t: 1, gradient: 1.0 };
    let tensor = adamw::cuda::Tensor {
        p: gpu.view_mut(&mut p),
        m: gpu.view_mut(&mut m),
        v: gpu.view_mut(&mut v),
        g: gpu.view_mut(&mut g),
        copy: Some(gpu.view_mut(&mut half)),
        decays: true,
    };
    let table = gpu.upload(&adamw::cuda::pieces(&[tensor]))?;
    time("adamw", 34 * n, 0.0, &mut || {
        // SAFETY: the tensors are alive and used by nobody else.
        unsafe { adamw::cuda::update(gpu, gpu.view(&table), &rule) }
    })
}
