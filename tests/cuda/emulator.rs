//! The kernels on the processor: each source compiled as C++ with tests/emulator/emulate.hpp and called by name, as the
//! driver would.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use flip::kernel::cuda::{Launch, Machine, MachineError, Number, View, ViewMut};
use libloading::Library;

pub struct Emulator {
    compiled: HashMap<&'static str, OnceLock<Library>>,
    /// Compiling more than one at a time is no faster where cores are few.
    compiling: Mutex<()>,
}

/// Memory that is aligned as that of a GPU would be for the widest access.
pub struct Memory<T> {
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

impl Emulator {
    pub fn get() -> Result<&'static Emulator, String> {
        static ONLY: OnceLock<Result<Emulator, String>> = OnceLock::new();
        let made = ONLY.get_or_init(|| {
            let there = Command::new("c++").arg("--version").output();
            there.map_err(|error| format!("no C++ compiler (c++: {error})"))?;
            let compiled = flip::kernel::cuda::MODULES.into_iter().map(|module| (module, OnceLock::new()));
            Ok(Emulator { compiled: compiled.collect(), compiling: Mutex::new(()) })
        });
        made.as_ref().map_err(String::clone)
    }

    fn library(&self, module: &str) -> &Library {
        self.compiled[module].get_or_init(|| {
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

impl Machine for Emulator {
    type Buffer<T: Number> = Memory<T>;

    fn zeros<T: Number>(&self, len: usize) -> Result<Memory<T>, MachineError> {
        let words = vec![0; (len * size_of::<T>()).div_ceil(16)];
        Ok(Memory { words, len, of: std::marker::PhantomData })
    }
    fn upload<T: Number>(&self, values: &[T]) -> Result<Memory<T>, MachineError> {
        let mut memory = self.zeros(values.len())?;
        bytemuck::cast_slice_mut(&mut memory.words)[..values.len()].copy_from_slice(values);
        Ok(memory)
    }
    fn download<T: Number>(&self, buffer: &Memory<T>) -> Result<Vec<T>, MachineError> {
        Ok(bytemuck::cast_slice(&buffer.words)[..buffer.len].to_vec())
    }
    fn view<'a, T: Number>(&self, buffer: &'a Memory<T>) -> View<'a, T> {
        // SAFETY: the buffer is alive for 'a and has this length.
        unsafe { View::new(buffer.words.as_ptr() as u64, buffer.len) }
    }
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Memory<T>) -> ViewMut<'a, T> {
        // SAFETY: the buffer is borrowed for 'a by nobody else and has this length.
        unsafe { ViewMut::new(buffer.words.as_mut_ptr() as u64, buffer.len) }
    }

    unsafe fn launch(&self, mut launch: Launch) -> Result<(), MachineError> {
        type Kernel = unsafe extern "C" fn(*const u32, u32, u32, *mut *mut c_void);
        let name = format!("{}_launch", launch.kernel);
        // What every GPU has, and the most that one with compute capability 8.0 lends.
        assert!(launch.block.is_multiple_of(32) && launch.block <= 1024, "{name}: {} threads", launch.block);
        assert!(launch.shared_bytes <= 163 << 10, "{name}: {} bytes", launch.shared_bytes);
        assert!(launch.grid[1] <= 65_535 && launch.grid[2] <= 65_535, "{name}: {:?}", launch.grid);
        // SAFETY: EXPORT declares it so.
        let kernel = unsafe { self.library(launch.module).get::<Kernel>(&name) };
        let kernel = kernel.map_err(|_| MachineError::NoKernel(launch.kernel))?;
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter_mut().map(|word| (word as *mut u64).cast()).collect();
        // SAFETY: the caller's arguments are those of the kernel.
        unsafe { kernel(launch.grid.as_ptr(), launch.block, launch.shared_bytes, arguments.as_mut_ptr()) };
        Ok(())
    }
}
