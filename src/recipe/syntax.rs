//! A RON text as a tree in which every node knows its bytes. ron itself deserialises; this tree exists so
//! that everything wrong with a recipe can be told at once, each error with its place.

use std::ops::Range;

use super::field_path::{FieldPath, Segment};
use super::problem::Problem;
use super::scan::{Malformed, Number, Scanner};

/// Deeper nesting than this is refused; a recipe needs about ten levels.
const DEPTH: usize = 64;

/// After this many syntax errors the rest of the text is not worth reading.
const MOST_ERRORS: usize = 10;

/// A value and its bytes.
#[derive(Debug, Clone)]
pub struct Node {
    pub span: Range<usize>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    Bool,
    /// `None`: wider than 128 bits.
    Integer(Option<i128>),
    Float(f64),
    String,
    /// A character, byte or byte string: legal RON that no recipe field takes.
    Exotic,
    List(Vec<Node>),
    Map,
    /// `Name`, `Name(...)` or `(...)`: struct, tuple, variant or option.
    Compound {
        name: Option<Name>,
        body: Body,
    },
}

#[derive(Debug, Clone)]
pub struct Name {
    pub text: String,
    pub span: Range<usize>,
}

/// Body that follows a name.
#[derive(Debug, Clone)]
pub enum Body {
    /// No parentheses.
    None,
    /// `(a, b)`, also `()`.
    Items { open: usize, items: Vec<Node> },
    /// `(x: a, y: b)`.
    Fields { open: usize, fields: Vec<Field> },
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Name,
    pub value: Node,
}

/// Content of a node, looking through variants and `Some`.
pub enum Inside<'a> {
    /// Fields, and the byte just after the parenthesis that opens them.
    Fields(&'a [Field], usize),
    Items(&'a [Node]),
    Nothing,
}

impl Node {
    /// Looks through `Pretrain(...)`, `Evaluate([...])`, `Some(...)`.
    pub fn inside(&self) -> Inside<'_> {
        match &self.value {
            Value::List(items) => Inside::Items(items),
            Value::Compound { body: Body::Fields { fields, open }, .. } => Inside::Fields(fields, *open),
            Value::Compound { body: Body::Items { items, open }, .. } if items.is_empty() => {
                Inside::Fields(&[], *open)
            }
            Value::Compound { name: Some(_), body: Body::Items { items, .. } } if items.len() == 1 => {
                match items[0].inside() {
                    Inside::Nothing => Inside::Items(items),
                    inside => inside,
                }
            }
            Value::Compound { body: Body::Items { items, .. }, .. } => Inside::Items(items),
            _ => Inside::Nothing,
        }
    }

    /// Text to underline: a scalar or list whole; the name or parenthesis of a struct or variant with fields.
    pub fn head(&self) -> Range<usize> {
        match &self.value {
            Value::Compound { name: Some(name), body: Body::Fields { .. } } => name.span.clone(),
            Value::Compound { name: None, .. } => self.span.start..self.span.start + 1,
            _ => self.span.clone(),
        }
    }

    /// The node at `path`, or the nearest one above it that is written down.
    pub fn nearest(&self, path: &FieldPath) -> &Node {
        self.follow(path).0
    }

    /// The node at `path`, if it is written down.
    pub fn exactly(&self, path: &FieldPath) -> Option<&Node> {
        let (node, complete) = self.follow(path);
        complete.then_some(node)
    }

    fn follow(&self, path: &FieldPath) -> (&Node, bool) {
        let mut node = self;
        for segment in &path.segments {
            let next = match (node.inside(), segment) {
                (Inside::Fields(fields, _), Segment::Field(name)) => {
                    fields.iter().find(|field| field.name.text == *name).map(|field| &field.value)
                }
                (Inside::Items(items), Segment::Index(index)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }
}

/// Reads a document. A missing comma or colon is reported and read over; anything worse ends the tree.
pub fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut parser = Parser { scanner: Scanner::new(text), problems: Vec::new(), long_string: None };
    let root = match parser.document() {
        Ok(root) => Some(root),
        Err(problem) => {
            parser.problems.push(*problem);
            None
        }
    };
    match parser.long_string {
        // A forgotten quote ends at the next string, where the nonsense begins.
        Some(string) if !parser.problems.is_empty() => {
            let message = "this string runs over several lines; is its closing quote missing?";
            (None, vec![Problem::new(string, message)])
        }
        _ => (root, parser.problems),
    }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    problems: Vec<Problem>,
    /// The first string of several lines, before any problem.
    long_string: Option<Range<usize>>,
}

type Parsed<T> = Result<T, Box<Problem>>;

impl From<Malformed> for Box<Problem> {
    fn from(malformed: Malformed) -> Self {
        Box::new(Problem::new(malformed.span, malformed.message))
    }
}

impl Parser<'_> {
    fn document(&mut self) -> Parsed<Node> {
        self.scanner.skip_attributes()?;
        let root = self.node(0)?;
        self.scanner.skip_blank()?;
        match self.scanner.peek() {
            None => Ok(root),
            Some(found) => Err(self.unexpected(format!("expected the end of the recipe, got `{found}`"))),
        }
    }

    /// A problem at the next character.
    fn unexpected(&self, message: impl Into<String>) -> Box<Problem> {
        let at = self.scanner.at();
        let len = self.scanner.peek().map_or(0, char::len_utf8);
        Box::new(Problem::new(at..at + len, message))
    }

    fn node(&mut self, depth: usize) -> Parsed<Node> {
        if depth == DEPTH {
            return Err(self.unexpected(format!("nested more than {DEPTH} deep")));
        }
        self.scanner.skip_blank()?;
        let from = self.scanner.at();
        let value = match self.scanner.peek() {
            None => return Err(self.unexpected("expected a value, got the end of the text")),
            Some('[') => Value::List(self.list(depth)?),
            Some('{') => self.map(depth)?,
            Some('(') => Value::Compound { name: None, body: self.body(depth)? },
            Some('\'') => {
                self.scanner.character()?;
                Value::Exotic
            }
            Some(_) if self.scanner.at_quoted() => self.quoted()?,
            Some('0'..='9' | '+' | '-' | '.') => self.number()?,
            Some(found) => match self.name() {
                Some(name) => self.named(name, depth)?,
                None => return Err(self.unexpected(format!("expected a value, got `{found}`"))),
            },
        };
        Ok(Node { span: from..self.scanner.at(), value })
    }

    fn quoted(&mut self) -> Parsed<Value> {
        let byte = self.scanner.peek() == Some('b');
        let from = self.scanner.at();
        self.scanner.string()?;
        let span = from..self.scanner.at();
        if self.problems.is_empty() && self.long_string.is_none() && self.scanner.slice(&span).contains('\n')
        {
            self.long_string = Some(span);
        }
        Ok(if byte { Value::Exotic } else { Value::String })
    }

    fn number(&mut self) -> Parsed<Value> {
        Ok(match self.scanner.number()? {
            Number::Integer(value) => Value::Integer(value),
            Number::Float(value) => Value::Float(value),
        })
    }

    fn name(&mut self) -> Option<Name> {
        let from = self.scanner.at();
        let text = self.scanner.identifier()?.to_owned();
        Some(Name { text, span: from..self.scanner.at() })
    }

    fn named(&mut self, name: Name, depth: usize) -> Parsed<Value> {
        match name.text.as_str() {
            "true" | "false" => return Ok(Value::Bool),
            "inf" => return Ok(Value::Float(f64::INFINITY)),
            "NaN" => return Ok(Value::Float(f64::NAN)),
            _ => {}
        }
        self.scanner.skip_blank()?;
        let body = if self.scanner.peek() == Some('(') { self.body(depth)? } else { Body::None };
        Ok(Value::Compound { name: Some(name), body })
    }

    fn body(&mut self, depth: usize) -> Parsed<Body> {
        let opened = self.scanner.at();
        self.scanner.bump();
        let open = self.scanner.at();
        self.scanner.skip_blank()?;
        if self.at_field() {
            let fields = self.separated(opened, ')', |parser| parser.field(depth))?;
            return Ok(Body::Fields { open, fields });
        }
        let items = self.separated(opened, ')', |parser| parser.node(depth + 1))?;
        Ok(Body::Items { open, items })
    }

    /// True if a name and a colon (or, by mistake, an equals sign) come next.
    fn at_field(&self) -> bool {
        let mut ahead = Scanner::new(self.scanner.rest());
        ahead.identifier().is_some()
            && ahead.skip_blank().is_ok()
            && matches!(ahead.peek(), Some(':') | Some('='))
    }

    fn field(&mut self, depth: usize) -> Parsed<Field> {
        let Some(name) = self.name() else {
            let found = self.scanner.peek().map_or("the end".into(), |c| format!("`{c}`"));
            return Err(self.unexpected(format!("expected a field name, got {found}")));
        };
        self.scanner.skip_blank()?;
        if !self.scanner.eat(':') {
            let after = name.span.end..name.span.end;
            let message = format!("expected `:` after `{}`", name.text);
            self.problems.push(Problem::new(after, message).help("a field is written `name: value`"));
            self.scanner.eat('=');
        }
        let value = self.node(depth + 1)?;
        Ok(Field { name, value })
    }

    fn list(&mut self, depth: usize) -> Parsed<Vec<Node>> {
        let opened = self.scanner.at();
        self.scanner.bump();
        self.separated(opened, ']', |parser| parser.node(depth + 1))
    }

    fn map(&mut self, depth: usize) -> Parsed<Value> {
        let opened = self.scanner.at();
        self.scanner.bump();
        self.separated(opened, '}', |parser| {
            parser.node(depth + 1)?;
            parser.scanner.skip_blank()?;
            if !parser.scanner.eat(':') {
                return Err(parser.unexpected("expected `:` between key and value"));
            }
            parser.node(depth + 1)
        })?;
        Ok(Value::Map)
    }

    /// Items up to `close`, separated by commas, a trailing one allowed.
    fn separated<T>(
        &mut self,
        opened: usize,
        close: char,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        loop {
            self.scanner.skip_blank()?;
            if self.scanner.eat(close) {
                return Ok(items);
            }
            if matches!(self.scanner.peek(), None | Some(')' | ']' | '}')) {
                return Err(self.unclosed(opened, close));
            }
            items.push(item(self)?);
            let end = self.scanner.at();
            self.scanner.skip_blank()?;
            if !self.scanner.eat(',') && !matches!(self.scanner.peek(), None | Some(')' | ']' | '}')) {
                let missing = Problem::new(end..end, format!("expected `,` or `{close}`"));
                self.problems.push(missing.help("two values in a row are separated by a comma"));
                let found = self.scanner.peek().unwrap_or_default();
                if matches!(found, ':' | '=' | ';' | '|' | '&') || self.problems.len() >= MOST_ERRORS {
                    return Err(self.unexpected(format!("from this `{found}` on, the text makes no sense")));
                }
            }
        }
    }

    fn unclosed(&self, opened: usize, close: char) -> Box<Problem> {
        let found = self.scanner.peek().map_or("the end of the text".to_owned(), |c| format!("`{c}`"));
        let mut problem = *self.unexpected(format!("expected `{close}`, got {found}"));
        problem.related.push((opened..opened + 1, "opened here".to_owned()));
        Box::new(problem)
    }
}
