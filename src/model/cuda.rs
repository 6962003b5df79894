//! The model on an NVIDIA GPU: the composed graph, on dfdx's own Cuda kernels, or whole encoders on ours. Both launch on one
//! stream.

use std::ops::Range;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{DevicePtr, DevicePtrMut, DeviceSlice, DriverError};
use dfdx::prelude::*;
use dfdx::tensor::{Cuda, CudaError};

use super::fused::{fuse_on_gpu, DeviceStorage};
use super::{Flip, Fusion, GraphDevice, ModelError};
use crate::kernel::cuda::driver::CudaGpu;
use crate::kernel::cuda::GpuError;
use crate::kernel::view::{View, ViewMut};
use crate::parameter::{Ranges, Values};

impl GraphDevice for Cuda {
    fn fuse(flip: Flip<f32, Cuda>, how: Fusion) -> Result<Flip<f32, Cuda>, ModelError> {
        let device = flip.masters.device().clone();
        // Gradients and temporary tensors of a step use the memory of the step before.
        device.try_enable_cache().map_err(ModelError::device)?;
        let storage: Values<f32, Cuda> = device.try_alloc_len(1).map_err(ModelError::device)?;
        let fused = fuse_on_gpu(flip, CudaGpu::new(storage.device())?, how)?;
        let Fusion { precision, recompute, .. } = how;
        tracing::info!(target: "flip::model", ?precision, ?recompute, "fused encoders on the GPU");
        Ok(fused)
    }
}

// Memory of the device; both launch and free on its stream.
impl DeviceStorage<CudaGpu> for Cuda {
    fn view(storage: &Values<f32, Cuda>) -> View<'_, f32> {
        // SAFETY: the storage is borrowed, and memory that kernels of the device read.
        unsafe { View::new(*storage.device_ptr() as *const f32, storage.len()) }
    }
    fn view_mut(storage: &mut Values<f32, Cuda>) -> ViewMut<'_, f32> {
        let len = storage.len();
        // SAFETY: as above; it is borrowed by nobody else.
        unsafe { ViewMut::new(*storage.device_ptr_mut() as *mut f32, len) }
    }
    fn error(error: GpuError) -> CudaError {
        CudaError::Driver(DriverError(match error {
            GpuError::OutOfMemory { .. } => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            _ => CUresult::CUDA_ERROR_UNKNOWN,
        }))
    }
}

impl Ranges<f32> for Cuda {
    fn cut(&self, from: &Values<f32, Cuda>, range: Range<usize>) -> Result<Values<f32, Cuda>, CudaError> {
        let mut cut: Values<f32, Cuda> = self.allocate(range.len())?;
        if !range.is_empty() {
            from.device().dtod_copy(&from.slice(range), &mut *cut)?;
        }
        Ok(cut)
    }

    fn paste(
        &self,
        to: &mut Values<f32, Cuda>,
        at: usize,
        from: &Values<f32, Cuda>,
    ) -> Result<(), CudaError> {
        let device = to.device();
        if from.len() > 0 {
            device.dtod_copy(&**from, &mut to.slice_mut(at..at + from.len()))?;
        }
        Ok(())
    }

    fn show(
        &self,
        from: &Values<f32, Cuda>,
        range: Range<usize>,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), CudaError> {
        if range.is_empty() {
            see(&[]);
            return Ok(());
        }
        let mut values = vec![0.0; range.len()];
        from.device().dtoh_sync_copy_into(&from.slice(range), &mut values)?;
        see(&values);
        Ok(())
    }

    fn write(&self, to: &mut Values<f32, Cuda>, at: usize, from: &[f32]) -> Result<(), CudaError> {
        let device = to.device();
        if !from.is_empty() {
            device.htod_sync_copy_into(from, &mut to.slice_mut(at..at + from.len()))?;
        }
        Ok(())
    }
}
