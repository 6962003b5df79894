//! One recipe in many variants: a grid of settings, each with several seeds, run one after the other into
//! ordinary run folders, and compared.
//!
//! | step | file |
//! |---|---|
//! | what is varied: a study, or `--set` with several values | [`study`] |
//! | every combination of the values, with a name | [`grid`] |
//! | a checked recipe and a folder for each of them and each seed | [`plan`] |
//! | the runs themselves: skipped, resumed, begun | [`running`] |
//!
//! What the runs leave is compared by [`crate::report::sweep`], from their folders alone.

pub mod grid;
pub mod plan;
pub mod running;
pub mod study;

pub use plan::{Cell, Plan};
pub use running::{report, run, Run};
pub use study::{schema_json, Study};
