//! The processes of a run, as this one sees them.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::Progress;
use crate::ranks::{Member, Ranks};

use super::error::{ExchangeError, TrainError};
use super::rank_reports::RankReport;

/// This process among those of the run.
#[derive(Debug, Clone, Copy)]
pub struct Processes<'a> {
    /// All of them.
    pub ranks: &'a dyn Ranks,
    /// Description of each of them, in order.
    pub members: &'a [Member],
    /// Cores that this one may use beside the others of its machine.
    pub cores: usize,
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

    /// Tells the other ranks that this one can go on, with its report, or, with `failure`, why it cannot, and learns the
    /// same of them.
    ///
    /// # Errors
    /// Another rank cannot go on.
    pub fn agree(&self, failure: Option<&str>, report: &RankReport) -> Result<Agreement, TrainError> {
        if self.alone() {
            return Ok(Agreement { interrupted: self.interrupted(), reports: Vec::new() });
        }
        self.ranks.mark();
        let told = |kind: u8| -> Result<Vec<u8>, TrainError> {
            Ok([vec![kind], serde_json::to_vec(report).map_err(TrainError::message)?].concat())
        };
        let own = match failure {
            Some(reason) => [&[FAILED], reason.as_bytes()].concat(),
            None if self.interrupted() => told(INTERRUPTED)?,
            None => told(READY)?,
        };
        let all = self.ranks.gather(&own)?;
        let failed = all.iter().enumerate().find(|(_, message)| message.first() == Some(&FAILED));
        if let (Some((rank, message)), None) = (failed, failure) {
            let reason = String::from_utf8_lossy(&message[1..]).into_owned();
            return Err(ExchangeError::OtherRank { rank, reason }.into());
        }
        let interrupted = all.iter().any(|message| message.first() == Some(&INTERRUPTED));
        let reports = match self.ranks.rank() {
            // A rank that failed has none.
            0 => all.iter().map(|told| serde_json::from_slice(&told[1..]).unwrap_or_default()).collect(),
            _ => Vec::new(),
        };
        Ok(Agreement { interrupted, reports })
    }
}

/// What the ranks agreed on before a step.
#[derive(Debug)]
pub struct Agreement {
    /// A rank was interrupted.
    pub interrupted: bool,
    /// Report of each rank on the step before, on rank 0; none on the others, and where there is only one.
    pub reports: Vec<RankReport>,
}
