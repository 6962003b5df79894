//! The similarity of two embeddings, and the best of many: for whoever ranks.

pub(crate) use super::examples::Best;
pub(crate) use super::similarity::dot;
