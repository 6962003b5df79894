//! The signals that end a run with a checkpoint.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::Failure;

/// The flag that signals raise: Ctrl-C, what a scheduler sends before it ends a job (SIGTERM, SIGUSR1), and a terminal that
/// goes away (SIGHUP). A second Ctrl-C or a second SIGTERM ends the process at once, as people expect; where SIGHUP is
/// ignored from the start, as `nohup` has it, it stays so.
pub(super) fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let before = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(signal, 130, before.clone())?;
        signal_hook::flag::register(signal, before)?;
        signal_hook::flag::register(signal, interrupt.clone())?;
    }
    for signal in [SIGHUP, SIGUSR1] {
        if signal != SIGHUP || !is_ignored(signal) {
            signal_hook::flag::register(signal, interrupt.clone())?;
        }
    }
    Ok(interrupt)
}

/// True if the process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one to the place it is given, which has room for it;
    // zeros are a valid one should it fail.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
