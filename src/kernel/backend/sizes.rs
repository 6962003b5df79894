//! Sizes of parameters and of the memory of a pass.

/// The form in which kernels read a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Products multiply by it.
    Weight,
    /// It is added to values of the element type, or a row of it becomes a token: rounded where a backend keeps a copy.
    Rounded,
    /// It meets the residual stream: the master itself.
    Master,
}

/// The size of a parameter, a vector being one row, and how kernels read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
    pub read: Read,
}

/// Sizes of a backward pass that its scratch memory depends on.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    pub rows: usize,
    /// Of a token.
    pub width: usize,
    /// Of the widest activation.
    pub widest: usize,
    /// Values of attention's statistics.
    pub statistics: usize,
}

/// Choices of a backend that decide how much memory a pass takes.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Attention's output is kept for the backward pass, which else computes it anew.
    pub keeps_attention: bool,
    /// The norm before a pooled token is computed of that token alone.
    pub norms_pooled_alone: bool,
    /// Values of the scratch memory of a backward pass.
    pub scratch: fn(Widths) -> usize,
    /// Values of the scratch memory of [`Backend::scatter_add`](super::Backend::scatter_add) of so many rows.
    pub scatter: fn(usize) -> usize,
}
