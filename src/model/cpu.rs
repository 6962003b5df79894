//! The model on the processor: whole encoders on its kernels.

use std::convert::Infallible;
use std::sync::Arc;

use dfdx::prelude::*;

use super::fused::{fuse_on, DeviceStorage};
use super::{Flip, Fusion, GraphDevice, ModelError, Precision};
use crate::kernel::backend::cpu::CpuBackend;
use crate::kernel::element::{Bf16, Element};
use crate::kernel::view::{View, ViewMut};
use crate::parameter::Values;

impl GraphDevice for Cpu {
    fn fuse(flip: Flip<f32, Cpu>, how: Fusion) -> Result<Flip<f32, Cpu>, ModelError> {
        let Fusion { precision, recompute, .. } = how;
        let kernels = Arc::new(how.kernels()?);
        let (isa, threads) = (kernels.isa().name(), kernels.threads().count());
        tracing::info!(target: "flip::model", isa, threads, ?precision, ?recompute, "fused encoders");
        match precision {
            Precision::F32 => fuse_on(flip, CpuBackend::<f32>::new(kernels.clone()), kernels, how),
            Precision::Bf16 => fuse_on(flip, CpuBackend::<Bf16>::new(kernels.clone()), kernels, how),
        }
    }
}

impl<K: Element> DeviceStorage<CpuBackend<K>> for Cpu {
    fn view(storage: &Values<f32, Cpu>) -> View<'_, f32> {
        // SAFETY: the storage is borrowed, and memory of the processor.
        unsafe { View::new(storage.as_ptr(), storage.len()) }
    }
    fn view_mut(storage: &mut Values<f32, Cpu>) -> ViewMut<'_, f32> {
        // SAFETY: as above; it is borrowed by nobody else.
        unsafe { ViewMut::new(storage.as_mut_ptr(), storage.len()) }
    }
    fn error(error: Infallible) -> CpuError {
        match error {}
    }
}
