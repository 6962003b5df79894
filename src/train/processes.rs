//! The processes of a run, as this one sees them.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::Progress;
use crate::ranks::Ranks;

use super::error::{ExchangeError, TrainError};

/// This process among those of the run.
#[derive(Debug, Clone, Copy)]
pub struct Processes<'a> {
    /// All of them.
    pub ranks: &'a dyn Ranks,
    /// Ranks on this machine, this one included.
    pub neighbours: usize,
    /// Progress bars of this process.
    pub progress: &'a Progress,
    /// Set by the signals that end a run.
    pub interrupt: &'a AtomicBool,
}

/// First byte of the message of each rank before a step.
const READY: u8 = 0;
const INTERRUPTED: u8 = 1;
const FAILED: u8 = 2;

impl Processes<'_> {
    /// True once a signal asked this process to end.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// True if this is the only process.
    pub fn alone(&self) -> bool {
        self.ranks.count() == 1
    }

    /// Tells the other ranks that this one can go on or, with `failure`, why it cannot, and learns the same of them:
    /// `Ok(true)` where a rank was interrupted.
    ///
    /// # Errors
    /// Another rank cannot go on.
    pub fn agree(&self, failure: Option<&str>) -> Result<bool, TrainError> {
        if self.alone() {
            return Ok(self.interrupted());
        }
        self.ranks.mark();
        let own = match failure {
            Some(reason) => [&[FAILED], reason.as_bytes()].concat(),
            None if self.interrupted() => vec![INTERRUPTED],
            None => vec![READY],
        };
        let all = self.ranks.gather(&own)?;
        let failed = all.iter().enumerate().find(|(_, message)| message.first() == Some(&FAILED));
        if let (Some((rank, message)), None) = (failed, failure) {
            let reason = String::from_utf8_lossy(&message[1..]).into_owned();
            return Err(ExchangeError::OtherRank { rank, reason }.into());
        }
        Ok(all.iter().any(|message| message.first() == Some(&INTERRUPTED)))
    }
}
