//! Stall timeouts: a warning when data makes no progress for a while, an error in the end, never a wait without end.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::storage::Progress;
use crate::data::DataError;

/// Longest time without progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallTimeout {
    /// After this a warning names what is waited for, and again after every such time.
    pub warning: Duration,
    /// After this the wait is an error.
    pub limit: Duration,
}

impl Default for StallTimeout {
    fn default() -> Self {
        StallTimeout { warning: Duration::from_secs(10), limit: Duration::from_secs(300) }
    }
}

/// Watches one wait for a source; progress of the source begins the wait anew.
pub struct StallWatch<'a> {
    timeout: StallTimeout,
    source: &'a str,
    what: &'a str,
    progress: Option<&'a Progress>,
    /// Steps of `progress` at the last check.
    steps: u64,
    since: Instant,
    warnings: u32,
}

impl<'a> StallWatch<'a> {
    /// Begins now to wait for `what` of the source of this name.
    pub fn start(
        timeout: StallTimeout,
        source: &'a str,
        what: &'a str,
        progress: Option<&'a Progress>,
    ) -> Self {
        let steps = progress.map_or(0, Progress::steps);
        StallWatch { timeout, source, what, progress, steps, since: Instant::now(), warnings: 0 }
    }

    /// Time to sleep before the next check.
    pub fn interval(&self) -> Duration {
        self.timeout.warning.min(self.timeout.limit) / 4
    }

    /// Warns where that is due.
    ///
    /// # Errors
    /// [`DataError::Stalled`]: the limit has passed without progress.
    pub fn check(&mut self) -> Result<(), DataError> {
        self.check_at(Instant::now())
    }

    fn check_at(&mut self, now: Instant) -> Result<(), DataError> {
        let steps = self.progress.map_or(0, Progress::steps);
        if steps != self.steps {
            (self.steps, self.since, self.warnings) = (steps, now, 0);
            return Ok(());
        }
        let waited = now.saturating_duration_since(self.since);
        if waited >= self.timeout.limit {
            return Err(DataError::Stalled {
                source_name: self.source.to_owned(),
                what: self.describe(),
                seconds: waited.as_secs_f64(),
            });
        }
        if waited >= self.timeout.warning * (self.warnings + 1) {
            self.warnings += 1;
            tracing::warn!(
                target: "flip::data",
                "{}: nothing from {} for {:.0} s; is the storage stalled? The run stops after {:.0} s",
                self.source,
                self.describe(),
                waited.as_secs_f64(),
                self.timeout.limit.as_secs_f64()
            );
        }
        Ok(())
    }

    fn describe(&self) -> String {
        match self.progress.and_then(Progress::oldest_read) {
            Some((file, _)) => format!("{file} ({})", self.what),
            None => self.what.to_owned(),
        }
    }
}

/// Runs `body` on a thread of its own, so that a file system that never answers cannot hold the caller.
///
/// # Errors
/// It took too long without progress ([`DataError::Stalled`]; its thread is left behind), or it panicked.
pub fn with_stall_timeout<T: Send + 'static>(
    timeout: StallTimeout,
    source: &str,
    what: &str,
    progress: Option<Arc<Progress>>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DataError> {
    let (done, result) = channel();
    let thread = std::thread::Builder::new().name("flip-source".into());
    let spawned = thread.spawn(move || {
        // Where nobody waits any more, nobody needs the result.
        let _ = done.send(body());
    });
    spawned.map_err(|error| DataError::Invalid(format!("cannot start a thread: {error}")))?;
    let mut watch = StallWatch::start(timeout, source, what, progress.as_deref());
    loop {
        match result.recv_timeout(watch.interval()) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => watch.check()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(DataError::Invalid(format!("{source}: {what} panicked; see the message above")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: StallTimeout =
        StallTimeout { warning: Duration::from_millis(50), limit: Duration::from_millis(400) };

    #[test]
    fn a_wait_without_progress_is_an_error_that_names_the_file() {
        let progress = Arc::new(Progress::default());
        let _reading = progress.reading("/nfs/00003.tar".into());
        let (_release, released) = channel::<()>();
        let body = move || released.recv();
        let error = with_stall_timeout(SHORT, "/nfs/*.tar", "reading headers", Some(progress.clone()), body)
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("/nfs/*.tar: nothing from /nfs/00003.tar (reading headers) for "),
            "{message}"
        );
    }

    #[test]
    fn progress_begins_the_wait_anew() {
        let progress = Progress::default();
        let mut watch = StallWatch::start(SHORT, "source", "counting", Some(&progress));
        let start = watch.since;
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(watch.check_at(at(399)).is_ok());
        progress.advance();
        assert!(watch.check_at(at(700)).is_ok());
        assert!(watch.check_at(at(1099)).is_ok());
        let error = watch.check_at(at(1100)).unwrap_err().to_string();
        assert!(error.contains("nothing from counting for 0.4 s"), "{error}");
    }

    #[test]
    fn a_result_comes_back_and_a_panic_is_an_error() {
        let long = StallTimeout::default();
        assert_eq!(with_stall_timeout(long, "source", "counting", None, || 7).unwrap(), 7);
        let panicked =
            with_stall_timeout(long, "source", "counting", None, || -> u8 { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("counting panicked"));
    }
}
