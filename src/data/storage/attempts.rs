//! Attempts at what the machine or the network refuses, before its failure ends the run.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use crate::data::storage::StorageError;

/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Attempts at reading a file that the machine refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// At most so many one after the other.
    pub most: u64,
    /// At most so long after the first.
    pub within: Duration,
}

impl Attempts {
    /// Makes an attempt, and again after growing pauses as long as the machine refuses it; each refusal is a warning.
    ///
    /// # Errors
    /// The last refusal, with the number of attempts. What is no refusal of the machine is not tried again.
    pub fn make<T>(self, mut attempt: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let (location, source) = match attempt() {
                Err(StorageError::Io { location, source }) if !is_final(&source) => (location, source),
                done => return done,
            };
            failures += 1;
            let pause = pause(failures);
            if failures >= self.most || began.elapsed() + pause >= self.within {
                return Err(StorageError::Io { location, source: given_up(&source, failures) });
            }
            tracing::warn!(
                target: "flip::data",
                "{location}: {source}; attempt {failures} of {}, the next in {:.1} s", self.most, pause.as_secs_f64()
            );
            std::thread::sleep(pause);
        }
    }
}

/// The last of several failures, with advice.
fn given_up(error: &io::Error, attempts: u64) -> io::Error {
    let help = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or name another folder"
        }
        io::ErrorKind::PermissionDenied => "; may this user read it?",
        io::ErrorKind::NotFound => "; has it been moved or deleted, or is a disk not mounted?",
        _ => match error.raw_os_error() {
            Some(libc::EMFILE) => {
                "; raise the number of files that a process may open (`ulimit -n`), or shuffle fewer shards"
            }
            _ => "",
        },
    };
    let times = if attempts == 1 { "one attempt".into() } else { format!("{attempts} attempts") };
    fixed(
        error.kind(),
        format!(
            "{error}; given up after {times} (data.storage.attempts, data.storage.stall_limit_s): the machine \
             failed, not the data{help}"
        ),
    )
}

/// An error that another attempt cannot mend.
pub(crate) fn fixed(kind: io::ErrorKind, what: impl Display) -> io::Error {
    io::Error::new(kind, Final(what.to_string()))
}

fn is_final(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Final>())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Final(String);

/// Doubles with every failure; processes that failed together do not come back together.
pub(crate) fn pause(failures: u64) -> Duration {
    let doubled = PAUSE * (1u32 << failures.saturating_sub(1).min(16));
    let spread = f64::from(std::process::id() % 64) / 64.0;
    doubled.min(LONGEST_PAUSE).mul_f64(0.75 + spread / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::storage::Location;

    const FEW: Attempts = Attempts { most: 3, within: Duration::from_secs(60) };

    fn refused(number: i32) -> StorageError {
        StorageError::Io {
            location: Location::File("a.tar".into()),
            source: io::Error::from_raw_os_error(number),
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!(pause(1) < pause(3) && pause(3) < pause(6));
        assert!(pause(40) <= LONGEST_PAUSE.mul_f64(1.25));
    }

    #[test]
    fn what_the_machine_refuses_is_tried_again_and_then_told_with_its_cause() {
        let mut left = 2;
        let made = FEW.make(|| {
            left -= 1;
            if left > 0 {
                Err(refused(libc::EIO))
            } else {
                Ok(7)
            }
        });
        assert_eq!(made.unwrap(), 7);
        let mut made = 0;
        let error = FEW.make::<()>(|| {
            made += 1;
            Err(refused(libc::EMFILE))
        });
        let message = error.unwrap_err().to_string();
        assert_eq!(made, 3);
        assert!(
            message.starts_with("a.tar: Too many open files (os error 24); given up after 3 attempts"),
            "{message}"
        );
        assert!(message.contains("`ulimit -n`"), "{message}");
    }

    #[test]
    fn time_ends_attempts_too_and_what_cannot_change_is_asked_once() {
        let mut made = 0;
        let short = Attempts { most: 1000, within: Duration::from_millis(1) };
        assert!(short
            .make::<()>(|| {
                made += 1;
                Err(refused(libc::ESTALE))
            })
            .is_err());
        assert_eq!(made, 1);
        let mut made = 0;
        let error = FEW.make::<()>(|| {
            made += 1;
            let location = Location::File("a.tar".into());
            Err(StorageError::Io {
                location,
                source: fixed(io::ErrorKind::InvalidInput, "not a regular file"),
            })
        });
        assert_eq!((made, error.unwrap_err().to_string().as_str()), (1, "a.tar: not a regular file"));
    }
}
