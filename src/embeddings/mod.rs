//! Files of embeddings: rows of numbers with a name each, that go on growing after a kill.

#![warn(missing_docs)]

mod error;
mod format;
mod growing;
mod parquet;

pub use error::EmbeddingsError;
pub use format::Format;
pub use growing::{Opened, Output, Subject};
