//! Path of a value in a recipe: `stages[0].image_mask`. Variant names are transparent: the batch of
//! `stages: [Pretrain(batch: 128, ...)]` is `stages[0].batch`.

use std::fmt;
use std::str::FromStr;

/// A path from the root of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath {
    /// Fields and indices, from the outside in.
    pub segments: Vec<Segment>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A field of a struct; in the path of an override possibly the name of a variant.
    Field(String),
    /// An element of a list or tuple, from 0.
    Index(usize),
}

impl FieldPath {
    /// The path of a field in the value at this path.
    pub fn field(&self, name: &str) -> FieldPath {
        self.then(Segment::Field(name.to_owned()))
    }

    /// The path of an element of the list at this path.
    pub fn index(&self, index: usize) -> FieldPath {
        self.then(Segment::Index(index))
    }

    fn then(&self, segment: Segment) -> FieldPath {
        let mut segments = self.segments.clone();
        segments.push(segment);
        FieldPath { segments }
    }

    /// The noun of a message about the value: its field, where it has one of its own.
    pub fn noun(&self) -> &str {
        match self.segments.last() {
            Some(Segment::Field(name)) => name,
            Some(Segment::Index(_)) => "a number",
            None => "value",
        }
    }
}

/// `stages[0].batch`; nothing for the root.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Reads `stages[0].batch` and `stages.0.batch` alike.
impl FromStr for FieldPath {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        for dotted in path.split('.') {
            let (name, brackets) = match dotted.find('[') {
                Some(at) => dotted.split_at(at),
                None => (dotted, ""),
            };
            if name.is_empty() && (brackets.is_empty() || !segments.is_empty()) {
                return Err(format!("`{path}` has an empty step; expected a path such as stages[0].batch"));
            }
            match name.parse() {
                Ok(index) => segments.push(Segment::Index(index)),
                Err(_) if name.is_empty() => {}
                Err(_) => segments.push(Segment::Field(name.to_owned())),
            }
            let mut rest = brackets;
            while let Some(inside) = rest.strip_prefix('[') {
                let close = inside.find(']').ok_or_else(|| format!("`{path}` has a `[` without `]`"))?;
                let index = inside[..close].parse();
                segments.push(Segment::Index(
                    index.map_err(|_| format!("`{}` in `{path}` is not an index", &inside[..close]))?,
                ));
                rest = &inside[close + 1..];
            }
            if !rest.is_empty() {
                return Err(format!("`{rest}` after `]` in `{path}`; expected `.` or `[`"));
            }
        }
        Ok(FieldPath { segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_brackets_mean_the_same() {
        let path: FieldPath = "stages.0.schedule.lr".parse().unwrap();
        assert_eq!(path, "stages[0].schedule.lr".parse().unwrap());
        assert_eq!(path.to_string(), "stages[0].schedule.lr");
        assert_eq!("a[1][2]".parse::<FieldPath>().unwrap().to_string(), "a[1][2]");
    }

    #[test]
    fn malformed_paths_are_named() {
        for path in ["", ".", "a..b", "a[", "a[x]", "a[0]b", "a.[0]"] {
            assert!(path.parse::<FieldPath>().is_err(), "{path}");
        }
    }
}
