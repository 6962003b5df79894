//! A text with structural mistakes made into one that can be read, so that what is wrong with its values is told in the same
//! breath. What was put into it is only to be read over: nothing is told of it.

use std::ops::Range;

use super::field_path::FieldPath;
use super::shape::Shape;
use super::syntax::Node;
use super::validate::Violation;

/// Deeper placeholders are not made.
const DEPTH: usize = 16;

/// Changes of a text that make it a recipe.
#[derive(Debug, Default)]
pub struct Repairs {
    changes: Vec<(Range<usize>, String)>,
    /// Fields that hold something else than what was written.
    replaced: Vec<FieldPath>,
    /// Fields that were left out; one that was misspelt may have been meant.
    removed: Vec<FieldPath>,
    /// A mistake that cannot be repaired was found.
    hopeless: bool,
}

impl Repairs {
    /// Puts a placeholder in the place of a value.
    pub fn replace(&mut self, node: &Node, shape: &Shape, path: &FieldPath) {
        let placeholder = placeholder(shape, 0);
        self.change(node.span.clone(), placeholder);
        self.replaced.push(path.clone());
    }

    /// Adds a field that is missing, at the byte after the parenthesis that opens its struct.
    pub fn insert(&mut self, at: usize, name: &str, shape: &Shape, path: &FieldPath) {
        let field = placeholder(shape, 0).map(|value| format!("{name}: {value}, "));
        self.change(at..at, field);
        self.replaced.push(path.clone());
    }

    /// Leaves out a field: its name and value, and a comma behind them.
    pub fn remove(&mut self, text: &str, field: Range<usize>, path: &FieldPath) {
        let rest = &text[field.end..];
        let blank = rest.len() - rest.trim_start().len();
        let comma = if rest[blank..].starts_with(',') { blank + 1 } else { 0 };
        self.change(field.start..field.end + comma, Some(String::new()));
        self.removed.push(path.clone());
    }

    /// Gives up: values are checked once this is mended.
    pub fn give_up(&mut self) {
        self.hopeless = true;
    }

    fn change(&mut self, span: Range<usize>, text: Option<String>) {
        match text {
            Some(text) => self.changes.push((span, text)),
            None => self.hopeless = true,
        }
    }

    /// The text with all changes; none where that is not to be had.
    pub fn applied(&self, text: &str) -> Option<String> {
        if self.hopeless {
            return None;
        }
        let mut changes: Vec<&(Range<usize>, String)> = self.changes.iter().collect();
        changes.sort_by_key(|(span, _)| (span.start, span.end));
        let (mut repaired, mut from) = (String::with_capacity(text.len()), 0);
        for (span, new) in changes {
            repaired.push_str(text.get(from..span.start)?);
            repaired.push_str(new);
            from = span.end;
        }
        repaired.push_str(text.get(from..)?);
        Some(repaired)
    }

    /// True of a violation that is about what was written, and not about what was put in its place.
    pub fn concerns_the_text(&self, violation: &Violation, root: &Node) -> bool {
        let involved = || std::iter::once(&violation.path).chain(violation.also.iter().map(|(path, _)| path));
        let invented = involved().any(|path| self.replaced.iter().any(|field| overlap(path, field)));
        let unwritten = involved().any(|path| {
            let sibling = |field: &FieldPath| parent(field) == parent(path);
            root.exactly(path).is_none() && self.removed.iter().any(sibling)
        });
        // Stages are held against model and data: what was put there says nothing of them.
        let top = |path: &FieldPath| path.segments.first().cloned();
        let stages = Some(super::Segment::Field("stages".to_owned()));
        let name = Some(super::Segment::Field("name".to_owned()));
        let elsewhere = |field: &FieldPath| top(field) != stages && top(field) != name;
        let derived = top(&violation.path) == stages && self.replaced.iter().any(elsewhere);
        !invented && !unwritten && !derived
    }
}

/// True where one path is inside of the other.
fn overlap(one: &FieldPath, other: &FieldPath) -> bool {
    one.segments.iter().zip(&other.segments).all(|(one, other)| one == other)
}

fn parent(path: &FieldPath) -> &[super::Segment] {
    path.segments.split_last().map_or(&[], |(_, parent)| parent)
}

/// The plainest value of a shape.
fn placeholder(shape: &Shape, depth: usize) -> Option<String> {
    if depth > DEPTH {
        return None;
    }
    let inner = |shape: Shape| placeholder(&shape, depth + 1);
    Some(match shape {
        Shape::Option(_) => "None".into(),
        Shape::Number(range) => match range.holds(1.0) {
            true => "1".into(),
            false => range.example(),
        },
        Shape::String | Shape::StringOrList(_) => "\"x\"".into(),
        Shape::Bool => "false".into(),
        Shape::List(_) => "[]".into(),
        Shape::Tuple(elements) => {
            let elements: Option<Vec<String>> = elements.iter().map(|of| inner(Shape::of(of))).collect();
            format!("({})", elements?.join(", "))
        }
        Shape::Struct(shape) => {
            let required = shape.fields.iter().filter(|field| field.required);
            let fields: Option<Vec<String>> = required
                .map(|field| Some(format!("{}: {}", field.name, inner(Shape::of(field.schema))?)))
                .collect();
            format!("({})", fields?.join(", "))
        }
        Shape::Enum(variants) => {
            let plain = variants.iter().find(|variant| variant.payload.is_none()).or(variants.first())?;
            match plain.payload.map(Shape::of) {
                None => plain.name.to_owned(),
                // The fields of a struct stand directly in the parentheses of its variant.
                Some(Shape::Struct(payload)) => format!("{}{}", plain.name, inner(Shape::Struct(payload))?),
                Some(payload) => format!("{}({})", plain.name, inner(payload)?),
            }
        }
    })
}
