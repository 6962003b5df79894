//! Zero-shot classification: a picture belongs to the class whose text is nearest.

use super::similarity::dot;
use super::{Batches, ClassResult, Classes, Embedder, Evaluation, EvaluatorError, TEXTS_AT_ONCE};

/// Added to the norm of a class vector, as the official evaluation does.
const NORM_EPS: f32 = 1e-8;

/// How often the class of a picture ranked first, or among the first five.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    n: u64,
    top1: u64,
    top5: u64,
}

pub(super) fn evaluate(
    name: &str,
    classes: &Classes,
    batches: &mut Batches<'_>,
    embedder: &mut Embedder<'_>,
) -> Result<Evaluation, EvaluatorError> {
    let dim = embedder.dim;
    let vectors = class_vectors(classes, embedder)?;
    let mut scores = vec![Score::default(); classes.names.len()];
    let mut unlabelled = 0u64;
    while let Some(batch) = batches()? {
        let images = embedder.embed_images(&batch)?;
        for ((image, &label), key) in images.chunks_exact(dim).zip(&batch.labels).zip(&batch.keys) {
            match classes.class_of(label, key)? {
                None => unlabelled += 1,
                Some(class) => {
                    let rank = rank(image, class, &vectors);
                    scores[class].n += 1;
                    scores[class].top1 += u64::from(rank == 0);
                    scores[class].top5 += u64::from(rank < 5);
                }
            }
        }
    }
    summary(name, classes, &scores, unlabelled)
}

/// [classes, dim]: the mean over templates of the embeddings of the filled prompts, divided by its norm
/// plus 1e-8.
fn class_vectors(classes: &Classes, embedder: &mut Embedder<'_>) -> Result<Vec<f32>, EvaluatorError> {
    let (dim, templates) = (embedder.dim, classes.templates.len());
    let mut vectors = Vec::with_capacity(classes.names.len() * dim);
    // ImageNet has 1,000 classes and 80 templates: prompts of some classes at a time, not of all.
    let indices: Vec<usize> = (0..classes.names.len()).collect();
    for some in indices.chunks((TEXTS_AT_ONCE / templates).max(1)) {
        let prompts: Vec<String> = some.iter().flat_map(|&class| classes.prompts(class)).collect();
        for of_class in embedder.embed_texts(&prompts)?.chunks_exact(templates * dim) {
            let mut mean = vec![0.0f32; dim];
            for prompt in of_class.chunks_exact(dim) {
                mean.iter_mut().zip(prompt).for_each(|(mean, value)| *mean += value);
            }
            mean.iter_mut().for_each(|value| *value /= templates as f32);
            let norm = dot(&mean, &mean).sqrt() + NORM_EPS;
            vectors.extend(mean.iter().map(|value| value / norm));
        }
    }
    Ok(vectors)
}

/// How many classes come before the right one; among equals the one with the lower index comes first.
fn rank(image: &[f32], class: usize, vectors: &[f32]) -> usize {
    let right = dot(image, &vectors[class * image.len()..][..image.len()]);
    let before = |(other, vector): (usize, &[f32])| {
        let similarity = dot(image, vector);
        similarity > right || (similarity == right && other < class)
    };
    vectors.chunks_exact(image.len()).enumerate().filter(|&other| before(other)).count()
}

fn summary(
    name: &str,
    classes: &Classes,
    scores: &[Score],
    unlabelled: u64,
) -> Result<Evaluation, EvaluatorError> {
    let n: u64 = scores.iter().map(|score| score.n).sum();
    if n == 0 {
        let place = match &classes.label_field {
            Some(field) => format!("the field \"{field}\" of their json"),
            None => "the source itself".into(),
        };
        return Err(EvaluatorError::NothingToMeasure {
            name: name.into(),
            detail: format!("none of {unlabelled} samples has a label; expected labels from {place}"),
        });
    }
    let share = |right: u64, n: u64| right as f64 / n as f64;
    let per_class: Vec<ClassResult> = classes
        .names
        .iter()
        .zip(scores)
        .filter(|(_, score)| score.n > 0)
        .map(|(name, score)| ClassResult { name: name.clone(), n: score.n, top1: share(score.top1, score.n) })
        .collect();
    let mean_per_class = per_class.iter().map(|class| class.top1).sum::<f64>() / per_class.len() as f64;
    Ok(Evaluation {
        kind: "zero_shot".into(),
        dataset: name.into(),
        task: classes.task.clone(),
        metrics: vec![
            ("top1".into(), share(scores.iter().map(|score| score.top1).sum(), n)),
            ("top5".into(), share(scores.iter().map(|score| score.top5).sum(), n)),
            ("mean_per_class".into(), mean_per_class),
            ("chance".into(), 1.0 / classes.names.len() as f64),
            ("classes".into(), classes.names.len() as f64),
            ("unlabelled".into(), unlabelled as f64),
        ],
        n,
        per_class,
    })
}
