//! Class names, prompt templates, and where the label of a sample is found.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EvaluatorError, Known};
use crate::data::text::text_file;

/// Source of class names and prompt templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ClassesConfig {
    /// The source knows its classes: what scenes hold out, the sub-folders of a folder, the `classnames.txt`
    /// of a CLIP_benchmark folder.
    Source {
        /// Each with `{}` where the class name goes. Default: the source's own where it has some
        /// (CLIP_benchmark folders, scenes from the level `Clutter` on), else `{}` alone.
        #[serde(default)]
        templates: Option<Vec<String>>,
    },
    /// One task of a `classes.json` with `tasks: [{task, label_field, templates, classes: [{id, phrase}]}]`.
    Task {
        /// The file.
        file: PathBuf,
        /// Name of the task in it.
        task: String,
    },
    /// Written out here; the label is the index into the list.
    Names {
        /// Class names, by index.
        names: Vec<String>,
        /// Each with `{}` where the class name goes.
        #[serde(default = "plain_template")]
        templates: Vec<String>,
        /// Field of the sample's json that holds the index.
        label_field: String,
    },
    /// CLIP_benchmark's files: one class name, one template (with `{c}`) a line, by label; labels in `.cls` members,
    /// or the places of the classes that the source knows.
    Lines {
        /// `classnames.txt`.
        names: PathBuf,
        /// `zeroshot_classification_templates.txt`.
        templates: PathBuf,
    },
}

impl Default for ClassesConfig {
    fn default() -> Self {
        ClassesConfig::Source { templates: None }
    }
}

fn plain_template() -> Vec<String> {
    vec!["{}".into()]
}

/// Classes and prompts of zero-shot classification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Name of the classes together: the task, or their source.
    pub task: String,
    /// By index.
    pub names: Vec<String>,
    /// Each with `{}` where the class name goes.
    pub templates: Vec<String>,
    /// Field of a sample's json that holds its label; `None` for the label that the source itself gives
    /// (sub-folder, scene, `.cls` member).
    pub label_field: Option<String>,
    /// Label to index.
    index: HashMap<i64, usize>,
    /// The label that means "none".
    missing: i64,
}

/// The label of a sample that belongs to no class, unless a class file names another.
const MISSING: i64 = -1;

impl Classes {
    /// Reads what a recipe names; `known` is what the source says of its labels.
    pub fn read(config: &ClassesConfig, known: Known<'_>) -> Result<Self, EvaluatorError> {
        let classes = match config {
            ClassesConfig::Source { templates } => {
                if known.classes.is_empty() {
                    return Err(EvaluatorError::Classes(
                        "the source has no classes of its own (scenes and folders have); use Task, Names or Lines"
                            .into(),
                    ));
                }
                let templates = match templates {
                    Some(templates) => templates.clone(),
                    None if known.templates.is_empty() => plain_template(),
                    None => known.templates.to_vec(),
                };
                Classes::listed("source classes", known.classes.to_vec(), templates, None)
            }
            ClassesConfig::Task { file, task } => Classes::task(file, task)?,
            ClassesConfig::Names { names, templates, label_field } => {
                Classes::listed(label_field, names.clone(), templates.clone(), Some(label_field.clone()))
            }
            ClassesConfig::Lines { names, templates } => {
                let (name_lines, template_lines) = (lines(names)?, lines(templates)?);
                if let Some(blank) = name_lines.iter().position(|name| name.trim().is_empty()) {
                    return Err(EvaluatorError::ClassFile {
                        path: names.clone(),
                        detail: format!(
                            "line {}: expected the name of class {blank}, found nothing",
                            blank + 1
                        ),
                    });
                }
                let template_lines = template_lines
                    .into_iter()
                    .filter(|template| !template.trim().is_empty())
                    .map(|template| template.replace("{c}", "{}"))
                    .collect();
                let wrong = |detail| EvaluatorError::ClassFile { path: names.clone(), detail };
                check_fit(&name_lines, known.classes).map_err(wrong)?;
                let stem = names.file_stem().unwrap_or(names.as_os_str()).to_string_lossy();
                Classes::listed(&stem, name_lines, template_lines, None)
            }
        };
        classes.checked()
    }

    /// Classes whose label is the index into the list.
    fn listed(task: &str, names: Vec<String>, templates: Vec<String>, label_field: Option<String>) -> Self {
        let index = (0..names.len()).map(|class| (class as i64, class)).collect();
        Classes { task: task.into(), names, templates, label_field, index, missing: MISSING }
    }

    /// One task of a class file.
    fn task(path: &Path, name: &str) -> Result<Self, EvaluatorError> {
        let wrong = |detail: String| EvaluatorError::ClassFile { path: path.into(), detail };
        let file: ClassFile = serde_json::from_str(&text_file::read(path)?).map_err(|error| {
            wrong(format!(
                "{error}; expected {{\"tasks\": [{{\"task\", \"label_field\", \"templates\", \"classes\": \
                 [{{\"id\", \"phrase\"}}]}}]}}"
            ))
        })?;
        let known: Vec<String> = file.tasks.iter().map(|task| format!("\"{}\"", task.task)).collect();
        let task = file
            .tasks
            .into_iter()
            .find(|task| task.task == name)
            .ok_or_else(|| wrong(format!("has no task \"{name}\"; its tasks: {}", known.join(", "))))?;
        let mut index = HashMap::new();
        let mut names = Vec::new();
        for class in task.classes {
            if index.insert(class.id, names.len()).is_some() {
                return Err(wrong(format!("task \"{name}\": two classes have the id {}", class.id)));
            }
            names.push(class.phrase);
        }
        Ok(Classes {
            task: task.task,
            names,
            templates: task.templates,
            label_field: Some(task.label_field),
            index,
            missing: file.missing_label.unwrap_or(MISSING),
        })
    }

    fn checked(self) -> Result<Self, EvaluatorError> {
        let what = &self.task;
        if self.names.is_empty() {
            return Err(EvaluatorError::Classes(format!("\"{what}\" has no class names")));
        }
        if self.templates.is_empty() {
            return Err(EvaluatorError::Classes(format!(
                "\"{what}\" has no prompt template; the plainest is \"{{}}\""
            )));
        }
        match self.templates.iter().find(|template| !template.contains("{}")) {
            None => Ok(self),
            Some(template) => Err(EvaluatorError::Classes(format!(
                "template \"{template}\" of \"{what}\" has no place for the class name; expected {{}} in it"
            ))),
        }
    }

    /// Every template filled with the name of a class.
    pub fn prompts(&self, class: usize) -> impl Iterator<Item = String> + '_ {
        self.templates.iter().map(move |template| template.replace("{}", &self.names[class]))
    }

    /// The class of a sample; `None` where it is labelled as belonging to none, or not at all. A label
    /// that is none of the classes is an error that names the sample.
    pub fn class_of(&self, label: Option<i64>, key: &str) -> Result<Option<usize>, EvaluatorError> {
        match label {
            None => Ok(None),
            Some(label) => match self.index.get(&label) {
                Some(&class) => Ok(Some(class)),
                None if label == self.missing => Ok(None),
                None => Err(EvaluatorError::Label {
                    key: key.into(),
                    label,
                    classes: self.names.len(),
                    expected: self.expected_labels(),
                }),
            },
        }
    }

    fn expected_labels(&self) -> String {
        let least = self.index.keys().min().copied().unwrap_or(0);
        let most = self.index.keys().max().copied().unwrap_or(0);
        format!("{least} to {most}, or {} for none of them", self.missing)
    }
}

/// True if a list of names can be one of the classes that the source counts its labels by.
pub(crate) fn check_fit(names: &[String], known: &[String]) -> Result<(), String> {
    if known.is_empty() {
        return Ok(());
    }
    if names.len() != known.len() {
        return Err(format!(
            "{} names for the {} classes of the data; expected one each",
            names.len(),
            known.len()
        ));
    }
    let trimmed: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    let moved = trimmed.iter().zip(known).position(|(name, known)| name != known);
    let sorted = |names: &[&str]| BTreeSet::from_iter(names.iter().map(|name| name.to_string()));
    let of_source: Vec<&str> = known.iter().map(String::as_str).collect();
    match moved {
        Some(class) if sorted(&trimmed) == sorted(&of_source) => Err(format!(
            "line {}: {:?}, where class {class} of the data is {:?}; these are its classes in another order",
            class + 1,
            trimmed[class],
            known[class]
        )),
        _ => check_numbers(&of_source),
    }
}

/// Names that are numbers stand for the places in a list only where they are its places.
fn check_numbers(known: &[&str]) -> Result<(), String> {
    let numbers: Option<Vec<usize>> = known.iter().map(|name| name.parse().ok()).collect();
    match numbers.filter(|numbers| numbers.iter().enumerate().any(|(class, &number)| class != number)) {
        None => Ok(()),
        Some(numbers) => Err(format!(
            "the classes of the data are numbers, but not those from 0 to {} ({} is there): which name belongs to \
             which is not known. Name the folders 0 to {0}, or like the classes",
            numbers.len() - 1,
            numbers.iter().max().copied().unwrap_or(0)
        )),
    }
}

/// A `classes.json`; fields that are not needed are ignored.
#[derive(Deserialize)]
struct ClassFile {
    missing_label: Option<i64>,
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    task: String,
    label_field: String,
    templates: Vec<String>,
    classes: Vec<Class>,
}

#[derive(Deserialize)]
struct Class {
    id: i64,
    phrase: String,
}

fn lines(path: &Path) -> Result<Vec<String>, EvaluatorError> {
    Ok(text_file::read(path)?.lines().map(str::to_owned).collect())
}
