//! A configuration of another tool, read field by field: everything that cannot be followed is told at once.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ExchangeError, Problem};

/// No configuration is larger; a larger file is something else, and is not read into memory.
const LARGEST: u64 = 16 << 20;
/// Larger sizes are damage; small enough that no product of a few overflows.
const LARGEST_SIZE: u64 = 1 << 20;

/// Reads a JSON file whose top is an object.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, ExchangeError> {
    let file = File::open(path).map_err(ExchangeError::io("read", path))?;
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(ExchangeError::io("read", path))?;
    if text.len() as u64 > LARGEST {
        return Err(ExchangeError::broken(path, format!("a configuration of more than {LARGEST} bytes")));
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ExchangeError::broken(path, "expected a JSON object")),
        Err(source) => Err(ExchangeError::Json { path: path.to_path_buf(), source }),
    }
}

/// A size of an image as transformers writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Shortest(usize),
    Square(usize),
}

/// An object of a configuration. Reading a field takes it out, so that [`Options::nothing_else`] knows what
/// was not read. A JSON null counts as absent.
pub(super) struct Options {
    path: String,
    fields: Map<String, Value>,
    pub problems: Vec<Problem>,
}

impl Options {
    pub fn new(path: &str, fields: Map<String, Value>) -> Self {
        Options { path: path.into(), fields, problems: Vec::new() }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    /// Notes that `key` cannot be followed.
    pub fn object_to(&mut self, key: &str, problem: impl Into<String>) {
        let field = if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) };
        self.problems.push(Problem { field, problem: problem.into() });
    }

    /// A size, `default` where it is absent.
    pub fn size(&mut self, key: &str, default: usize) -> usize {
        match self.take(key) {
            None => default,
            Some(value) => self.as_size(key, &value).unwrap_or(default),
        }
    }

    /// A size that must be there.
    pub fn required_size(&mut self, key: &str) -> usize {
        if !self.fields.contains_key(key) {
            self.object_to(key, "missing");
        }
        self.size(key, 1)
    }

    /// A side of a square: a size, or the same size twice.
    pub fn side(&mut self, key: &str, default: usize) -> usize {
        match self.take(key) {
            None => default,
            Some(Value::Array(sides)) if sides.len() == 2 && sides[0] == sides[1] => {
                self.as_size(key, &sides[0]).unwrap_or(default)
            }
            Some(value @ Value::Array(_)) => {
                self.object_to(key, format!("expected a square, got {value}"));
                default
            }
            Some(value) => self.as_size(key, &value).unwrap_or(default),
        }
    }

    fn as_size(&mut self, key: &str, value: &Value) -> Option<usize> {
        let size = value.as_u64().filter(|size| (1..=LARGEST_SIZE).contains(size));
        if size.is_none() {
            self.object_to(key, format!("expected a whole number of 1 to {LARGEST_SIZE}, got {value}"));
        }
        size.map(|size| size as usize)
    }

    pub fn number(&mut self, key: &str, default: f64) -> f64 {
        match self.take(key) {
            None => default,
            Some(value) => value.as_f64().unwrap_or_else(|| {
                self.object_to(key, format!("expected a number, got {value}"));
                default
            }),
        }
    }

    pub fn flag(&mut self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// A flag, `default` where it is absent.
    pub fn flag_or(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(value) => value.as_bool().unwrap_or_else(|| {
                self.object_to(key, format!("expected true or false, got {value}"));
                default
            }),
        }
    }

    /// A size of images: a number or {"shortest_edge"}, or {"height", "width"} of a square.
    pub fn extent(&mut self, key: &str) -> Option<Extent> {
        let value = self.take(key)?;
        let side = |name: &str| value.get(name).filter(|side| !side.is_null());
        let found = match (&value, side("shortest_edge"), side("height"), side("width")) {
            (Value::Number(_), ..) => self.as_size(key, &value).map(Extent::Shortest),
            (_, Some(short), None, None) if side("longest_edge").is_none() => {
                self.as_size(key, short).map(Extent::Shortest)
            }
            (_, None, Some(height), Some(width)) if height == width => {
                self.as_size(key, height).map(Extent::Square)
            }
            _ => {
                self.object_to(
                    key,
                    format!("expected shortest_edge, or as much height as width, got {value}"),
                );
                None
            }
        };
        found
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.object_to(key, format!("expected text, got {other}"));
                None
            }
        }
    }

    /// Three numbers, one a channel, or one for all.
    pub fn channels(&mut self, key: &str, default: [f64; 3]) -> [f64; 3] {
        let Some(value) = self.take(key) else { return default };
        if let Some(all) = value.as_f64() {
            return [all; 3];
        }
        let numbers: Option<Vec<f64>> =
            value.as_array().map(|values| values.iter().filter_map(Value::as_f64).collect());
        match numbers.as_deref() {
            Some(&[red, green, blue]) => [red, green, blue],
            _ => {
                self.object_to(key, format!("expected three numbers, got {value}"));
                default
            }
        }
    }

    /// An object inside this one, empty where it is absent.
    pub fn object(&mut self, key: &str) -> Options {
        let path = if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) };
        match self.take(key) {
            None => Options::new(&path, Map::new()),
            Some(Value::Object(fields)) => Options::new(&path, fields),
            Some(other) => {
                self.object_to(key, format!("expected an object, got {other}"));
                Options::new(&path, Map::new())
            }
        }
    }

    /// A field that means something the model does not have, unless it is absent, false, or `harmless`.
    pub fn without(&mut self, key: &str, harmless: &[&str], why: &str) {
        match self.take(key) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::String(text)) if harmless.contains(&text.as_str()) => {}
            Some(value) => self.object_to(key, format!("{value}: {why}")),
        }
    }

    /// A number of layers; a list of them is `instead`.
    pub fn layers(&mut self, instead: &str) -> usize {
        match self.take("layers") {
            Some(value @ Value::Array(_)) => {
                self.object_to("layers", format!("{value}: {instead}"));
                1
            }
            Some(value) => self.as_size("layers", &value).unwrap_or(1),
            None => 1,
        }
    }

    /// Fields that do not change what the finished model computes.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.fields.remove(*key);
        }
    }

    /// True if a field is there and says null.
    pub fn is_null(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(Value::is_null)
    }

    /// True if a field is there.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    /// Objects to every field that was not read.
    pub fn nothing_else(&mut self) {
        let left: Vec<String> =
            self.fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.clone()).collect();
        for key in left {
            self.object_to(&key, "an option that this program does not know");
        }
    }
}
