//! Fields and variants in words.

use serde_json::Value as Schema;

use crate::recipe::shape::{FieldShape, Shape, Variant};

/// Expected value of a schema: `a whole number, 1 <= batch <= 1048576; default 256`.
pub(super) fn expected(schema: &'static Schema, name: &str) -> String {
    let shape = Shape::of(schema);
    let mut words = match shape.clone().unwrapped() {
        Shape::Number(range) if range.min.is_some() || range.max.is_some() => {
            format!("{}, {}", shape.expected(), range.expected(name))
        }
        // Each is proposed with its own words.
        Shape::Enum(variants) if variants.len() > 4 => format!("one of {} variants", variants.len()),
        _ => shape.expected(),
    };
    if let Some(default) = schema.get("default").filter(|value| !value.is_object() && !value.is_null()) {
        words.push_str(&format!("; default {default}"));
    }
    words
}

/// The documentation of a field.
pub(super) fn field(field: &FieldShape) -> String {
    let needed = if field.required { ", has to be written" } else { "" };
    let heading = format!("**{}**{needed}: {}", field.name, expected(field.schema, field.name));
    match field.schema.get("description").and_then(Schema::as_str) {
        Some(doc) => format!("{heading}\n\n{doc}"),
        None => heading,
    }
}

/// The documentation of a variant.
pub(super) fn variant(variant: &Variant) -> String {
    match variant.doc {
        Some(doc) => format!("**{}**\n\n{doc}", variant.example()),
        None => format!("**{}**", variant.example()),
    }
}
