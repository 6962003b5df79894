//! Text: files of it, captions, and captions as token ids.

pub mod caption;
mod cleaning;
mod clip_bpe;
pub mod json;
mod preparation;
pub mod text_file;
mod tokenizer;
mod tokenizer_file;
mod wordpiece;

pub use caption::{CaptionMember, CaptionUse};
pub use preparation::Preparation;
pub use tokenizer::{Tokenizer, TokenizerConfig, TrainTokenizerConfig};
