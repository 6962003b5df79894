//! The tokenizer of a model as `AutoTokenizer` of transformers reads it from a folder, and in what open_clip and
//! transformers then read captions in another way than training did.
//!
//! open_clip cleans every caption before any tokenizer (`ftfy.fix_text`, `html.unescape` twice, white space); no value
//! of `tokenizer_kwargs.clean` leaves that out. transformers cleans none. So both give the ids of training only for the
//! tokenizer that is open_clip's own, respectively for every other; for the rest a note names the option.

use std::path::Path;

use serde_json::{json, Map, Value};

use super::error::ExchangeError;
use super::format::Format;
use super::options::read_object;
use crate::data::text::Tokenizer;
use crate::model::{ModelConfig, TextPool};
use crate::whole_file;

/// Tokenizer of an exported folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenizerFiles {
    None,
    /// The one that open_clip has built in, token by token.
    BuiltIn,
    /// open_clip's byte-pair encoding with another vocabulary.
    OpenClips,
    Other,
}

impl TokenizerFiles {
    fn of(tokenizer: &Tokenizer) -> Self {
        match (tokenizer.is_built_into_open_clip(), tokenizer.is_open_clips()) {
            (true, _) => TokenizerFiles::BuiltIn,
            (_, true) => TokenizerFiles::OpenClips,
            _ => TokenizerFiles::Other,
        }
    }

    /// For which captions the tool of `format` gets other ids than training had.
    pub fn note(self, format: Format) -> Option<String> {
        let some = "captions with curly quotes, HTML's character references (&amp;), mojibake, ligatures or control \
                    characters";
        match (self, format) {
            (TokenizerFiles::None | TokenizerFiles::BuiltIn, Format::OpenClip) | (TokenizerFiles::None, _) => None,
            (TokenizerFiles::OpenClips, Format::OpenClip) => Some(
                "open_clip reads its byte-pair encoding with this vocabulary through transformers \
                 (text_cfg.hf_tokenizer_name): a caption that spells out <start_of_text> or <end_of_text> gets other ids \
                 there"
                    .into(),
            ),
            (TokenizerFiles::Other, Format::OpenClip) => Some(format!(
                "open_clip cleans captions before this tokenizer (ftfy.fix_text, html.unescape twice, white space), and \
                 no value of text_cfg.tokenizer_kwargs.clean leaves that out: {some} get other ids there than in training"
            )),
            (TokenizerFiles::BuiltIn | TokenizerFiles::OpenClips, _) => Some(format!(
                "training cleaned captions as open_clip does, and a tokenizer.json cannot say so: {some} get other ids \
                 until they go through ftfy.fix_text and html.unescape twice; a few keep them even then, such as captions \
                 that spell out a control token or end a word in a Greek capital sigma"
            )),
            (TokenizerFiles::Other, _) => None,
        }
    }
}

/// Copies `tokenizer.json` into `folder` and says beside it what else transformers needs to know.
pub(super) fn write(
    folder: &Path,
    source: &Path,
    config: &ModelConfig,
) -> Result<TokenizerFiles, ExchangeError> {
    let tokenizer =
        Tokenizer::load(source).map_err(|error| ExchangeError::broken(source, error.to_string()))?;
    let mut contents = read_object(source)?;
    let to = folder.join("tokenizer.json");
    // A causal encoder that pools the end token never sees what follows it; an end token there is better than an
    // ordinary word, which transformers would then treat as a control token wherever it stands.
    let unseen = config.text.causal && config.text.pool == TextPool::EndOfText;
    let padding = tokenizer.end_id().filter(|_| unseen).unwrap_or(tokenizer.pad_id());
    let pad_token = token(&contents, padding).map(|word| named_padding(&mut contents, word, padding));
    match &pad_token {
        Some(Padding::New(_)) => write_json(&to, &Value::Object(contents.clone()))?,
        _ => {
            let bytes = std::fs::read(source).map_err(ExchangeError::io("read", source))?;
            whole_file::replace(&to, &bytes).map_err(ExchangeError::io("write", &to))?;
        }
    }
    let mut about = Map::new();
    about.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    about.insert("model_max_length".into(), config.text.context.into());
    about.insert("clean_up_tokenization_spaces".into(), false.into());
    about.insert("model_input_names".into(), json!(["input_ids", "attention_mask"]));
    let tokens = [
        ("pad_token", pad_token.map(Padding::token)),
        ("eos_token", tokenizer.end_id().and_then(|id| token(&contents, id))),
        ("unk_token", contents["model"]["unk_token"].as_str().map(String::from)),
    ];
    for (role, token) in tokens {
        if let Some(token) = token {
            about.insert(role.into(), token.into());
        }
    }
    write_json(&folder.join("tokenizer_config.json"), &Value::Object(about))?;
    Ok(TokenizerFiles::of(&tokenizer))
}

/// The token that a folder pads with.
enum Padding {
    /// One that the tokenizer has.
    There(String),
    /// A second name for the id of a word.
    New(String),
}

impl Padding {
    fn token(self) -> String {
        match self {
            Padding::There(token) | Padding::New(token) => token,
        }
    }
}

/// The second name of an id that is a word of captions, as "!" is of CLIP's byte pairs.
const PADDING: &str = "<|padding|>";

/// A name for padding that is no word: transformers takes it for a control token wherever it stands in a caption. Of byte pairs
/// whose padding is a word the vocabulary gets a second name for its id.
fn named_padding(contents: &mut Map<String, Value>, word: String, id: u32) -> Padding {
    let listed = contents.get("added_tokens").and_then(Value::as_array);
    let control = listed.is_some_and(|all| all.iter().any(|token| token["content"] == *word));
    let is_pairs = contents["model"]["type"] == "BPE";
    let framed = word.starts_with("<|") || word.starts_with('[') || word.starts_with("</");
    if control || framed || !is_pairs {
        return Padding::There(word);
    }
    contents["model"]["vocab"][PADDING] = id.into();
    if let Some(Value::Object(padding)) = contents.get_mut("padding") {
        padding.insert("pad_token".into(), PADDING.into());
    }
    Padding::New(PADDING.into())
}

/// The token of an id, by the vocabulary of a tokenizer.json.
fn token(contents: &Map<String, Value>, id: u32) -> Option<String> {
    let is_id = |value: &Value| value.as_u64() == Some(id.into());
    let vocabulary = contents.get("model")?.get("vocab")?.as_object();
    let in_model =
        vocabulary.and_then(|v| v.iter().find(|(_, value)| is_id(value)).map(|(token, _)| token.clone()));
    in_model.or_else(|| {
        let added = contents.get("added_tokens")?.as_array()?;
        added.iter().find(|token| is_id(&token["id"]))?["content"].as_str().map(String::from)
    })
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ExchangeError> {
    let text = format!("{value:#}\n");
    whole_file::replace(path, text.as_bytes()).map_err(ExchangeError::io("write", path))
}
