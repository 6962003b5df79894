//! Products of a GPU through cuBLASLt.
//!
//! It counts by columns, as [`Product::by_columns`] says: its first factor is our right side.
//!
//! Algorithms: the first that the heuristic offers for a shape, asked once. They are not timed against each other, as
//! which one wins would change from run to run, and with it the last bit of a sum. For the same reason a sum may be split
//! only where its parts meet in the workspace, in f32 and in one order, not in the output.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasLtEpilogue_t as Lt, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference,
};
use cudarc::driver::{CudaDevice, CudaSlice, DevicePtr};

use super::product::{ByColumns, Epilogue, Kind, Product};
use super::GpuError;

/// Bytes of scratch memory: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;
/// The logarithm of the alignment that cuBLASLt takes for granted where it is told nothing.
const ALIGNED: u32 = 8;

/// Key of the choice of an algorithm: all of a product but its addresses, of which alignments alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    sizes: (usize, usize, usize),
    kinds: (Kind, Kind),
    left: (usize, bool),
    right: (usize, bool),
    to_stride: usize,
    adds: bool,
    epilogue: u32,
    /// Of right, left, output, and what the epilogue names: the logarithm.
    alignments: [u32; 4],
}

/// A product that has an algorithm.
struct Plan {
    descriptors: Descriptors,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// Descriptors that cuBLASLt takes of a product. Null where it was not made.
struct Descriptors {
    operation: sys::cublasLtMatmulDesc_t,
    right: sys::cublasLtMatrixLayout_t,
    left: sys::cublasLtMatrixLayout_t,
    to: sys::cublasLtMatrixLayout_t,
}

/// cuBLASLt on a device.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    device: Arc<CudaDevice>,
    /// `None` where there is no algorithm. Locked while a product is started: its descriptor is told the addresses.
    plans: Mutex<HashMap<Key, Option<Plan>>>,
}

// SAFETY: a handle may be used by every thread; descriptors are used under the lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl std::fmt::Debug for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Products")
    }
}

fn failed(at: &'static str) -> impl FnOnce(CublasError) -> GpuError {
    move |error| GpuError::Failed { at: at.into(), why: format!("{:?}", error.0) }
}

impl Products {
    pub fn new(device: Arc<CudaDevice>) -> Result<Self, GpuError> {
        let workspace = device.alloc_zeros(WORKSPACE);
        let workspace = workspace
            .map_err(|error| GpuError::Failed { at: "cuBLASLt".into(), why: format!("{:?}", error.0) })?;
        let handle = result::create_handle().map_err(failed("starting cuBLASLt"))?;
        Ok(Products { handle, workspace, device, plans: Mutex::default() })
    }

    pub fn fuses(&self, product: &Product) -> Result<bool, GpuError> {
        if product.epilogue == Epilogue::Nothing {
            return Ok(true);
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.plan(&mut plans, product)?.is_some())
    }

    /// # Safety
    /// As [`Gpu::multiply`](super::Gpu::multiply).
    pub unsafe fn multiply(&self, product: &Product) -> Result<(), GpuError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Plan { descriptors, algorithm }) = self.plan(&mut plans, product)? else {
            let why = format!("no algorithm for {product:?}");
            return Err(GpuError::Failed { at: "a product".into(), why });
        };
        let Descriptors { operation, right, left, to } = descriptors;
        point(*operation, product.epilogue).map_err(failed("a product"))?;
        let (one, beta) = (1.0f32, if product.adds { 1.0f32 } else { 0.0 });
        let number = |x: &f32| (x as *const f32).cast::<c_void>();
        result::matmul(
            self.handle,
            *operation,
            number(&one),
            number(&beta),
            product.right.address as *const c_void,
            *right,
            product.left.address as *const c_void,
            *left,
            product.to as *const c_void,
            *to,
            product.to as *mut c_void,
            *to,
            algorithm,
            *self.workspace.device_ptr() as *mut c_void,
            WORKSPACE,
            (*self.device.cu_stream()).cast(),
        )
        .map_err(failed("a product"))
    }

    /// The algorithm of a product, found once; `None` where cuBLASLt has no algorithm for it.
    fn plan<'a>(
        &self,
        plans: &'a mut HashMap<Key, Option<Plan>>,
        product: &Product,
    ) -> Result<Option<&'a Plan>, GpuError> {
        let entry = match plans.entry(Key::of(product)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(new) => new.insert(match self.choose(product) {
                Ok(plan) => Some(plan),
                Err(error) if says_unsupported(&error) => None,
                Err(error) => return Err(failed("choosing an algorithm")(error)),
            }),
        };
        Ok(entry.as_ref())
    }

    fn choose(&self, product: &Product) -> Result<Plan, CublasError> {
        let descriptors = Descriptors::new(product)?;
        let preference = result::create_matmul_pref()?;
        let chosen = prefer(preference, product).and_then(|()| {
            let Descriptors { operation, right, left, to } = descriptors;
            result::get_matmul_algo_heuristic(self.handle, operation, right, left, to, to, preference)
        });
        // SAFETY: made above, and used by nobody else.
        unsafe { result::destroy_matmul_pref(preference) }?;
        Ok(Plan { descriptors, algorithm: chosen?.algo })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // Descriptors before the handle that they belong to.
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: made in `new`, and used by nobody else. A driver that is shutting down may refuse; so be it.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

fn says_unsupported(error: &CublasError) -> bool {
    use sys::cublasStatus_t::{CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_NOT_SUPPORTED};
    matches!(error.0, CUBLAS_STATUS_NOT_SUPPORTED | CUBLAS_STATUS_INVALID_VALUE)
}

/// The logarithm of what an address is a multiple of.
fn alignment(address: u64) -> u32 {
    address.trailing_zeros().min(ALIGNED)
}

impl Key {
    fn of(product: &Product) -> Self {
        let &Product { m, k, n, from, left, right, to, to_stride, to_kind, adds, epilogue } = product;
        let named = match epilogue {
            Epilogue::Nothing => 0,
            Epilogue::Bias { bias: at }
            | Epilogue::GeluBackward { before: at }
            | Epilogue::ColumnSums { columns: at } => at,
            Epilogue::Gelu { bias, before } => bias | before,
        };
        Key {
            sizes: (m, k, n),
            kinds: (from, to_kind),
            left: (left.stride, left.transposed),
            right: (right.stride, right.transposed),
            to_stride,
            adds,
            epilogue: name(epilogue) as u32,
            alignments: [right.address, left.address, to, named].map(alignment),
        }
    }
}

fn name(epilogue: Epilogue) -> Lt {
    match epilogue {
        Epilogue::Nothing => Lt::CUBLASLT_EPILOGUE_DEFAULT,
        Epilogue::Bias { .. } => Lt::CUBLASLT_EPILOGUE_BIAS,
        Epilogue::Gelu { .. } => Lt::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        Epilogue::GeluBackward { .. } => Lt::CUBLASLT_EPILOGUE_DGELU,
        Epilogue::ColumnSums { .. } => Lt::CUBLASLT_EPILOGUE_BGRADA,
    }
}

fn number_type(kind: Kind) -> sys::cudaDataType {
    match kind {
        Kind::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Kind::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}

/// An attribute of a descriptor.
fn set<T>(operation: sys::cublasLtMatmulDesc_t, which: Attribute, value: T) -> Result<(), CublasError> {
    let at = (&value as *const T).cast();
    // SAFETY: the descriptor is alive, and cuBLASLt copies as many bytes as the value has.
    unsafe { result::set_matmul_desc_attribute(operation, which, at, size_of::<T>()) }
}

/// The addresses that an epilogue names.
fn point(operation: sys::cublasLtMatmulDesc_t, epilogue: Epilogue) -> Result<(), CublasError> {
    let bias = |at: u64| set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, at);
    let before = |at: u64| set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, at);
    match epilogue {
        Epilogue::Nothing => Ok(()),
        Epilogue::Bias { bias: at } | Epilogue::ColumnSums { columns: at } => bias(at),
        Epilogue::Gelu { bias: at, before: aux } => bias(at).and_then(|()| before(aux)),
        Epilogue::GeluBackward { before: aux } => before(aux),
    }
}

fn prefer(to: sys::cublasLtMatmulPreference_t, product: &Product) -> Result<(), CublasError> {
    fn set<T>(to: sys::cublasLtMatmulPreference_t, which: Preference, value: T) -> Result<(), CublasError> {
        let at = (&value as *const T).cast();
        // SAFETY: the preference is alive, and cuBLASLt copies as many bytes as the value has.
        unsafe { result::set_matmul_pref_attribute(to, which, at, size_of::<T>()) }
    }
    let in_workspace = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    set(to, Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE as u64)?;
    set(to, Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_workspace)?;
    let bytes = |address| 1u32 << alignment(address);
    set(to, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, bytes(product.right.address))?;
    set(to, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, bytes(product.left.address))?;
    set(to, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, bytes(product.to))?;
    set(to, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, bytes(product.to))
}

impl Descriptors {
    fn new(product: &Product) -> Result<Self, CublasError> {
        let &Product { n, from, to_kind, epilogue, .. } = product;
        let [right, left, to] = product.by_columns();
        let layout = |kind, ByColumns { rows, columns, leading, .. }| {
            result::create_matrix_layout(number_type(kind), rows as u64, columns as u64, leading as i64)
        };
        let sum = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let operation = result::create_matmul_desc(sum, sys::cudaDataType_t::CUDA_R_32F)?;
        let mut made = Descriptors { operation, right: null_mut(), left: null_mut(), to: null_mut() };
        made.right = layout(from, right)?;
        made.left = layout(from, left)?;
        made.to = layout(to_kind, to)?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, u32::from(right.transposed))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, u32::from(left.transposed))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, name(epilogue) as u32)?;
        if matches!(epilogue, Epilogue::Gelu { .. } | Epilogue::GeluBackward { .. }) {
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, n as i64)?;
        }
        point(operation, epilogue)?;
        Ok(made)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        for layout in [self.right, self.left, self.to] {
            if !layout.is_null() {
                // SAFETY: made here and used by nobody else. What cannot be destroyed is left.
                let _ = unsafe { result::destroy_matrix_layout(layout) };
            }
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_desc(self.operation) };
    }
}
