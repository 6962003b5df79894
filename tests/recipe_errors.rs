//! What a broken recipe is told: `tests/data/recipe_errors/NAME.ron` (with `NAME.sets`, an override a line,
//! where there is one) against `NAME.expected`. `FLIP_BLESS=1` rewrites what is expected.

use std::path::{Path, PathBuf};

use flip::recipe;
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recipe_errors")
}

fn errors_of(name: &str) -> String {
    let text = std::fs::read_to_string(folder().join(name).with_extension("ron")).unwrap();
    let sets = std::fs::read_to_string(folder().join(name).with_extension("sets")).unwrap_or_default();
    let sets: Vec<String> = sets.lines().map(str::to_owned).collect();
    match recipe::read_text(&format!("{name}.ron"), &text, &sets) {
        Ok(_) => panic!("{name} is accepted"),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn broken_recipes_are_explained() {
    let bless = std::env::var_os("FLIP_BLESS").is_some();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ron") {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    names.sort();
    assert!(names.len() >= 60, "only {} broken recipes", names.len());
    let mut different = Vec::new();
    for name in &names {
        let errors = errors_of(name);
        let expected = folder().join(name).with_extension("expected");
        if bless {
            std::fs::write(&expected, &errors).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != errors {
            different.push(format!("--- {name} says:\n{errors}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn files_that_are_no_recipes_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let errors = recipe::read(&path, &[]).unwrap_err();
        errors.to_string().replace(&folder.path().display().to_string(), "")
    };
    assert!(message("latin.ron", b"(\n  name: \"caf\xe9\")")
        .starts_with("/latin.ron:2:13: expected UTF-8 text, got the byte 0xe9"));
    assert!(
        message("shard.tar", &vec![0; 2 << 20]).contains("has more than 1048576 bytes; a recipe is a text")
    );
    let absent = recipe::read(&folder.path().join("absent.ron"), &[]).unwrap_err();
    assert!(absent.to_string().contains("absent.ron: cannot be read: No such file"), "{absent}");
    assert!(recipe::read(folder.path(), &[]).is_err());
}

#[test]
fn paths_are_found_beside_the_recipe_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.ron");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.ron"))
        .unwrap();
    let text = text.replace("Train(captions: 5_000)", "WordPiece(\"vocab.txt\")");
    std::fs::write(&path, &text).unwrap();
    let written = recipe::read(&path, &[]).unwrap();
    assert_eq!(
        written,
        recipe::read_text("recipe.ron", &text, &[]).unwrap(),
        "as written where it is nowhere"
    );

    let vocabulary: String =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "square"].map(|w| format!("{w}\n")).concat();
    std::fs::write(folder.path().join("vocab.txt"), vocabulary).unwrap();
    let found = recipe::write(&recipe::read(&path, &[]).unwrap());
    assert!(found.contains(folder.path().to_str().unwrap()), "{found}");
    let errors = recipe::read(&path, &["model.text.vocab_size=4".into()]).unwrap_err();
    assert!(errors.to_string().contains("vocab_size: expected at least the 7 of"), "{errors}");
}

#[test]
fn nesting_cannot_overflow_the_stack() {
    for open in ["(", "[", "{", "Some(", "a(b:", "/*", "{a:", "#![enable(", "\"", "r#\"", "((((a,"] {
        let text = open.repeat(100_000);
        for text in [text.clone(), format!("(name: {text}"), format!("(stages: [{text}")] {
            let _ = recipe::read_text("deep.ron", &text, &[]).unwrap_err().render(true);
        }
        let set = format!("stages.0.batch={text}");
        let quickstart = include_str!("../recipes/quickstart.ron");
        let _ = recipe::read_text("deep.ron", quickstart, &[set]).unwrap_err().to_string();
    }
}

fn survives(text: &str, sets: &[String]) {
    if let Err(errors) = recipe::read_text("any.ron", text, sets) {
        assert!(!errors.errors().is_empty());
        let _ = (errors.render(true), errors.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in any::<String>(), set in any::<String>()) {
        survives(&text, &[set]);
    }

    #[test]
    fn no_sequence_of_tokens_panics(tokens in prop::collection::vec(prop::sample::select(vec![
        "(", ")", "[", "]", "{", "}", ":", ",", "=", "name", "model", "stages", "Pretrain", "Some", "None", "\"a\"",
        "r#\"", "\"", "'", "b'", "/*", "*/", "//", "\n", "1", "-", "0x", "1e", "inf", "NaN", "#![", "é", "\\", "..",
        "true", " ", "_", "r#", "1_0u8", "\t", "\u{feff}", "\u{202e}",
    ]), 0..40)) {
        survives(&tokens.concat(), &[]);
    }

    #[test]
    fn no_damaged_recipe_panics(
        cut in 0.0..1.0f64, length in 0usize..40, insert in "[(){}\\[\\]:,=\"'a-z0-9.\\-/* é\n]{0,12}", set in "[a-z0-9.\\[\\]=(){}\"/é ]{0,24}",
    ) {
        let recipe = include_str!("../recipes/pictograms.ron");
        let boundary = |at: usize| (0..=at.min(recipe.len())).rev().find(|at| recipe.is_char_boundary(*at)).unwrap();
        let from = boundary((cut * recipe.len() as f64) as usize);
        let to = boundary(from + length).max(from);
        survives(&format!("{}{insert}{}", &recipe[..from], &recipe[to..]), &[]);
        survives(recipe, &[format!("stages.0.{set}"), format!("data.{set}"), set]);
    }
}
