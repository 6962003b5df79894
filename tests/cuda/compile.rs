//! What ptxas says about the kernels.

use std::process::Command;

use crate::emulator::{source, sources};

/// Compute capabilities that machine code is made for.
const TARGETS: [&str; 2] = ["sm_80", "sm_90"];

/// Every source compiles, and no kernel keeps registers in memory.
#[test]
fn no_kernel_spills() {
    if let Err(error) = Command::new("nvcc").arg("--version").output() {
        println!("skipped: no CUDA compiler (nvcc: {error})");
        return;
    }
    let to = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut kernels = 0;
    for module in flip::kernel::cuda::MODULES {
        for target in TARGETS {
            let mut nvcc = Command::new("nvcc");
            nvcc.args([
                "-cubin",
                "-std=c++17",
                "-O3",
                "-Xptxas",
                "-v",
                "-Werror",
                "all-warnings",
                "-arch",
                target,
            ]);
            nvcc.arg("-I")
                .arg(sources().join("cuda"))
                .arg("-o")
                .arg(to.join(format!("{module}-{target}.cubin")));
            let done = nvcc.arg(source(module)).output().unwrap();
            let report = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{module} for {target}:\n{report}");
            kernels += check(module, target, &report);
        }
    }
    println!("{kernels} kernels, none of which spills");
}

/// The number of kernels in a report, none of which may spill.
fn check(module: &str, target: &str, report: &str) -> usize {
    let mut kernel = "";
    let mut told = 0;
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap();
        }
        if line.contains("spill stores") {
            told += 1;
            let spills = !line.contains(" 0 bytes spill stores, 0 bytes spill loads");
            assert!(!spills, "{module}: {kernel} for {target}: {}", line.trim());
        }
    }
    assert!(told > 0, "{module} for {target}: no word about spills in\n{report}");
    told
}

#[test]
fn a_spill_is_seen() {
    let report = "ptxas info    : Compiling entry function 'a' for 'sm_80'\n    8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n";
    assert!(std::panic::catch_unwind(|| check("module", "sm_80", report)).is_err());
    assert_eq!(check("module", "sm_80", &report.replace('8', "0")), 1);
}

/// The list of modules is that of the sources.
#[test]
fn every_source_is_listed() {
    let mut found: Vec<String> = std::fs::read_dir(sources())
        .unwrap()
        .filter_map(|entry| {
            let folder = entry.unwrap().path();
            let name = folder.file_name()?.to_str()?.to_owned();
            source(&name).is_file().then_some(name)
        })
        .collect();
    found.sort();
    assert_eq!(found, flip::kernel::cuda::MODULES);
}
