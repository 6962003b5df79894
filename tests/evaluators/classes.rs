//! Classes and templates: of files, of sources, of lists.

use std::path::{Path, PathBuf};

use flip::evaluator::{Classes, ClassesConfig, Known};

use super::strings;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

#[test]
fn a_class_file_gives_names_templates_and_label_field() {
    let task = |task: &str| ClassesConfig::Task { file: data("pictograms/classes.json"), task: task.into() };
    let group = Classes::read(&task("group"), Known::default()).expect("classes");
    assert_eq!(group.label_field.as_deref(), Some("label_group"));
    assert_eq!((group.names.len(), group.templates.len()), (9, 5));
    let prompts: Vec<String> = group.prompts(2).collect();
    assert_eq!(prompts[1], "an emoji of an animal or plant");
    assert_eq!(group.class_of(Some(8), "k").expect("a class"), Some(8));
    assert_eq!(group.class_of(Some(-1), "k").expect("none"), None);
    assert_eq!(group.class_of(None, "k").expect("none"), None);
    let message = group.class_of(Some(9), "00001234").expect_err("no such class").to_string();
    assert_eq!(
        message,
        "sample 00001234: label 9 is none of the 9 classes; expected 0 to 8, or -1 for none of them"
    );
    assert_eq!(Classes::read(&task("subgroup"), Known::default()).expect("classes").names.len(), 98);
    assert_eq!(Classes::read(&task("name"), Known::default()).expect("classes").names.len(), 200);
    let message = Classes::read(&task("nam"), Known::default()).expect_err("no such task").to_string();
    assert!(
        message.ends_with("has no task \"nam\"; its tasks: \"group\", \"subgroup\", \"name\""),
        "{message}"
    );
}

#[test]
fn class_files_that_are_wrong_are_named_with_what_was_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let message =
        |config: &ClassesConfig| Classes::read(config, Known::default()).expect_err("refused").to_string();

    let missing = ClassesConfig::Task { file: folder.path().join("none.json"), task: "t".into() };
    assert!(message(&missing).contains("none.json"), "{}", message(&missing));

    let broken = ClassesConfig::Task { file: write("broken.json", "{\"tasks\": [{}]}"), task: "t".into() };
    let text = message(&broken);
    assert!(text.contains("broken.json") && text.contains("missing field `task`"), "{text}");
    assert!(text.contains("expected {\"tasks\""), "{text}");

    let twice = r#"{"tasks":[{"task":"t","label_field":"l","templates":["{}"],
        "classes":[{"id":3,"phrase":"a"},{"id":3,"phrase":"b"}]}]}"#;
    let twice = ClassesConfig::Task { file: write("twice.json", twice), task: "t".into() };
    assert!(message(&twice).ends_with("task \"t\": two classes have the id 3"), "{}", message(&twice));

    let source = ClassesConfig::Source { templates: Some(vec!["{}".into()]) };
    assert!(message(&source).contains("the source has no classes of its own"), "{}", message(&source));

    let placeless = ClassesConfig::Names {
        names: strings(&["cat"]),
        templates: strings(&["an image"]),
        label_field: "label".into(),
    };
    assert!(message(&placeless).contains("template \"an image\""), "{}", message(&placeless));

    let gap = ClassesConfig::Lines {
        names: write("classnames.txt", "cat\n\ndog\n"),
        templates: write("templates.txt", "a photo of a {c}.\n"),
    };
    assert!(
        message(&gap).ends_with("line 2: expected the name of class 1, found nothing"),
        "{}",
        message(&gap)
    );
}

#[test]
fn lines_are_read_as_clip_benchmark_writes_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (names, templates) = (folder.path().join("classnames.txt"), folder.path().join("templates.txt"));
    std::fs::write(&names, "cat\ngreat white shark\n").expect("written");
    std::fs::write(&templates, "a photo of a {c}.\nthe {c}.\n\n").expect("written");
    let classes =
        Classes::read(&ClassesConfig::Lines { names, templates }, Known::default()).expect("classes");
    let prompts: Vec<String> = classes.prompts(1).collect();
    assert_eq!(prompts, ["a photo of a great white shark.", "the great white shark."]);
    assert_eq!((classes.task.as_str(), classes.label_field), ("classnames", None));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_class_or_template() {
    let folder = tempfile::tempdir().expect("a folder");
    let (names, templates) = (folder.path().join("classnames.txt"), folder.path().join("templates.txt"));
    std::fs::write(&names, "\u{feff}great white shark\r\ncat\r\n").expect("written");
    std::fs::write(&templates, "\u{feff}a photo of a {c}.\r\n").expect("written");
    let lines = ClassesConfig::Lines { names: names.clone(), templates };
    let classes = Classes::read(&lines, Known::default()).expect("classes");
    assert_eq!(classes.prompts(0).collect::<Vec<_>>(), ["a photo of a great white shark."]);
    let file = folder.path().join("classes.json");
    let task =
        r#"{"tasks":[{"task":"t","label_field":"l","templates":["{}"],"classes":[{"id":0,"phrase":"a"}]}]}"#;
    std::fs::write(&file, format!("\u{feff}{task}")).expect("written");
    Classes::read(&ClassesConfig::Task { file, task: "t".into() }, Known::default()).expect("a task");
    std::fs::write(&names, b"\xff\xfec\0a\0t\0").expect("written");
    let message = Classes::read(&lines, Known::default()).expect_err("UTF-16").to_string();
    assert!(message.contains("classnames.txt: this is UTF-16"), "{message}");
}

/// Labels of a folder count its classes; a list of names has to count the same ones.
#[test]
fn names_that_do_not_fit_the_classes_of_the_data_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let templates = folder.path().join("templates.txt");
    std::fs::write(&templates, "{c}\n").expect("written");
    let read = |names: &[&str], known: &[&str]| {
        let file = folder.path().join("classnames.txt");
        std::fs::write(&file, names.join("\n")).expect("written");
        let known: Vec<String> = known.iter().map(|&name| name.into()).collect();
        let lines = ClassesConfig::Lines { names: file, templates: templates.clone() };
        let read = Classes::read(&lines, Known { classes: &known, templates: &[] });
        read.map(|classes| classes.names).map_err(|error| error.to_string())
    };
    let three = ["cat", "dog", "owl"];
    assert_eq!(read(&three, &["0", "1", "2"]), Ok(strings(&three)));
    assert_eq!(read(&three, &["Felis", "Canis", "Strix"]), Ok(strings(&three)));
    assert_eq!(read(&three, &three), Ok(strings(&three)));
    let told = |known: &[&str]| read(&three, known).expect_err("refused");
    assert!(told(&["0", "1"]).ends_with("3 names for the 2 classes of the data; expected one each"));
    assert!(told(&["dog", "cat", "owl"]).contains("line 1: \"cat\", where class 0 of the data is \"dog\""));
    assert!(
        told(&["1", "2", "3"]).contains("not those from 0 to 2 (3 is there)"),
        "{}",
        told(&["1", "2", "3"])
    );
    assert!(told(&["0", "10", "2"]).contains("not those from 0 to 2"));
}
