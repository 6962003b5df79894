//! Copies beside what is launched: what the emulator stands for, which other tests rely on.

use flip::kernel::backend::Memory;
use flip::kernel::cuda::{Gpu, GpuError};
use flip::kernel::patches;

use crate::down;
use crate::emulator::Emulator;

/// Normalises what lies in `memory`.
fn used(gpu: &Emulator, memory: &<Emulator as Memory>::Buffer<f32>) -> Result<(), GpuError> {
    let mut to = gpu.zeros(8)?;
    patches::cuda::from_floats(gpu, gpu.view_mut(&mut to), gpu.view(memory))
}

fn panics(what: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_err()
}

#[test]
fn a_copy_arrives_when_it_is_waited_for_and_not_before() {
    let Ok(gpu) = Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let mut memory = gpu.upload(&[1.0f32; 8]).unwrap();
    let free = gpu.point().unwrap();
    let to = gpu.view_mut(&mut memory);
    // SAFETY: that nothing uses the memory before it is waited for is what is tested; it outlives the test.
    let arrived = unsafe { gpu.write_beside(to, &[2.0; 8], &free) }.unwrap();
    assert!(panics(|| used(&gpu, &memory).unwrap()), "used before it arrived");
    gpu.wait_for(&arrived).unwrap();
    used(&gpu, &memory).unwrap();
    assert_eq!(down(&gpu, &memory), [2.0; 8]);
}

#[test]
fn memory_that_may_be_in_use_is_not_overwritten() {
    let Ok(gpu) = Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let mut memory = gpu.zeros::<f32>(8).unwrap();
    let free = gpu.point().unwrap();
    used(&gpu, &memory).unwrap();
    let mut copy = |after| {
        let to = gpu.view_mut(&mut memory);
        // SAFETY: the emulator checks what this asks for.
        unsafe { gpu.write_beside(to, &[2.0; 8], &after) }.unwrap()
    };
    let too_early = panics(|| {
        copy(free);
    });
    assert!(too_early, "a kernel was launched after that point");
    let arrived = copy(gpu.point().unwrap());
    gpu.wait_for(&arrived).unwrap();
    assert_eq!(down(&gpu, &memory), [2.0; 8]);
}
