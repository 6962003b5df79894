//! How long data may take: a warning after a while, an error in the end, never a wait without end.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::storage::Pulse;
use crate::data::DataError;

/// How long to wait for something that makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After this a warning names what is waited for, and again after every such time.
    pub warning: Duration,
    /// After this the wait is an error.
    pub limit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { warning: Duration::from_secs(10), limit: Duration::from_secs(300) }
    }
}

/// One wait, from now on.
pub struct Wait<'a> {
    patience: Patience,
    source: &'a str,
    what: &'a str,
    pulse: Option<&'a Pulse>,
    beats: u64,
    since: Instant,
    warned: u32,
}

impl<'a> Wait<'a> {
    /// A wait for `what` of the source of this name.
    pub fn begin(patience: Patience, source: &'a str, what: &'a str, pulse: Option<&'a Pulse>) -> Self {
        let beats = pulse.map_or(0, Pulse::beats);
        Wait { patience, source, what, pulse, beats, since: Instant::now(), warned: 0 }
    }

    /// How long to sleep before the next look.
    pub fn step(&self) -> Duration {
        self.patience.warning.min(self.patience.limit) / 4
    }

    /// Warns where that is due. Progress of the source begins the wait anew.
    ///
    /// # Errors
    /// The limit has passed.
    pub fn look(&mut self) -> Result<(), DataError> {
        let beats = self.pulse.map_or(0, Pulse::beats);
        if beats != self.beats {
            (self.beats, self.since, self.warned) = (beats, Instant::now(), 0);
            return Ok(());
        }
        let waited = self.since.elapsed();
        if waited >= self.patience.limit {
            return Err(DataError::Stalled {
                source_name: self.source.to_owned(),
                what: self.named(),
                seconds: waited.as_secs_f64(),
            });
        }
        if waited >= self.patience.warning * (self.warned + 1) {
            self.warned += 1;
            tracing::warn!(
                target: "flip::data",
                "{}: nothing from {} for {:.0} s; is the storage stalled? The run stops after {:.0} s",
                self.source,
                self.named(),
                waited.as_secs_f64(),
                self.patience.limit.as_secs_f64()
            );
        }
        Ok(())
    }

    fn named(&self) -> String {
        match self.pulse.and_then(Pulse::oldest) {
            Some((file, _)) => format!("{file} ({})", self.what),
            None => self.what.to_owned(),
        }
    }
}

/// Runs `body` on a thread of its own, so that a file system that never answers cannot hold the caller.
///
/// # Errors
/// It took too long without progress; its thread is left behind. Or it panicked.
pub fn patiently<T: Send + 'static>(
    patience: Patience,
    source: &str,
    what: &str,
    pulse: Option<Arc<Pulse>>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DataError> {
    let (done, result) = channel();
    let thread = std::thread::Builder::new().name("flip-source".into());
    let spawned = thread.spawn(move || {
        // Where nobody waits any more, nobody needs the result.
        let _ = done.send(body());
    });
    spawned.map_err(|error| DataError::Invalid(format!("cannot start a thread: {error}")))?;
    let mut wait = Wait::begin(patience, source, what, pulse.as_deref());
    loop {
        match result.recv_timeout(wait.step()) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => wait.look()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(DataError::Invalid(format!("{source}: {what} panicked; see the message above")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Patience {
        Patience { warning: Duration::from_millis(50), limit: Duration::from_millis(400) }
    }

    #[test]
    fn a_wait_without_progress_is_an_error_that_names_the_file() {
        let pulse = Arc::new(Pulse::default());
        let _reading = pulse.reading("/nfs/00003.tar".into());
        let sleep = || std::thread::sleep(Duration::from_secs(2));
        let error =
            patiently(short(), "/nfs/*.tar", "reading headers", Some(pulse.clone()), sleep).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("/nfs/*.tar: nothing from /nfs/00003.tar (reading headers) for "),
            "{message}"
        );
    }

    #[test]
    fn progress_begins_the_wait_anew() {
        let pulse = Arc::new(Pulse::default());
        let beating = pulse.clone();
        let result = patiently(short(), "source", "counting", Some(pulse), move || {
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(100));
                beating.beat();
            }
            7
        });
        assert_eq!(result.unwrap(), 7);
        let panicked = patiently(short(), "source", "counting", None, || -> u8 { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("counting panicked"));
    }
}
