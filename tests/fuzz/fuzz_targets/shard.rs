#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../target.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| {
    static SCRATCH: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let scratch = SCRATCH.get_or_init(|| tempfile::NamedTempFile::new().expect("a scratch file"));
    target::run(scratch.path(), bytes);
});
