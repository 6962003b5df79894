//! Samples that were left out, counted by reason.

use std::collections::BTreeMap;
use std::fmt;

use crate::data::source::filter::CHOSEN;
use crate::data::Skip;

use crate::outside;

/// Skips that are kept with their names, and logged one by one.
const NAMED: u64 = 10;
/// Of later ones, one in this many is logged.
const LOGGED_EVERY: u64 = 1000;

/// Samples that were left out: counts by reason, and the first few by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Number of samples by reason.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first few samples, by name.
    pub first: Vec<Skip>,
}

impl Skipped {
    /// Number of samples left out.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Those that were broken, not filtered out.
    pub fn broken(&self) -> u64 {
        let broken = self.counts.iter().filter(|(reason, _)| !reason.starts_with(CHOSEN));
        broken.map(|(_, count)| count).sum()
    }

    /// Counts a sample.
    pub fn add(&mut self, skip: Skip) {
        *self.counts.entry(skip.reason).or_default() += 1;
        if (self.first.len() as u64) < NAMED {
            self.first.push(skip);
        }
    }

    /// Counts what came after.
    pub fn merge(&mut self, later: Skipped) {
        for (reason, count) in later.counts {
            *self.counts.entry(reason).or_default() += count;
        }
        let room = (NAMED as usize).saturating_sub(self.first.len());
        self.first.extend(later.first.into_iter().take(room));
    }

    /// Counts a sample, the `number`th broken one of its loader, and logs it where it is one of the first or the
    /// next in a thousand.
    pub(crate) fn add_and_log(&mut self, skip: Skip, number: u64) {
        let Skip { reason, sample, detail } = &skip;
        let (sample, detail) = (outside::shown(sample), outside::shown(detail));
        if reason.starts_with(CHOSEN) {
            tracing::debug!(target: "flip::data", number, reason, "left out {sample}: {detail}");
        } else if number <= NAMED || number.is_multiple_of(LOGGED_EVERY) {
            tracing::warn!(target: "flip::data", number, reason, "skipped {sample}: {detail}");
        }
        self.add(skip);
    }
}

impl fmt::Display for Skipped {
    /// `3 image_decode, 1 caption_missing; first: a.tar: 0001: not an image`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.is_empty() {
            return f.write_str("it has no samples");
        }
        for (i, (reason, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{count} {reason}", if i == 0 { "" } else { ", " })?;
        }
        match self.first.first() {
            Some(first) => {
                write!(f, "; first: {}: {}", outside::shown(&first.sample), outside::shown(&first.detail))
            }
            None => Ok(()),
        }
    }
}
