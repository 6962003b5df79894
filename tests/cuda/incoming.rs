//! Copies beside what is launched: what the emulator stands for, which other tests rely on.

use flip::kernel::cuda::{Machine, MachineError};
use flip::kernel::patches;

use crate::down;
use crate::emulator::Emulator;

/// Normalises what lies in `memory`.
fn used(machine: &Emulator, memory: &<Emulator as Machine>::Buffer<f32>) -> Result<(), MachineError> {
    let mut to = machine.zeros(8)?;
    patches::cuda::from_floats(machine, machine.view_mut(&mut to), machine.view(memory))
}

fn panics(what: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_err()
}

#[test]
fn a_copy_arrives_when_it_is_waited_for_and_not_before() {
    let Ok(machine) = Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let mut memory = machine.upload(&[1.0f32; 8]).unwrap();
    let free = machine.point().unwrap();
    let to = machine.view_mut(&mut memory);
    // SAFETY: that nothing uses the memory before it is waited for is what is tested; it outlives the test.
    let arrived = unsafe { machine.write_beside(to, &[2.0; 8], &free) }.unwrap();
    assert!(panics(|| used(&machine, &memory).unwrap()), "used before it arrived");
    machine.wait_for(&arrived).unwrap();
    used(&machine, &memory).unwrap();
    assert_eq!(down(&machine, &memory), [2.0; 8]);
}

#[test]
fn memory_that_may_be_in_use_is_not_overwritten() {
    let Ok(machine) = Emulator::counting() else { return println!("skipped: no C++ compiler") };
    let mut memory = machine.zeros::<f32>(8).unwrap();
    let free = machine.point().unwrap();
    used(&machine, &memory).unwrap();
    let mut copy = |after| {
        let to = machine.view_mut(&mut memory);
        // SAFETY: the emulator checks what this asks for.
        unsafe { machine.write_beside(to, &[2.0; 8], &after) }.unwrap()
    };
    let too_early = panics(|| {
        copy(free);
    });
    assert!(too_early, "a kernel was launched after that point");
    let arrived = copy(machine.point().unwrap());
    machine.wait_for(&arrived).unwrap();
    assert_eq!(down(&machine, &memory), [2.0; 8]);
}
