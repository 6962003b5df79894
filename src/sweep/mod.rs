//! One recipe in many variants: a grid of settings, each with several seeds, run one after the other into
//! ordinary run folders, and compared.
//!
//! | step | file |
//! |---|---|
//! | what is varied: a study, or `--set` with several values | [`study`] |
//! | every combination of the values, with a name | [`grid`] |
//! | a checked recipe and a folder for each of them and each seed | [`plan`] |
//! | which of them are finished, begun, or of another recipe | [`status`] |
//! | the runs themselves: skipped, resumed, begun | [`running`] |
//! | what their folders hold in the end, for [`crate::report::sweep`] to compare | [`stored`] |

#![warn(missing_docs)]

mod error;
mod follow;
pub mod grid;
pub mod plan;
pub mod running;
pub mod status;
pub mod stored;
pub mod study;

pub use error::SweepError;
pub use plan::{Cell, SweepPlan};
pub use running::{run, SweepOutcome};
pub use status::{statuses, CellStatus};
pub use stored::report;
pub use study::{schema_json, Study};
