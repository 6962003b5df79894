//! Lower-case BERT WordPiece: from a `vocab.txt`, or learned from captions.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Trainer,
};

use crate::data::text::tokenizer_file;
use crate::data::DataError;

const PADDING: &str = "[PAD]";
const UNKNOWN: &str = "[UNK]";
const CONTINUES: &str = "##";

/// A `vocab.txt`: one token a line, `[UNK]` among them. Nothing is added around captions.
pub(crate) fn open(path: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let bytes = tokenizer_file::read(path)?;
    let wrong = |what: String| {
        let path = path.display();
        DataError::Tokenizer(format!(
            "{path}: expected a BERT vocabulary (vocab.txt), one token a line with {UNKNOWN} among them: {what}"
        ))
    };
    let vocabulary = WordPiece::read_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
    if !vocabulary.contains_key(UNKNOWN) {
        return Err(wrong(format!("{UNKNOWN} is missing among {} tokens", vocabulary.len())));
    }
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token(UNKNOWN.into())
        .continuing_subword_prefix(CONTINUES.into())
        .build();
    model.and_then(build).map_err(|error| wrong(error.to_string()))
}

/// Lower case, accents stripped, split at white space and punctuation, longest known pieces first.
fn build(model: WordPiece) -> tokenizers::Result<tokenizers::Tokenizer> {
    let pad_id = model.token_to_id(PADDING).unwrap_or(0);
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_normalizer(Some(normalizer()))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_padding(Some(tokenizers::PaddingParams { pad_id, ..Default::default() }));
    Ok(inner)
}

fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, None, true)
}

/// The library's trainer numbers pieces in the order of a hash map. Here every character is given to it in
/// alphabetical order beforehand, as if special; what it merges afterwards depends on counts and numbers alone.
pub(crate) fn train(
    captions: impl Iterator<Item = String>,
    vocab_size: usize,
) -> Result<tokenizers::Tokenizer, DataError> {
    let failed = |what: String| DataError::Tokenizer(format!("training a vocabulary: {what}"));
    let mut words: HashMap<String, u64> = HashMap::new();
    for caption in captions {
        for word in split(&caption).map_err(|error| failed(error.to_string()))? {
            *words.entry(word).or_default() += 1;
        }
    }
    if words.is_empty() {
        return Err(failed("no caption has a word".into()));
    }
    let mut pieces: BTreeSet<String> = BTreeSet::new();
    for word in words.keys() {
        for (place, character) in word.chars().enumerate() {
            // The alphabet is kept whole, as the trainer does.
            pieces.insert(character.to_string());
            if place > 0 {
                pieces.insert(format!("{CONTINUES}{character}"));
            }
        }
    }
    let first: Vec<AddedToken> = [PADDING, UNKNOWN]
        .into_iter()
        .chain(pieces.iter().map(String::as_str))
        .map(|token| AddedToken::from(token, true))
        .collect();
    if first.len() > vocab_size {
        return Err(failed(format!(
            "the captions have {} different characters at starts and insides of words, more than the {vocab_size} \
             entries that the vocabulary may have",
            pieces.len()
        )));
    }
    let mut trainer = WordPieceTrainer::builder()
        .vocab_size(vocab_size)
        .special_tokens(first)
        .continuing_subword_prefix(CONTINUES.into())
        .show_progress(false)
        .build();
    let mut model = WordPiece::default();
    let occurrences = words.iter().flat_map(|(word, &count)| std::iter::repeat_n(word, count as usize));
    trainer
        .feed(occurrences, |word| Ok(vec![word.to_owned()]))
        .and_then(|()| trainer.train(&mut model))
        .and_then(|_| build(model))
        .map_err(|error| failed(error.to_string()))
}

/// The words of a caption, as the finished tokenizer will see them.
fn split(caption: &str) -> tokenizers::Result<Vec<String>> {
    let mut text = NormalizedString::from(caption);
    normalizer().normalize(&mut text)?;
    let mut text = PreTokenizedString::from(text);
    BertPreTokenizer.pre_tokenize(&mut text)?;
    let words = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(words.into_iter().map(|(word, ..)| word.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use crate::data::text::{Tokenizer, TokenizerConfig};
    use crate::data::DataError;
    use std::path::Path;

    fn open(path: &Path) -> Result<Tokenizer, DataError> {
        Tokenizer::open(&TokenizerConfig::WordPiece(path.into()))
    }

    fn vocabulary(tokens: &[&str]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        std::fs::write(&path, tokens.join("\n")).unwrap();
        open(&path).unwrap()
    }

    #[test]
    fn captions_become_pieces_without_frame() {
        let tokenizer =
            vocabulary(&["[PAD]", "[UNK]", "[SEP]", "a", "cat", "##s", "cafe", ",", "[", "]", "sep"]);
        let encode = |caption: &str, context| tokenizer.encode(caption, context).unwrap();
        assert_eq!(encode("A CATS, dog", 8), (vec![3, 4, 5, 7, 1, 0, 0, 0], 5));
        assert_eq!(encode("café\tcats", 2), (vec![6, 4], 2));
        assert_eq!(encode("a [SEP] a", 6), (vec![3, 8, 10, 9, 3, 0], 5));
        assert_eq!(encode("", 2), (vec![0, 0], 0));
        assert_eq!(tokenizer.vocab_size(), 11);
        assert_eq!(tokenizer.end_id(), None);
    }

    /// By BertTokenizerFast of transformers: tests/data/tokens/make.py. It takes control tokens that a caption spells out for
    /// themselves, which here are text.
    #[test]
    fn ids_are_those_of_transformers_bert() {
        let tokenizer =
            open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokens/vocab.txt")).unwrap();
        let control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let mut compared = 0;
        for line in include_str!("../../../tests/data/tokens/ids.jsonl").lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = row["text"].as_str().unwrap();
            if control.iter().any(|token| text.contains(token)) {
                continue;
            }
            let expected: Vec<u32> = serde_json::from_value(row["bert"].clone()).unwrap();
            assert_eq!(tokenizer.words(text).unwrap(), expected, "{text:?}");
            compared += 1;
        }
        assert!(compared > 1000);
    }

    #[test]
    fn a_wrong_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        assert!(open(&path).err().unwrap().to_string().contains("vocab.txt"));
        std::fs::write(&path, "{\n}").unwrap();
        let message = open(&path).err().unwrap().to_string();
        assert!(message.contains("vocab.txt") && message.contains("[UNK] is missing"), "{message}");
    }

    fn captions() -> Vec<String> {
        let colours = ["red", "green", "bluish", "Yellow"];
        let things = ["square", "circles", "triangle", "star"];
        let pair = |i: usize| (colours[i % 4], things[i / 4 % 4], things[i / 16 % 4]);
        (0..64).map(pair).map(|(c, a, b)| format!("a {c} {a} beside the {b}.")).collect()
    }

    #[test]
    fn training_is_deterministic() {
        let ids = |tokenizer: &Tokenizer| {
            captions().iter().map(|c| tokenizer.encode(c, 32).unwrap().0).collect::<Vec<_>>()
        };
        let first = Tokenizer::train(captions().into_iter(), 90).unwrap();
        for _ in 0..5 {
            let again = Tokenizer::train(captions().into_iter().rev(), 90).unwrap();
            assert_eq!(ids(&again), ids(&first));
        }
        assert!(first.vocab_size() <= 90);
        let (ids, length) = first.encode("a red square", 8).unwrap();
        assert_eq!(length, 3, "{ids:?}");
        assert!(ids[..3].iter().all(|&id| id > 1));
    }

    #[test]
    fn a_trained_vocabulary_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let trained = Tokenizer::train(captions().into_iter(), 120).unwrap();
        trained.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        for caption in captions() {
            assert_eq!(loaded.encode(&caption, 20).unwrap(), trained.encode(&caption, 20).unwrap());
        }
        assert_eq!(loaded.vocab_size(), trained.vocab_size());
        assert_eq!((loaded.end_id(), loaded.pad_id()), (None, 0));
    }

    #[test]
    fn impossible_training_says_why() {
        assert!(Tokenizer::train([" ".to_string()].into_iter(), 10)
            .err()
            .unwrap()
            .to_string()
            .contains("no caption"));
        assert!(Tokenizer::train(captions().into_iter(), 10)
            .err()
            .unwrap()
            .to_string()
            .contains("more than the 10"));
    }
}
