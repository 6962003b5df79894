//! What open_clip and transformers do to captions and ids around a tokenizer without its file saying so; here the file says it.

use serde_json::{json, Value};

use super::tokenizer::Tokenizer;
use crate::data::DataError;

/// Changes of a tokenizer of another tool that its `tokenizer.json` does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preparation {
    /// The token behind a caption becomes the id 0 (open_clip's `strip_sep_token`: CLIPA).
    pub strip_end: bool,
    /// Punctuation is left out, letters are small and words have single spaces between them, before anything else
    /// (open_clip's `clean: canonicalize`: SigLIP).
    pub canonicalize: bool,
    /// The token that fills the rest of a context, where the file names none (`tokenizer_config.json`).
    pub pad: Option<String>,
}

impl Tokenizer {
    /// The same vocabulary, prepared; [`to_json`](Self::to_json) of it tells everything.
    ///
    /// # Errors
    /// The library cannot read its own file, or the padding token is not in the vocabulary.
    pub fn prepared(&self, how: &Preparation) -> Result<Self, DataError> {
        if *how == Preparation::default() {
            return Ok(self.clone());
        }
        let failed = |error: serde_json::Error| DataError::Tokenizer(error.to_string());
        let mut file: Value = serde_json::from_str(&self.to_json()?).map_err(failed)?;
        if how.strip_end {
            if let Some(end) = self.end_id() {
                replace_end(&mut file["post_processor"], end);
            }
        }
        if how.canonicalize {
            file["normalizer"] = canonical(file["normalizer"].take());
        }
        if let Some(token) = &how.pad {
            let id = self.id_of(token).ok_or_else(|| {
                DataError::Tokenizer(format!("the padding token {token:?} is not in the vocabulary"))
            })?;
            file["padding"]["pad_id"] = id.into();
            file["padding"]["pad_token"] = token.as_str().into();
        }
        Tokenizer::from_json(file.to_string().as_bytes())
    }
}

/// Makes the id 0 of the token `end` in a post-processor of the library.
fn replace_end(processor: &mut Value, end: u32) {
    match processor["type"].as_str() {
        Some("Sequence") => {
            let all = processor["processors"].as_array_mut();
            all.into_iter().flatten().for_each(|processor| replace_end(processor, end));
        }
        Some("BertProcessing" | "RobertaProcessing") => processor["sep"][1] = 0.into(),
        _ => {
            let tokens = processor["special_tokens"].as_object_mut();
            for ids in tokens.into_iter().flatten().map(|(_, token)| &mut token["ids"]) {
                let ids = ids.as_array_mut().into_iter().flatten();
                ids.filter(|id| id.as_u64() == Some(end.into())).for_each(|id| *id = 0.into());
            }
        }
    }
}

/// open_clip's `canonicalize_text` before another normalizer.
fn canonical(then: Value) -> Value {
    let replace =
        |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let mut steps = vec![
        replace(json!({ "String": "_" }), " "),
        replace(json!({ "Regex": r"[!-/:-@\[-`{-~]" }), ""),
        json!({ "type": "Lowercase" }),
        replace(json!({ "Regex": r"\s+" }), " "),
        json!({ "type": "Strip", "strip_left": true, "strip_right": true }),
    ];
    steps.extend((!then.is_null()).then_some(then));
    json!({ "type": "Sequence", "normalizers": steps })
}
