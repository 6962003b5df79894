//! Completions at a place.

use serde_json::Value as Schema;

use super::context::{slot, word, Slot};
use super::describe::{expected, field, variant};
use super::{Kind, Proposal, Proposals};
use crate::recipe::shape::{FieldShape, Shape, Variant};

/// Completions at byte `at` of a document with this schema: fields that are not written yet, variants, other values.
pub fn complete(text: &str, at: usize, root: &'static Schema) -> Proposals {
    let begun = word(text, at);
    let replaces = begun.start..at;
    let proposals = match slot(text, begun.start, root) {
        Some(Slot::Field { of, written }) => {
            let is_free = |field: &&FieldShape| !written.iter().any(|name| field.is_called(name));
            let mut free: Vec<&FieldShape> = of.fields.iter().filter(is_free).collect();
            free.sort_by_key(|field| !field.required);
            free.into_iter().map(of_field).collect()
        }
        Some(Slot::Value { schema, .. }) => of_value(schema),
        None => Vec::new(),
    };
    Proposals { replaces, proposals }
}

fn of_field(of: &FieldShape) -> Proposal {
    Proposal {
        label: of.name.into(),
        kind: Kind::Field,
        snippet: format!("{}: {}", of.name, value(&Shape::of(of.schema), 0)),
        detail: expected(of.schema, of.name),
        documentation: field(of),
        required: of.required,
    }
}

fn of_value(schema: &'static Schema) -> Vec<Proposal> {
    let shape = Shape::of(schema);
    let optional = matches!(shape, Shape::Option(_));
    let plain = |label: &str, snippet: String| Proposal {
        label: label.into(),
        kind: Kind::Value,
        snippet,
        detail: expected(schema, "value"),
        documentation: String::new(),
        required: false,
    };
    let mut proposals: Vec<Proposal> = match shape.unwrapped() {
        Shape::Enum(variants) => variants.iter().map(of_variant).collect(),
        Shape::Bool => ["true", "false"].map(|label| plain(label, label.into())).into(),
        shape @ Shape::Struct(_) => vec![plain("(...)", value(&shape, 1))],
        shape @ (Shape::List(_) | Shape::StringOrList(_)) => vec![plain("[...]", value(&shape, 1))],
        shape @ Shape::String => vec![plain("\"...\"", value(&shape, 1))],
        Shape::Number(_) | Shape::Tuple(_) | Shape::Option(_) => Vec::new(),
    };
    if optional {
        proposals.push(plain("None", "None".into()));
    }
    proposals
}

fn of_variant(of: &Variant) -> Proposal {
    let snippet = match of.payload.map(Shape::of) {
        None => of.name.to_owned(),
        Some(Shape::Struct(shape)) => {
            let required = shape.fields.iter().filter(|field| field.required);
            let fields: Vec<String> = required
                .zip(1..)
                .map(|(field, stop)| format!("{}: {}", field.name, value(&Shape::of(field.schema), stop)))
                .collect();
            match fields.is_empty() {
                true => format!("{}($1)", of.name),
                false => format!("{}({})", of.name, fields.join(", ")),
            }
        }
        Some(Shape::Number(range)) => format!("{}(${{1:{}}})", of.name, range.example()),
        Some(shape) => format!("{}({})", of.name, value(&shape, 1)),
    };
    Proposal {
        label: of.name.into(),
        kind: Kind::Variant,
        snippet,
        detail: of.example(),
        documentation: variant(of),
        required: false,
    }
}

/// A value to fill in, with the number of its tab stop.
fn value(shape: &Shape, stop: usize) -> String {
    match shape.clone().unwrapped() {
        Shape::String => format!("\"${stop}\""),
        Shape::List(_) => format!("[${stop}]"),
        Shape::Struct(_) | Shape::Tuple(_) => format!("(${stop})"),
        Shape::Enum(_) | Shape::Option(_) | Shape::Number(_) | Shape::StringOrList(_) | Shape::Bool => {
            format!("${stop}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::shape::schema;

    /// Labels at the `|` of a text.
    fn at_bar(text: &str) -> Vec<String> {
        let at = text.find('|').unwrap();
        let text = text.replace('|', "");
        complete(&text, at, schema()).proposals.into_iter().map(|proposal| proposal.label).collect()
    }

    fn has(text: &str, some: &[&str], none: &[&str]) {
        let labels = at_bar(text);
        for label in some {
            assert!(labels.iter().any(|other| other == label), "{text}: {label} is not among {labels:?}");
        }
        for label in none {
            assert!(!labels.iter().any(|other| other == label), "{text}: {label} is among {labels:?}");
        }
    }

    #[test]
    fn fields_that_are_not_written_yet_are_proposed_required_ones_first() {
        has("(|", &["name", "stages", "seed"], &["batch", "Keep"]);
        has("Recipe(name: \"a\", |", &["stages"], &["name"]);
        has(
            "(name: \"a\", s|, seed: 3, stages: [Pretrain(batch: 1)])",
            &["device"],
            &["name", "seed", "stages"],
        );
        has("(stages: [Pretrain(batch: 8, |)])", &["length", "image_mask"], &["batch", "name"]);
        has("(stages: [Pretrain(batch: 8), Unmask(|", &["length"], &["image_mask2", "name"]);
        has("(model: (image: (size: 32, |", &["patch", "width"], &["size", "stages"]);
        has("(stages: [Pretrain(schedule: Cosine(|", &["lr", "warmup"], &["batch"]);
        has("(data: (train: WebDataset(|", &["shards"], &["train"]);
        let labels = at_bar("(stages: [Pretrain(|");
        let at = |label: &str| labels.iter().position(|other| other == label).unwrap();
        assert!(at("length") < at("micro_batch"), "{labels:?}");
    }

    #[test]
    fn variants_and_values_are_proposed_where_one_is_expected() {
        has("(stages: [|", &["Pretrain", "Unmask", "Evaluate"], &["batch"]);
        has("(stages: [Pretrain(image_mask: |", &["Keep", "Random"], &["None", "batch"]);
        has("(stages: [Pretrain(image_mask: Ra|ndom(0.5)", &["Random"], &[]);
        has("(stages: [Evaluate([|", &["ZeroShot", "Retrieval"], &["Pretrain"]);
        has("(stages: [Evaluate([ZeroShot(name: \"a\", data: |", &["ClipBenchmark", "None"], &["ZeroShot"]);
        has("(device: |", &["Cpu", "Cuda"], &[]);
        has("(data: (validation: Some(|", &["Folder", "WebDataset"], &[]);
        has("(data: (train: Mix([(source: |", &["Folder", "WebDataset"], &[]);
        let text = "(stages: [Pretrain(image_mask: ";
        let found = complete(text, text.len(), schema()).proposals;
        let random = found.iter().find(|proposal| proposal.label == "Random").unwrap();
        assert!(random.snippet.starts_with("Random(${1:0."), "{}", random.snippet);
        let text = "(stages: [";
        let found = complete(text, text.len(), schema()).proposals;
        let pretrain = found.iter().find(|proposal| proposal.label == "Pretrain").unwrap();
        assert!(
            pretrain.snippet.contains("length: $") && pretrain.snippet.ends_with(')'),
            "{}",
            pretrain.snippet
        );
    }

    #[test]
    fn nothing_is_proposed_in_strings_and_comments_and_nothing_panics_anywhere() {
        for nothing in [
            "(name: \"a|",
            "(name: r#\"a|",
            "( // a|",
            "( /* a|",
            "(device: 'a|",
            "(nonsense: (|",
            "{|",
            ")|",
        ] {
            assert_eq!(at_bar(nothing), [""; 0], "{nothing}");
        }
        has("#![enable(implicit_some)]\n( // a comment\n|", &["name"], &[]);
        has("( /* a comment */ |", &["name"], &[]);
        let whole = include_str!("../../../recipes/vit_b16.ron");
        let hostile = format!("{whole} größer 'x \"\\ r##\" /* 0xffq (Some({}", "([{".repeat(500));
        for (at, _) in hostile.char_indices() {
            complete(&hostile, at, schema());
            complete(&hostile[..at], at, schema());
            super::super::hover(&hostile, at, schema());
        }
    }
}
