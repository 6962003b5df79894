//! The surroundings of a run.

use std::sync::atomic::AtomicBool;

use crate::log::Progress;
use crate::ranks::{Member, Ranks};
use crate::record::RunFolder;

/// The surroundings of a run: its processes, its folder, and the means to watch and to interrupt it.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The processes of the run, of which this is one.
    pub ranks: &'a dyn Ranks,
    /// Description of each of them, in order.
    pub members: &'a [Member],
    /// The run folder; `None` on other ranks than 0.
    pub folder: Option<&'a RunFolder>,
    /// Progress bars.
    pub progress: &'a Progress,
    /// Set by the signals that end a run.
    pub interrupt: &'a AtomicBool,
}

impl Environment<'_> {
    /// This process among the members.
    pub(super) fn here(&self) -> &Member {
        &self.members[self.ranks.rank()]
    }
}
