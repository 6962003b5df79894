//! Captions of CLIPA and SigLIP: what open_clip does around the tokenizer is part of the tokenizer of the run. Expected ids are
//! open_clip's, by tests/data/prepared_tokens/make.py.

use flip::data::text::Tokenizer;
use flip::exchange::{export, import, Format, ImportOptions, Outgoing};
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::command::{flip, said};
use crate::support::*;

#[test]
fn captions_have_open_clips_ids_without_its_end_token_and_without_punctuation() {
    let text = std::fs::read(fixture("prepared_tokens/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let cases =
        [("wordpiece", json!({ "strip_sep_token": true })), ("unigram", json!({ "clean": "canonicalize" }))];
    for (name, options) in cases {
        let root = tempdir().unwrap();
        let (source, run) = (root.path().join("source"), root.path().join("run"));
        std::fs::create_dir(&source).unwrap();
        open_clip_folder(&source, |config| {
            let text = &mut config["model_cfg"]["text_cfg"];
            text["hf_tokenizer_name"] = "there".into();
            text["tokenizer_kwargs"] = options;
        });
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(fixture("prepared_tokens").join(name).join(file), source.join(file)).unwrap();
        }
        said(flip(&[&"import", &source, &"--out", &run]));
        let tokenizer = Tokenizer::load(&run.join("tokenizer.json")).unwrap();
        let captions = expected["captions"].as_array().unwrap();
        for (caption, ids) in captions.iter().zip(expected[name].as_array().unwrap()) {
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            let caption = caption.as_str().unwrap();
            assert_eq!(tokenizer.encode(caption, 12).unwrap().0, ids, "{name}: {caption:?}");
        }
    }
}

/// The padding of CLIP's byte pairs is the id of "!", which must stay a word.
#[test]
fn an_exclamation_mark_is_no_padding_in_an_exported_folder() {
    let root = tempdir().unwrap();
    let vocabulary = root.path().join("vocabulary");
    std::fs::create_dir(&vocabulary).unwrap();
    crate::tokens::byte_pairs(&vocabulary);
    let tokenizer = Tokenizer::open(&flip::data::text::TokenizerConfig::ClipBpe(vocabulary)).unwrap();
    let file = root.path().join("tokenizer.json");
    tokenizer.save(&file).unwrap();

    let source = root.path().join("source");
    crate::tokens::checkpoint(&source, Some("local"));
    let config = source.join("open_clip_config.json");
    let mut told: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    told["model_cfg"]["text_cfg"]["pool_type"] = "first".into();
    told["model_cfg"]["text_cfg"]["no_causal_mask"] = true.into();
    write_json(&config, &told);
    let imported = import(&source, &ImportOptions::default()).unwrap();
    let out = root.path().join("out");
    let outgoing = Outgoing {
        config: &imported.config,
        tensors: &imported.tensors,
        tokenizer: Some(&file),
        card: None,
        stored: None,
        inline: None,
    };
    export(&outgoing, Format::OpenClip, &out).unwrap();

    let written: Value =
        serde_json::from_slice(&std::fs::read(out.join("tokenizer_config.json")).unwrap()).unwrap();
    let pad = written["pad_token"].as_str().unwrap();
    assert_ne!(pad, "!");
    let text = std::fs::read_to_string(out.join("tokenizer.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (json["model"]["vocab"][pad].as_u64(), json["model"]["vocab"]["!"].as_u64()),
        (Some(0), Some(0))
    );
    // Nothing else has changed: not for this program either.
    let again = Tokenizer::load(&out.join("tokenizer.json")).unwrap();
    let ids = tokenizer.encode("the cat !", 8).unwrap();
    assert_eq!(again.encode("the cat !", 8).unwrap(), ids);
    assert_eq!((again.pad_id(), again.vocab_size()), (0, tokenizer.vocab_size()));

    // transformers itself, where it is installed.
    let Some(python) = std::env::var_os("FLIP_PYTHON") else { return };
    let script = "import sys, transformers; t = transformers.AutoTokenizer.from_pretrained(sys.argv[1]); \
                  print(t('the cat !', padding='max_length', max_length=8).input_ids)";
    let output = std::process::Command::new(python).args(["-c", script]).arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{:?}", ids.0));
}
