//! README and guide, held to the program: links lead somewhere, commands and their flags exist, recipes are read without an
//! error.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use flip::command::Cli;
use flip::recipe;

/// Lines that a newcomer's page may have.
const README_LINES: usize = 180;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut pages: Vec<PathBuf> = [&root, &root.join("src/guide"), &root.join("src/guide/benchmarks")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Targets of `[text](target)` and `[key]: target`.
fn links(text: &str) -> Vec<&str> {
    let inline = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
    let defined = text.lines().filter_map(|line| {
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim())
    });
    inline.chain(defined).collect()
}

/// Keys of `[text][key]`, which have to be defined on the page.
fn keys(text: &str) -> Vec<&str> {
    text.match_indices("][").filter_map(|(at, _)| text[at + 2..].split(']').next()).collect()
}

/// Blocks of code with the language they are in; indented ones have none.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, code)), None) => code.push_str(&format!("{line}\n")),
            (None, None) => {
                if let Some(code) = line.strip_prefix("    ") {
                    blocks.push((String::new(), format!("{code}\n")));
                }
            }
        }
    }
    assert!(open.is_none(), "a block of code is not closed");
    blocks
}

/// Words of a line of shell, without its comment; quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match letter {
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            letter if quote == Some(letter) => quote = None,
            '#' if quote.is_none() && word.is_empty() => break,
            ' ' if quote.is_none() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            other => word.push(other),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines, more than {README_LINES}");
}

#[test]
fn links_lead_to_files_that_exist() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let folder = page.parent().unwrap();
        for target in links(&text) {
            let file = target.split('#').next().unwrap();
            if !target.starts_with("https://") && !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
        for key in keys(&text) {
            if !text.contains(&format!("\n[{key}]: ")) {
                wrong.push(format!("{}: [{key}] is not defined", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn commands_and_their_flags_exist() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages() {
        for (language, code) in blocks(&text) {
            if !matches!(language.as_str(), "" | "sh") {
                continue;
            }
            for line in code.replace("\\\n", " ").lines() {
                let words = words(line);
                let Some(at) = words.iter().position(|word| word == "flip") else { continue };
                // `git clone ... flip` and `cd flip` are no commands of the program.
                if words.len() == at + 1 || words[at + 1].starts_with('&') {
                    continue;
                }
                seen += 1;
                let command = words[at..].split(|word| word == "&&").next().unwrap();
                if let Err(error) = Cli::command().try_get_matches_from(command) {
                    wrong.push(format!("{}: {line}\n{error}", page.display()));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn recipes_on_the_pages_are_read_without_an_error() {
    let mut seen = 0;
    for (page, text) in pages() {
        for (language, code) in blocks(&text) {
            let whole = code.trim_start().starts_with("(\n    name:");
            if language == "ron" && whole {
                seen += 1;
                let name = Path::new(page.file_name().unwrap()).display().to_string();
                if let Err(errors) = recipe::read_text(&name, &code, &[]) {
                    // A recipe that starts from a checkpoint lacks the model, which the checkpoint brings.
                    let from_checkpoint = code.contains("init: Checkpoint");
                    let said = errors.to_string();
                    assert!(
                        from_checkpoint
                            && said.matches("missing field").count() == 1
                            && said.contains("model: missing field"),
                        "{}: {said}",
                        page.display()
                    );
                }
            }
        }
    }
    assert!(seen >= 4, "only {seen} recipes were found");
}
