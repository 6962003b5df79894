//! From a source to batches: samples are read, decoded and tokenized ahead of whoever takes the batches.

mod captions;
pub mod inspection;
mod limits;
mod loader;
mod prefetch;
mod prepare;
mod share;
mod skipped;

pub use captions::{first_captions, first_captions_within};
pub use limits::{ImageLimits, LimitsConfig};
pub use loader::{LabelFrom, Loader, Passes, Patches, Plan};
pub use share::Share;
pub use skipped::Skipped;
