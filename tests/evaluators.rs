//! Evaluators on embeddings made by hand, against known answers and against the plainest implementation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flip::data::{Batch, Cursor};
use flip::evaluator::{
    Classes, ClassesConfig, Embedder, EvaluatorConfig, EvaluatorError, HeldOutLossConfig, Known, Material,
    RetrievalCaptions, RetrievalConfig, ZeroShotConfig,
};
use flip::record::Evaluation;
use proptest::prelude::*;
use safetensors::SafeTensors;

/// Images and texts with embeddings of our choice.
#[derive(Debug, Clone, Default)]
struct World {
    dim: usize,
    /// Embedding, captions, label.
    images: Vec<(Vec<f32>, Vec<String>, Option<i64>)>,
    texts: HashMap<String, Vec<f32>>,
    /// Which image each sample is of; where there are none, every one is of another.
    names: Vec<u64>,
}

impl World {
    fn new(dim: usize) -> Self {
        World { dim, ..World::default() }
    }

    fn image(mut self, embedding: &[f32], captions: &[&str], label: Option<i64>) -> Self {
        self.images.push((embedding.to_vec(), captions.iter().map(|&c| c.into()).collect(), label));
        self
    }

    fn text(mut self, text: &str, embedding: &[f32]) -> Self {
        self.texts.insert(text.into(), embedding.to_vec());
        self
    }

    /// Evaluates in batches of `size`, the last one smaller.
    fn evaluate(
        &self,
        config: &EvaluatorConfig,
        classes: &[String],
        size: usize,
        scale: f64,
    ) -> Result<Evaluation, EvaluatorError> {
        let mut next = 0;
        let mut batches = || {
            let end = (next + size).min(self.images.len());
            let some = &self.images[next..end];
            let batch = Batch {
                pixels: Vec::new(),
                size: 0,
                patches: Vec::new(),
                tokens: Vec::new(),
                lengths: Vec::new(),
                captions: some.iter().map(|image| image.1.clone()).collect(),
                labels: some.iter().map(|image| image.2).collect(),
                keys: (next..end).map(|key| key.to_string()).collect(),
                images: (next..end).map(|row| self.names.get(row).copied()).collect(),
                cursor: Cursor::default(),
            };
            next = end;
            Ok((!some.is_empty()).then_some(batch))
        };
        let mut images = |batch: &Batch| {
            let of = |key: &String| self.images[key.parse::<usize>().expect("a number")].0.clone();
            Ok(batch.keys.iter().flat_map(of).collect())
        };
        let mut texts = |texts: &[String]| {
            let mut rows = Vec::new();
            for text in texts {
                rows.extend(self.texts.get(text).ok_or(format!("nobody told what \"{text}\" means"))?);
            }
            Ok(rows)
        };
        let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: self.dim };
        let known = Known { classes, templates: &[] };
        let material =
            Material { test: &mut batches, known, train: None, logit_scale: scale, seed: 0, stop: &|| false };
        config.evaluator().evaluate(material, &mut embedder).map(|evaluated| evaluated.evaluation)
    }
}

fn metric(evaluation: &Evaluation, name: &str) -> f64 {
    let found = evaluation.metrics.iter().find(|(metric, _)| metric == name);
    found.unwrap_or_else(|| panic!("no metric {name} in {:?}", evaluation.metrics)).1
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&entry| entry.into()).collect()
}

fn zero_shot(classes: ClassesConfig) -> EvaluatorConfig {
    EvaluatorConfig::ZeroShot(ZeroShotConfig {
        name: "hand".into(),
        data: None,
        classes,
        image_mask: Default::default(),
    })
}

fn named(names: &[&str], templates: &[&str]) -> EvaluatorConfig {
    zero_shot(ClassesConfig::Names {
        names: strings(names),
        templates: strings(templates),
        label_field: "label".into(),
    })
}

fn retrieval(captions: RetrievalCaptions) -> EvaluatorConfig {
    EvaluatorConfig::Retrieval(RetrievalConfig {
        name: "hand".into(),
        data: None,
        captions,
        image_mask: Default::default(),
    })
}

fn held_out_loss(batch: usize) -> EvaluatorConfig {
    EvaluatorConfig::HeldOutLoss(HeldOutLossConfig { name: "hand".into(), data: None, batch })
}

#[test]
fn zero_shot_averages_templates_before_it_normalises() {
    // Of class a the two prompts point to x and y: their mean is the diagonal, as long as the others.
    let world = World::new(3)
        .text("a", &[1.0, 0.0, 0.0])
        .text("the a", &[0.0, 1.0, 0.0])
        .text("b", &[0.0, 0.0, 1.0])
        .text("the b", &[0.0, 0.0, 1.0])
        // 0.707 to a, 0.65 to b; were the mean not normalised, 0.5 to a.
        .image(&[0.5, 0.5, 0.65], &[""], Some(0))
        .image(&[0.1, 0.1, 0.9], &[""], Some(0))
        .image(&[0.0, 0.0, 1.0], &[""], Some(1))
        .image(&[0.0, 0.0, 1.0], &[""], None)
        .image(&[0.0, 0.0, 1.0], &[""], Some(-1));
    let result = world.evaluate(&named(&["a", "b"], &["{}", "the {}"]), &[], 2, 1.0).expect("a result");
    assert_eq!(
        (result.kind.as_str(), result.dataset.as_str(), result.task.as_str()),
        ("zero_shot", "hand", "label")
    );
    assert_eq!(result.n, 3);
    assert_eq!(metric(&result, "top1"), 2.0 / 3.0);
    assert_eq!(metric(&result, "top5"), 1.0);
    assert_eq!(metric(&result, "mean_per_class"), 0.75);
    assert_eq!(metric(&result, "unlabelled"), 2.0);
    assert_eq!(metric(&result, "chance"), 0.5);
    let per_class: Vec<_> = result.per_class.iter().map(|c| (c.name.as_str(), c.n, c.top1)).collect();
    assert_eq!(per_class, [("a", 2, 0.5), ("b", 1, 1.0)]);
}

#[test]
fn zero_shot_ties_go_to_the_lowest_index_and_top5_counts_five() {
    let names: Vec<String> = (0..7).map(|class| format!("class {class}")).collect();
    let mut world = World::new(2);
    for name in &names {
        world = world.text(name, &[1.0, 0.0]);
    }
    for label in 0..7 {
        world = world.image(&[1.0, 0.0], &[""], Some(label));
    }
    let config = zero_shot(ClassesConfig::Source { templates: Some(vec!["{}".into()]) });
    let result = world.evaluate(&config, &names, 3, 1.0).expect("a result");
    assert_eq!(metric(&result, "top1"), 1.0 / 7.0);
    assert_eq!(metric(&result, "top5"), 5.0 / 7.0);
    assert_eq!(result.per_class[0].top1, 1.0);
}

#[test]
fn retrieval_of_two_images_with_two_captions_each() {
    // Similarities:      p0   p1
    //   "p0 first"       0.9  0.8   found at 1 by both
    //   "p0 second"      0.1  0.2   image 1 comes before its own
    //   "p1 first"       0.95 0.5   image 0 comes before its own, and it comes before "p0 first" for p0
    //   "p1 second"      0.0  0.7
    let world = World::new(2)
        .image(&[1.0, 0.0], &["p0 first", "p0 second"], None)
        .image(&[0.0, 1.0], &["p1 first", "p1 second"], None)
        .text("p0 first", &[0.9, 0.8])
        .text("p0 second", &[0.1, 0.2])
        .text("p1 first", &[0.95, 0.5])
        .text("p1 second", &[0.0, 0.7]);
    for size in [1, 2] {
        let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], size, 1.0).expect("a result");
        assert_eq!((result.kind.as_str(), result.n, metric(&result, "captions")), ("retrieval", 2, 4.0));
        // p0: "p1 first" comes first. p1: "p0 first" (0.8) comes before its best own (0.7).
        assert_eq!(metric(&result, "image_to_text_recall_at_1"), 0.0);
        assert_eq!(metric(&result, "image_to_text_recall_at_5"), 1.0);
        assert_eq!(metric(&result, "text_to_image_recall_at_1"), 0.5);
        assert_eq!(metric(&result, "text_to_image_recall_at_5"), 1.0);
        let first = world.evaluate(&retrieval(RetrievalCaptions::First), &[], size, 1.0).expect("a result");
        assert_eq!(metric(&first, "captions"), 2.0);
        assert_eq!(metric(&first, "text_to_image_recall_at_1"), 0.5);
    }
}

#[test]
fn an_image_without_captions_is_never_found_but_competes() {
    let world =
        World::new(2).image(&[1.0, 0.0], &[], None).image(&[0.5, 0.0], &["it"], None).text("it", &[1.0, 0.0]);
    let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], 8, 1.0).expect("a result");
    assert_eq!(metric(&result, "image_to_text_recall_at_10"), 0.5);
    assert_eq!(metric(&result, "text_to_image_recall_at_1"), 0.0);
    assert_eq!(metric(&result, "text_to_image_recall_at_5"), 1.0);
}

/// Small whole numbers: sums are exact in any order, and ties are frequent.
fn whole_numbers(rows: usize, dim: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
    prop::collection::vec(prop::collection::vec((-2i8..=2).prop_map(f32::from), dim), rows)
}

fn naive_dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Indices by decreasing similarity to `query`, the lower index first among equals.
fn ranking(query: &[f32], candidates: &[Vec<f32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let similarity = |i: usize| naive_dot(query, &candidates[i]);
    order.sort_by(|&a, &b| similarity(b).total_cmp(&similarity(a)).then(a.cmp(&b)));
    order
}

proptest! {
    #[test]
    fn retrieval_equals_sorting(
        (images, texts, owners) in (1usize..90, 1usize..60).prop_flat_map(|(images, captions)| (
            whole_numbers(images, 19),
            whole_numbers(captions, 19),
            prop::collection::vec(0..images, captions),
        )),
        size in 1usize..40,
    ) {
        // Texts in the order in which the images bring them.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| owners[text]);
        let owners: Vec<usize> = order.iter().map(|&text| owners[text]).collect();
        let texts: Vec<Vec<f32>> = order.iter().map(|&text| texts[text].clone()).collect();
        let mut world = World::new(19);
        for (row, image) in images.iter().enumerate() {
            let captions: Vec<String> =
                (0..texts.len()).filter(|&text| owners[text] == row).map(|text| text.to_string()).collect();
            world.images.push((image.clone(), captions, None));
        }
        for (text, embedding) in texts.iter().enumerate() {
            world.texts.insert(text.to_string(), embedding.clone());
        }
        let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], size, 1.0).expect("a result");
        for k in [1, 5, 10] {
            let by_image = (0..images.len())
                .filter(|&i| ranking(&images[i], &texts).iter().take(k).any(|&text| owners[text] == i));
            let by_text = (0..texts.len())
                .filter(|&t| ranking(&texts[t], &images).iter().take(k).any(|&image| owners[t] == image));
            prop_assert_eq!(
                metric(&result, &format!("image_to_text_recall_at_{k}")),
                by_image.count() as f64 / images.len() as f64
            );
            prop_assert_eq!(
                metric(&result, &format!("text_to_image_recall_at_{k}")),
                by_text.count() as f64 / texts.len() as f64
            );
        }
    }

    #[test]
    fn zero_shot_equals_sorting(
        (classes, images, labels) in (1usize..30, 1usize..40).prop_flat_map(|(classes, images)| (
            whole_numbers(classes, 6),
            whole_numbers(images, 6),
            prop::collection::vec(0..classes, images),
        )),
        size in 1usize..40,
    ) {
        let names: Vec<String> = (0..classes.len()).map(|class| class.to_string()).collect();
        let mut world = World::new(6);
        for (name, embedding) in names.iter().zip(&classes) {
            world.texts.insert(name.clone(), embedding.clone());
        }
        for (image, &label) in images.iter().zip(&labels) {
            world.images.push((image.clone(), Vec::new(), Some(label as i64)));
        }
        let config = zero_shot(ClassesConfig::Source { templates: Some(vec!["{}".into()]) });
        let result = world.evaluate(&config, &names, size, 1.0).expect("a result");
        let unit: Vec<Vec<f32>> = classes
            .iter()
            .map(|class| class.iter().map(|value| value / (naive_dot(class, class).sqrt() + 1e-8)).collect())
            .collect();
        for (name, k) in [("top1", 1), ("top5", 5)] {
            let right = images.iter().zip(&labels).filter(|(i, l)| ranking(i, &unit).iter().take(k).any(|c| c == *l));
            prop_assert_eq!(metric(&result, name), right.count() as f64 / images.len() as f64);
        }
    }

    #[test]
    fn held_out_loss_equals_the_plain_formula(
        (images, texts) in (2usize..24).prop_flat_map(|pairs| (whole_numbers(pairs, 5), whole_numbers(pairs, 5))),
        batch in 2usize..8, size in 1usize..9, scale in 0.1..100.0f64,
    ) {
        let mut world = World::new(5);
        for (pair, (image, text)) in images.iter().zip(&texts).enumerate() {
            world.images.push((image.clone(), vec![pair.to_string(), "not the first".into()], None));
            world.texts.insert(pair.to_string(), text.clone());
        }
        let result = world.evaluate(&held_out_loss(batch), &[], size, scale);
        let whole = images.len() / batch;
        if whole == 0 {
            let message = result.expect_err("too few pairs").to_string();
            prop_assert!(message.contains(&format!("whole batch of {batch} pairs")), "{}", message);
            return Ok(());
        }
        let result = result.expect("a result");
        prop_assert_eq!(result.n as usize, whole * batch);
        let mut expected = 0.0;
        for first in (0..whole).map(|b| b * batch) {
            let rows = first..first + batch;
            let logit = |i: usize, j: usize| scale * f64::from(naive_dot(&images[i], &texts[j]));
            let log_sum = |logits: Vec<f64>| {
                let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln()
            };
            for i in rows.clone() {
                let by_row = log_sum(rows.clone().map(|j| logit(i, j)).collect());
                let by_column = log_sum(rows.clone().map(|j| logit(j, i)).collect());
                expected += 0.5 * (by_row + by_column) - logit(i, i);
            }
        }
        expected /= (whole * batch) as f64;
        let loss = metric(&result, "loss");
        prop_assert!((loss - expected).abs() <= 1e-12 * (1.0 + expected.abs()) * scale.max(1.0), "{loss} {expected}");
    }
}

#[test]
fn held_out_loss_is_the_official_one() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fixtures/flip_jax_tiny/expected.safetensors");
    let bytes = std::fs::read(&path).expect("the fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let floats = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).expect(name).data();
        data.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
    };
    let mut world = World::new(24);
    let (z_img, z_txt) = (floats("eval/z_img"), floats("eval/z_txt"));
    for (pair, (image, text)) in z_img.chunks(24).zip(z_txt.chunks(24)).enumerate() {
        world.images.push((image.to_vec(), vec![pair.to_string()], None));
        world.texts.insert(pair.to_string(), text.to_vec());
    }
    let scale = 1.0 / f64::from(floats("eval/tau")[0]);
    let result = world.evaluate(&held_out_loss(6), &[], 4, scale).expect("a result");
    let (loss, official) = (metric(&result, "loss"), f64::from(floats("eval/loss")[0]));
    assert!((loss - official).abs() < 2e-5, "{loss}, official {official}");
}

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

/// Flickr30k as a table: a row a caption, five rows an image. Recall is that of images with five captions.
#[test]
fn rows_of_one_image_are_one_image_with_all_their_captions() {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut vector = || [draw(), draw(), draw()];
    let (mut together, mut apart) = (World::new(3), World::new(3));
    let caption = |image: usize, number: usize| format!("caption {number} of {image}");
    let images: Vec<[f32; 3]> = (0..12).map(|_| vector()).collect();
    for (row, image) in images.iter().enumerate() {
        let captions: Vec<String> = (0..5).map(|number| caption(row, number)).collect();
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        together = together.image(image, &captions, None);
    }
    // The rows of an image are far from each other, in other batches.
    for number in 0..5 {
        for (row, image) in images.iter().enumerate() {
            let (text, embedding) = (caption(row, number), vector());
            together = together.text(&text, &embedding);
            apart = apart.text(&text, &embedding).image(image, &[&text], None);
            apart.names.push(row as u64);
        }
    }
    for captions in [RetrievalCaptions::All, RetrievalCaptions::AtMost(2), RetrievalCaptions::First] {
        let expected = together.evaluate(&retrieval(captions), &[], 5, 1.0).expect("a result");
        let result = apart.evaluate(&retrieval(captions), &[], 7, 1.0).expect("a result");
        assert_eq!((result.n, &result.metrics), (12, &expected.metrics), "{captions:?}");
    }
    apart.names.clear();
    let result = apart.evaluate(&retrieval(RetrievalCaptions::All), &[], 7, 1.0).expect("a result");
    assert_eq!(result.n, 60, "samples of which nothing is known are images of their own");
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

#[test]
fn nothing_to_measure_and_broken_embeddings_are_errors() {
    let config = named(&["a"], &["{}"]);
    let world = World::new(2).text("a", &[1.0, 0.0]).image(&[1.0, 0.0], &["a"], None);
    let message = world.evaluate(&config, &[], 4, 1.0).expect_err("no labels").to_string();
    assert_eq!(
        message,
        "evaluation \"hand\": none of 1 samples has a label; expected labels from the field \"label\" of their json"
    );
    let message = World::new(2)
        .evaluate(&retrieval(RetrievalCaptions::All), &[], 4, 1.0)
        .expect_err("no data")
        .to_string();
    assert_eq!(message, "evaluation \"hand\": the data has no samples");

    let nan = World::new(2).text("a", &[1.0, 0.0]).image(&[f32::NAN, 0.0], &["a"], Some(0));
    for config in [config.clone(), retrieval(RetrievalCaptions::All), held_out_loss(2)] {
        let message = nan.evaluate(&config, &[], 4, 1.0).expect_err("not finite").to_string();
        assert!(message.contains("the embedding of 0 is not finite"), "{message}");
    }
    let short = World::new(2).text("a", &[1.0]).image(&[1.0, 0.0], &["a"], Some(0));
    let message = short.evaluate(&config, &[], 4, 1.0).expect_err("too short").to_string();
    assert_eq!(message, "embedding texts: expected 1 rows of 2 numbers, got 1 numbers");
    let unknown = World::new(2).image(&[1.0, 0.0], &["b"], Some(0));
    let message = unknown.evaluate(&config, &[], 4, 1.0).expect_err("fails").to_string();
    assert_eq!(message, "embedding texts: nobody told what \"a\" means");
    let outside = World::new(2).text("a", &[1.0, 0.0]).image(&[1.0, 0.0], &[""], Some(1));
    let message = outside.evaluate(&config, &[], 4, 1.0).expect_err("label 1 of 1 class").to_string();
    assert!(message.starts_with("sample 0: label 1 is none of the 1 classes"), "{message}");
}
