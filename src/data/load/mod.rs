//! From a source to batches: samples are read, decoded and tokenized ahead of whoever takes the batches.

mod batch;
mod captions;
mod collate;
pub mod inspection;
mod limits;
mod loader;
mod options;
mod prefetch;
mod prepare;
mod queue;
mod share;
mod skipped;
mod walk;

pub use batch::Batch;
pub use captions::{first_captions, first_captions_within};
pub use limits::LimitsConfig;
pub use loader::Loader;
pub use options::{LabelFrom, LoaderOptions, Passes, Patches};
pub use share::Share;
pub use skipped::Skipped;
