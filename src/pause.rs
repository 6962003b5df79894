//! Pauses of the process: Ctrl-Z and `fg`, or a scheduler that sends SIGSTOP and SIGCONT. What
//! was measured across such a pause says nothing about speed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// True if the process went on after a pause since the last call. The first call begins to listen.
pub fn went_on() -> bool {
    static CONTINUED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let continued = CONTINUED.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        // Where no handler can be set, pauses count as time: speed is not worth an error.
        #[cfg(unix)]
        let _ = signal_hook::flag::register(signal_hook::consts::SIGCONT, flag.clone());
        flag
    });
    continued.swap(false, Ordering::Relaxed)
}
