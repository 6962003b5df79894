//! The files of a source, as a recipe names them: a pattern, several, or a text file that lists them.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::source::pattern;
use crate::data::storage::{location, Location, Storage};
use crate::data::text::text_file;
use crate::data::DataError;
use crate::outside;

/// Longest text file of paths, bytes.
const LONGEST_LIST: u64 = 1 << 30;

/// One pattern or a list of them. A pattern is a path or URL with braces or wildcards; one that ends in `.txt` is
/// a text file with a pattern a line, relative to the file, empty lines and lines that begin with `#` left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A path, a URL, a pattern of them, or the path of a list.
    One(String),
    /// Several of these.
    Several(Vec<String>),
}

impl From<&str> for Files {
    fn from(pattern: &str) -> Self {
        Files::One(pattern.to_owned())
    }
}

impl From<Vec<String>> for Files {
    fn from(patterns: Vec<String>) -> Self {
        Files::Several(patterns)
    }
}

/// As in a message: the first, and how many more.
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.patterns() {
            [] => f.write_str("no files"),
            [only] => write!(f, "{}", outside::url(only)),
            [first, rest @ ..] => write!(f, "{} and {} more", outside::url(first), rest.len()),
        }
    }
}

impl Files {
    /// The patterns as written.
    pub fn patterns(&self) -> &[String] {
        match self {
            Files::One(pattern) => std::slice::from_ref(pattern),
            Files::Several(patterns) => patterns,
        }
    }

    /// The patterns, to be changed in place.
    pub fn patterns_mut(&mut self) -> &mut [String] {
        match self {
            Files::One(pattern) => std::slice::from_mut(pattern),
            Files::Several(patterns) => patterns,
        }
    }

    /// The files, in the order of the list and of the braces; what wildcards match is sorted by name.
    ///
    /// # Errors
    /// Nothing matches, or a pattern or a text file cannot be read. Where only some of the named files exist,
    /// a warning names the missing ones. A URL is looked up when it is opened.
    pub fn locate(&self, storage: &Storage) -> Result<Vec<Location>, DataError> {
        let mut found = Found::default();
        for pattern in self.patterns() {
            if pattern.ends_with(".txt") {
                for (number, line) in listed(pattern, storage)? {
                    found.add(&line, storage).map_err(|error| {
                        DataError::Invalid(format!("{}:{number}: {error}", outside::url(pattern)))
                    })?;
                }
            } else {
                found.add(pattern, storage)?;
            }
        }
        if found.files.is_empty() {
            return Err(DataError::NoShards { pattern: self.to_string() });
        }
        pattern::warn_of_missing(&self.to_string(), found.files.len(), &found.missing);
        Ok(found.files)
    }
}

#[derive(Default)]
struct Found {
    files: Vec<Location>,
    missing: Vec<Location>,
}

impl Found {
    fn add(&mut self, pattern: &str, storage: &Storage) -> Result<(), DataError> {
        let invalid = |what: String| DataError::Invalid(what);
        match Location::parse(pattern).map_err(invalid)? {
            Location::File(path) => {
                let path = path.to_string_lossy();
                let (files, missing) = pattern::local(&path)?;
                self.files.extend(files.into_iter().map(Location::File));
                self.missing.extend(missing.into_iter().map(Location::File));
            }
            Location::Url(_) => {
                let named = |what: String| DataError::Invalid(format!("{}: {what}", outside::url(pattern)));
                // Known before the first shard is opened, which may be hours later.
                location::with_variables(pattern).map_err(named)?;
                for url in pattern::expand(pattern).map_err(named)? {
                    // In a web address a question mark begins the query.
                    let wildcards: &[char] = if url.starts_with("http") { &['*'] } else { &['*', '?', '['] };
                    match url.contains(wildcards) {
                        true => self.files.extend(storage.list(&url)?),
                        false => self.files.push(Location::Url(url)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The patterns in a text file, each with its line number.
fn listed(list: &str, storage: &Storage) -> Result<Vec<(usize, String)>, DataError> {
    let location = Location::parse(list).map_err(DataError::Invalid)?;
    let bytes = storage.read(&location, LONGEST_LIST, || true)?;
    let text = text_file::text(&bytes, &location)?;
    let folder = Path::new(list).parent().unwrap_or(Path::new(""));
    let lines =
        text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    Ok(lines
        .map(|(line, number)| {
            let whole = line.contains("://") || Path::new(line).is_absolute();
            let pattern =
                if whole { line.to_owned() } else { folder.join(line).to_string_lossy().into_owned() };
            (number, pattern)
        })
        .collect())
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Files::One(pattern) => pattern.serialize(serializer),
            Files::Several(patterns) => patterns.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Files;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string in quotes or a list of them")
            }
            fn visit_str<E>(self, pattern: &str) -> Result<Files, E> {
                Ok(Files::One(pattern.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Files, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = list.next_element()? {
                    patterns.push(pattern);
                }
                Ok(Files::Several(patterns))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Files {
    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A path or URL with braces or wildcards, or a list of them; one that ends in `.txt` is a \
                            text file with one a line.",
            "type": ["string", "array"],
            "items": { "type": "string" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_lists_and_text_files_name_the_same_shards() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["0.tar", "1.tar", "2.tar"] {
            std::fs::write(at(name), b"").unwrap();
        }
        std::fs::write(at("list.txt"), format!("# shards\n0.tar\n\n{}\n2.tar\r\n", at("1.tar"))).unwrap();
        let names = |files: &Files| -> Vec<String> {
            files.locate(&Storage::default()).unwrap().iter().map(Location::file_name).collect()
        };
        std::fs::write(at("marked.txt"), "\u{feff}0.tar\n1.tar\n2.tar\n").unwrap();
        let all = ["0.tar", "1.tar", "2.tar"];
        assert_eq!(names(&Files::One(at("*.tar"))), all);
        assert_eq!(names(&Files::One(at("list.txt"))), all);
        assert_eq!(names(&Files::One(at("marked.txt"))), all);
        assert_eq!(names(&Files::Several(vec![at("{0..1}.tar"), at("2.tar")])), all);
        let url = "https://host/{0..1}.tar?key=a*".replace('*', "");
        assert_eq!(names(&Files::One(url)), ["0.tar", "1.tar"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        let told = |text: &[u8]| {
            std::fs::write(&list, text).unwrap();
            let located = Files::One(list.display().to_string()).locate(&Storage::default());
            located.unwrap_err().to_string().replace(&folder.path().display().to_string(), "")
        };
        assert!(told(b"\nftp://host/a.tar\n").starts_with("/list.txt:2: ftp://host/a.tar: cannot read ftp"));
        assert!(told(b"a\n\xff\n").starts_with("/list.txt: line 2: expected UTF-8, got the byte 0xff"));
        assert!(told(b"\xff\xfea\0").starts_with("/list.txt: this is UTF-16"));
        assert!(told(b"{a,b\n").contains("/list.txt:1: /{a,b: the brace"));
        assert!(told(b"# nothing\n").contains("list.txt matches no shard"));
        assert!(told(b"absent.tar\n").contains("matches no shard"));
    }

    #[test]
    fn a_recipe_writes_either() {
        for (text, files) in [
            (r#""a.tar""#, Files::from("a.tar")),
            (r#"["a.tar","b.tar"]"#, Files::Several(vec!["a.tar".into(), "b.tar".into()])),
        ] {
            assert_eq!(ron::from_str::<Files>(text).unwrap(), files);
            assert_eq!(serde_json::from_str::<Files>(text).unwrap(), files);
            assert_eq!(serde_json::to_string(&files).unwrap(), text);
        }
        assert!(ron::from_str::<Files>("3").is_err());
    }
}
