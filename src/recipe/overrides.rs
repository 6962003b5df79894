//! `--set PATH=VALUE`: edits of the recipe's text at the bytes of a node, so that an overridden value is
//! checked exactly like a written one. Variant names are transparent in a path (`stages.0.batch`,
//! `data.train.shards`) but may be given to choose one (`stages.0.length.Steps`).

use std::ops::Range;

use super::document::Document;
use super::field_path::{FieldPath, Segment};
use super::override_text::Override;
use super::problem::Problem;
use super::shape::{self, FieldShape, Shape, Struct, Variant};
use super::suggest::{listed, nearest};
use super::syntax::{self, Body, Inside, Node, Value};

/// Splices the arguments whose first field `chosen` accepts into the document's text, in order. The text must
/// parse.
pub fn apply(document: &mut Document, arguments: &[Override], chosen: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let first =
        |argument: &Override| argument.text.trim_start().split(['.', '[', '=']).next().is_some_and(&chosen);
    for (index, argument) in arguments.iter().enumerate().filter(|(_, argument)| first(argument)) {
        if let Err(found) = apply_one(document, index, &argument.text) {
            problems.extend(found);
        }
    }
    problems
}

fn apply_one(document: &mut Document, index: usize, argument: &str) -> Result<(), Vec<Problem>> {
    let whole = 0..argument.len();
    let one = |span: Range<usize>, message: String| vec![Problem::in_argument(index, span, message)];
    let Some((path, value)) = argument.split_once('=') else {
        return Err(one(whole, "expected PATH=VALUE, for example stages.0.batch=256".into()));
    };
    let value_from = path.len() + 1;
    let path_span = 0..path.len();
    let path: FieldPath = path.trim().parse().map_err(|message| one(path_span.clone(), message))?;

    let (Some(root), _) = syntax::parse(document.text()) else { return Ok(()) };
    let target = Walk { path: &path }.find(&root, shape::recipe(), 0).map_err(|refusal| {
        let problem = Problem::in_argument(index, path_span.clone(), refusal.message);
        vec![problem.at(&path).help_if(refusal.help)]
    })?;
    let (written, written_span) = value_text(value, &target.shape).map_err(|problems| {
        let shifted = problems.into_iter().map(|problem| {
            let span = problem.span.clone().unwrap_or(0..value.len());
            let in_argument = span.start + value_from..span.end + value_from;
            Problem { argument: Some((index, in_argument)), span: None, related: Vec::new(), ..problem }
        });
        shifted.map(|problem| problem.at(&path)).collect::<Vec<_>>()
    })?;
    let written_span = written_span.start + value_from..written_span.end + value_from;
    let insertions = [
        (target.before.as_str(), path_span.clone()),
        (written.as_str(), written_span),
        (target.after.as_str(), path_span),
    ];
    document.splice(target.replaced, index, &insertions);
    Ok(())
}

/// The value as RON, and the bytes of `value` it stands for. For a string field, what is no string in quotes
/// is taken as a bare string: a path need not be quoted twice for the shell.
fn value_text(value: &str, shape: &Shape) -> Result<(String, Range<usize>), Vec<Problem>> {
    let (node, problems) = syntax::parse(value);
    let node = match (node, problems.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(problems),
    };
    let optional = matches!(shape, Shape::Option(_));
    let shape = shape.clone().unwrapped();
    let takes_string = matches!(shape, Shape::String | Shape::StringOrList(_));
    let is_list = |node: &Node| match &node.value {
        Value::List(items) => items.iter().all(|item| is_string(item, false)),
        _ => false,
    };
    let as_list = |node: &Node| matches!(shape, Shape::StringOrList(_)) && is_list(node);
    match node {
        Ok(node) if !takes_string || is_string(&node, optional) || as_list(&node) => {
            Ok((value[node.span.clone()].to_owned(), node.span))
        }
        Err(problems) if !takes_string || value.trim_start().starts_with('"') => Err(problems),
        _ => Ok((quoted(value), 0..value.len())),
    }
}

fn is_string(node: &Node, optional: bool) -> bool {
    match &node.value {
        Value::String => true,
        Value::Compound { name: Some(name), .. } => optional && matches!(name.text.as_str(), "None" | "Some"),
        _ => false,
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(c.escape_unicode()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes that an override replaces, text around the value, and the shape that the value has to have.
struct Target {
    replaced: Range<usize>,
    before: String,
    after: String,
    shape: Shape,
}

/// Reason why a path leads nowhere.
struct Refusal {
    message: String,
    help: Option<String>,
}

fn refuse<T>(message: String, help: impl Into<Option<String>>) -> Result<T, Refusal> {
    Err(Refusal { message, help: help.into() })
}

struct Walk<'a> {
    path: &'a FieldPath,
}

impl Walk<'_> {
    fn rest(&self, done: usize) -> &[Segment] {
        &self.path.segments[done..]
    }

    /// The path up to `done` segments, for messages.
    fn so_far(&self, done: usize) -> String {
        let path = FieldPath { segments: self.path.segments[..done].to_vec() }.to_string();
        if path.is_empty() {
            "the recipe".into()
        } else {
            format!("`{path}`")
        }
    }

    fn find(&self, node: &Node, shape: Shape, done: usize) -> Result<Target, Refusal> {
        let Some(segment) = self.rest(done).first() else {
            let replaced = node.span.clone();
            return Ok(Target { replaced, before: String::new(), after: String::new(), shape });
        };
        match (shape, segment) {
            (Shape::Option(some), _) => match &node.value {
                Value::Compound { name: Some(name), body: Body::None } if name.text == "None" => {
                    let (before, after, shape) = self.absent(*some, None, done)?;
                    Ok(Target { replaced: node.span.clone(), before, after, shape })
                }
                Value::Compound { name: Some(name), body: Body::Items { items, .. } }
                    if name.text == "Some" && items.len() == 1 =>
                {
                    self.find(&items[0], *some, done)
                }
                _ => self.find(node, *some, done),
            },
            (Shape::Enum(variants), segment) => self.variant(node, &variants, segment, done),
            (Shape::Struct(shape), Segment::Field(name)) => {
                let field = self.known_field(&shape, name, done)?;
                let Inside::Fields(fields, open) = node.inside() else {
                    return refuse(format!("{} is not a struct in this recipe", self.so_far(done)), None);
                };
                if let Some(written) = fields.iter().find(|field| field.name.text == *name) {
                    return self.find(&written.value, Shape::of(field.schema), done + 1);
                }
                let (before, after, shape) = self.absent_field(field, done)?;
                Ok(Target { replaced: open..open, before, after: format!("{after}, "), shape })
            }
            (Shape::List(element), Segment::Index(index)) => {
                let Inside::Items(items) = node.inside() else {
                    return refuse(format!("{} is not a list in this recipe", self.so_far(done)), None);
                };
                let element = Shape::of(element);
                match items.get(*index) {
                    Some(item) => self.find(item, element, done + 1),
                    None if *index == items.len() && done + 1 == self.path.segments.len() => {
                        let (end, before) = match items.last() {
                            Some(last) => (last.span.end, ", ".to_owned()),
                            None => (node.span.start + 1, String::new()),
                        };
                        Ok(Target { replaced: end..end, before, after: String::new(), shape: element })
                    }
                    None => {
                        let message =
                            format!("{} has {} elements, counted from 0", self.so_far(done), items.len());
                        refuse(message, None)
                    }
                }
            }
            (Shape::StringOrList(element), Segment::Index(_)) if matches!(node.value, Value::List(_)) => {
                self.find(node, Shape::List(element), done)
            }
            (Shape::Tuple(elements), Segment::Index(index)) => match (node.inside(), elements.get(*index)) {
                (Inside::Items(items), Some(element)) if items.len() == elements.len() => {
                    self.find(&items[*index], Shape::of(element), done + 1)
                }
                _ => refuse(format!("{} has {} elements", self.so_far(done), elements.len()), None),
            },
            (Shape::Struct(shape), Segment::Index(_)) => {
                let help = format!("its fields are {}", listed(&shape.names()));
                refuse(format!("{} has fields, not elements", self.so_far(done)), help)
            }
            (Shape::List(_) | Shape::Tuple(_), Segment::Field(_)) => {
                let help = format!("write {}[0]", self.so_far(done).trim_matches('`'));
                refuse(format!("{} has elements, not fields", self.so_far(done)), help)
            }
            (shape, _) => {
                refuse(format!("{} is {}; nothing is inside it", self.so_far(done), shape.expected()), None)
            }
        }
    }

    /// Inside a variant; a segment that names it is consumed.
    fn variant(
        &self,
        node: &Node,
        variants: &[Variant],
        segment: &Segment,
        done: usize,
    ) -> Result<Target, Refusal> {
        let Value::Compound { name: Some(name), body } = &node.value else {
            return refuse(format!("{} is not a variant in this recipe", self.so_far(done)), None);
        };
        let Some(variant) = variants.iter().find(|variant| variant.name == name.text) else {
            return refuse(format!("{} is an unknown variant `{}`", self.so_far(done), name.text), None);
        };
        let Some(payload) = variant.payload.map(Shape::of) else {
            let message = format!("{} is `{}`, which has nothing inside", self.so_far(done), variant.name);
            return refuse(
                message,
                format!("set it whole, for example {}", Shape::Enum(variants.to_vec()).expected()),
            );
        };
        let Segment::Field(wanted) = segment else { return self.payload(node, payload, body, done) };
        if wanted == variant.name {
            if matches!(payload, Shape::Struct(_)) && self.rest(done + 1).is_empty() {
                let help = format!("or set {} whole", self.so_far(done));
                return refuse(format!("name a field of `{}`", variant.name), help);
            }
            return self.payload(node, payload, body, done + 1);
        }
        let own = matches!(&payload, Shape::Struct(shape) if shape.field(wanted).is_some());
        if let (Some(other), false) = (other_owner(variants, wanted), own) {
            let message = format!("{} is `{}`, not `{other}`", self.so_far(done), variant.name);
            let path = self.so_far(done).replace('`', "");
            return refuse(message, format!("set it whole: {path}={other}(...)"));
        }
        self.payload(node, payload, body, done)
    }

    fn payload(&self, node: &Node, payload: Shape, body: &Body, done: usize) -> Result<Target, Refusal> {
        match (&payload, body) {
            (Shape::Struct(_), _) => self.find(node, payload, done),
            (_, Body::Items { items, .. }) if items.len() == 1 => self.find(&items[0], payload, done),
            _ => refuse(format!("{} does not hold one value in this recipe", self.so_far(done)), None),
        }
    }

    fn known_field<'s>(&self, shape: &'s Struct, name: &str, done: usize) -> Result<&'s FieldShape, Refusal> {
        shape.field(name).ok_or_else(|| {
            let names = shape.names();
            let meant = nearest(name, &names).map(|name| format!("did you mean `{name}`? "));
            Refusal {
                message: format!("{} has no field `{name}`", self.so_far(done)),
                help: Some(format!("{}the fields there are {}", meant.unwrap_or_default(), listed(&names))),
            }
        })
    }

    /// Text around the value of a field that the recipe leaves out; `done` counts its owner.
    fn absent_field(&self, field: &FieldShape, done: usize) -> Result<(String, String, Shape), Refusal> {
        let (before, after, shape) =
            self.absent(Shape::of(field.schema), field.default_variant(), done + 1)?;
        Ok((format!("{}: {before}", field.name), after, shape))
    }

    fn absent(
        &self,
        shape: Shape,
        default_variant: Option<&str>,
        done: usize,
    ) -> Result<(String, String, Shape), Refusal> {
        let Some(segment) = self.rest(done).first() else {
            return Ok((String::new(), String::new(), shape));
        };
        match (shape.unwrapped(), segment) {
            (Shape::Struct(shape), Segment::Field(name)) => {
                let field = self.known_field(&shape, name, done)?;
                let (before, after, shape) = self.absent_field(field, done)?;
                Ok((format!("({before}"), format!("{after})"), shape))
            }
            (Shape::Enum(variants), segment) => {
                let named =
                    |variant: &&Variant| matches!(segment, Segment::Field(name) if name == variant.name);
                let chosen = variants.iter().find(named);
                let step = usize::from(chosen.is_some());
                let chosen = chosen.or(variants.iter().find(|variant| Some(variant.name) == default_variant));
                let payload = chosen.and_then(|variant| Some((variant.name, Shape::of(variant.payload?))));
                match payload {
                    Some((name, Shape::Struct(shape))) if !self.rest(done + step).is_empty() => {
                        let (before, after, shape) = self.absent(Shape::Struct(shape), None, done + step)?;
                        // The fields of a variant stand directly in its parentheses.
                        Ok((format!("{name}{before}"), after, shape))
                    }
                    Some((name, payload)) if self.rest(done + step).is_empty() => {
                        Ok((format!("{name}("), ")".into(), payload))
                    }
                    _ => {
                        let expected = Shape::Enum(variants).expected();
                        refuse(
                            format!("{} is not set in this recipe", self.so_far(done)),
                            format!("set it whole to {expected}"),
                        )
                    }
                }
            }
            (shape, _) => {
                let help = format!("set it whole to {}", shape.expected());
                refuse(format!("{} is not set in this recipe", self.so_far(done)), help)
            }
        }
    }
}

/// The variant that is called so, or whose struct has a field called so.
fn other_owner(variants: &[Variant], wanted: &str) -> Option<&'static str> {
    let has = |variant: &&Variant| match variant.payload.map(Shape::of) {
        Some(Shape::Struct(shape)) => shape.field(wanted).is_some(),
        _ => false,
    };
    let named = variants.iter().find(|variant| variant.name == wanted);
    named.or(variants.iter().find(has)).map(|variant| variant.name)
}
