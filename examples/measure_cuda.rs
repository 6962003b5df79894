//! Times the CUDA kernels on the first GPU, at the sizes of an image encoder: ViT-L/16, half of the patches kept.
//!
//!     cargo run --release --features cuda --example measure_cuda -- [PAIRS]
//!
//! `cargo test --release --features cuda --test cuda` checks them first. The clock is the GPU's own. GB/s counts what a
//! kernel must read and write once; TFLOP/s, of attention, its products without what is computed anew.

use flip::kernel::activation::{self, Activation};
use flip::kernel::adamw::{self, AdamW};
use flip::kernel::attention::{self, Attention};
use flip::kernel::cuda::driver::Gpu;
use flip::kernel::cuda::{Machine, MachineError};
use flip::kernel::element::Bf16;
use flip::kernel::gemm::cuda::{self as gemm, Weight};
use flip::kernel::{global_norm, layer_norm, patches};

/// Launches before the clock starts, and timed ones.
const WARM_UP: usize = 3;
const LAUNCHES: usize = 20;

struct Bench {
    gpu: Gpu,
}

impl Bench {
    /// Prints a line for what `launch` does.
    fn time(
        &self,
        name: &str,
        bytes: usize,
        flops: f64,
        mut launch: impl FnMut() -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        for _ in 0..WARM_UP {
            launch()?;
        }
        self.gpu.synchronize()?;
        let seconds = self.gpu.seconds(|| (0..LAUNCHES).try_for_each(|_| launch()))? / LAUNCHES as f64;
        let rate =
            if flops > 0.0 { format!("{:8.1} TFLOP/s", flops / seconds / 1e12) } else { String::new() };
        println!("{name:24} {:9.3} ms {:8.0} GB/s {rate}", seconds * 1e3, bytes as f64 / seconds / 1e9);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pairs: usize = std::env::args().nth(1).map_or(Ok(256), |pairs| pairs.parse())?;
    let found = flip::device::gpus()?;
    println!("{}, {pairs} pairs", found[0]);
    let device = cudarc::driver::CudaDevice::new(found[0].ordinal)
        .map_err(|error| format!("the GPU could not be set up: {:?}", error.0))?;
    let bench = Bench { gpu: Gpu::new(device)? };
    let gpu = &bench.gpu;
    let (kept, width, heads, values) = (98, 1024, 16, 16 * 16 * 3);
    let tokens = kept + 1;
    let (rows, n) = (pairs * tokens, pairs * tokens * width);

    let pixels = pairs * kept * values;
    let bytes = gpu.zeros::<u8>(pixels)?;
    let mut normalised = gpu.zeros::<Bf16>(pixels)?;
    bench.time("patches", 3 * pixels, 0.0, || {
        patches::cuda::from_bytes(gpu, gpu.view_mut(&mut normalised), gpu.view(&bytes), [0.5; 3], [0.5; 3])
    })?;

    let (x, scale, shift) = (gpu.zeros::<f32>(n)?, gpu.zeros::<f32>(width)?, gpu.zeros::<f32>(width)?);
    let (mut y, mut normal) = (gpu.zeros::<Bf16>(n)?, gpu.zeros::<Bf16>(n)?);
    let mut rstd = gpu.zeros::<f32>(rows)?;
    bench.time("layer_norm forward", 8 * n, 0.0, || {
        let (y, normal) = (gpu.view_mut(&mut y), gpu.view_mut(&mut normal));
        let parameters = (gpu.view(&scale), gpu.view(&shift));
        let rstd = gpu.view_mut(&mut rstd);
        layer_norm::cuda::forward(gpu, y, normal, rstd, gpu.view(&x), parameters.0, parameters.1, 1e-6)
    })?;
    let (mut dx, mut copy) = (gpu.zeros::<f32>(n)?, gpu.zeros::<Bf16>(n)?);
    let (mut dscale, mut dshift) = (gpu.zeros::<f32>(width)?, gpu.zeros::<f32>(width)?);
    let mut partial = gpu.zeros::<f32>(layer_norm::cuda::partial_len(rows, width))?;
    bench.time("layer_norm backward", 14 * n, 0.0, || {
        layer_norm::cuda::backward(
            gpu,
            gpu.view_mut(&mut dx),
            Some(gpu.view_mut(&mut copy)),
            gpu.view_mut(&mut dscale),
            gpu.view_mut(&mut dshift),
            gpu.view_mut(&mut partial),
            gpu.view(&y),
            (gpu.view(&normal), gpu.view(&rstd)),
            gpu.view(&scale),
        )
    })?;

    let wide = gpu.zeros::<Bf16>(4 * n)?;
    let mut active = gpu.zeros::<Bf16>(4 * n)?;
    bench.time("activation forward", 16 * n, 0.0, || {
        activation::cuda::forward(gpu, gpu.view_mut(&mut active), gpu.view(&wide), Activation::GeluTanh)
    })?;

    let of = Attention { batch: pairs, tokens, heads, head: width / heads, causal: false };
    let products = 2.0 * (pairs * heads * tokens * tokens) as f64 * of.head as f64;
    let qkv = gpu.zeros::<Bf16>(3 * n)?;
    let (mut dqkv, mut out) = (gpu.zeros::<Bf16>(3 * n)?, gpu.zeros::<Bf16>(n)?);
    let (mut lse, mut dots) = (gpu.zeros::<f32>(of.saved())?, gpu.zeros::<f32>(of.saved())?);
    bench.time("attention forward", 8 * n, 2.0 * products, || {
        let (out, lse) = (gpu.view_mut(&mut out), gpu.view_mut(&mut lse));
        attention::cuda::forward(gpu, out, lse, gpu.view(&qkv), of)
    })?;
    bench.time("attention backward", 16 * n, 5.0 * products, || {
        let saved = attention::cuda::Saved { qkv: gpu.view(&qkv), out: gpu.view(&out), lse: gpu.view(&lse) };
        let (dqkv, dots) = (gpu.view_mut(&mut dqkv), gpu.view_mut(&mut dots));
        attention::cuda::backward(gpu, dqkv, dots, gpu.view(&y), saved, of)
    })?;

    let hidden = 4 * width;
    let through = 2.0 * (rows * width * hidden) as f64;
    let weight = gpu.zeros::<Bf16>(width * hidden)?;
    let (bias, long_bias) = (gpu.zeros::<f32>(width)?, gpu.zeros::<Bf16>(hidden)?);
    let up = Weight { values: gpu.view(&weight), k: width, n: hidden };
    let down = Weight { values: gpu.view(&weight), k: hidden, n: width };
    let mut before = gpu.zeros::<Bf16>(4 * n)?;
    let moved = 2 * (rows * (width + hidden) + width * hidden);
    bench.time("product", moved, through, || {
        gemm::forward(gpu, gpu.view_mut(&mut active), gpu.view(&y), up)
    })?;
    bench.time("product, bias", moved, through, || {
        gemm::forward_bias(gpu, gpu.view_mut(&mut active), gpu.view(&y), up, gpu.view(&long_bias))
    })?;
    bench.time("product, bias, GELU", moved + 2 * rows * hidden, through, || {
        let to = (gpu.view_mut(&mut active), gpu.view_mut(&mut before));
        gemm::activate(gpu, to, gpu.view(&y), up, gpu.view(&long_bias), Activation::GeluTanh)
    })?;
    bench.time("product, to the stream", moved + 6 * n, through, || {
        gemm::add(gpu, gpu.view_mut(&mut dx), gpu.view(&wide), down, gpu.view(&bias))
    })?;
    bench.time("product, slope of GELU", moved + 4 * rows * hidden, through, || {
        let to = (gpu.view_mut(&mut active), gpu.view_mut(&mut before));
        gemm::activate_backward(gpu, to, gpu.view(&y), down, Activation::GeluTanh)
    })?;
    let (mut dw, mut db) = (gpu.zeros::<f32>(width * hidden)?, gpu.zeros::<f32>(hidden)?);
    let mut sums = gpu.zeros::<f32>(gemm::partial_len(rows, hidden))?;
    bench.time("gradients of a layer", moved + 6 * width * hidden, through, || {
        let (dw, db) = (gpu.view_mut(&mut dw), gpu.view_mut(&mut db));
        let (x, dy) = ((gpu.view(&y), width), (gpu.view(&wide), hidden));
        gemm::weight_gradient(gpu, dw, Some(db), gpu.view_mut(&mut sums), x, dy)
    })?;

    let parameters = 100_000_000;
    let zeros = || gpu.zeros::<f32>(parameters);
    let (mut p, mut m, mut v, mut g) = (zeros()?, zeros()?, zeros()?, zeros()?);
    let pieces = global_norm::cuda::Pieces::new([gpu.view(&g)]);
    let table = gpu.upload(pieces.words())?;
    let mut sums = gpu.zeros::<f64>(pieces.words().len() / 2)?;
    let mut total = gpu.zeros::<f64>(1)?;
    bench.time("global_norm", 4 * parameters, 0.0, || {
        let (total, sums) = (gpu.view_mut(&mut total), gpu.view_mut(&mut sums));
        // SAFETY: the gradient is alive.
        unsafe { global_norm::cuda::sum_of_squares(gpu, total, sums, gpu.view(&table)) }
    })?;
    let mut half = gpu.zeros::<Bf16>(parameters)?;
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t: 1, gradient: 1.0 };
    let tensor = adamw::cuda::Tensor {
        p: gpu.view_mut(&mut p),
        m: gpu.view_mut(&mut m),
        v: gpu.view_mut(&mut v),
        g: gpu.view_mut(&mut g),
        copy: Some(gpu.view_mut(&mut half)),
        decays: true,
    };
    let table = gpu.upload(&adamw::cuda::pieces(&[tensor], &rule))?;
    bench.time("adamw", 34 * parameters, 0.0, || {
        // SAFETY: the tensors are alive and used by nobody else.
        unsafe { adamw::cuda::update(gpu, gpu.view(&table), &rule) }
    })?;
    Ok(())
}
