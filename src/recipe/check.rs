//! Holds the tree of a document against its shape and tells everything that does not fit: unknown, missing and
//! repeated fields, unknown variants, wrong types, numbers out of range.

use super::field_path::FieldPath;
use super::problem::Problem;
use super::repair::Repairs;
use super::shape::{Shape, Struct, Variant};
use super::suggest::{listed, nearest};
use super::syntax::{Body, Field, Inside, Name, Node, Value};

/// So many errors are told; a text with more is no recipe.
const MOST_ERRORS: usize = 100;

/// Everything in which `root` differs from a shape.
pub fn check(text: &str, root: &Node, shape: &Shape) -> Vec<Problem> {
    check_and_repair(text, root, shape).0
}

/// The same, with changes that make the text fit.
pub fn check_and_repair(text: &str, root: &Node, shape: &Shape) -> (Vec<Problem>, Repairs) {
    let mut checker = Checker { text, problems: Vec::new(), repairs: Repairs::default() };
    checker.node(root, shape, &FieldPath::default());
    (checker.problems, checker.repairs)
}

struct Checker<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    repairs: Repairs,
}

impl Checker<'_> {
    fn report(&mut self, node: &Node, path: &FieldPath, message: String, help: Option<String>) {
        self.problems.push(Problem::new(node.head(), message).at(path).help_if(help));
    }

    /// The general complaint: expected this, got that.
    fn mismatch(&mut self, node: &Node, shape: &Shape, path: &FieldPath, help: Option<String>) {
        let message = format!("expected {}, got {}", shape.expected(), found(self.text, node));
        self.report(node, path, message, help);
        self.repairs.replace(node, shape, path);
    }

    fn node(&mut self, node: &Node, shape: &Shape, path: &FieldPath) {
        if self.problems.len() >= MOST_ERRORS {
            return self.repairs.give_up();
        }
        match shape {
            Shape::Option(some) => self.option(node, some, path),
            Shape::Struct(shape) => self.structure(node, shape, path),
            Shape::Enum(variants) => self.enumeration(node, shape, variants, path),
            Shape::List(element) => match &node.value {
                Value::List(items) => {
                    let element = Shape::of(element);
                    for (index, item) in items.iter().enumerate() {
                        self.node(item, &element, &path.index(index));
                    }
                }
                _ => self.mismatch(node, shape, path, Some("put the elements in `[` and `]`".into())),
            },
            Shape::Tuple(elements) => match &node.value {
                Value::Compound { name: None, body: Body::Items { items, .. } }
                    if items.len() == elements.len() =>
                {
                    for (index, (item, element)) in items.iter().zip(elements).enumerate() {
                        self.node(item, &Shape::of(element), &path.index(index));
                    }
                }
                _ => self.mismatch(node, shape, path, None),
            },
            Shape::Number(_) => self.number(node, shape, path),
            Shape::String => {
                if !matches!(node.value, Value::String) {
                    let written = &self.text[node.span.clone()];
                    let bare = matches!(&node.value, Value::Compound { body: Body::None, .. });
                    let quoted = format!("write it in quotes: \"{written}\"");
                    self.mismatch(node, shape, path, bare.then_some(quoted));
                }
            }
            Shape::StringOrList(element) => match &node.value {
                Value::String => {}
                Value::List(_) => self.node(node, &Shape::List(element), path),
                Value::Compound { body: Body::None, .. } => {
                    let quoted = format!("write it in quotes: \"{}\"", &self.text[node.span.clone()]);
                    self.mismatch(node, shape, path, Some(quoted));
                }
                _ => self.mismatch(node, shape, path, None),
            },
            Shape::Bool => {
                if !matches!(node.value, Value::Bool) {
                    self.mismatch(node, shape, path, None);
                }
            }
        }
    }

    fn number(&mut self, node: &Node, shape: &Shape, path: &FieldPath) {
        let Shape::Number(range) = shape else { return };
        let written = &self.text[node.span.clone()];
        let value = match node.value {
            Value::Integer(Some(value)) => value as f64,
            Value::Integer(None) => f64::INFINITY,
            Value::Float(value) if !range.whole => value,
            Value::Float(value) => {
                let exact = value.is_finite() && value.fract() == 0.0 && value.abs() < 2f64.powi(63);
                let help = exact.then(|| format!("write {}", value as i64));
                return self.mismatch(node, shape, path, help);
            }
            Value::String => {
                let help = "numbers are written without quotes".to_owned();
                return self.mismatch(node, shape, path, Some(help));
            }
            _ => return self.mismatch(node, shape, path, None),
        };
        if !range.holds(value) || !value.is_finite() {
            let message = match range.widest {
                Some(widest) if value > widest => {
                    format!("{written} is too large for a whole number of 64 bits")
                }
                _ if !value.is_finite() => format!("expected a finite number, got {written}"),
                _ => format!("expected {}, got {written}", range.expected(path.noun())),
            };
            self.report(node, path, message, None);
            self.repairs.replace(node, shape, path);
        }
    }

    fn option(&mut self, node: &Node, some: &Shape, path: &FieldPath) {
        let Value::Compound { name: Some(name), body } = &node.value else {
            return self.node(node, some, path);
        };
        match (name.text.as_str(), body) {
            ("None", Body::None) => {}
            ("Some", body) => self.payload(node, name, body, some, path),
            _ => self.node(node, some, path),
        }
    }

    fn structure(&mut self, node: &Node, shape: &Struct, path: &FieldPath) {
        if let Value::Compound { name, body } = &node.value {
            if let (Some(name), false) = (name, matches!(body, Body::None)) {
                if shape.name.is_some_and(|expected| expected != name.text) {
                    let help = format!(
                        "write `(...)` without a name; here stands a `{}`",
                        shape.name.unwrap_or_default()
                    );
                    return self.mismatch(node, &Shape::Struct(shape.clone()), path, Some(help));
                }
            }
            match body {
                Body::Fields { fields, .. } => return self.fields(node, fields, shape, path),
                Body::Items { items, .. } if items.is_empty() => return self.fields(node, &[], shape, path),
                _ => {}
            }
        }
        let help = format!("its fields are {}", listed(&shape.names()));
        self.mismatch(node, &Shape::Struct(shape.clone()), path, Some(help));
    }

    fn fields(&mut self, owner: &Node, fields: &[Field], shape: &Struct, path: &FieldPath) {
        for (position, field) in fields.iter().enumerate() {
            if self.problems.len() >= MOST_ERRORS {
                return;
            }
            let name = &field.name;
            let inner = path.field(&name.text);
            let Some(known) = shape.field(&name.text) else {
                self.problems.push(unknown_field(name, fields, shape).at(&inner));
                self.repairs.remove(self.text, name.span.start..field.value.span.end, &inner);
                continue;
            };
            if let Some(first) = fields[..position].iter().find(|first| known.is_called(&first.name.text)) {
                let mut problem = Problem::new(name.span.clone(), "this field is given twice").at(&inner);
                problem.related.push((first.name.span.clone(), "first given here".into()));
                self.problems.push(problem);
                self.repairs.remove(self.text, name.span.start..field.value.span.end, &inner);
                continue;
            }
            self.node(&field.value, &Shape::of(known.schema), &inner);
        }
        let opening = owner.head();
        for absent in &shape.fields {
            if absent.required && !fields.iter().any(|field| absent.is_called(&field.name.text)) {
                let message = format!("missing field; expected {}", Shape::of(absent.schema).expected());
                let help = absent.doc().map(|doc| format!("`{}`: {doc}", absent.name));
                let problem = Problem::new(opening.clone(), message).help_if(help);
                let inner = path.field(absent.name);
                match owner.inside() {
                    Inside::Fields(_, open) => {
                        self.repairs.insert(open, absent.name, &Shape::of(absent.schema), &inner);
                    }
                    _ => self.repairs.give_up(),
                }
                self.problems.push(problem.at(&inner));
            }
        }
    }

    fn enumeration(&mut self, node: &Node, shape: &Shape, variants: &[Variant], path: &FieldPath) {
        let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
        let Value::Compound { name: Some(name), body } = &node.value else {
            let help = match &node.value {
                Value::String => {
                    let written = self.text[node.span.clone()].trim_matches('"');
                    nearest(written, &names).map(|name| format!("write {name} without quotes"))
                }
                Value::Compound { body: Body::Fields { fields, .. }, .. } => owner_of(fields, variants)
                    .map(|name| format!("these are fields of `{name}`: put `{name}` before the `(`")),
                Value::Integer(Some(value)) => self.with_number(node, *value as f64, variants),
                Value::Float(value) => self.with_number(node, *value, variants),
                _ => None,
            };
            return self.mismatch(node, shape, path, help);
        };
        let Some(variant) = variants.iter().find(|variant| variant.name == name.text) else {
            let meant = nearest(&name.text, &names);
            let meant = meant.and_then(|meant| variants.iter().find(|variant| variant.name == meant));
            let help = meant.map(|variant| match body {
                Body::None => format!("did you mean `{}`?", variant.example()),
                _ => format!("did you mean `{}`?", variant.name),
            });
            let known: Vec<_> = variants.iter().map(Variant::usage).collect();
            let message = format!("unknown variant `{}`, expected {}", name.text, known.join(", "));
            let message =
                if known.len() > 1 { message.replacen("expected ", "expected one of ", 1) } else { message };
            self.problems.push(Problem::new(name.span.clone(), message).at(path).help_if(help));
            self.repairs.replace(node, shape, path);
            return;
        };
        match (variant.payload, body) {
            (None, Body::None) => {}
            (None, _) => {
                let message = format!("`{}` takes nothing in parentheses", variant.name);
                self.report(node, path, message, Some(format!("write {} alone", variant.name)));
                self.repairs.replace(node, shape, path);
            }
            (Some(payload), body) => self.payload(node, name, body, &Shape::of(payload), path),
        }
    }

    /// The variants that a bare number can be written with: `Random(0.5)` for 0.5.
    fn with_number(&self, node: &Node, value: f64, variants: &[Variant]) -> Option<String> {
        let written = &self.text[node.span.clone()];
        let takes = |variant: &&Variant| match variant.payload.map(Shape::of) {
            Some(Shape::Number(range)) => range.holds(value) && (!range.whole || value.fract() == 0.0),
            _ => false,
        };
        let told = variants.iter().filter(takes).map(|variant| {
            let doc = variant.first_sentence().map_or(String::new(), |doc| format!(": {}", one_line(doc)));
            format!("{}({written}){doc}", variant.name)
        });
        let told: Vec<String> = told.collect();
        match told.len() {
            0 => None,
            1 => Some(format!("write {}", told[0])),
            _ => Some(format!("write one of these:\n{}", told.join("\n"))),
        }
    }

    /// Content of the parentheses of `Name(...)`: the fields of a struct directly, else one value.
    fn payload(&mut self, node: &Node, name: &Name, body: &Body, shape: &Shape, path: &FieldPath) {
        let name = &name.text;
        match (shape, body) {
            (_, Body::None) => {
                let message = format!("`{name}` needs {} in parentheses", shape.expected());
                let example = match shape {
                    Shape::Number(range) => range.example(),
                    _ => "...".to_owned(),
                };
                self.report(node, path, message, Some(format!("write {name}({example})")));
                self.repairs.give_up();
            }
            (Shape::Struct(shape), Body::Fields { fields, .. }) => self.fields(node, fields, shape, path),
            (Shape::Struct(shape), Body::Items { items, .. }) => match items.as_slice() {
                [] => self.fields(node, &[], shape, path),
                [only] if matches!(&only.value, Value::Compound { body: Body::Fields { .. }, .. }) => {
                    let message = "the fields stand directly in the parentheses of the variant".to_owned();
                    let help = format!("write {name}(...) with one pair of parentheses and no name inside");
                    self.report(only, path, message, Some(help));
                    self.repairs.give_up();
                }
                [first, ..] => self.structure(first, shape, path),
            },
            (Shape::Tuple(elements), Body::Items { items, .. }) if items.len() == elements.len() => {
                for (index, (item, element)) in items.iter().zip(elements).enumerate() {
                    self.node(item, &Shape::of(element), &path.index(index));
                }
            }
            (shape, Body::Items { items, .. }) if items.len() == 1 => self.node(&items[0], shape, path),
            (shape, body) => {
                let got = match body {
                    Body::Fields { .. } => "named fields".to_owned(),
                    Body::Items { items, .. } => format!("{} values", items.len()),
                    Body::None => "nothing".to_owned(),
                };
                let message = format!("expected {} in `{name}(...)`, got {got}", shape.expected());
                let help = match body {
                    Body::Fields { fields, .. } if fields.len() == 1 => {
                        let value = &self.text[fields[0].value.span.clone()];
                        Some(format!("write {name}({value})"))
                    }
                    _ => None,
                };
                self.report(node, path, message, help);
                self.repairs.give_up();
            }
        }
    }
}

/// A documentation without the breaks of its lines.
fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown_field(name: &Name, fields: &[Field], shape: &Struct) -> Problem {
    let absent: Vec<_> = shape.names();
    let unused: Vec<_> = absent
        .iter()
        .copied()
        .filter(|known| !fields.iter().any(|field| field.name.text == *known))
        .collect();
    let help = match nearest(&name.text, &unused) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if absent.is_empty() => "there are no fields here".into(),
        None => format!("the fields here are {}", listed(&absent)),
    };
    Problem::new(name.span.clone(), format!("unknown field `{}`", name.text)).help(help)
}

/// The variant whose payload has all of these fields.
fn owner_of(fields: &[Field], variants: &[Variant]) -> Option<&'static str> {
    let owns = |variant: &&Variant| match variant.payload.map(Shape::of) {
        Some(Shape::Struct(shape)) => fields.iter().all(|field| shape.field(&field.name.text).is_some()),
        _ => false,
    };
    variants.iter().find(owns).map(|variant| variant.name)
}

/// Found value in words, for a message.
fn found(text: &str, node: &Node) -> String {
    let written = &text[node.span.clone()];
    match &node.value {
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map => "a map `{...}`".into(),
        Value::Compound { name: Some(name), body: Body::None } => format!("`{}`", name.text),
        Value::Compound { name: Some(name), .. } => format!("`{}(...)`", name.text),
        Value::Compound { body: Body::Fields { .. } | Body::None, .. } => "a struct without a name".into(),
        Value::Compound { body: Body::Items { items, .. }, .. } => match items.len() {
            0 => "`()`".into(),
            1 => "a value in parentheses".into(),
            n => format!("{n} values in parentheses"),
        },
        _ if written.chars().count() > 40 => {
            let start: String = written.chars().take(40).collect();
            format!("{start}...")
        }
        Value::Exotic | Value::String | Value::Bool | Value::Integer(_) | Value::Float(_) => {
            written.to_owned()
        }
    }
}
