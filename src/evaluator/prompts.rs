//! Class names and prompt templates from files: lines, JSON lists, and CLIP_benchmark's `en_classnames.json` and
//! `en_zeroshot_classification_templates.json`, which hold a list for each of its data sets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::EvaluatorError;
use crate::data::text::text_file;

/// CLIP_benchmark's class names, as its package installs them.
pub const CLASS_NAMES: &str = "en_classnames.json";
/// CLIP_benchmark's prompt templates.
pub const TEMPLATES: &str = "en_zeroshot_classification_templates.json";

/// Templates of ImageNet in the order in which OpenAI published them.
const EIGHTY: usize = 80;
/// Those of the eighty, counted from 0, that OpenAI's notebook found as good as all, and that the paper of FLIP evaluates with
/// (section 4).
const SEVEN: [usize; 7] = [7, 35, 44, 64, 67, 69, 73];
/// The data set that the eighty are of, in CLIP_benchmark's file.
const EIGHTY_OF: &str = "imagenet1k";

/// Prompt templates by choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// The class name alone.
    Plain,
    /// OpenAI's eighty templates of ImageNet.
    OpenAi80,
    /// The seven of the eighty that the paper evaluates with.
    OpenAi7,
    /// A file of them.
    File(PathBuf),
}

impl From<&str> for Prompts {
    fn from(text: &str) -> Self {
        match text {
            "plain" => Prompts::Plain,
            "openai80" => Prompts::OpenAi80,
            "openai7" => Prompts::OpenAi7,
            file => Prompts::File(file.into()),
        }
    }
}

impl Prompts {
    /// The templates for a data set, each with `{}` where the class name goes. `installed` is where CLIP_benchmark's files are.
    ///
    /// # Errors
    /// There is no such file, it has no list for the data set, or a template has no place for the name.
    pub fn templates(&self, data_set: &str, installed: Option<&Path>) -> Result<Vec<String>, EvaluatorError> {
        let eighty = || {
            let folder = installed.ok_or_else(|| {
                EvaluatorError::Classes(format!(
                    "the templates of OpenAI are in CLIP_benchmark's {TEMPLATES}, which is not installed; pip install \
                     clip-benchmark, or give a file of your own: --prompts FILE"
                ))
            })?;
            let path = folder.join(TEMPLATES);
            let all = List::read(&path)?.of(EIGHTY_OF, &path)?;
            match all.len() {
                EIGHTY => Ok(all),
                n => Err(wrong(&path, format!("{EIGHTY_OF} has {n} templates; expected {EIGHTY}"))),
            }
        };
        let templates = match self {
            Prompts::Plain => vec!["{}".into()],
            Prompts::OpenAi80 => eighty()?,
            Prompts::OpenAi7 => {
                let all = eighty()?;
                SEVEN.iter().map(|&number| all[number].clone()).collect()
            }
            Prompts::File(path) => List::read(path)?.of(data_set, path)?,
        };
        templates.into_iter().map(|template| with_place(&template, self)).collect()
    }
}

/// A template with `{}` for `{c}`.
fn with_place(template: &str, of: &Prompts) -> Result<String, EvaluatorError> {
    let replaced = template.replace("{c}", "{}");
    match (replaced.contains("{}"), of) {
        (true, _) => Ok(replaced),
        (false, Prompts::File(path)) => Err(wrong(
            path,
            format!("{template:?} has no place for the class name; expected {{}} or {{c}} in it"),
        )),
        (false, _) => Err(EvaluatorError::Classes(format!("{template:?} has no place for the class name"))),
    }
}

/// The names of the classes of a data set, from a file of them.
///
/// # Errors
/// The file cannot be read, or has no list for the data set.
pub fn class_names(path: &Path, data_set: &str) -> Result<Vec<String>, EvaluatorError> {
    List::read(path)?.of(data_set, path)
}

/// Entries of a file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum List {
    One(Vec<String>),
    /// By data set.
    Each(BTreeMap<String, Vec<String>>),
}

impl List {
    fn read(path: &Path) -> Result<List, EvaluatorError> {
        let text = text_file::read(path)?;
        if path.extension().is_some_and(|extension| extension == "json") {
            return serde_json::from_str(&text).map_err(|error| {
                wrong(
                    path,
                    format!(
                        "{error}; expected a list of texts, or an object with such a list for each data set"
                    ),
                )
            });
        }
        let lines: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
        match lines.iter().position(String::is_empty) {
            Some(at) => Err(wrong(path, format!("line {} is blank; expected one entry a line", at + 1))),
            None => Ok(List::One(lines)),
        }
    }

    /// The list for a data set.
    fn of(self, data_set: &str, path: &Path) -> Result<Vec<String>, EvaluatorError> {
        let list = match self {
            List::One(list) => list,
            List::Each(mut lists) => {
                let there: Vec<String> = lists.keys().take(40).cloned().collect();
                lists.remove(data_set).ok_or_else(|| {
                    wrong(path, format!("has no list for {data_set:?}; it has {}", there.join(", ")))
                })?
            }
        };
        match list.is_empty() {
            true => Err(wrong(path, "has no entry".into())),
            false => Ok(list),
        }
    }
}

fn wrong(path: &Path, detail: String) -> EvaluatorError {
    EvaluatorError::ClassFile { path: path.into(), detail }
}

/// The folder of CLIP_benchmark's data sets in a Python that is in use or installed.
pub fn installed_clip_benchmark() -> Option<PathBuf> {
    let environments =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let python = std::env::var_os("FLIP_PYTHON").map(PathBuf::from);
    let of_python = python.and_then(|python| Some(python.parent()?.parent()?.to_path_buf()));
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local"));
    let roots = environments.chain(of_python).chain(home).chain(["/usr/local".into(), "/usr".into()]);
    roots
        .flat_map(|root| packages(&root))
        .map(|packages| packages.join("clip_benchmark/datasets"))
        .find(|folder| folder.join(TEMPLATES).is_file() || folder.join(CLASS_NAMES).is_file())
}

/// Folders of Python packages below a prefix.
fn packages(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("lib")) else { return Vec::new() };
    let pythons = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")));
    let mut found: Vec<PathBuf> = pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|folder| python.join(folder)))
        .filter(|folder| folder.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seven_are_chosen_by_their_numbers_among_the_eighty() {
        let folder = tempfile::tempdir().unwrap();
        let write = |count: usize| {
            let eighty: Vec<String> = (0..count).map(|number| format!("{number} of {{c}}")).collect();
            let file = serde_json::json!({ "imagenet1k": eighty, "pets": ["a {c}."] });
            std::fs::write(folder.path().join(TEMPLATES), file.to_string()).unwrap();
        };
        write(80);
        let seven = Prompts::from("openai7").templates("pets", Some(folder.path())).unwrap();
        assert_eq!(
            seven,
            ["7 of {}", "35 of {}", "44 of {}", "64 of {}", "67 of {}", "69 of {}", "73 of {}"]
        );
        assert_eq!(Prompts::from("openai80").templates("x", Some(folder.path())).unwrap().len(), 80);
        let file = Prompts::File(folder.path().join(TEMPLATES));
        assert_eq!(file.templates("pets", None).unwrap(), ["a {}."]);
        let told = file.templates("cars", None).unwrap_err().to_string();
        assert!(told.contains("no list for \"cars\"; it has imagenet1k, pets"), "{told}");
        let told = Prompts::OpenAi7.templates("pets", None).unwrap_err().to_string();
        assert!(told.contains("pip install clip-benchmark"), "{told}");
        write(79);
        let told = Prompts::OpenAi7.templates("pets", Some(folder.path())).unwrap_err().to_string();
        assert!(told.contains("79 templates; expected 80"), "{told}");
    }

    #[test]
    fn lines_and_lists_are_read_and_mistakes_named() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Prompts::File(path).templates("x", None).map_err(|error| error.to_string())
        };
        assert_eq!(read("a.txt", "a {c}.\nthe {}\n").unwrap(), ["a {}.", "the {}"]);
        assert_eq!(read("b.json", r#"["a {c}."]"#).unwrap(), ["a {}."]);
        assert!(read("c.txt", "a photo\n")
            .unwrap_err()
            .contains("\"a photo\" has no place for the class name"));
        assert!(read("d.txt", "a {}\n\nb {}\n").unwrap_err().contains("line 2 is blank"));
        assert!(read("e.json", "{\"x\": 3}").unwrap_err().contains("expected a list of texts"));
        assert!(read("f.txt", "").unwrap_err().contains("f.txt"));
    }
}
