//! Recognition of a machine with more runnable threads than cores, in two ways. A helper that is descheduled in the middle of
//! a piece, often for milliseconds, shows as a wait much longer than a piece takes: pieces are taken one at a time, so on
//! cores of their own the caller waits for a part of one piece at most. Helpers that are slowed down a little in every call
//! show as calls that take as long as the caller alone would have, by a running mean.

use std::time::Duration;

/// A caller's experience of its helpers.
#[derive(Debug, Default)]
pub(super) struct Crowding {
    /// Calls to come in which the caller works alone.
    alone: u32,
    /// Calls to work alone after the next late helper; 0 while none was late.
    penalty: u32,
    /// Calls since then in which no helper was late.
    good: u32,
    /// Time of calls as a share of what the caller alone would have taken, a running mean; [`ALONE`] and more is no gain.
    share: f64,
}

/// Share of the time alone at which helpers bring nothing.
const ALONE: f64 = 0.9;
/// Weight of a call in the running mean.
const WEIGHT: f64 = 0.125;

/// Waits shorter than this say nothing: an interrupt takes as long.
const SHORT: Duration = Duration::from_micros(100);
/// A wait of more pieces than this means that a helper was descheduled.
const LATE_PIECES: u32 = 3;
/// Calls alone after the first late helper, doubled with each that follows, up to the largest number: about one in
/// [`LARGEST`] calls then finds out whether the cores are free again.
const FIRST: u32 = 4;
const LARGEST: u32 = 256;
/// Good calls after which the past is forgotten.
const FORGET: u32 = 32;

impl Crowding {
    /// True if the coming call is for the caller alone.
    pub fn is_alone(&mut self) -> bool {
        let alone = self.alone > 0;
        self.alone = self.alone.saturating_sub(1);
        alone
    }

    /// True while helpers were late lately.
    pub fn is_crowded(&self) -> bool {
        self.penalty > 0
    }

    /// Notes a call with helpers: the caller did `pieces` of `all` pieces in `working`, then was `waiting`.
    pub fn note(&mut self, (pieces, all): (usize, usize), working: Duration, waiting: Duration) {
        let piece = working / (pieces.max(1) as u32);
        let alone = piece.as_secs_f64() * all as f64;
        let share = if alone > 0.0 { (working + waiting).as_secs_f64() / alone } else { 0.0 };
        self.share += WEIGHT * (share.min(2.0) - self.share);
        if waiting > SHORT + piece * LATE_PIECES || self.share > ALONE {
            self.share = ALONE - WEIGHT;
            self.penalty = (self.penalty * 2).clamp(FIRST, LARGEST);
            self.alone = self.penalty;
            self.good = 0;
        } else if self.penalty > 0 {
            self.good += 1;
            if self.good >= FORGET {
                *self = Crowding::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_micros(50);
    const LATE: Duration = Duration::from_millis(3);

    #[test]
    fn late_helpers_are_left_out_ever_longer_and_asked_again() {
        let mut crowding = Crowding::default();
        let mut calls_with_helpers = 0;
        for _ in 0..10_000 {
            if !crowding.is_alone() {
                calls_with_helpers += 1;
                crowding.note((8, 16), PIECE * 8, LATE);
            }
        }
        assert!((10_000 / LARGEST..100).contains(&calls_with_helpers), "{calls_with_helpers}");
        assert!(crowding.is_crowded());
    }

    #[test]
    fn free_cores_are_found_again() {
        let mut crowding = Crowding::default();
        (0..1_000).filter(|_| !crowding.is_alone()).count();
        for _ in 0..20 {
            while crowding.is_alone() {}
            crowding.note((8, 16), PIECE * 8, LATE);
        }
        while crowding.is_alone() {}
        for _ in 0..FORGET {
            assert!(!crowding.is_alone());
            crowding.note((8, 16), PIECE * 8, PIECE);
        }
        assert!(!crowding.is_crowded() && !crowding.is_alone());
    }

    #[test]
    fn helpers_that_bring_nothing_are_left_out_though_none_is_late() {
        let mut crowding = Crowding::default();
        let calls = (1..).find(|_| {
            // Two pieces, one each, of which the helper's takes nearly twice as long.
            crowding.note((1, 2), Duration::from_millis(1), Duration::from_micros(950));
            crowding.is_crowded()
        });
        assert!(calls.is_some_and(|calls| (2..50).contains(&calls)), "{calls:?}");
        assert!(crowding.is_alone());
    }

    #[test]
    fn a_wait_for_the_last_piece_is_no_sign() {
        let mut crowding = Crowding::default();
        for _ in 0..1_000 {
            // One piece of a millisecond each: the caller waits for a part of the other's.
            crowding.note((1, 2), Duration::from_millis(1), Duration::from_micros(600));
            assert!(!crowding.is_alone() && !crowding.is_crowded());
        }
    }
}
