//! The device that a run computes on, the GPUs that there are, and their memory.

mod host_memory;

pub use host_memory::{beyond_host, host_memory, HostMemory, MemoryLimit};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The device of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum DeviceConfig {
    /// The first GPU where the binary was built with the feature `cuda`, a driver answers and the GPU can do what
    /// the recipe asks for (see `compute`), else the CPU; the log says which, and why.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this ordinal.
    Cuda(usize),
}

/// A GPU that the driver offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Number that the driver gives it.
    pub ordinal: usize,
    /// Name that the driver gives it.
    pub name: String,
    /// Compute capability: major, minor.
    pub capability: (i32, i32),
    /// Memory, bytes.
    pub memory_bytes: usize,
}

impl std::fmt::Display for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Gpu { ordinal, name, capability: (major, minor), memory_bytes } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "GPU {ordinal} ({name}, {gib:.0} GiB, compute capability {major}.{minor})")
    }
}

/// There is no GPU to compute on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum NoGpu {
    #[error("this binary was built without the feature `cuda` (cargo build --release --features cuda)")]
    NotBuilt,
    #[error("the NVIDIA driver does not answer: {0}; does `nvidia-smi` work here?")]
    Driver(String),
    #[error("the NVIDIA driver sees no GPU; is CUDA_VISIBLE_DEVICES set?")]
    None,
    #[error("the NVIDIA driver sees no GPU {ordinal}; it has {there}")]
    Ordinal { ordinal: usize, there: String },
}

/// The GPUs of this machine, at least one. Nothing is set up on them.
///
/// # Errors
/// There is none that this binary can use.
pub fn gpus() -> Result<Vec<Gpu>, NoGpu> {
    #[cfg(feature = "cuda")]
    return driver::gpus();
    #[cfg(not(feature = "cuda"))]
    Err(NoGpu::NotBuilt)
}

/// The GPU of an ordinal.
///
/// # Errors
/// There is no such GPU that this binary can use.
pub fn gpu(ordinal: usize) -> Result<Gpu, NoGpu> {
    let all = gpus()?;
    let there = all.iter().map(Gpu::to_string).collect::<Vec<_>>().join(", ");
    all.into_iter().find(|gpu| gpu.ordinal == ordinal).ok_or(NoGpu::Ordinal { ordinal, there })
}

/// The GPU for one of several processes of this machine: they take turns at those there are.
pub fn gpu_of(process: usize) -> usize {
    gpus().map_or(0, |all| all[process % all.len()].ordinal)
}

/// Bytes in use on the GPU that this thread computes on, by this process and others; `None` where it computes on
/// none.
pub fn used_bytes() -> Option<usize> {
    #[cfg(feature = "cuda")]
    return driver::used_bytes();
    #[cfg(not(feature = "cuda"))]
    None
}

/// Most bytes that were taken at a time on the GPU that this thread computes on, by this process for what it keeps there;
/// the driver's own, its context and libraries, are not among them. `None` where it computes on none, or where nobody
/// counts.
pub fn peak_bytes() -> Option<usize> {
    #[cfg(feature = "cuda")]
    return driver::peak_bytes();
    #[cfg(not(feature = "cuda"))]
    None
}

/// Answers of the driver. cudarc's own entry points panic without one, so it is asked here first.
#[cfg(feature = "cuda")]
mod driver {
    use std::ffi::{c_char, c_int, CStr};

    use cudarc::driver::result::{self, device, DriverError};
    use cudarc::driver::sys::{
        self, CUdevice, CUdevice_attribute_enum as Attribute, CUmemPool_attribute_enum,
    };

    use super::{Gpu, NoGpu};

    pub fn gpus() -> Result<Vec<Gpu>, NoGpu> {
        result::init().map_err(told)?;
        let count = device::get_count().map_err(told)?;
        let found: Vec<Gpu> =
            (0..count).map(|ordinal| describe(ordinal).map_err(told)).collect::<Result<_, _>>()?;
        if found.is_empty() {
            return Err(NoGpu::None);
        }
        Ok(found)
    }

    pub fn used_bytes() -> Option<usize> {
        let (free, total) = result::mem_get_info().ok()?;
        Some(total - free)
    }

    /// Of the pool that all memory is taken from.
    pub fn peak_bytes() -> Option<usize> {
        let (mut device, mut pool, mut bytes) = (0, std::ptr::null_mut(), 0u64);
        let high = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the driver writes one number.
        unsafe { sys::cuCtxGetDevice(&mut device) }.result().ok()?;
        // SAFETY: the driver writes one handle.
        unsafe { sys::cuDeviceGetMemPool(&mut pool, device) }.result().ok()?;
        // SAFETY: the pool is the device's, and this attribute has 64 bits.
        unsafe { sys::cuMemPoolGetAttribute(pool, high, (&mut bytes as *mut u64).cast()) }.result().ok()?;
        // None is taken from it where the device has no pools.
        (bytes > 0).then_some(bytes as usize)
    }

    fn describe(ordinal: c_int) -> Result<Gpu, DriverError> {
        let of = device::get(ordinal)?;
        // SAFETY: `of` comes from the driver.
        let memory_bytes = unsafe { device::total_mem(of) }?;
        let capability = (
            attribute(of, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(of, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        Ok(Gpu { ordinal: ordinal as usize, name: name(of)?, capability, memory_bytes })
    }

    fn attribute(of: CUdevice, which: Attribute) -> Result<i32, DriverError> {
        // SAFETY: `of` comes from the driver.
        unsafe { device::get_attribute(of, which) }
    }

    fn name(of: CUdevice) -> Result<String, DriverError> {
        let mut bytes = [0 as c_char; 128];
        // SAFETY: `of` comes from the driver, which writes at most as many bytes as it is told, with a zero at the end.
        unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr(), bytes.len() as c_int - 1, of) }.result()?;
        let bytes = bytes.map(|byte| byte as u8);
        Ok(CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned())
    }

    fn told(error: DriverError) -> NoGpu {
        if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE {
            return NoGpu::None;
        }
        // Not through the error's own Display: that panics where the driver has no text for it.
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        NoGpu::Driver(text.unwrap_or_else(|_| format!("{:?}", error.0)))
    }
}
