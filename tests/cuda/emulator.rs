//! The kernels on the processor: each source compiled as C++ with tests/emulator/emulate.hpp and called by name, as the
//! driver would.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use dfdx::prelude::{Cpu, CpuError};
use flip::kernel::activation::Activation;
use flip::kernel::backend::Memory;
use flip::kernel::cuda::phase::Phase;
use flip::kernel::cuda::product::{ByColumns, Epilogue, Kind, Product};
use flip::kernel::cuda::{Gpu, GpuError, Launch, Number, View, ViewMut};
use flip::kernel::element::Bf16;
use flip::model::DeviceStorage;
use flip::parameter::Values;
use libloading::Library;

pub struct Emulator {
    /// Whether products have epilogues; if not, kernels after them do the same.
    fuses: bool,
    /// Pieces of memory that were taken.
    taken: AtomicUsize,
    order: Mutex<Order>,
}

/// What is launched is over at once, and what is copied beside it is not before something waits for it. So a copy that
/// comes too late shows in what is read, and so does one for which nothing waits; one that would come too early is an error
/// here.
struct Order {
    /// Calls so far.
    now: u64,
    /// The last call that named an address.
    used: BTreeMap<u64, u64>,
    /// Copies that have not arrived: where to, and what.
    coming: Vec<(u64, u64, Vec<u8>)>,
    /// Phases of the lap, where one was begun.
    marks: Option<Vec<Phase>>,
}

/// A point in the calls, or a copy beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    After(u64),
    Copied(u64),
}

impl Order {
    const NEW: Order = Order { now: 0, used: BTreeMap::new(), coming: Vec::new(), marks: None };

    /// A call that uses what begins at these addresses.
    fn call(&mut self, addresses: &[u64]) {
        self.now += 1;
        for &at in addresses {
            let late = self.coming.iter().any(|(_, to, bytes)| (*to..to + bytes.len() as u64).contains(&at));
            assert!(!late, "memory at {at:#x} is used before what was copied beside has arrived");
            self.used.insert(at, self.now);
        }
    }
}

/// The modules, compiled when the first kernel of one is launched.
struct Compiled {
    modules: HashMap<&'static str, OnceLock<Library>>,
    /// Compiling more than one at a time is no faster where cores are few.
    compiling: Mutex<()>,
}

/// Memory that is aligned as that of a GPU would be for the widest access.
pub struct Buffer<T> {
    words: Vec<u128>,
    len: usize,
    of: std::marker::PhantomData<T>,
}

pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernel")
}

/// The source of a module.
pub fn source(module: &str) -> PathBuf {
    sources().join(module).join(module).with_extension("cu")
}

thread_local! {
    static SENT: std::cell::Cell<[usize; 2]> = const { std::cell::Cell::new([0; 2]) };
}

fn count(how: usize, bytes: usize) {
    let mut sent = SENT.get();
    sent[how] += bytes;
    SENT.set(sent);
}

/// Bytes that this thread has copied from the host to any emulator: in the order of the calls, and beside them.
pub fn sent() -> [usize; 2] {
    SENT.get()
}

impl Emulator {
    const fn new(fuses: bool) -> Self {
        Emulator { fuses, taken: AtomicUsize::new(0), order: Mutex::new(Order::NEW) }
    }

    fn order(&self) -> std::sync::MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// With epilogues; where there is a C++ compiler.
    pub fn get() -> Result<&'static Emulator, String> {
        static WITH: Emulator = Emulator::new(true);
        Self::there().map(|_| &WITH)
    }

    /// Without epilogues.
    pub fn plain() -> Result<&'static Emulator, String> {
        static WITHOUT: Emulator = Emulator::new(false);
        Self::there().map(|_| &WITHOUT)
    }

    /// One for a single test, that counts what it takes.
    pub fn counting() -> Result<Emulator, String> {
        Self::there().map(|_| Emulator::new(true))
    }

    /// Pieces of memory that were taken so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn there() -> Result<&'static Compiled, String> {
        static ONLY: OnceLock<Result<Compiled, String>> = OnceLock::new();
        let made = ONLY.get_or_init(|| {
            let there = Command::new("c++").arg("--version").output();
            there.map_err(|error| format!("no C++ compiler (c++: {error})"))?;
            let modules = flip::kernel::cuda::MODULES.into_iter().map(|module| (module, OnceLock::new()));
            Ok(Compiled { modules: modules.collect(), compiling: Mutex::new(()) })
        });
        made.as_ref().map_err(String::clone)
    }
}

impl Compiled {
    fn library(&self, module: &str) -> &Library {
        self.modules[module].get_or_init(|| {
            let _alone = self.compiling.lock().unwrap();
            // SAFETY: the library has no initialisers of its own.
            unsafe { Library::new(compile(module)) }.unwrap()
        })
    }
}

/// The module as a shared library; compiled anew where a source is younger.
fn compile(module: &str) -> PathBuf {
    let emulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
    let prelude = sources().join("cuda");
    let source = source(module);
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulated-{module}.so"));
    let age =
        |path: &Path| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let of = [source.clone(), prelude.join("prelude.cuh"), emulator.join("emulate.hpp")];
    if of.iter().all(|path| age(path) < age(&to)) {
        return to;
    }
    // Another process may do the same.
    let own = to.with_extension(format!("{}.so", std::process::id()));
    let mut compiler = Command::new("c++");
    compiler.args(["-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared"]);
    compiler.arg("-I").arg(prelude).arg("-I").arg(emulator).arg("-o").arg(&own);
    let done = compiler.args(["-x", "c++"]).arg(source).output().unwrap();
    assert!(done.status.success(), "{module}:\n{}", String::from_utf8_lossy(&done.stderr));
    std::fs::rename(&own, &to).unwrap();
    to
}

impl Memory for Emulator {
    type Buffer<T: Number> = Buffer<T>;
    type Error = GpuError;

    fn zeros<T: Number>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let words: Vec<u128> = vec![0; (len * size_of::<T>()).div_ceil(16)];
        // Where something else was before: nothing uses that any more.
        let (from, bytes) = (words.as_ptr() as u64, (words.len() * 16) as u64);
        let mut order = self.order();
        order.coming.retain(|(_, to, _)| !(from..from + bytes).contains(to));
        let old: Vec<u64> = order.used.range(from..from + bytes).map(|(&at, _)| at).collect();
        for at in old {
            order.used.remove(&at);
        }
        Ok(Buffer { words, len, of: std::marker::PhantomData })
    }
    fn upload<T: Number>(&self, values: &[T]) -> Result<Buffer<T>, GpuError> {
        let mut memory = self.zeros(values.len())?;
        bytemuck::cast_slice_mut(&mut memory.words)[..values.len()].copy_from_slice(values);
        Ok(memory)
    }
    fn download<T: Number>(&self, buffer: &Buffer<T>) -> Result<Vec<T>, GpuError> {
        self.order().call(&[buffer.words.as_ptr() as u64]);
        Ok(bytemuck::cast_slice(&buffer.words)[..buffer.len].to_vec())
    }
    fn view<'a, T: Number>(&self, buffer: &'a Buffer<T>) -> View<'a, T> {
        // SAFETY: the buffer is alive for 'a and has this length.
        unsafe { View::new(buffer.words.as_ptr().cast(), buffer.len) }
    }
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Buffer<T>) -> ViewMut<'a, T> {
        // SAFETY: the buffer is borrowed for 'a by nobody else and has this length.
        unsafe { ViewMut::new(buffer.words.as_mut_ptr().cast(), buffer.len) }
    }

    fn write<T: Number>(&self, to: ViewMut<T>, values: &[T]) -> Result<(), GpuError> {
        assert_eq!(to.len(), values.len());
        self.order().call(&[to.address()]);
        count(0, size_of_val(values));
        // SAFETY: a view is of memory of this process, and as long.
        unsafe { std::ptr::copy(values.as_ptr(), to.address() as *mut T, values.len()) };
        Ok(())
    }
    fn read<T: Number>(&self, from: View<T>) -> Result<Vec<T>, GpuError> {
        self.order().call(&[from.address()]);
        // SAFETY: a view is of memory of this process, and as long.
        Ok(unsafe { std::slice::from_raw_parts(from.address() as *const T, from.len()) }.to_vec())
    }
    fn copy<T: Number>(&self, to: ViewMut<T>, from: View<T>) -> Result<(), GpuError> {
        let values = self.read(from)?;
        self.write(to, &values)
    }
    fn clear<T: Number>(&self, to: ViewMut<T>) -> Result<(), GpuError> {
        self.order().call(&[to.address()]);
        // SAFETY: a view is of memory of this process, and as long.
        unsafe { std::ptr::write_bytes(to.address() as *mut T, 0, to.len()) };
        Ok(())
    }
}

impl Gpu for Emulator {
    type Point = Point;

    fn point(&self) -> Result<Point, GpuError> {
        Ok(Point::After(self.order().now))
    }
    fn wait_for(&self, point: &Point) -> Result<(), GpuError> {
        let mut order = self.order();
        if let Some(i) = order.coming.iter().position(|(copy, ..)| Point::Copied(*copy) == *point) {
            let (_, to, bytes) = order.coming.remove(i);
            order.call(&[to]);
            // SAFETY: who asked for the copy says that the memory is there until something waits for it.
            unsafe { std::ptr::copy(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        }
        Ok(())
    }
    unsafe fn write_beside<T: Number>(
        &self,
        to: ViewMut<T>,
        values: &[T],
        after: &Point,
    ) -> Result<Point, GpuError> {
        assert_eq!(to.len(), values.len());
        let bytes: Vec<u8> = bytemuck::cast_slice(values).to_vec();
        let mut order = self.order();
        let last =
            order.used.range(to.address()..to.address() + bytes.len() as u64).map(|(_, &call)| call).max();
        let free = match *after {
            Point::After(call) => last.is_none_or(|last| last <= call),
            Point::Copied(_) => last.is_none(),
        };
        assert!(free, "memory at {:#x} is copied to while it may be in use", to.address());
        order.now += 1;
        let copy = order.now;
        count(1, bytes.len());
        order.coming.push((copy, to.address(), bytes));
        Ok(Point::Copied(copy))
    }
    fn mark(&self, phase: Phase) -> Result<(), GpuError> {
        if let Some(marks) = &mut self.order().marks {
            marks.push(phase);
        }
        Ok(())
    }
    fn lap(&self) -> Result<Vec<(Phase, f64)>, GpuError> {
        let marks = self.order().marks.replace(Vec::new()).unwrap_or_default();
        Ok(marks.into_iter().map(|phase| (phase, 0.0)).collect())
    }

    fn fuses(&self, product: &Product) -> Result<bool, GpuError> {
        Ok(self.fuses || product.epilogue == Epilogue::Nothing)
    }

    unsafe fn multiply(&self, product: &Product) -> Result<(), GpuError> {
        assert!(self.fuses(product)?, "{product:?}");
        self.order().call(&[product.left.address, product.right.address, product.to]);
        // SAFETY: the caller's memory is as large as the product says.
        unsafe { multiply(product) };
        Ok(())
    }

    unsafe fn launch(&self, mut launch: Launch) -> Result<(), GpuError> {
        type Kernel = unsafe extern "C" fn(*const u32, u32, u32, *mut *mut c_void);
        let name = format!("{}_launch", launch.kernel);
        // What every GPU has, and the most that one with compute capability 8.0 lends.
        assert!(launch.block.is_multiple_of(32) && launch.block <= 1024, "{name}: {} threads", launch.block);
        assert!(launch.shared_bytes <= 163 << 10, "{name}: {} bytes", launch.shared_bytes);
        assert!(launch.grid[1] <= 65_535 && launch.grid[2] <= 65_535, "{name}: {:?}", launch.grid);
        self.order().call(&launch.arguments);
        // SAFETY: EXPORT declares it so.
        let kernel = unsafe { Self::there().unwrap().library(launch.module).get::<Kernel>(&name) };
        let kernel = kernel.map_err(|_| GpuError::NoKernel(launch.kernel))?;
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter_mut().map(|word| (word as *mut u64).cast()).collect();
        // SAFETY: the caller's arguments are those of the kernel.
        unsafe { kernel(launch.grid.as_ptr(), launch.block, launch.shared_bytes, arguments.as_mut_ptr()) };
        Ok(())
    }
}

/// The emulator's kernels use the memory of this process, and run when they are launched.
impl DeviceStorage<Emulator> for Cpu {
    fn view(storage: &Values<f32, Cpu>) -> View<'_, f32> {
        // SAFETY: the storage is borrowed.
        unsafe { View::new(storage.as_ptr(), storage.len()) }
    }
    fn view_mut(storage: &mut Values<f32, Cpu>) -> ViewMut<'_, f32> {
        // SAFETY: the storage is borrowed, by nobody else.
        unsafe { ViewMut::new(storage.as_mut_ptr(), storage.len()) }
    }
    fn error(_: GpuError) -> CpuError {
        CpuError::OutOfMemory
    }
}

/// Number `i` of those at an address.
///
/// # Safety
/// It must be there.
unsafe fn number(kind: Kind, address: u64, i: usize) -> f32 {
    match kind {
        // SAFETY: the caller's.
        Kind::F32 => unsafe { *(address as *const f32).add(i) },
        // SAFETY: the caller's.
        Kind::Bf16 => unsafe { *(address as *const Bf16).add(i) }.to_f32(),
    }
}

/// Rounds to number `i` of those at an address.
///
/// # Safety
/// It must be there.
unsafe fn set_number(kind: Kind, address: u64, i: usize, x: f32) {
    match kind {
        // SAFETY: the caller's.
        Kind::F32 => unsafe { *(address as *mut f32).add(i) = x },
        // SAFETY: the caller's.
        Kind::Bf16 => unsafe { *(address as *mut Bf16).add(i) = Bf16::from_f32(x) },
    }
}

/// A product by plain loops, as cuBLASLt documents it: by columns, and rounded where it rounds.
///
/// # Safety
/// The memory is as large as the product says.
unsafe fn multiply(product: &Product) {
    let &Product { from, to_kind, adds, epilogue, .. } = product;
    let [a, b, d] = product.by_columns();
    // Column after column, with the transposition applied.
    let read = |x: ByColumns| -> (usize, Vec<f32>) {
        let [rows, columns] = if x.transposed { [x.columns, x.rows] } else { [x.rows, x.columns] };
        let at = |i, j| if x.transposed { j + i * x.leading } else { i + j * x.leading };
        let places = (0..columns).flat_map(|j| (0..rows).map(move |i| (i, j)));
        // SAFETY: an element of the factor.
        (rows, places.map(|(i, j)| unsafe { number(from, x.address, at(i, j)) }).collect())
    };
    let ((m, a), (k, b)) = (read(a), read(b));
    assert!(m == d.rows && a.len() == m * k && b.len() == k * d.columns, "{product:?}");
    let gelu = |x: f32| Activation::GeluTanh.value_and_slope(x as f64);
    for (j, b) in b.chunks(k).enumerate() {
        let mut sums = vec![0.0f32; m];
        for (a, &y) in a.chunks(m).zip(b) {
            sums.iter_mut().zip(a).for_each(|(sum, x)| *sum += x * y);
        }
        for (i, mut x) in sums.into_iter().enumerate() {
            // SAFETY: elements of the output, of a vector along its rows, and of a matrix of its sizes without gaps.
            unsafe {
                if adds {
                    x += number(to_kind, d.address, i + j * d.leading);
                }
                match epilogue {
                    Epilogue::Nothing | Epilogue::ColumnSums { .. } => {}
                    Epilogue::Bias { bias } => x += number(to_kind, bias, i),
                    Epilogue::Gelu { bias, before } => {
                        x += number(to_kind, bias, i);
                        set_number(to_kind, before, i + j * m, x);
                        x = gelu(x).0 as f32;
                    }
                    Epilogue::GeluBackward { before } => {
                        x *= gelu(number(to_kind, before, i + j * m)).1 as f32;
                    }
                }
                set_number(to_kind, d.address, i + j * d.leading, x);
            }
        }
    }
    if let Epilogue::ColumnSums { columns } = epilogue {
        for i in 0..m {
            let sum = a.chunks(m).map(|a| a[i]).sum();
            // SAFETY: one number a row of the first factor.
            unsafe { set_number(Kind::F32, columns, i, sum) };
        }
    }
}
