//! Reasons why no forecast can be made.

/// Reasons why no forecast can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum ClusterError {
    #[error("expected a device out of {known}, got {found:?}")]
    Device { found: String, known: String },
    #[error(
        "expected the speed of a link, such as 400Gb (bits a second) or 50GB (bytes a second), got {0:?}"
    )]
    Link(String),
    #[error("stages[{stage}].batch: {batch} pairs are not a whole number for each of {ranks} ranks")]
    Batch { stage: usize, batch: usize, ranks: usize },
}
