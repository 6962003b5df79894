//! The CUDA kernels: that nvcc compiles every source without spilling registers, where there is an nvcc; and, through their
//! launchers, each kernel against its reference in double precision, the stack of blocks against that of the processor, and
//! whole encoders against the composed graph - emulated on the processor, where there is a C++ compiler, and on a GPU, where
//! there is one. What is skipped says so.

// Some of it is for other tests.
#[allow(dead_code)]
#[path = "../kernels/bound.rs"]
mod bound;
#[path = "../kernels/stack.rs"]
mod stack;

mod attention;
mod compile;
mod contrastive;
mod emulator;
mod encoders;
mod gemm;
mod gpu;
mod incoming;
mod joined;
mod layer_norm;
mod optimizer;
mod tokens;
mod transformer;

use flip::kernel::cuda::Gpu;

/// Runs a block for every GPU there is.
macro_rules! each_gpu {
    ($gpu:ident => $body:block) => {{
        match $crate::emulator::Emulator::get() {
            Ok($gpu) => $body,
            Err(why) => println!("skipped on the emulator: {why}"),
        }
        match $crate::gpu::get() {
            Ok($gpu) => $body,
            Err(why) => println!("skipped on a GPU: {why}"),
        }
    }};
}
pub(crate) use each_gpu;

/// On the emulator whose products have no epilogues.
macro_rules! on_plain {
    ($gpu:ident => $body:block) => {
        match $crate::emulator::Emulator::plain() {
            Ok($gpu) => $body,
            Err(why) => println!("skipped on the emulator without epilogues: {why}"),
        }
    };
}
pub(crate) use on_plain;

/// On every GPU there is, and on that one besides.
macro_rules! each_gpu_and_plain {
    ($gpu:ident => $body:block) => {{
        $crate::each_gpu!($gpu => $body);
        $crate::on_plain!($gpu => $body);
    }};
}
pub(crate) use each_gpu_and_plain;

/// What a kernel left.
pub fn down<G: Gpu, T: flip::kernel::cuda::Number>(gpu: &G, buffer: &G::Buffer<T>) -> Vec<T> {
    gpu.download(buffer).unwrap()
}
