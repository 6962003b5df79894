//! Evaluators on embeddings made by hand, against known answers and against the plainest implementation.

mod classes;
mod held_out_loss;
mod retrieval;
mod zero_shot;

use std::collections::HashMap;

use flip::data::{Batch, Cursor};
use flip::evaluator::{
    ClassesConfig, Embedder, EvaluatorConfig, EvaluatorError, HeldOutLossConfig, Known, Material,
    RetrievalCaptions, RetrievalConfig, ZeroShotConfig,
};
use flip::record::Evaluation;
use proptest::prelude::*;

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
                label_sets: Vec::new(),
                labels: some.iter().map(|image| image.2).collect(),
                keys: (next..end).map(|key| key.to_string()).collect(),
                images: (next..end).map(|row| self.names.get(row).copied()).collect(),
                numbers: Vec::new(),
                cursor: Cursor::default(),
                cursors: Vec::new(),
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
