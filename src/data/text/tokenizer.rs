//! Captions to token ids.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::{NormalizerWrapper, PaddingParams};

use crate::data::text::clip_bpe::Piece;
use crate::data::text::{cleaning, clip_bpe, tokenizer_file, wordpiece};
use crate::data::DataError;
use crate::whole_file;

/// The tokenizer that a model was trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum TokenizerConfig {
    /// Lower-case BERT WordPiece from a `vocab.txt`, without `[CLS]` and `[SEP]` (FLIP).
    WordPiece(PathBuf),
    /// A `tokenizer.json` of the Hugging Face `tokenizers` library.
    Json(PathBuf),
    /// CLIP's byte-pair encoding, start and end tokens added. From the original `bpe_simple_vocab_16e6.txt.gz` it is
    /// open_clip's: captions are cleaned first (`ftfy.fix_text`, HTML's character references, white space). From a
    /// folder with `vocab.json` and `merges.txt` it is transformers' `CLIPTokenizer`, which does not clean.
    ClipBpe(PathBuf),
    /// A lower-case WordPiece vocabulary trained on the run's own captions before the first step.
    Train(TrainTokenizerConfig),
}

/// Training a small vocabulary, so that nothing has to be downloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizerConfig {
    /// Captions to learn from, taken from the start of the training source.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub captions: usize,
}

/// Captions to token ids, with everything decided: vocabulary, start and end tokens, padding.
///
/// ```
/// use flip::data::text::Tokenizer;
///
/// let captions = ["a red cat", "a grey cat"].map(String::from);
/// let tokenizer = Tokenizer::train(captions.into_iter(), 60)?;
/// let (ids, length) = tokenizer.encode("a cat", 8)?;
/// assert_eq!(ids.len(), 8);
/// assert!(ids[length..].iter().all(|&id| id == tokenizer.pad_id()));
/// # Ok::<(), flip::data::DataError>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    /// Without truncation and padding of its own; its post-processor adds `start` and `end`.
    inner: tokenizers::Tokenizer,
    /// open_clip's byte-pair encoding: captions are cleaned before `inner` sees them.
    open_clip: bool,
    start: Vec<u32>,
    end: Vec<u32>,
    pad: u32,
}

impl Tokenizer {
    /// Opens the tokenizer that a recipe names.
    ///
    /// # Errors
    /// A file is missing or is not what it should be; or the recipe asks for a vocabulary to be trained, which
    /// [`Tokenizer::train`] does.
    pub fn open(config: &TokenizerConfig) -> Result<Self, DataError> {
        match config {
            TokenizerConfig::WordPiece(path) => Tokenizer::of_file(wordpiece::open(path)?, path),
            TokenizerConfig::Json(path) => Tokenizer::load(path),
            TokenizerConfig::ClipBpe(path) => Tokenizer::of_file(clip_bpe::open(path)?, path),
            TokenizerConfig::Train(_) => {
                Err(DataError::Tokenizer("the vocabulary has not been trained yet".into()))
            }
        }
    }

    /// Learns a lower-case WordPiece vocabulary of at most `vocab_size` entries. The same captions give the
    /// same vocabulary on every machine.
    ///
    /// # Errors
    /// No caption has a word, or the vocabulary cannot even hold every character of the captions.
    pub fn train(captions: impl Iterator<Item = String>, vocab_size: usize) -> Result<Self, DataError> {
        let inner = wordpiece::train(captions, vocab_size)?;
        Tokenizer::wrap(inner)
            .map_err(|error| DataError::Tokenizer(format!("training a vocabulary: {error}")))
    }

    fn of_file(inner: tokenizers::Tokenizer, path: &Path) -> Result<Self, DataError> {
        Tokenizer::wrap(inner).map_err(|error| DataError::Tokenizer(format!("{}: {error}", path.display())))
    }

    /// Wraps a tokenizer of the library, taking start, end and padding tokens from it.
    fn wrap(mut inner: tokenizers::Tokenizer) -> tokenizers::Result<Self> {
        let pad = inner.get_padding().map_or(0, |padding| padding.pad_id);
        inner.with_padding(None).with_truncation(None)?;
        // Captions are text: "[SEP]" or "<|endoftext|>" inside one is spelled out, never a control token.
        inner.set_encode_special_tokens(true);
        let open_clip = clip_bpe::is_open_clips(&inner);
        if open_clip {
            inner.with_normalizer(None::<NormalizerWrapper>);
        }
        let framed = inner.encode_fast("a", true)?;
        let plain = inner.encode_fast("a", false)?;
        let (start, end) = frame(framed.get_ids(), plain.get_ids());
        Ok(Tokenizer { inner, open_clip, start, end, pad })
    }

    /// Reads a `tokenizer.json`, written by [`Tokenizer::save`] or by other tools.
    ///
    /// # Errors
    /// The file cannot be read or is no such thing.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = tokenizer_file::read(path)?;
        Tokenizer::read(&bytes, &path.display().to_string())
    }

    /// The tokenizer whose [`to_json`](Self::to_json) this is.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(text: &[u8]) -> Result<Self, DataError> {
        Tokenizer::read(text, "the tokenizer")
    }

    fn read(bytes: &[u8], name: &str) -> Result<Self, DataError> {
        tokenizers::Tokenizer::from_bytes(bytes).and_then(Tokenizer::wrap).map_err(|error| {
            DataError::Tokenizer(format!(
                "{name}: expected a tokenizer.json of the Hugging Face tokenizers library: {error}"
            ))
        })
    }

    /// Writes a `tokenizer.json` from which [`Tokenizer::load`] makes the same tokenizer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let text =
            self.to_json().map_err(|error| DataError::Tokenizer(format!("{}: {error}", path.display())))?;
        whole_file::replace(path, text.as_bytes())
            .map_err(|source| DataError::Io { path: path.to_owned(), source })
    }

    /// The text of a `tokenizer.json`.
    ///
    /// # Errors
    /// The library cannot write it.
    pub fn to_json(&self) -> Result<String, DataError> {
        let failed = |error: tokenizers::Error| DataError::Tokenizer(error.to_string());
        let mut inner = self.inner.clone();
        if self.open_clip {
            inner.with_normalizer(Some(clip_bpe::normalizer().map_err(failed)?));
        }
        inner.with_padding(Some(PaddingParams {
            pad_id: self.pad,
            pad_token: self.inner.id_to_token(self.pad).unwrap_or_default(),
            ..PaddingParams::default()
        }));
        inner.to_string(true).map_err(failed)
    }

    /// Token ids of a caption, cut and padded to `context`, and how many of them are real. A cut caption keeps
    /// its end token.
    ///
    /// # Errors
    /// The library cannot encode the text, which its models do only where they know neither a character nor
    /// an unknown token.
    pub fn encode(&self, caption: &str, context: usize) -> Result<(Vec<u32>, usize), DataError> {
        let failed = |error| DataError::Tokenizer(format!("cannot encode {caption:?}: {error}"));
        let words = self.words(caption).map_err(failed)?;
        let room = context.saturating_sub(self.start.len() + self.end.len());
        let words = &words[..room.min(words.len())];
        let mut ids = Vec::with_capacity(context);
        for part in [&self.start[..], words, &self.end] {
            ids.extend_from_slice(&part[..part.len().min(context - ids.len())]);
        }
        let length = ids.len();
        ids.resize(context, self.pad);
        Ok((ids, length))
    }

    /// Ids of a caption without its frame.
    pub(crate) fn words(&self, caption: &str) -> tokenizers::Result<Vec<u32>> {
        if !self.open_clip {
            return Ok(self.inner.encode_fast(caption, false)?.get_ids().to_vec());
        }
        let cleaned = cleaning::open_clip(caption);
        let mut ids = Vec::new();
        for piece in clip_bpe::pieces(&cleaned) {
            match piece {
                Piece::Text(text) => ids.extend_from_slice(self.inner.encode_fast(text, false)?.get_ids()),
                Piece::Start => ids.extend(self.start.last()),
                Piece::End => ids.extend(self.end.last()),
            }
        }
        Ok(ids)
    }

    /// True if captions are cleaned as open_clip cleans them for its byte-pair encoding.
    pub fn is_open_clips(&self) -> bool {
        self.open_clip
    }

    /// True if it is, token by token, the one that open_clip has built in.
    pub fn is_built_into_open_clip(&self) -> bool {
        self.open_clip && clip_bpe::is_built_in(&self.inner)
    }

    /// The same vocabulary as open_clip's `SimpleTokenizer` uses it; nothing where it is not CLIP's byte-pair encoding.
    pub fn as_open_clips(&self) -> Option<Self> {
        if self.open_clip {
            return Some(self.clone());
        }
        clip_bpe::as_open_clips(&self.inner).and_then(|inner| Tokenizer::wrap(inner).ok())
    }

    /// Rows that an embedding of tokens needs: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        largest.max(self.pad as usize + 1)
    }

    /// In what it is another tokenizer than `other`: a token of another id, another frame, another padding.
    pub fn differs(&self, other: &Tokenizer) -> Option<String> {
        let (ours, theirs) = (self.inner.get_vocab(true), other.inner.get_vocab(true));
        let unlike = |token: &&String| ours.get(*token) != theirs.get(*token);
        if let Some(token) = ours.keys().chain(theirs.keys()).filter(unlike).min() {
            let shown = |id: Option<&u32>| id.map_or("no id".into(), |id| format!("id {id}"));
            return Some(format!(
                "token {token:?} has {} there and {} here",
                shown(theirs.get(token)),
                shown(ours.get(token))
            ));
        }
        let frames = [(&self.start, &other.start, "before"), (&self.end, &other.end, "behind")];
        for (ours, theirs, side) in frames {
            if ours != theirs {
                return Some(format!("it puts {theirs:?} {side} a caption there and {ours:?} here"));
            }
        }
        if self.open_clip != other.open_clip {
            let cleans =
                |yes| if yes { "as open_clip cleans them" } else { "by no more than white space and case" };
            let (there, here) = (cleans(other.open_clip), cleans(self.open_clip));
            return Some(format!("it cleans captions {there} there and {here} here"));
        }
        (self.pad != other.pad)
            .then(|| format!("it pads with {} there and with {} here", other.pad, self.pad))
    }

    /// The id of a token of the vocabulary.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that ends every caption, where there is one.
    pub fn end_id(&self) -> Option<u32> {
        self.end.last().copied()
    }

    /// The token that fills the rest of a context.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }
}

/// Tokens before and behind `plain` in `framed`.
fn frame(framed: &[u32], plain: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let at = framed.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(framed.len());
    let behind = framed.get(at + plain.len()..).unwrap_or_default();
    (framed[..at].to_vec(), behind.to_vec())
}
