//! The tokenizer of an imported model, as the model was trained with it.

use std::path::Path;

use super::error::ExchangeError;
use super::format::Format;
use super::options::read_object;
use super::Imported;
use crate::data::text::{Preparation, Tokenizer, TokenizerConfig};

impl Imported {
    /// Opens the tokenizer, where there is one, as the tool that trained the model reads captions, as far as the checkpoint
    /// tells; where ids may differ from those of the tool, a note is added.
    ///
    /// # Errors
    /// Its files are broken, or it has more tokens than the model.
    pub fn open_tokenizer(&mut self) -> Result<Option<Tokenizer>, ExchangeError> {
        let Some(config) = &self.tokenizer else { return Ok(None) };
        let mut tokenizer = Tokenizer::open(config)?;
        if !self.built_in_tokenizer {
            let pad = match config {
                TokenizerConfig::Json(path) => told_padding(path),
                _ => None,
            };
            tokenizer = tokenizer.prepared(&Preparation { pad, ..self.text.clone() })?;
        }
        self.notes.extend(self.as_trained_with(&mut tokenizer));
        let (tokens, expected) = (tokenizer.vocab_size(), self.config.text.vocab_size);
        match tokens > expected {
            true => Err(ExchangeError::OtherTokenizer { tokens, expected }),
            false => Ok(Some(tokenizer)),
        }
    }

    fn as_trained_with(&self, tokenizer: &mut Tokenizer) -> Option<String> {
        let note = match self.format {
            Format::OpenClip if self.built_in_tokenizer => match tokenizer.as_open_clips() {
                Some(cleaning) => {
                    *tokenizer = cleaning;
                    return None;
                }
                None => {
                    "open_clip would read captions with its built-in tokenizer, which this one is not: compare ids before \
                     trusting results"
                }
            },
            Format::OpenClip if self.text.canonicalize => {
                "open_clip repairs captions before this tokenizer (ftfy.fix_text, html.unescape twice); here punctuation is \
                 left out and letters are small, as there, but mojibake and character references are not repaired"
            }
            Format::OpenClip => {
                "open_clip cleans captions before this tokenizer (ftfy.fix_text, html.unescape twice, white space); here \
                 they are not cleaned: those with curly quotes, character references or mojibake get other ids"
            }
            Format::Transformers if !tokenizer.is_open_clips() && tokenizer.as_open_clips().is_some() => {
                "captions are read as by transformers' CLIPTokenizer, without ftfy and character references; OpenAI and \
                 open_clip trained with both: --tokenizer bpe_simple_vocab_16e6.txt.gz reads them so"
            }
            _ => return None,
        };
        Some(note.into())
    }
}

/// The padding token that `tokenizer_config.json` names beside a tokenizer.json which names none.
fn told_padding(tokenizer: &Path) -> Option<String> {
    let names_padding = read_object(tokenizer).ok()?.get("padding").is_some_and(|padding| !padding.is_null());
    let about = read_object(&tokenizer.parent()?.join("tokenizer_config.json")).ok()?;
    let token = about.get("pad_token").filter(|_| !names_padding)?;
    let content = token.as_str().or_else(|| token.get("content")?.as_str())?;
    Some(content.to_owned())
}
