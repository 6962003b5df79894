//! Compiles the CUDA sources beside the launchers, where the feature `cuda` is on. Nothing is done otherwise.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Machine code for A100 and H100 and their relatives; PTX for what comes after.
const TARGETS: [&str; 3] =
    ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"];

fn main() {
    println!("cargo:rerun-if-changed=src/kernel/cuda/build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-changed=src/kernel/cuda/prelude.cuh");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder for build scripts"));
    let mut sources = Vec::new();
    find(Path::new("src/kernel"), &mut sources);
    sources.sort();
    let compilers: Vec<_> = sources
        .iter()
        .map(|source| {
            println!("cargo:rerun-if-changed={}", source.display());
            let to = out.join(source.file_stem().expect("a source has a name")).with_extension("fatbin");
            let mut nvcc = Command::new("nvcc");
            nvcc.args(["--fatbin", "-std=c++17", "-O3", "-I", "src/kernel/cuda"]);
            nvcc.args(TARGETS.iter().flat_map(|target| ["-gencode", target])).arg("-o").arg(&to).arg(source);
            let child = nvcc.spawn().unwrap_or_else(|error| {
                panic!("nvcc cannot be started ({error}); install CUDA or see src/guide/gpu.md")
            });
            (source, to, child)
        })
        .collect();
    let mut table = String::from("&[\n");
    for (source, to, mut child) in compilers {
        let status = child.wait().expect("a compiler that was started ends");
        assert!(status.success(), "nvcc could not compile {}: see above", source.display());
        let name = source.file_stem().and_then(|name| name.to_str()).expect("names of sources are ASCII");
        writeln!(table, "    ({name:?}, include_bytes!({to:?})),").expect("a string takes what is written");
    }
    table.push_str("]\n");
    std::fs::write(out.join("kernels.rs"), table).expect("cargo's folder for build scripts can be written");
}

fn find(folder: &Path, sources: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            find(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            sources.push(path);
        }
    }
}
