//! Evaluators on the embeddings of `tests/data/evaluators` against scikit-learn and plain NumPy. What these
//! say was written down by `tests/evaluator_reference.py`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flip::data::{Batch, Cursor, DataError, FolderConfig, SourceConfig};
use flip::evaluator::{
    ClassesConfig, Embedder, Evaluator, FewShotConfig, Known, LabelsConfig, LinearProbeConfig, Material,
    NearestNeighboursConfig, Penalty, RetrievalCaptions, RetrievalConfig, ZeroShotConfig,
};
use flip::record::Evaluation;
use safetensors::SafeTensors;
use serde_json::Value;

const DIM: usize = 24;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evaluators")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

struct Tensors(Vec<u8>);

impl Tensors {
    fn read() -> Self {
        Tensors(std::fs::read(folder().join("embeddings.safetensors")).unwrap())
    }
    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    }
    fn integers(&self, name: &str) -> Vec<i64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

/// Images that are their embeddings: the key of row 3 of `train` is `train 3`.
fn images(name: &str, labels: &[i64], captions: &[Vec<String>]) -> Vec<(String, Option<i64>, Vec<String>)> {
    let n = labels.len().max(captions.len());
    let row = |row: usize| {
        (format!("{name} {row}"), labels.get(row).copied(), captions.get(row).cloned().unwrap_or_default())
    };
    (0..n).map(row).collect()
}

fn batches(
    images: Vec<(String, Option<i64>, Vec<String>)>,
    size: usize,
) -> impl FnMut() -> Result<Option<Batch>, DataError> {
    let mut next = 0;
    move || {
        let some = &images[next..(next + size).min(images.len())];
        next += some.len();
        let batch = Batch {
            pixels: Vec::new(),
            size: 0,
            patches: Vec::new(),
            tokens: Vec::new(),
            lengths: Vec::new(),
            captions: some.iter().map(|image| image.2.clone()).collect(),
            label_sets: Vec::new(),
            labels: some.iter().map(|image| image.1).collect(),
            keys: some.iter().map(|image| image.0.clone()).collect(),
            images: vec![None; some.len()],
            numbers: Vec::new(),
            cursor: Cursor::default(),
            cursors: Vec::new(),
        };
        Ok((!some.is_empty()).then_some(batch))
    }
}

type Images = Vec<(String, Option<i64>, Vec<String>)>;

fn evaluate(evaluator: &dyn Evaluator, test: Images, train: Option<Images>, known: Known<'_>) -> Evaluation {
    let tensors = Tensors::read();
    let names = ["train", "test", "images", "prompts", "texts"];
    let rows: HashMap<&str, Vec<f32>> = names.map(|name| (name, tensors.floats(name))).into();
    // Keys and texts are both a tensor and a row of it.
    let row = |name: &String| {
        let (name, row) = name.split_once(' ').unwrap();
        rows[name][row.parse::<usize>().unwrap() * DIM..][..DIM].to_vec()
    };
    let mut images = |batch: &Batch| Ok(batch.keys.iter().flat_map(row).collect());
    let mut texts = |texts: &[String]| Ok(texts.iter().flat_map(row).collect());
    let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: DIM };
    let mut test = batches(test, 33);
    let mut train = train.map(|train| batches(train, 50));
    let train = train.as_mut().map(|train| train as _);
    let material = Material { test: &mut test, known, train, logit_scale: 100.0, seed: 5, stop: &|| false };
    evaluator.evaluate(material, &mut embedder).map(|evaluated| evaluated.evaluation).unwrap()
}

/// Train and test with their labels.
fn labelled() -> (Images, Images) {
    let tensors = Tensors::read();
    let of = |name: &str| images(name, &tensors.integers(&format!("{name}_labels")), &[]);
    (of("train"), of("test"))
}

fn metric(evaluation: &Evaluation, name: &str) -> f64 {
    let found = evaluation.metrics.iter().find(|(metric, _)| metric == name);
    found.unwrap_or_else(|| panic!("no metric {name} in {:?}", evaluation.metrics)).1
}

fn nowhere() -> SourceConfig {
    SourceConfig::Folder(FolderConfig { path: PathBuf::new() })
}

/// Accuracies are equal, and so is every confusion.
fn assert_classifies(result: &Evaluation, expected: &Value) {
    for name in ["top1", "top5"] {
        assert_eq!(Some(metric(result, name)), expected[name].as_f64(), "{name}");
    }
    let mean = metric(result, "mean_per_class") - expected["mean_per_class"].as_f64().unwrap();
    assert!(mean.abs() < 1e-12, "{mean}");
    let mut confused = 0;
    for (class, row) in expected["confusion_matrix"].as_array().unwrap().iter().enumerate() {
        for (other, n) in row.as_array().unwrap().iter().enumerate() {
            let n = n.as_u64().unwrap();
            if class == other || n == 0 {
                continue;
            }
            let named = |c: &&flip::record::Confusion| {
                c.class == class.to_string() && c.taken_for == other.to_string()
            };
            assert_eq!(
                result.confusions.iter().find(named).map(|c| c.n),
                Some(n),
                "{class} taken for {other}"
            );
            confused += 1;
        }
    }
    assert_eq!(confused, result.confusions.len());
    assert!(result.confusions.is_sorted_by(|a, b| a.n >= b.n));
}

#[test]
fn zero_shot_equals_numpy() {
    let classes: Vec<String> = (0..9).map(|class| class.to_string()).collect();
    // "prompts {3 * class + template}": a class is named by its number, so the templates do the sum by listing.
    let templates: Vec<String> = (0..3).map(|template| format!("{{}} {template}")).collect();
    let config = ZeroShotConfig {
        name: "hand".into(),
        data: None,
        classes: ClassesConfig::default(),
        image_mask: Default::default(),
    };
    let known = Known { classes: &classes, templates: &templates };
    let (_, test) = labelled();
    let tensors = Tensors::read();
    let (test_rows, prompts) = (tensors.floats("test"), tensors.floats("prompts"));
    let mut images = |batch: &Batch| {
        let row = |key: &String| key.split_once(' ').unwrap().1.parse::<usize>().unwrap();
        Ok(batch.keys.iter().flat_map(|key| test_rows[row(key) * DIM..][..DIM].to_vec()).collect())
    };
    let mut texts = |texts: &[String]| {
        let row = |text: &String| {
            let (class, template) = text.split_once(' ').unwrap();
            class.parse::<usize>().unwrap() * 3 + template.parse::<usize>().unwrap()
        };
        Ok(texts.iter().flat_map(|text| prompts[row(text) * DIM..][..DIM].to_vec()).collect())
    };
    let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: DIM };
    let mut test = batches(test, 33);
    let material =
        Material { test: &mut test, known, train: None, logit_scale: 1.0, seed: 0, stop: &|| false };
    let result = config.evaluate(material, &mut embedder).unwrap().evaluation;
    assert_classifies(&result, &expected()["zero_shot"]);
}

#[test]
fn retrieval_equals_numpy() {
    let owner = Tensors::read().integers("owner");
    let mut captions: Vec<Vec<String>> = Vec::new();
    for (text, &image) in owner.iter().enumerate() {
        captions.resize((image as usize + 1).max(captions.len()), Vec::new());
        captions[image as usize].push(format!("texts {text}"));
    }
    let config = RetrievalConfig {
        name: "hand".into(),
        data: None,
        captions: RetrievalCaptions::All,
        image_mask: Default::default(),
    };
    let separate = evaluate(&config, images("images", &[], &captions), None, Known::default());
    for (name, value) in expected()["retrieval"].as_object().unwrap() {
        assert!((metric(&separate, name) - value.as_f64().unwrap()).abs() < 1e-6, "{name}");
    }
    // As CLIP_benchmark's shards have them: one text with a caption a line.
    let joined: Vec<Vec<String>> = captions.iter().map(|of| vec![of.join("\n") + "\n\n"]).collect();
    let joined = evaluate(&config, images("images", &[], &joined), None, Known::default());
    assert_eq!(joined, separate);
}

#[test]
fn neighbours_equal_scikit_learn() {
    let (train, test) = labelled();
    for name in ["nearest_neighbours", "weighted_neighbours"] {
        let expected = &expected()[name];
        let config = NearestNeighboursConfig {
            name: "hand".into(),
            train: nowhere(),
            data: None,
            labels: LabelsConfig::Source,
            k: expected["k"].as_u64().unwrap() as usize,
            temperature: expected["temperature"].as_f64(),
        };
        let result = evaluate(&config, test.clone(), Some(train.clone()), Known::default());
        assert_eq!(Some(metric(&result, "top1")), expected["top1"].as_f64(), "{name}");
    }
}

fn probe(penalty: Penalty) -> LinearProbeConfig {
    LinearProbeConfig {
        name: "hand".into(),
        train: nowhere(),
        data: None,
        labels: LabelsConfig::Source,
        penalty,
        iterations: 1000,
    }
}

#[test]
fn a_linear_probe_equals_scikit_learn() {
    let (train, test) = labelled();
    for expected in expected()["linear_probe"].as_array().unwrap() {
        let config = probe(Penalty::C(expected["c"].as_f64().unwrap()));
        let result = evaluate(&config, test.clone(), Some(train.clone()), Known::default());
        assert_classifies(&result, expected);
        assert!(metric(&result, "iterations") < 1000.0, "it did not converge: {:?}", result.metrics);
    }
}

#[test]
fn a_sweep_finds_a_penalty_that_is_as_good_as_any_and_finds_it_again() {
    let (train, test) = labelled();
    let sweep = probe(Penalty::Sweep { held_out: 0.2 });
    let result = evaluate(&sweep, test.clone(), Some(train.clone()), Known::default());
    let c = metric(&result, "c");
    let steps = (6.0 - c.log10()) * 8.0;
    assert!((steps - steps.round()).abs() < 1e-9 && (1e-6..=1e6).contains(&c), "{c}");
    let fixed = evaluate(&probe(Penalty::C(c)), test.clone(), Some(train.clone()), Known::default());
    assert_eq!(metric(&fixed, "top1"), metric(&result, "top1"));
    let worst = &expected()["linear_probe"][0]["top1"];
    assert!(metric(&result, "top1") > worst.as_f64().unwrap());
    assert_eq!(evaluate(&sweep, test, Some(train), Known::default()), result);
}

#[test]
fn few_shots_are_drawn_by_class_and_all_of_them_are_the_probe() {
    let (train, test) = labelled();
    let config = FewShotConfig {
        name: "hand".into(),
        train: nowhere(),
        data: None,
        labels: LabelsConfig::Source,
        shots: vec![1, 4, 1000],
        draws: 3,
        c: 10.0,
    };
    let result = evaluate(&config, test, Some(train), Known::default());
    let all = expected()["linear_probe"][1].clone();
    assert_eq!(all["c"].as_f64(), Some(10.0));
    assert!((metric(&result, "top1_of_1000_shots") - all["top1"].as_f64().unwrap()).abs() < 1e-12);
    assert!(metric(&result, "deviation_of_1000_shots") < 1e-12);
    assert!(metric(&result, "top1_of_1_shots") < metric(&result, "top1_of_4_shots"));
    assert!(metric(&result, "top1_of_1_shots") > 2.0 / 9.0);
    assert!(metric(&result, "deviation_of_1_shots") > 0.0);
}

#[test]
fn labels_that_teach_nothing_are_named() {
    let (train, test) = labelled();
    let message = |train: Images, test: Images| {
        let mut images = |batch: &Batch| Ok(vec![0.5; batch.keys.len() * DIM]);
        let mut texts = |_: &[String]| Ok(Vec::new());
        let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: DIM };
        let (mut test, mut train) = (batches(test, 9), batches(train, 9));
        let material = Material {
            test: &mut test,
            known: Known::default(),
            train: Some(&mut train),
            logit_scale: 1.0,
            seed: 0,
            stop: &|| false,
        };
        probe(Penalty::C(1.0)).evaluate(material, &mut embedder).unwrap_err().to_string()
    };
    let unlabelled: Images = train.iter().map(|(key, _, _)| (key.clone(), None, Vec::new())).collect();
    assert!(message(unlabelled.clone(), test.clone()).contains("no sample of `train` has a label"));
    assert!(message(train.clone(), unlabelled).contains("no sample of `data` has a label"));
    let same: Images = train.into_iter().map(|(key, _, _)| (key, Some(4), Vec::new())).collect();
    assert!(message(same, test).contains("the same label; expected two classes or more"));
}
