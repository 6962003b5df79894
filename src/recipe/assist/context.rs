//! Completions at a place of a text that is being written.

use std::ops::Range;

use serde_json::Value as Schema;

use crate::recipe::scan::Scanner;
use crate::recipe::shape::{FieldShape, Shape, Struct};

/// Completions at a place.
pub(super) enum Slot {
    /// A field of this struct, of which these are written elsewhere.
    Field { of: Struct, written: Vec<String> },
    /// A value of this schema, of this field where it is one's.
    Value { schema: &'static Schema, field: Option<FieldShape> },
}

/// A bracket that is open.
struct Frame<'a> {
    bracket: char,
    /// Name before it.
    name: Option<&'a str>,
    /// Field whose value is being written.
    field: Option<&'a str>,
    /// Commas so far.
    items: usize,
    written: Vec<&'a str>,
}

impl<'a> Frame<'a> {
    fn new(bracket: char, name: Option<&'a str>) -> Self {
        Frame { bracket, name, field: None, items: 0, written: Vec::new() }
    }
}

/// Text between the brackets of a frame.
enum Inside {
    Fields(Struct),
    /// One element at each place.
    Elements(Vec<&'static Schema>),
    /// The same at every place.
    Every(&'static Schema),
}

/// What may stand at byte `at`, in a text whose values are those of `root`. None inside of strings and comments, and where nothing is
/// known.
pub(super) fn slot(text: &str, at: usize, root: &'static Schema) -> Option<Slot> {
    let frames = frames(text, at)?;
    let (mut schema, mut field) = (root, None);
    let last = frames.len().checked_sub(1);
    for (depth, frame) in frames.iter().enumerate() {
        match inside(schema, frame)? {
            Inside::Fields(of) => match frame.field {
                Some(name) => {
                    let shape = of.field(name)?.clone();
                    schema = shape.schema;
                    field = Some(shape);
                }
                None if Some(depth) == last => {
                    let behind = fields_behind(text, at);
                    let written =
                        frame.written.iter().map(|name| String::from(*name)).chain(behind).collect();
                    return Some(Slot::Field { of, written });
                }
                None => return None,
            },
            Inside::Elements(elements) => schema = elements.get(frame.items)?,
            Inside::Every(element) => schema = element,
        }
    }
    Some(Slot::Value { schema, field })
}

fn inside(schema: &'static Schema, frame: &Frame<'_>) -> Option<Inside> {
    if frame.bracket == '(' && frame.name == Some("Some") {
        return Some(Inside::Every(schema));
    }
    match (frame.bracket, Shape::of(schema).unwrapped()) {
        ('[', Shape::List(element) | Shape::StringOrList(element)) => Some(Inside::Every(element)),
        ('(', Shape::Struct(of)) => Some(Inside::Fields(of)),
        ('(', Shape::Tuple(elements)) => Some(Inside::Elements(elements)),
        ('(', Shape::Enum(variants)) => {
            let payload = variants.into_iter().find(|variant| Some(variant.name) == frame.name)?.payload?;
            Some(match Shape::of(payload) {
                Shape::Struct(of) => Inside::Fields(of),
                Shape::Tuple(elements) => Inside::Elements(elements),
                _ => Inside::Every(payload),
            })
        }
        _ => None,
    }
}

/// The brackets that are open at a place, from the outside in; none inside of a string or a comment.
fn frames(text: &str, at: usize) -> Option<Vec<Frame<'_>>> {
    let (mut scanner, mut open, mut word) = (Scanner::new(text), Vec::<Frame<'_>>::new(), None);
    if scanner.skip_attributes().is_err() || scanner.at() > at {
        return None;
    }
    loop {
        let from = scanner.at();
        let blank = scanner.skip_blank();
        if blank.is_err() || scanner.at() > at {
            return (!ends_in_comment(&text[from..at.max(from)])).then_some(open);
        }
        let from = scanner.at();
        if from >= at {
            return Some(open);
        }
        if scanner.at_quoted() || scanner.peek() == Some('\'') {
            let read = if scanner.at_quoted() { scanner.string() } else { scanner.character() };
            if read.is_err() || scanner.at() > at {
                return None;
            }
            word = None;
        } else if let Some(name) = scanner.identifier() {
            if scanner.at() >= at {
                return Some(open);
            }
            word = Some(name);
        } else {
            match scanner.bump() {
                Some(bracket @ ('(' | '[' | '{')) => open.push(Frame::new(bracket, word.take())),
                Some(')' | ']' | '}') => {
                    // Behind the end of the document nothing stands.
                    open.pop()?;
                    if open.is_empty() {
                        return None;
                    }
                    word = None;
                }
                Some(sign @ (':' | ',')) => {
                    if let Some(frame) = open.last_mut() {
                        frame.items += usize::from(sign == ',');
                        frame.field = if sign == ':' { word } else { None };
                        frame.written.extend(frame.field);
                    }
                    word = None;
                }
                // A number goes on with letters: `1e-5`, `0xff`.
                Some(c) if c.is_ascii_digit() => while scanner.identifier().is_some() {},
                Some(_) => {}
                None => return Some(open),
            }
        }
    }
}

/// True if blanks and comments end inside of a comment.
fn ends_in_comment(blank: &str) -> bool {
    let line = blank.rsplit('\n').next().unwrap_or_default();
    line.contains("//") || blank.matches("/*").count() > blank.matches("*/").count()
}

/// Names of the fields that are written behind a place, within the same brackets.
fn fields_behind(text: &str, at: usize) -> Vec<String> {
    let Some(behind) = text.get(at..) else { return Vec::new() };
    let (mut scanner, mut depth, mut word, mut names) = (Scanner::new(behind), 0usize, None, Vec::new());
    while scanner.skip_blank().is_ok() {
        if scanner.at_quoted() {
            if scanner.string().is_err() {
                break;
            }
        } else if let Some(name) = scanner.identifier() {
            word = Some(name);
            continue;
        } else {
            match scanner.bump() {
                Some('(' | '[' | '{') => depth += 1,
                Some(')' | ']' | '}') if depth == 0 => break,
                Some(')' | ']' | '}') => depth -= 1,
                Some(':') if depth == 0 => names.extend(word.map(String::from)),
                Some(_) => {}
                None => break,
            }
        }
        word = None;
    }
    names
}

/// The word around or just before a place.
pub(super) fn word(text: &str, at: usize) -> Range<usize> {
    let part = |c: char| c == '_' || c.is_alphanumeric();
    let before = text[..at].chars().rev().take_while(|c| part(*c)).map(char::len_utf8).sum::<usize>();
    let behind = text[at..].chars().take_while(|c| part(*c)).map(char::len_utf8).sum::<usize>();
    at - before..at + behind
}
