//! The rate of a bare matrix product, which that of a step is held against.

use dfdx::prelude::*;

use crate::command::Failure;
#[cfg(feature = "cuda")]
use crate::kernel::backend::Memory;
#[cfg(feature = "cuda")]
use crate::kernel::cuda::driver::CudaGpu;
#[cfg(feature = "cuda")]
use crate::kernel::element::Bf16;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Grid, Write};
#[cfg(feature = "cuda")]
use crate::kernel::gemm::{self, cuda::Weight};
use crate::kernel::gemm::{product, Left, Packed, Right};
use crate::model::GraphDevice;
#[cfg(feature = "cuda")]
use crate::model::ModelError;
use crate::recipe::Fusion;

/// Sizes of the product that the rate of a step is held against.
const PRODUCT: (usize, usize, usize) = (1600, 768, 3072);

/// GFLOP/s of a bare product of [`PRODUCT`] by the kernels in the precision of the run, its right operand packed beforehand
/// as weights are.
pub fn kernel_gemm_rate<K: Element>(fusion: Fusion) -> Result<f64, Failure> {
    let (m, k, n) = PRODUCT;
    let kernels = fusion.kernels()?;
    let mut right = Packed::<K>::zeroed(&kernels, k, n);
    right.pack(&kernels, &vec![1.0; k * n]);
    let left = vec![K::from_f32(1.0); m * k];
    let mut out = vec![K::default(); m * n];
    Ok(rate(|| {
        let to = Write { to: Grid::new(&mut out, n), bias: None };
        product(&kernels, &to, Left::whole(&left, k), Right::Packed(&right), PRODUCT);
    }))
}

/// Of a GPU, whose products are over sooner than they are launched: sizes that take some milliseconds.
#[cfg(feature = "cuda")]
const GPU_PRODUCT: usize = 8192;

/// GFLOP/s of a bare product in bfloat16, by what the fused encoders multiply with on a GPU; the clock is the GPU's own.
#[cfg(feature = "cuda")]
pub fn gpu_gemm_rate(gpu: &CudaGpu) -> Result<f64, Failure> {
    let n = GPU_PRODUCT;
    let ones = || gpu.upload(&vec![Bf16::from_f32(1.0); n * n]).map_err(ModelError::from);
    let (left, right, mut to) = (ones()?, ones()?, ones()?);
    let mut fastest = f64::INFINITY;
    for _ in 0..10 {
        let seconds = gpu.seconds(|| {
            let weight = Weight { values: gpu.view(&right), k: n, n };
            gemm::cuda::forward(gpu, gpu.view_mut(&mut to), gpu.view(&left), weight)
        });
        fastest = fastest.min(seconds.map_err(ModelError::from)?);
    }
    Ok(2.0 * (n as f64).powi(3) / fastest / 1e9)
}

/// As [`kernel_gemm_rate`], of dfdx in 32 bits.
pub fn dfdx_gemm_rate<D: GraphDevice + Synchronize>(device: &D) -> f64 {
    let (m, k, n) = PRODUCT;
    let a: Tensor<(usize, usize), f32, D> = device.ones_like(&(m, k));
    let b: Tensor<(usize, usize), f32, D> = device.ones_like(&(k, n));
    rate(|| {
        drop(a.clone().matmul(b.clone()));
        device.synchronize();
    })
}

/// GFLOP/s of something that multiplies [`PRODUCT`], the best of ten.
fn rate(mut multiply: impl FnMut()) -> f64 {
    let times = (0..10).map(|_| {
        let started = std::time::Instant::now();
        multiply();
        started.elapsed().as_secs_f64()
    });
    let (m, k, n) = PRODUCT;
    2.0 * (m * k * n) as f64 / times.fold(f64::INFINITY, f64::min) / 1e9
}
