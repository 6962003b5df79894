//! The CUDA kernels: that nvcc compiles every source without spilling registers, where there is an nvcc; and, through their
//! launchers, each kernel against its reference in double precision, the stack of blocks against that of the processor, and
//! whole encoders against the composed graph - emulated on the processor, where there is a C++ compiler, and on a GPU, where
//! there is one. What is skipped says so.

// Some of it is for other tests.
#[allow(dead_code)]
#[path = "../kernels/bound.rs"]
mod bound;

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

use flip::kernel::cuda::Machine;

/// Runs a block for every machine there is.
macro_rules! each_machine {
    ($machine:ident => $body:block) => {{
        match $crate::emulator::Emulator::get() {
            Ok($machine) => $body,
            Err(why) => println!("skipped on the emulator: {why}"),
        }
        match $crate::gpu::get() {
            Ok($machine) => $body,
            Err(why) => println!("skipped on a GPU: {why}"),
        }
    }};
}
pub(crate) use each_machine;

/// On the emulator whose products have no epilogues.
macro_rules! on_plain {
    ($machine:ident => $body:block) => {
        match $crate::emulator::Emulator::plain() {
            Ok($machine) => $body,
            Err(why) => println!("skipped on the emulator without epilogues: {why}"),
        }
    };
}
pub(crate) use on_plain;

/// On every machine there is, and on that one besides.
macro_rules! each_machine_and_plain {
    ($machine:ident => $body:block) => {{
        $crate::each_machine!($machine => $body);
        $crate::on_plain!($machine => $body);
    }};
}
pub(crate) use each_machine_and_plain;

/// What a kernel left.
pub fn down<M: Machine, T: flip::kernel::cuda::Number>(machine: &M, buffer: &M::Buffer<T>) -> Vec<T> {
    machine.download(buffer).unwrap()
}
