//! The model on an NVIDIA GPU: the composed graph, on dfdx's own Cuda kernels, or whole encoders on ours. Both launch on one
//! stream.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{DevicePtr, DevicePtrMut, DeviceSlice, DriverError};
use dfdx::prelude::*;
use dfdx::tensor::{Cuda, CudaError};

use super::lent::{fuse_on, Lends, Values};
use super::{Flip, Fusion, GraphDevice, ModelError};
use crate::kernel::cuda::driver::Gpu;
use crate::kernel::cuda::MachineError;

impl GraphDevice for Cuda {
    fn fuse(flip: Flip<f32, Cuda>, how: Fusion) -> Result<Flip<f32, Cuda>, ModelError> {
        let device = flip.logit_scale.master.device().clone();
        // Gradients and temporary tensors of a step use the memory of the step before.
        device.try_enable_cache().map_err(ModelError::device)?;
        let storage: Values<Cuda> = device.try_alloc_len(1).map_err(ModelError::device)?;
        let fused = fuse_on(flip, Gpu::new(storage.device())?, how)?;
        let Fusion { precision, recompute, .. } = how;
        tracing::info!(target: "flip::model", ?precision, ?recompute, "fused encoders on the GPU");
        Ok(fused)
    }
}

// SAFETY: memory of the device, whose stream both launch on and free on.
unsafe impl Lends<Gpu> for Cuda {
    fn place(storage: &Values<Cuda>) -> (u64, usize) {
        (*storage.device_ptr(), storage.len())
    }
    fn place_mut(storage: &mut Values<Cuda>) -> (u64, usize) {
        (*storage.device_ptr_mut(), storage.len())
    }
    fn failed(error: &MachineError) -> CudaError {
        let out_of_memory = error.to_string().contains("OUT_OF_MEMORY");
        CudaError::Driver(DriverError(match out_of_memory {
            true => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            false => CUresult::CUDA_ERROR_UNKNOWN,
        }))
    }
}
