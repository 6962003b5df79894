//! The documents that are open in an editor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use super::answers;
use super::position::Encoding;
use crate::recipe::{self, assist, RecipeErrors};
use crate::sweep::study;

/// Longest text that is looked at, bytes: that of the longest recipe.
const LONGEST: usize = 1 << 20;

/// Open documents, by their URI.
pub struct Documents {
    encoding: Encoding,
    snippets: bool,
    texts: HashMap<String, String>,
}

impl Documents {
    pub fn new(encoding: Encoding, snippets: bool) -> Self {
        Documents { encoding, snippets, texts: HashMap::new() }
    }

    /// Takes a text that was opened or changed; returns its diagnostics.
    pub fn open(&mut self, document: &Value, text: &str) -> Option<Value> {
        let uri = document["uri"].as_str()?;
        let errors = errors(uri, text).map(|errors| errors.located()).unwrap_or_default();
        self.texts.insert(uri.into(), text.into());
        // Places are counted behind a byte-order mark.
        let mark = text.len() - text.trim_start_matches('\u{feff}').len();
        let of = |(span, error)| answers::diagnostic(text, self.encoding, mark, span, &error);
        let diagnostics: Vec<Value> = errors.into_iter().map(of).collect();
        Some(json!({ "uri": uri, "version": document["version"], "diagnostics": diagnostics }))
    }

    /// Forgets a document, and what was said of it.
    pub fn close(&mut self, document: &Value) -> Option<Value> {
        let uri = document["uri"].as_str()?;
        self.texts.remove(uri);
        Some(json!({ "uri": uri, "diagnostics": [] }))
    }

    pub fn complete(&self, parameters: &Value) -> Option<Value> {
        let (text, at) = self.place(parameters)?;
        let proposals = assist::complete(text, at, schema_of(text));
        Some(answers::completion(text, self.encoding, self.snippets, &proposals))
    }

    pub fn hover(&self, parameters: &Value) -> Option<Value> {
        let (text, at) = self.place(parameters)?;
        let hover = assist::hover(text, at, schema_of(text))?;
        let range = self.encoding.range(text, &hover.span);
        Some(json!({ "contents": { "kind": "markdown", "value": hover.text }, "range": range }))
    }

    fn place(&self, parameters: &Value) -> Option<(&str, usize)> {
        let uri = parameters["textDocument"]["uri"].as_str()?;
        let text = self.texts.get(uri).filter(|text| text.len() <= LONGEST && is_ours(uri))?;
        Some((text, self.encoding.byte(text, &parameters["position"])?))
    }
}

fn schema_of(text: &str) -> &'static Value {
    match study::is_text_of_study(text) {
        true => study::schema(),
        false => recipe::recipe_schema(),
    }
}

/// True of a document that is a recipe or a study: all RON but that of logging.
fn is_ours(uri: &str) -> bool {
    !uri.ends_with("/logging.ron")
}

/// Mistakes in a text.
fn errors(uri: &str, text: &str) -> Option<RecipeErrors> {
    if text.len() > LONGEST || text.trim().is_empty() || !is_ours(uri) {
        return None;
    }
    let path = path_of(uri);
    let name = path.as_deref().map_or(uri.into(), |path| path.display().to_string());
    if study::is_text_of_study(text) {
        return study::check_text(&name, text).err();
    }
    match &path {
        Some(path) => recipe::read_open(path, text).err(),
        None => recipe::read_text(&name, text, &[]).err(),
    }
}

/// The file of a `file://` URI.
fn path_of(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file://")?;
    let path = &rest[rest.find('/')?..];
    let bytes = path.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok().map(|path| Path::new(&path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_files_with_their_bytes_written_out() {
        let path = |uri: &str| path_of(uri).map(|path| path.display().to_string());
        assert_eq!(path("file:///a/b%20c/gr%C3%B6%C3%9Fer.ron").as_deref(), Some("/a/b c/größer.ron"));
        assert_eq!(path("file://host/a%2").as_deref(), Some("/a%2"));
        for none in ["untitled:1", "file:", "file://host", "file:///%ff"] {
            assert_eq!(path(none), None, "{none}");
        }
    }
}
