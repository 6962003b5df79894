//! What a word means.

use serde_json::Value as Schema;

use super::context::{slot, word, Slot};
use super::describe::{field, variant};
use super::Hover;
use crate::recipe::scan::Scanner;
use crate::recipe::shape::Shape;

/// What stands at byte `at` of a document with this schema: a field, a variant, or the value of a field.
pub fn hover(text: &str, at: usize, root: &'static Schema) -> Option<Hover> {
    let span = word(text, at);
    let name = &text[span.clone()];
    let text = match slot(text, span.start, root)? {
        Slot::Field { of, .. } => {
            let mut behind = Scanner::new(&text[span.end..]);
            let named = behind.skip_blank().is_ok() && behind.peek() == Some(':');
            field(of.field(name).filter(|_| named)?)
        }
        Slot::Value { schema, field: of } => {
            let of = of.filter(|_| !name.is_empty());
            match Shape::of(schema).unwrapped() {
                Shape::Enum(variants) => {
                    let meant = variants.iter().find(|variant| variant.name == name)?;
                    match of {
                        Some(of) => format!("{}\n\n---\n\n{}", variant(meant), field(&of)),
                        None => variant(meant),
                    }
                }
                _ => field(&of?),
            }
        }
    };
    Some(Hover { span, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::shape::schema;

    fn text_at(text: &str) -> Option<String> {
        let at = text.find('|').unwrap();
        hover(&text.replace('|', ""), at, schema()).map(|hover| hover.text)
    }

    #[test]
    fn fields_variants_and_values_are_explained() {
        let seed = text_at("(se|ed: 3)").unwrap();
        assert!(
            seed.starts_with("**seed**: a whole number") && seed.contains("Every random choice"),
            "{seed}"
        );
        assert_eq!(text_at("(seed: |3)").unwrap(), seed);
        let random = text_at("(stages: [Pretrain(image_mask: Rand|om(0.5))])").unwrap();
        assert!(random.starts_with("**Random(") && random.contains("**image_mask**"), "{random}");
        assert!(text_at("(stages: [Pre|train(batch: 1)])").unwrap().starts_with("**Pretrain("));
        let needed = text_at("(stages: [Pretrain(len|gth: Steps(1))])").unwrap();
        assert!(needed.starts_with("**length**, has to be written: "), "{needed}");
        for nothing in ["(name: \"se|ed\")", "(nonsense|: 1)", "// se|ed", "( |  )", "(seed|"] {
            assert_eq!(text_at(nothing), None, "{nothing}");
        }
    }
}
