//! Zero-shot classification: an image belongs to the class whose text is nearest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::embedder::TEXTS_AT_ONCE;
use super::examples::{thumbnail, Best, Thumbnail};
use super::label_sets::LabelSets;
use super::products::Products;
use super::roc_auc::Sides;
use super::similarity::dot;
use super::tally::{Ranking, Tally};
use super::{Classes, ClassesConfig, Embedder, Evaluated, Evaluator, EvaluatorError, Known, Material};
use crate::data::load::LabelFrom;
use crate::data::{Batch, SourceConfig};
use crate::mask::ImageMask;
use crate::record::{Answer, Example};

/// Added to the norm of a class vector, as the official evaluation does.
const NORM_EPS: f32 = 1e-8;
/// Mistakes that are shown, those whose wrong class leads most.
const MISTAKES: usize = 12;
/// Classes that are named beside a mistake.
const NAMED: usize = 3;

/// Zero-shot classification with an ensemble of prompt templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotConfig {
    /// Name of the result, for example "imagenet".
    pub name: String,
    /// Images with labels. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Class names, templates and the field that holds the label. Default: what the source knows.
    #[serde(default)]
    pub classes: ClassesConfig,
    /// Mask of the images (FLIP table 1d). Default: none is dropped.
    #[serde(default)]
    pub image_mask: ImageMask,
}

impl Evaluator for ZeroShotConfig {
    fn kind(&self) -> &'static str {
        "zero_shot"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn data(&self) -> Option<&SourceConfig> {
        self.data.as_ref()
    }
    fn image_mask(&self) -> &ImageMask {
        &self.image_mask
    }
    fn label(&self, known: Known<'_>) -> Result<LabelFrom, EvaluatorError> {
        let classes = Classes::read(&self.classes, known)?;
        Ok(classes.label_field.map_or(LabelFrom::Source, LabelFrom::JsonField))
    }
    fn evaluate(
        &self,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Evaluated, EvaluatorError> {
        let classes = Classes::read(&self.classes, material.known)?;
        if let Some(warning) = plain_prompts(&classes) {
            tracing::warn!(target: "flip::evaluate", "{}: {warning}", self.name);
        }
        let dim = embedder.dim;
        let vectors = class_vectors(&classes, embedder)?;
        let mut products = Products::new()?;
        let mut tally = Tally::new(classes.names.len());
        let mut mistakes = Mistakes { classes: &classes, worst: Best::new(MISTAKES) };
        let (mut sets, mut sides) = (LabelSets::default(), Sides::default());
        let mut unlabelled = 0u64;
        while let Some(batch) = (material.test)()? {
            let images = embedder.embed_images(&batch)?;
            let similarities = products.of(&images, &vectors, dim).chunks_exact(classes.names.len());
            for (row, similarities) in similarities.enumerate() {
                if let Some(Some(set)) = batch.label_sets.get(row) {
                    sets.add(similarities, set, &batch.keys[row])?;
                    continue;
                }
                match classes.class_of(batch.labels[row], &batch.keys[row])? {
                    None => unlabelled += 1,
                    Some(class) => {
                        let ranking = Ranking::of(similarities, class);
                        tally.add(class, ranking);
                        sides.add(class, similarities);
                        mistakes.take(&batch, row, class, similarities, ranking);
                    }
                }
            }
        }
        if sets.n() > 0 {
            return Ok(sets.finish(self.kind(), &self.name, &classes).into());
        }
        if tally.n() == 0 {
            let place = match &classes.label_field {
                Some(field) => format!("the field \"{field}\" of their json"),
                None => "the source itself".into(),
            };
            return Err(EvaluatorError::NothingToMeasure {
                name: self.name.clone(),
                detail: format!("none of {unlabelled} samples has a label; expected labels from {place}"),
            });
        }
        let mut result = tally.finish(self.kind(), &self.name, &classes.task, &classes.names);
        result.metrics.extend(sides.roc_auc().map(|area| ("roc_auc".into(), area)));
        result.metrics.push(("unlabelled".into(), unlabelled as f64));
        Ok(Evaluated { evaluation: result, examples: mistakes.finish() })
    }
}

/// Classes of ImageNet.
const IMAGENET: usize = 1000;

/// A warning where ImageNet's names are embedded without prompts.
fn plain_prompts(classes: &Classes) -> Option<String> {
    let plain = classes.templates.iter().all(|template| template == "{}");
    (plain && classes.names.len() == IMAGENET).then(|| {
        "the names of the classes are embedded without prompts: accuracies will be some points lower than those that papers \
         report. Give templates: `classes: Source(templates: [...])` in a recipe, --prompts openai7 or a file for `flip evaluate`"
            .into()
    })
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

/// An image, its class, and the similarities of the classes in front of it.
type Mistake = (Thumbnail, usize, Vec<(usize, f32)>);

/// The images that the model is most wrong about.
struct Mistakes<'a> {
    classes: &'a Classes,
    /// By how far the first class is before the right one.
    worst: Best<Option<Mistake>>,
}

impl Mistakes<'_> {
    fn take(&mut self, batch: &Batch, row: usize, class: usize, similarities: &[f32], ranking: Ranking) {
        if ranking.first == class {
            return;
        }
        let lead = similarities[ranking.first] - similarities[class];
        self.worst.offer(lead, || {
            let mut nearest = Best::new(NAMED);
            for (class, similarity) in similarities.iter().enumerate() {
                nearest.offer(*similarity, || class);
            }
            let nearest = nearest.finish().into_iter().map(|(similarity, class)| (class, similarity));
            Some((thumbnail(batch, row)?, class, nearest.collect()))
        });
    }

    fn finish(self) -> Vec<Example<Thumbnail>> {
        let names = &self.classes.names;
        let shown = self.worst.finish().into_iter().filter_map(|(_, shown)| shown);
        let example = |(image, right, nearest): (_, usize, Vec<(usize, f32)>)| Example {
            image,
            caption: names[right].clone(),
            texts: nearest
                .into_iter()
                .map(|(class, similarity)| Answer {
                    what: names[class].clone(),
                    similarity,
                    right: class == right,
                })
                .collect(),
            images: Vec::new(),
        };
        shown.map(example).collect()
    }
}
