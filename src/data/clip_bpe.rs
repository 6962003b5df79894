//! CLIP's byte-pair encoding (openai/CLIP, `simple_tokenizer.py`), without its repair of broken Unicode.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Replace, Sequence as Normalizers, Strip, NFC};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{PaddingParams, SplitDelimiterBehavior};

use super::tokenizer::Tokenizer;
use super::DataError;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";
/// Words, single digits and runs of everything else. The original also keeps its control tokens whole; here
/// they are spelled out, as a caption is text.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Merges of the original vocabulary: its file has more lines than are used.
const MERGES: usize = 49152 - 256 - 2;
/// Largest unpacked vocabulary file that is read, bytes.
const LONGEST: u64 = 64 << 20;

type Vocabulary = HashMap<String, u32>;
type Merges = Vec<(String, String)>;

/// A folder with `vocab.json` and `merges.txt`, or the original `bpe_simple_vocab_16e6.txt.gz`.
pub(super) fn open(path: &Path) -> Result<Tokenizer, DataError> {
    let wrong = |what: String| {
        let path = path.display();
        DataError::Tokenizer(format!(
            "{path}: expected CLIP's vocabulary (a folder with vocab.json and merges.txt, or \
             bpe_simple_vocab_16e6.txt.gz): {what}"
        ))
    };
    let (vocabulary, merges) =
        if path.is_dir() { read_folder(path) } else { read_original(path) }.map_err(wrong)?;
    build(vocabulary, merges).map_err(|error| wrong(error.to_string()))
}

fn read_folder(folder: &Path) -> Result<(Vocabulary, Merges), String> {
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
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
    let bytes: Vec<String> = byte_characters().map(|c| c.to_string()).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}{WORD_END}"));
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let control = [START, END].map(String::from);
    let tokens = bytes.iter().cloned().chain(ends).chain(merged).chain(control);
    Ok((tokens.zip(0..).collect(), merges))
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

fn build(vocabulary: Vocabulary, merges: Merges) -> tokenizers::Result<Tokenizer> {
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
    let normalizers: Vec<NormalizerWrapper> = vec![
        NFC.into(),
        Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ")?.into(),
        Strip::new(true, true).into(),
        Lowercase.into(),
    ];
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let pre_tokenizers: Vec<PreTokenizerWrapper> =
        vec![words.into(), ByteLevel::new(false, true, false).into()];
    let template = TemplateProcessing::builder()
        .try_single(format!("{START} $A {END}"))?
        .special_tokens(frame)
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_normalizer(Some(Normalizers::new(normalizers)))
        .with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)))
        .with_post_processor(Some(template))
        .with_padding(Some(PaddingParams { pad_id: 0, ..Default::default() }));
    Tokenizer::wrap(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_folder_form_agrees_and_files_restore_it() {
        let (folder, original) = original();
        let (vocabulary, _) = read_original(&folder.path().join("bpe_simple_vocab_16e6.txt.gz")).unwrap();
        std::fs::write(folder.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap())
            .unwrap();
        std::fs::write(folder.path().join("merges.txt"), LINES).unwrap();
        let json = folder.path().join("tokenizer.json");
        original.save(&json).unwrap();
        for other in [open(folder.path()).unwrap(), Tokenizer::load(&json).unwrap()] {
            for caption in ["the cat", "don't <|startoftext|> 42", "", "ünïcode"] {
                assert_eq!(other.encode(caption, 24).unwrap(), original.encode(caption, 24).unwrap());
            }
            assert_eq!((other.end_id(), other.pad_id()), (Some(END_ID), 0));
            assert_eq!(other.vocab_size(), 518);
        }
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
