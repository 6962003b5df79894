//! Phases of a training step, whose time a GPU takes.

/// A part of a step, in the order in which the fused encoders launch them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Copies of parameters that products read, where masters have changed otherwise than by an update.
    Copies,
    /// The image encoder; the images travel in it, unless they came ahead.
    Images,
    Texts,
    /// The loss with the gradients of all embeddings.
    Loss,
    TextsBack,
    ImagesBack,
    /// Of all gradients.
    Norm,
    Update,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Copies,
        Phase::Images,
        Phase::Texts,
        Phase::Loss,
        Phase::TextsBack,
        Phase::ImagesBack,
        Phase::Norm,
        Phase::Update,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Copies => "copies",
            Phase::Images => "images",
            Phase::Texts => "texts",
            Phase::Loss => "loss",
            Phase::TextsBack => "texts_back",
            Phase::ImagesBack => "images_back",
            Phase::Norm => "norm",
            Phase::Update => "update",
        }
    }
}
