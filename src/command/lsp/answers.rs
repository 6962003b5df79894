//! Answers to an editor, as the protocol has them.

use std::ops::Range;

use serde_json::{json, Value};

use super::position::Encoding;
use crate::recipe::assist::{Kind, Proposals};
use crate::recipe::RecipeError;

/// An error of the text, behind so many bytes of a mark; that of the text as a whole stands at its beginning.
pub fn diagnostic(
    text: &str,
    encoding: Encoding,
    mark: usize,
    span: Option<Range<usize>>,
    error: &RecipeError,
) -> Value {
    let span = span.map_or(0..0, |span| span.start + mark..span.end + mark);
    let field = if error.field.is_empty() { String::new() } else { format!("{}: ", error.field) };
    let help = error.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
    json!({
        "range": encoding.range(text, &span),
        "severity": 1,
        "source": "flip",
        "message": format!("{field}{}{help}", error.message),
    })
}

/// Completions at a place.
pub fn completion(text: &str, encoding: Encoding, snippets: bool, found: &Proposals) -> Value {
    let range = encoding.range(text, &found.replaces);
    let items: Vec<Value> = found
        .proposals
        .iter()
        .enumerate()
        .map(|(rank, proposal)| {
            let (new, format) = match snippets {
                true => (proposal.snippet.clone(), 2),
                false => (without_stops(&proposal.snippet), 1),
            };
            let kind = match proposal.kind {
                Kind::Field => 5,
                Kind::Variant => 20,
                Kind::Value => 12,
            };
            let mut item = json!({
                "label": proposal.label,
                "kind": kind,
                "detail": proposal.detail,
                "filterText": proposal.label,
                "sortText": format!("{rank:04}"),
                "insertTextFormat": format,
                "textEdit": { "range": range, "newText": new },
            });
            if !proposal.documentation.is_empty() {
                item["documentation"] = json!({ "kind": "markdown", "value": proposal.documentation });
            }
            item
        })
        .collect();
    json!({ "isIncomplete": false, "items": items })
}

/// A snippet as plain text: `Random(${1:0.5})` is `Random(0.5)`, `lr: $1` is `lr: `.
fn without_stops(snippet: &str) -> String {
    let (mut plain, mut rest) = (String::new(), snippet);
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((stop, behind)) => {
                plain.push_str(stop.split_once(':').map_or("", |(_, default)| default));
                rest = behind;
            }
            None => rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::without_stops;

    #[test]
    fn snippets_become_plain_texts() {
        for (snippet, plain) in [
            ("Random(${1:0.5})", "Random(0.5)"),
            ("Pretrain(length: $1, batch: $2)", "Pretrain(length: , batch: )"),
            ("name: \"$0\"", "name: \"\""),
            ("Keep", "Keep"),
        ] {
            assert_eq!(without_stops(snippet), plain);
        }
    }
}
