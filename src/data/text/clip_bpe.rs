//! CLIP's byte-pair encoding. Two tools have it, and give other ids for other text:
//!
//! - open_clip (and openai/CLIP): `SimpleTokenizer` with the original file of merges. Captions are cleaned first
//!   ([`cleaning`]), and `<start_of_text>` and `<end_of_text>` inside them are control tokens.
//! - transformers: `CLIPTokenizer` with `vocab.json` and `merges.txt`. Only white space and case are normalised, and
//!   text is composed (NFC); no ftfy, no character references. Control tokens inside captions are spelled out here, as
//!   a caption is text.
//!
//! A `tokenizer.json` keeps which of them it is in the expression that splits words.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Replace, Sequence as Normalizers, Strip, NFC};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{ModelWrapper, PaddingParams, SplitDelimiterBehavior};

use crate::data::text::tokenizer_file;
use crate::data::DataError;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";
/// Words, single digits and runs of everything else.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The same with open_clip's control tokens whole, and in its mode without case, where a long s (U+017F) is an s.
const OPEN_CLIP_WORDS: &str =
    r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Merges of the original vocabulary: its file has more lines than are used.
const MERGES: usize = 49152 - 256 - 2;
/// SHA-256 of open_clip's own merges, a line each: with others, its built-in tokenizer is another one.
const BUILT_IN: &str = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02";
/// Largest unpacked vocabulary file that is read, bytes.
const LONGEST: u64 = 64 << 20;

type Vocabulary = HashMap<String, u32>;
type Merges = Vec<(String, String)>;

/// A folder with `vocab.json` and `merges.txt`, or the original `bpe_simple_vocab_16e6.txt.gz`.
pub(crate) fn open(path: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let wrong = |what: String| {
        let path = path.display();
        DataError::Tokenizer(format!(
            "{path}: expected CLIP's vocabulary (a folder with vocab.json and merges.txt, or \
             bpe_simple_vocab_16e6.txt.gz): {what}"
        ))
    };
    let open_clip = !path.is_dir();
    let (vocabulary, merges) =
        if open_clip { read_original(path) } else { read_folder(path) }.map_err(wrong)?;
    build(vocabulary, merges, open_clip).map_err(|error| wrong(error.to_string()))
}

/// True for open_clip's tokenizer, by the expression that splits words.
pub(crate) fn is_open_clips(inner: &tokenizers::Tokenizer) -> bool {
    let splits = |part: &PreTokenizerWrapper| match part {
        PreTokenizerWrapper::Split(split) => split.pattern == SplitPattern::Regex(OPEN_CLIP_WORDS.into()),
        _ => false,
    };
    match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(parts)) => parts.as_ref().iter().any(splits),
        _ => false,
    }
}

/// True if vocabulary and merges are those that open_clip has built in.
pub(crate) fn is_built_in(inner: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(model) = inner.get_model() else { return false };
    let Ok(model) = serde_json::to_value(model) else { return false };
    let merges = read_listed_merges(&model["merges"]);
    let Ok(vocabulary) = serde_json::from_value::<Vocabulary>(model["vocab"].clone()) else { return false };
    fingerprint(&merges) == BUILT_IN
        && numbered(&merges).zip(0..).all(|(token, id)| vocabulary.get(&token) == Some(&id))
}

fn read_listed_merges(merges: &serde_json::Value) -> Merges {
    serde_json::from_value(merges.clone()).unwrap_or_default()
}

fn fingerprint(merges: &Merges) -> String {
    let mut hash = Sha256::new();
    merges.iter().for_each(|(left, right)| hash.update(format!("{left} {right}\n")));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tokenizer of transformers with the same vocabulary as open_clip has it: nothing if it is no CLIP's.
pub(crate) fn as_open_clips(inner: &tokenizers::Tokenizer) -> Option<tokenizers::Tokenizer> {
    let ModelWrapper::BPE(model) = inner.get_model() else { return None };
    let model = serde_json::to_value(model).ok()?;
    if model["end_of_word_suffix"].as_str() != Some(WORD_END) {
        return None;
    }
    let mut vocabulary = serde_json::from_value::<Vocabulary>(model["vocab"].clone()).ok()?;
    // Some files keep the control tokens beside the vocabulary.
    for token in [START, END] {
        vocabulary.insert(token.into(), inner.token_to_id(token)?);
    }
    build(vocabulary, read_listed_merges(&model["merges"]), true).ok()
}

/// A piece of a cleaned caption of open_clip's.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Start,
    End,
}

/// Text and the control tokens that stand in it as words of their own.
pub(crate) fn pieces(caption: &str) -> Vec<Piece<'_>> {
    static EXPRESSION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(OPEN_CLIP_WORDS).expect("a fixed expression"));
    if !caption.contains("_of_text>") {
        return vec![Piece::Text(caption)];
    }
    let mut pieces = Vec::new();
    let mut from = 0;
    for word in EXPRESSION.find_iter(caption) {
        let control = match word.as_str() {
            "<start_of_text>" => Piece::Start,
            "<end_of_text>" => Piece::End,
            _ => continue,
        };
        pieces.extend([Piece::Text(&caption[from..word.start()]), control]);
        from = word.end();
    }
    pieces.push(Piece::Text(&caption[from..]));
    pieces
}

fn read_folder(folder: &Path) -> Result<(Vocabulary, Merges), String> {
    let text = |name: &str| {
        let bytes = tokenizer_file::read(&folder.join(name)).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))
    };
    let vocabulary =
        serde_json::from_str(&text("vocab.json")?).map_err(|error| format!("vocab.json: {error}"))?;
    Ok((vocabulary, read_merges(&text("merges.txt")?, usize::MAX)?))
}

/// The numbering of the original: bytes, bytes that end a word, merges, control tokens.
fn read_original(path: &Path) -> Result<(Vocabulary, Merges), String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file)
        .take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let merges = read_merges(&text, MERGES)?;
    Ok((numbered(&merges).zip(0..).collect(), merges))
}

/// The tokens of merges in the order of their ids.
fn numbered(merges: &Merges) -> impl Iterator<Item = String> + '_ {
    let ends = byte_characters().map(|byte| format!("{byte}{WORD_END}"));
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    byte_characters().map(String::from).chain(ends).chain(merged).chain([START, END].map(String::from))
}

/// The characters that stand for the 256 bytes: the printable ones for themselves first, then the rest from
/// U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let rest = 256 - printable.clone().count() as u32;
    printable.chain((0..rest).filter_map(|i| char::from_u32(256 + i)))
}

/// Two pieces a line behind a line of version.
fn read_merges(text: &str, most: usize) -> Result<Merges, String> {
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
    let merges: Merges = lines
        .take(most)
        .map(|(number, line)| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [left, right] => Ok((left.to_owned(), right.to_owned())),
            _ => Err(format!("line {} of the merges is {line:?}, not two pieces", number + 1)),
        })
        .collect::<Result<_, _>>()?;
    if merges.is_empty() {
        return Err("there are no merges".into());
    }
    Ok(merges)
}

/// White space collapsed, small letters, composed: what transformers does, and all that a `tokenizer.json` can
/// say of open_clip's cleaning, for the tools that read one.
pub(crate) fn normalizer() -> tokenizers::Result<Normalizers> {
    let space = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ")?;
    let steps: Vec<NormalizerWrapper> =
        vec![NFC.into(), space.into(), Strip::new(true, true).into(), Lowercase.into()];
    Ok(Normalizers::new(steps))
}

fn build(
    vocabulary: Vocabulary,
    merges: Merges,
    open_clip: bool,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let id = |token: &str| {
        vocabulary.get(token).copied().ok_or_else(|| format!("{token} is missing from the vocabulary"))
    };
    let frame = vec![(START, id(START)?), (END, id(END)?)];
    let model = serde_json::json!({
        "type": "BPE",
        "vocab": vocabulary,
        "merges": merges,
        "end_of_word_suffix": WORD_END,
        "unk_token": END,
    });
    // The library reads this only from text.
    let model: BPE = serde_json::from_str(&model.to_string())?;
    let expression = if open_clip { OPEN_CLIP_WORDS } else { WORDS };
    let words = Split::new(SplitPattern::Regex(expression.into()), SplitDelimiterBehavior::Removed, true)?;
    let pre_tokenizers: Vec<PreTokenizerWrapper> =
        vec![words.into(), ByteLevel::new(false, true, false).into()];
    let template = TemplateProcessing::builder()
        .try_single(format!("{START} $A {END}"))?
        .special_tokens(frame)
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_normalizer(Some(normalizer()?))
        .with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)))
        .with_post_processor(Some(template))
        .with_padding(Some(PaddingParams { pad_id: 0, ..Default::default() }));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::{byte_characters, pieces, read_original, Piece};
    use crate::data::text::{cleaning, Tokenizer, TokenizerConfig};
    use crate::data::DataError;
    use std::path::Path;

    fn open(path: &Path) -> Result<Tokenizer, DataError> {
        Tokenizer::open(&TokenizerConfig::ClipBpe(path.into()))
    }
    use std::io::Write;

    const LINES: &str = "version\nc a\nca t</w>\nt h\nth e</w>\n";

    /// Ids: 256 bytes, 256 ends of words, then `ca`, `cat</w>`, `th`, `the</w>`, start, end.
    const CAT: u32 = 513;
    const THE: u32 = 515;
    const START_ID: u32 = 516;
    const END_ID: u32 = 517;
    const END_BASE: u32 = 256;

    fn byte(c: char) -> u32 {
        byte_characters().position(|b| b == c).unwrap() as u32
    }

    fn original() -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bpe_simple_vocab_16e6.txt.gz");
        let mut gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), Default::default());
        gz.write_all(LINES.as_bytes()).unwrap();
        gz.finish().unwrap();
        let tokenizer = open(&path).unwrap();
        (folder, tokenizer)
    }

    #[test]
    fn words_are_merged_and_framed() {
        let (_folder, tokenizer) = original();
        let encode = |caption: &str, context| tokenizer.encode(caption, context).unwrap();
        assert_eq!(encode("  The \n CAT ", 6), (vec![START_ID, THE, CAT, END_ID, 0, 0], 4));
        // Cut, the end token stays.
        assert_eq!(encode("the cat the cat", 4), (vec![START_ID, THE, CAT, END_ID], 4));
        assert_eq!(encode("", 3), (vec![START_ID, END_ID, 0], 2));
        assert_eq!(tokenizer.vocab_size(), 518);
        assert_eq!(tokenizer.end_id(), Some(END_ID));
        // Bytes that no merge joins: é is C3 A9.
        let (ids, _) = encode("é", 4);
        assert_eq!(ids, [START_ID, byte('Ã'), END_BASE + byte('©'), END_ID]);
    }

    #[test]
    fn control_tokens_inside_captions_are_text() {
        let (_folder, tokenizer) = original();
        let (ids, length) = tokenizer.encode("the <|endoftext|> cat", 32).unwrap();
        assert_eq!((ids[0], ids[length - 1]), (START_ID, END_ID));
        assert_eq!(ids.iter().filter(|&&id| id == END_ID).count(), 1);
        assert_eq!((ids[1], ids[length - 2]), (THE, CAT));
    }

    #[test]
    fn the_folder_form_agrees_on_plain_text_and_files_restore_both() {
        let (folder, original) = original();
        let (vocabulary, _) = read_original(&folder.path().join("bpe_simple_vocab_16e6.txt.gz")).unwrap();
        std::fs::write(folder.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap())
            .unwrap();
        std::fs::write(folder.path().join("merges.txt"), LINES).unwrap();
        let json = folder.path().join("tokenizer.json");
        original.save(&json).unwrap();
        let of_transformers = open(folder.path()).unwrap();
        let again = Tokenizer::from_json(of_transformers.to_json().unwrap().as_bytes()).unwrap();
        for other in [&of_transformers, &again, &Tokenizer::load(&json).unwrap()] {
            for caption in ["the cat", "don't <|startoftext|> 42", "", "ünïcode"] {
                assert_eq!(other.encode(caption, 24).unwrap(), original.encode(caption, 24).unwrap());
            }
            assert_eq!((other.end_id(), other.pad_id()), (Some(END_ID), 0));
            assert_eq!(other.vocab_size(), 518);
        }
        // transformers reads neither character references nor curly quotes as what they mean.
        let encode = |tokenizer: &Tokenizer| tokenizer.encode("don&#8217;t", 24).unwrap();
        assert_ne!(encode(&again), encode(&original));
        assert_eq!(encode(&Tokenizer::load(&json).unwrap()), encode(&original));
        assert_eq!(encode(&again.as_open_clips().unwrap()), encode(&original));
        assert!(again.differs(&original).unwrap().contains("open_clip cleans"));
    }

    #[test]
    fn control_tokens_of_open_clip_are_words_of_their_own() {
        use Piece::{End, Start, Text};
        assert_eq!(pieces("a cat"), [Text("a cat")]);
        assert_eq!(pieces("a <end_of_text>b"), [Text("a "), End, Text("b")]);
        // A run of signs takes the bracket before the token begins.
        assert_eq!(pieces("!<start_of_text>"), [Text("!<start_of_text>")]);
        let (_folder, tokenizer) = original();
        assert_eq!(
            tokenizer.encode("the <START_OF_TEXT> cat", 6).unwrap(),
            (vec![START_ID, THE, START_ID, CAT, END_ID, 0], 5)
        );
        assert_eq!(pieces("<start_of_text><start_of_text>"), [Text(""), Start, Text(""), Start, Text("")]);
    }

    const STRINGS: &str = include_str!("../../../tests/data/tokens/ids.jsonl");

    /// Strings that `wrong` ids come of, with what they are cleaned to.
    fn unlike(tokenizer: &Tokenizer, expected: impl Iterator<Item = (String, Vec<u32>)>) -> Vec<String> {
        let wrong = expected.filter_map(|(text, ids)| {
            let found = tokenizer.words(&text).unwrap();
            let cleaned = cleaning::open_clip(&text);
            (found != ids).then(|| format!("{text:?} as {cleaned:?}: {found:?} and not {ids:?}"))
        });
        wrong.collect()
    }

    /// By open_clip itself, with those merges of its vocabulary that the strings need: tests/data/tokens/make.py.
    #[test]
    fn ids_are_open_clips_for_accents_entities_quotes_mojibake_controls_and_emoji() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokens/merges.txt.gz");
        let tokenizer = open(&path).unwrap();
        let rows = STRINGS.lines().map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let ids = serde_json::from_value(row["clip"].clone()).unwrap();
            (row["text"].as_str().unwrap().to_owned(), ids)
        });
        let rows: Vec<(String, Vec<u32>)> = rows.collect();
        assert!(rows.len() > 1000);
        let wrong = unlike(&tokenizer, rows.into_iter());
        assert!(wrong.is_empty(), "{} strings:\n{}", wrong.len(), wrong.join("\n"));
        assert!(!tokenizer.is_built_into_open_clip());
    }

    /// `FLIP_OPEN_CLIP_IDS` names a file of rows {"text", "ids"} and `FLIP_OPEN_CLIP_VOCABULARY` the
    /// bpe_simple_vocab_16e6.txt.gz of an installed open_clip.
    #[test]
    #[ignore = "needs open_clip's vocabulary, which is not kept here"]
    fn ids_of_the_whole_vocabulary_are_open_clips() {
        let path = |name: &str| std::path::PathBuf::from(std::env::var_os(name).unwrap());
        let tokenizer = open(&path("FLIP_OPEN_CLIP_VOCABULARY")).unwrap();
        assert!(tokenizer.is_built_into_open_clip());
        let again = Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        assert!(again.is_built_into_open_clip());
        let rows = std::fs::read_to_string(path("FLIP_OPEN_CLIP_IDS")).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
        let row = |row: &serde_json::Value| {
            let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            (row["text"].as_str().unwrap().to_owned(), ids)
        };
        let rows: Vec<_> = rows.as_array().unwrap().iter().map(row).collect();
        let wrong = unlike(&again, rows.clone().into_iter());
        assert!(wrong.is_empty(), "{} of {} strings:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    }

    #[test]
    fn a_wrong_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = open(folder.path()).err().unwrap().to_string();
        assert!(message.contains("vocab.json") && message.contains("expected CLIP"), "{message}");
        std::fs::write(folder.path().join("vocab.json"), "{\"a\": 0}").unwrap();
        std::fs::write(folder.path().join("merges.txt"), "version\na b c\n").unwrap();
        assert!(open(folder.path()).err().unwrap().to_string().contains("line 2"));
        std::fs::write(folder.path().join("merges.txt"), LINES).unwrap();
        assert!(open(folder.path()).err().unwrap().to_string().contains("<|startoftext|> is missing"));
    }
}
