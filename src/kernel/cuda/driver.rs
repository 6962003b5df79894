//! A GPU as a [`Gpu`], through cudarc: the stream, the memory and the modules are those of the device that dfdx
//! computes on, so what both launch runs in the order of the calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction, CUstream};
use cudarc::driver::{result, CudaDevice, CudaSlice, DevicePtr, DevicePtrMut};

use super::cublaslt::Products;
use super::event::Event;
use super::phase::Phase;
use super::product::Product;
use super::staging::{Staging, WORTH_IT};
use super::{Gpu, GpuError, Launch, Number, View, ViewMut};
use crate::kernel::backend::Memory;

/// The compiled sources: machine code and PTX of each.
const COMPILED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Shared memory that a kernel gets without being asked, bytes.
const USUAL_SHARED: u32 = 48 << 10;

/// A point in a stream of a GPU.
#[derive(Debug)]
pub struct Point(Event);

/// Ends of the phases since the lap began.
#[derive(Debug)]
struct Marks {
    began: Event,
    ended: Vec<(Phase, Event)>,
}

/// A stream for copies, which runs beside the device's own.
#[derive(Debug)]
struct Beside(CUstream);

impl Beside {
    fn new() -> Result<Self, result::DriverError> {
        // Else it would wait for the device's own, which is the default stream.
        result::stream::create(result::stream::StreamKind::NonBlocking).map(Beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What is on its way arrives before the memory for it is given back.
        // SAFETY: made in `new`, and used by nobody else. A driver that is shutting down may refuse; so be it.
        let _ = unsafe { result::stream::synchronize(self.0) };
        // SAFETY: as above.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// A GPU.
#[derive(Debug)]
pub struct CudaGpu {
    modules: HashMap<&'static str, sys::CUmodule>,
    /// Found before; a handle as a number, so that it may go to another thread.
    functions: Mutex<HashMap<&'static str, usize>>,
    staging: Staging,
    products: Products,
    beside: Beside,
    /// Points where times are taken.
    marks: Mutex<Option<Marks>>,
    /// Last, as the others give back what is its own.
    device: Arc<CudaDevice>,
}

// SAFETY: handles of modules are valid in every thread that the context is current in; each call makes it so.
unsafe impl Send for CudaGpu {}
// SAFETY: as above; the driver allows concurrent use.
unsafe impl Sync for CudaGpu {}

fn failed(at: &str) -> impl FnOnce(result::DriverError) -> GpuError + '_ {
    move |error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::OutOfMemory { at: at.into() },
        why => GpuError::Failed { at: at.into(), why: format!("{why:?}") },
    }
}

impl CudaGpu {
    /// The kernels of this crate on a device.
    ///
    /// # Errors
    /// The device is older than compute capability 8.0, or the driver too old for what this binary holds.
    pub fn new(device: Arc<CudaDevice>) -> Result<Self, GpuError> {
        device.bind_to_thread().map_err(failed("choosing the device"))?;
        let mut modules = HashMap::new();
        for &(name, image) in COMPILED {
            // The driver reads whole words.
            let words: Vec<u64> = bytemuck::pod_collect_to_vec(image);
            // SAFETY: a fatbin as nvcc wrote it.
            let module = unsafe { result::module::load_data(words.as_ptr().cast()) };
            modules.insert(name, module.map_err(failed(name))?);
        }
        let products = Products::new(device.clone())?;
        let beside = Beside::new().map_err(failed("making a stream"))?;
        let (functions, marks, staging) = (Mutex::default(), Mutex::default(), Staging::default());
        Ok(CudaGpu { modules, functions, staging, products, beside, marks, device })
    }

    /// Waits for all that was launched.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.device.synchronize().map_err(failed("waiting"))
    }

    /// Seconds that the GPU takes for what `launch` launches, by its own clock. Waits for it.
    pub fn seconds(&self, launch: impl FnOnce() -> Result<(), GpuError>) -> Result<f64, GpuError> {
        self.device.bind_to_thread().map_err(failed("timing"))?;
        let stream = *self.device.cu_stream();
        let new = || Event::new().map_err(failed("timing"));
        let (from, to) = (new()?, new()?);
        from.record(stream).map_err(failed("timing"))?;
        launch()?;
        to.record(stream).map_err(failed("timing"))?;
        to.wait().and_then(|()| from.seconds_to(&to)).map_err(failed("timing"))
    }

    fn function(&self, launch: &Launch) -> Result<CUfunction, GpuError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(launch.kernel) {
            return Ok(function as CUfunction);
        }
        let module = *self.modules.get(launch.module).ok_or(GpuError::NoKernel(launch.kernel))?;
        let name = std::ffi::CString::new(launch.kernel).map_err(|_| GpuError::NoKernel(launch.kernel))?;
        // SAFETY: the module is loaded for as long as this lives.
        let function =
            unsafe { result::module::get_function(module, name) }.map_err(failed(launch.kernel))?;
        functions.insert(launch.kernel, function as usize);
        Ok(function)
    }
}

impl Drop for CudaGpu {
    fn drop(&mut self) {
        if self.device.bind_to_thread().is_ok() {
            for &module in self.modules.values() {
                // SAFETY: loaded here and used by nobody else. A driver that is shutting down may refuse; so be it.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

impl Memory for CudaGpu {
    type Buffer<T: Number> = Buffer<T>;
    type Error = GpuError;

    fn zeros<T: Number>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        // The driver gives out no memory of no bytes.
        let bytes = (len * size_of::<T>()).max(1);
        let bytes = self.device.alloc_zeros(bytes).map_err(failed("allocating memory"))?;
        Ok(Buffer { bytes, len, of: std::marker::PhantomData })
    }
    fn view<'a, T: Number>(&self, buffer: &'a Buffer<T>) -> View<'a, T> {
        // SAFETY: the buffer is alive for 'a and has this length.
        unsafe { View::new(*buffer.bytes.device_ptr() as *const T, buffer.len) }
    }
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Buffer<T>) -> ViewMut<'a, T> {
        // SAFETY: the buffer is borrowed for 'a by nobody else and has this length.
        unsafe { ViewMut::new(*buffer.bytes.device_ptr_mut() as *mut T, buffer.len) }
    }

    fn write<T: Number>(&self, to: ViewMut<T>, values: &[T]) -> Result<(), GpuError> {
        assert_eq!(to.len(), values.len(), "values to copy to the device");
        if values.is_empty() {
            return Ok(());
        }
        self.device.bind_to_thread().map_err(failed("copying to the device"))?;
        let stream = *self.device.cu_stream();
        let copied = if size_of_val(values) >= WORTH_IT {
            // SAFETY: the view is as long, and borrowed by nobody else.
            unsafe { self.staging.copy(to.address(), bytemuck::cast_slice(values), stream) }
        } else {
            // SAFETY: as above. The driver has read what lies in ordinary memory when it comes back.
            unsafe { result::memcpy_htod_async(to.address(), values, stream) }
        };
        copied.map_err(failed("copying to the device"))
    }
    fn read<T: Number>(&self, from: View<T>) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::zeroed(); from.len()];
        if from.is_empty() {
            return Ok(values);
        }
        self.device.bind_to_thread().map_err(failed("copying from the device"))?;
        // SAFETY: as long, and nobody reads the values before the device has finished.
        unsafe { result::memcpy_dtoh_async(&mut values, from.address(), *self.device.cu_stream()) }
            .map_err(failed("copying from the device"))?;
        self.synchronize()?;
        Ok(values)
    }
    fn copy<T: Number>(&self, to: ViewMut<T>, from: View<T>) -> Result<(), GpuError> {
        assert_eq!(to.len(), from.len(), "values to copy");
        if from.is_empty() {
            return Ok(());
        }
        let bytes = from.len() * size_of::<T>();
        self.device.bind_to_thread().map_err(failed("copying"))?;
        // SAFETY: both are as long, and what is written is borrowed by nobody else.
        unsafe { result::memcpy_dtod_async(to.address(), from.address(), bytes, *self.device.cu_stream()) }
            .map_err(failed("copying"))
    }
    fn clear<T: Number>(&self, to: ViewMut<T>) -> Result<(), GpuError> {
        if to.is_empty() {
            return Ok(());
        }
        self.device.bind_to_thread().map_err(failed("clearing memory"))?;
        let bytes = to.len() * size_of::<T>();
        // SAFETY: the view is as long.
        unsafe { result::memset_d8_async(to.address(), 0, bytes, *self.device.cu_stream()) }
            .map_err(failed("clearing memory"))
    }
}

impl Gpu for CudaGpu {
    type Point = Point;

    fn point(&self) -> Result<Point, GpuError> {
        self.device.bind_to_thread().map_err(failed("a point"))?;
        let event = Event::untimed().map_err(failed("a point"))?;
        event.record(*self.device.cu_stream()).map_err(failed("a point"))?;
        Ok(Point(event))
    }

    fn wait_for(&self, point: &Point) -> Result<(), GpuError> {
        self.device.bind_to_thread().map_err(failed("a point"))?;
        point.0.hold(*self.device.cu_stream()).map_err(failed("a point"))
    }

    unsafe fn write_beside<T: Number>(
        &self,
        to: ViewMut<T>,
        values: &[T],
        after: &Point,
    ) -> Result<Point, GpuError> {
        assert_eq!(to.len(), values.len(), "values to copy to the device");
        let at = "copying ahead to the device";
        self.device.bind_to_thread().map_err(failed(at))?;
        let stream = self.beside.0;
        after.0.hold(stream).map_err(failed(at))?;
        if !values.is_empty() {
            self.staging.copy(to.address(), bytemuck::cast_slice(values), stream).map_err(failed(at))?;
        }
        let arrived = Event::untimed().map_err(failed(at))?;
        arrived.record(stream).map_err(failed(at))?;
        Ok(Point(arrived))
    }

    fn mark(&self, phase: Phase) -> Result<(), GpuError> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(marks) = &mut *marks {
            self.device.bind_to_thread().map_err(failed("timing"))?;
            let event = Event::new().map_err(failed("timing"))?;
            event.record(*self.device.cu_stream()).map_err(failed("timing"))?;
            marks.ended.push((phase, event));
        }
        Ok(())
    }

    fn lap(&self) -> Result<Vec<(Phase, f64)>, GpuError> {
        self.device.bind_to_thread().map_err(failed("timing"))?;
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut phases = Vec::new();
        if let Some(Marks { began, ended }) = marks.take() {
            let mut from = &began;
            for (phase, to) in &ended {
                let seconds = to.wait().and_then(|()| from.seconds_to(to)).map_err(failed("timing"))?;
                phases.push((*phase, seconds));
                from = to;
            }
        }
        let began = Event::new().map_err(failed("timing"))?;
        began.record(*self.device.cu_stream()).map_err(failed("timing"))?;
        *marks = Some(Marks { began, ended: Vec::new() });
        Ok(phases)
    }

    fn fuses(&self, product: &Product) -> Result<bool, GpuError> {
        self.device.bind_to_thread().map_err(failed("cuBLASLt"))?;
        self.products.fuses(product)
    }

    unsafe fn multiply(&self, product: &Product) -> Result<(), GpuError> {
        self.device.bind_to_thread().map_err(failed("a product"))?;
        self.products.multiply(product)
    }

    unsafe fn launch(&self, mut launch: Launch) -> Result<(), GpuError> {
        let grid = launch.grid;
        if grid.contains(&0) {
            return Ok(());
        }
        let at = failed(launch.kernel);
        self.device.bind_to_thread().map_err(failed(launch.kernel))?;
        let function = self.function(&launch)?;
        if launch.shared_bytes > USUAL_SHARED {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = launch.shared_bytes as i32;
            sys::cuFuncSetAttribute(function, most, bytes).result().map_err(failed(launch.kernel))?;
        }
        let mut arguments: Vec<_> =
            launch.arguments.iter_mut().map(|word| (word as *mut u64).cast::<std::ffi::c_void>()).collect();
        let stream = *self.device.cu_stream();
        let [x, y, z] = grid;
        let block = (launch.block, 1, 1);
        result::launch_kernel(function, (x, y, z), block, launch.shared_bytes, stream, &mut arguments)
            .map_err(at)
    }
}

/// Memory of a GPU, freed when it is dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    bytes: CudaSlice<u8>,
    len: usize,
    of: std::marker::PhantomData<T>,
}
