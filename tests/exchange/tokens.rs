//! Tokenizers that come in and go out: which cleaning of captions goes with them, and what is said where it does not.

use std::path::{Path, PathBuf};

use flip::data::text::{Tokenizer, TokenizerConfig};
use flip::trained::Weights;
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::command::{failed, flip, said, vocabulary};
use crate::support::*;

/// CLIP's byte-pair encoding with four merges and 518 tokens, as open_clip has it and as transformers does.
pub fn byte_pairs(folder: &Path) {
    use std::io::Write;
    let merges = "version\nc a\nca t</w>\nt h\nth e</w>";
    let file = std::fs::File::create(folder.join("bpe_simple_vocab_16e6.txt.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, Default::default());
    gz.write_all(merges.as_bytes()).unwrap();
    gz.finish().unwrap();
    let tokenizer = Tokenizer::open(&TokenizerConfig::ClipBpe(folder.join("bpe_simple_vocab_16e6.txt.gz")));
    let json: Value = serde_json::from_str(&tokenizer.unwrap().to_json().unwrap()).unwrap();
    write_json(&folder.join("vocab.json"), &json["model"]["vocab"]);
    std::fs::write(folder.join("merges.txt"), merges).unwrap();
}

/// A checkpoint of open_clip with the vocabulary of [`byte_pairs`].
pub fn checkpoint(folder: &Path, named: Option<&str>) {
    std::fs::create_dir(folder).unwrap();
    open_clip_folder(folder, |config| {
        config["model_cfg"]["text_cfg"]["vocab_size"] = json!(518);
        if let Some(name) = named {
            config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = json!(name);
        }
    });
    let path = folder.join("open_clip_model.safetensors");
    let mut weights = read(&path);
    let (shape, values) = weights.get_mut("token_embedding.weight").unwrap();
    *values = (0..518 * shape[1]).map(|i| (i as f32 * 0.37).sin()).collect();
    shape[0] = 518;
    write(&path, &weights);
}

fn ids(run: &Path, caption: &str) -> Vec<u32> {
    Tokenizer::load(&run.join("tokenizer.json")).unwrap().encode(caption, 16).unwrap().0
}

#[test]
fn a_model_of_open_clip_reads_captions_as_open_clip_does_whatever_files_its_tokenizer_has() {
    let there = tempdir().unwrap();
    let path = |name: &str| -> PathBuf { there.path().join(name) };
    checkpoint(&path("source"), None);
    byte_pairs(&path("source"));
    let tools = path("tools");
    std::fs::create_dir(&tools).unwrap();
    byte_pairs(&tools);
    // The files of transformers lie beside the weights; open_clip does not look at them.
    let summary = said(flip(&[&"import", &path("source"), &"--out", &path("run")]));
    assert!(!summary.contains("clean"), "{summary}");
    let cleaned = ids(&path("run"), "the cat \u{201c}the cat\u{201d} &amp;amp; don\u{2019}t");
    assert_eq!(cleaned, ids(&path("run"), "the cat \"the cat\" & don't"));

    let folder = path("to_open_clip");
    let summary = said(flip(&[&"export", &path("run"), &"--to", &"open-clip", &"--out", &folder]));
    assert!(summary.contains("spells out <start_of_text>"), "{summary}");
    let config = std::fs::read(folder.join("open_clip_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["clean"], "lower");
    let folder = path("to_transformers");
    let summary = said(flip(&[&"export", &path("run"), &"--to", &"transformers", &"--out", &folder]));
    assert!(summary.contains("ftfy.fix_text and html.unescape twice"), "{summary}");

    // With a tokenizer of transformers named, its files are what the model was trained with, behind the cleaning.
    checkpoint(&path("named"), Some("openai/clip-vit-base-patch32"));
    let arguments =
        [&"import" as &dyn AsRef<_>, &path("named"), &"--out", &path("other"), &"--tokenizer", &tools];
    let summary = said(flip(&arguments));
    assert!(summary.contains("note: open_clip cleans captions before this tokenizer"), "{summary}");
}

#[test]
fn a_word_piece_vocabulary_goes_to_open_clip_with_the_option_that_is_in_the_way() {
    let there = tempdir().unwrap();
    let (source, run) = (there.path().join("source"), there.path().join("run"));
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |config| {
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = json!("local");
    });
    vocabulary(&source);
    said(flip(&[&"import", &source, &"--out", &run]));
    for (to, noted) in [("open-clip", true), ("transformers", false)] {
        let out = there.path().join(to);
        let summary = said(flip(&[&"export", &run, &"--to", &to, &"--out", &out]));
        assert_eq!(summary.contains("text_cfg.tokenizer_kwargs.clean"), noted, "{summary}");
    }
    assert!(Weights::open(&run).is_ok());
}

#[test]
fn a_folder_of_two_tools_names_the_flag_that_chooses_between_them() {
    let there = tempdir().unwrap();
    let (source, run, out) =
        (there.path().join("source"), there.path().join("run"), there.path().join("transformers"));
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    said(flip(&[&"import", &source, &"--out", &run]));
    said(flip(&[&"export", &run, &"--to", &"transformers", &"--out", &out]));
    // What people get who load the weights of one tool only.
    std::fs::copy(source.join("open_clip_config.json"), out.join("open_clip_config.json")).unwrap();
    let other = there.path().join("other");
    let message = failed(flip(&[&"import", &out, &"--out", &other]), 2);
    assert!(message.contains("config.json lies there too"), "{message}");
    assert!(message.contains("--from transformers"), "{message}");
    said(flip(&[&"import", &out, &"--from", &"transformers", &"--out", &other]));
}

#[test]
fn weights_that_are_no_safetensors_are_called_what_they_are() {
    let there = tempdir().unwrap();
    open_clip_folder(there.path(), |_| {});
    let weights = there.path().join("open_clip_model.safetensors");
    for (bytes, because) in [
        (&b"PK\x03\x04\x00\x00\x08\x08 and so on"[..], "its archive is malformed"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j", "its pickle is truncated"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a page of HTML"),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        let message = refusal(there.path());
        assert!(message.contains(because), "{message}");
        assert!(!message.contains("bytes does not fit"), "{message}");
    }
    // By its own name as well.
    let pickle = there.path().join("ViT-B-32.pt");
    std::fs::write(&pickle, b"PK\x03\x04\x00\x00\x08\x08 and so on").unwrap();
    let message = failed(flip(&[&"import", &pickle, &"--out", &there.path().join("run")]), 1);
    assert!(message.contains("ViT-B-32.pt: its archive is malformed"), "{message}");
}
