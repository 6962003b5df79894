//! Embeds a data set once, and asks the evaluators.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::data::load::{LabelFrom, Loader, LoaderOptions};
use crate::data::source::open::open_in;
use crate::data::source::{FileList, Source};
use crate::data::storage::Location;
use crate::data::{Batch, CaptionUse, SourceConfig};
use crate::evaluator::classes::check_fit;
use crate::evaluator::data_sets::templates_of;
use crate::evaluator::prompts::{class_names, installed_clip_benchmark, CLASS_NAMES, TEMPLATES};
use crate::evaluator::{
    embedding_cache, BoxError, ClassesConfig, EmbeddedSet, Embedder, EmbeddingCache, Evaluator, Known,
    Material, Prompts, ZeroShotConfig,
};
use crate::log::Progress;
use crate::record::{Evaluation, Measured};
use crate::trained::Trained;

use super::super::Failure;
use super::jobs::{folder_of, Asks, Job, Named};
use super::outcome;

/// Rows that evaluators get at a time.
const ROWS: usize = 512;
/// Every random choice of evaluators derives from it.
const SEED: u64 = 0;

/// A model that is measured.
pub(super) struct Measuring<'a> {
    pub trained: &'a Trained,
    pub cache: Option<EmbeddingCache>,
    pub progress: &'a Progress,
}

/// A split of a data set, open.
struct Split {
    config: SourceConfig,
    source: Arc<dyn Source>,
    label: LabelFrom,
    captions: CaptionUse,
}

/// A split whose images are embedded.
struct Ready {
    set: EmbeddedSet,
    cached: bool,
}

/// Numbers that a classifier learns from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// The embedding.
    Embedding,
    /// Features that are projected to it.
    Features,
}

impl Measuring<'_> {
    /// Answers the question of a job.
    pub fn measure(&self, job: &Job) -> Result<Vec<Measured>, Failure> {
        let began = Instant::now();
        let captions =
            if matches!(job.asks, Asks::Retrieval(_)) { CaptionUse::Needed } else { CaptionUse::Unused };
        let source = open(&job.source, captions)?;
        let (zero_shot, names, templates) = match &job.asks {
            Asks::ZeroShot(named) => {
                let (config, names, templates) = classes(job, named, &*source)?;
                (Some(config), names, templates)
            }
            _ => (None, source.classes(), Vec::new()),
        };
        let known = Known { classes: &names, templates: &templates };
        let evaluator: &dyn Evaluator = match (&job.asks, &zero_shot) {
            (Asks::ZeroShot(_), Some(config)) => config,
            (Asks::Retrieval(config), _) => config,
            (Asks::LinearProbe(config), _) => config,
            (Asks::FewShot(config), _) => config,
            (Asks::ZeroShot(_), None) => unreachable!("its classes were read"),
        };
        let label = evaluator.label(known)?;
        let with_features = matches!(job.asks, Asks::LinearProbe(_));
        let split = |config: &SourceConfig, source| Split {
            config: config.clone(),
            source,
            label: label.clone(),
            captions,
        };
        let test = self.embedded(&split(&job.source, source), &job.name, with_features)?;
        let train = evaluator.train().map(|config| {
            let source = open(config, captions)?;
            self.embedded(&split(config, source), &format!("{}, train", job.name), with_features)
        });
        let train = train.transpose()?;
        let cached = test.cached && train.as_ref().is_none_or(|train| train.cached);
        let left_out = test.set.left_out.clone();
        let mut measured = Vec::new();
        let spaces: &[Space] =
            if with_features { &[Space::Features, Space::Embedding] } else { &[Space::Embedding] };
        for &space in spaces {
            let evaluation =
                self.ask(evaluator, known, (&test.set, train.as_ref().map(|train| &train.set)), space)?;
            let row = |evaluation| Measured {
                metric: String::new(),
                value: f64::NAN,
                chance: None,
                seconds: began.elapsed().as_secs_f64(),
                cached,
                left_out: left_out.clone(),
                data: job.place.clone(),
                evaluation,
            };
            measured.extend(outcome::rows(evaluation, row));
        }
        Ok(measured)
    }

    /// The answer of an evaluator on embedded images.
    fn ask(
        &self,
        evaluator: &dyn Evaluator,
        known: Known<'_>,
        (test, train): (&EmbeddedSet, Option<&EmbeddedSet>),
        space: Space,
    ) -> Result<Evaluation, Failure> {
        let width = match space {
            Space::Embedding => self.trained.embed_dim(),
            Space::Features => self.trained.model.config().image.width,
        };
        let rows = |set: &'_ EmbeddedSet| match space {
            Space::Embedding => set.rows.clone(),
            Space::Features => set.features.clone(),
        };
        let rows = [rows(test), train.map(rows).unwrap_or_default()];
        let mut images = |batch: &Batch| {
            Ok(EmbeddedSet::rows_of(&rows[batch.cursor.epoch as usize], width, batch).to_vec())
        };
        let mut texts = |texts: &[String]| self.texts(texts);
        let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim: width };
        let mut tests = test.batches(0, ROWS);
        let mut train = train.map(|train| train.batches(1, ROWS));
        let train = train.as_mut().map(|train| train as _);
        let logit_scale = self.trained.model.logit_scale().exp();
        let material = Material { test: &mut tests, known, train, logit_scale, seed: SEED, stop: &|| false };
        let mut evaluation = evaluator.evaluate(material, &mut embedder)?.evaluation;
        if space == Space::Features {
            evaluation.task = "before the projection".into();
        }
        Ok(evaluation)
    }

    /// Embeddings of texts: those that were kept, or new ones.
    fn texts(&self, texts: &[String]) -> Result<Vec<f32>, BoxError> {
        let key =
            embedding_cache::key([self.trained.hash()?].into_iter().chain(texts.iter().map(String::as_str)));
        if let Some(rows) = self.cache.as_ref().and_then(|cache| cache.texts(&key, texts.len())) {
            return Ok(rows);
        }
        let rows = self.trained.embed_texts(texts)?;
        if let Some(cache) = &self.cache {
            cache.keep_texts(&key, texts.len(), &rows)?;
        }
        Ok(rows)
    }

    /// The images of a split, embedded before or now.
    fn embedded(&self, split: &Split, title: &str, with_features: bool) -> Result<Ready, Failure> {
        let key = self.key(split)?;
        if let Some(set) = self.cache.as_ref().and_then(|cache| cache.images(&key, with_features)) {
            return Ok(Ready { set, cached: true });
        }
        let bar = self.progress.bar(title, split.source.samples().unwrap_or(0), "images");
        let options = self.trained.loader_options(split.source.clone())?;
        let mut loader = Loader::start(LoaderOptions { label: split.label.clone(), ..options })?;
        let mut set = EmbeddedSet::default();
        while let Some(batch) = loader.next()? {
            match with_features {
                true => {
                    let (rows, features) = self.trained.embed_images_with_features(&batch.pixels)?;
                    set.take(&batch, &rows, &features);
                }
                false => set.take(&batch, &self.trained.embed_images(&batch.pixels)?, &[]),
            }
            bar.update(set.samples.len() as u64, "");
        }
        bar.finish();
        let skipped = loader.skipped();
        if skipped.total() > 0 {
            tracing::warn!(target: "flip::data", %skipped, "samples were left out of {title}");
            set.left_out = skipped.to_string();
        }
        if set.samples.is_empty() {
            return Err(Failure::Usage(format!("{}: not one image is there", split.source.name())));
        }
        if let Some(cache) = &self.cache {
            cache.keep_images(&key, &set)?;
        }
        Ok(Ready { set, cached: false })
    }

    /// The hash of the model, of the files and of how they are read.
    fn key(&self, split: &Split) -> Result<String, Failure> {
        let files = FileList::of(&*split.source)?;
        let times = split.source.files().iter().fold(String::new(), |times, file| {
            let Location::File(path) = file else { return times };
            let changed = std::fs::metadata(path).and_then(|there| there.modified());
            format!("{times}{changed:?} ")
        });
        let looked = format!("{:?} {:?} {:?}", split.label, split.captions, self.trained.transform());
        let config = format!("{:?}", split.config);
        Ok(embedding_cache::key([self.trained.hash()?, &files.hash(), &times, &config, &looked]))
    }
}

fn open(config: &SourceConfig, captions: CaptionUse) -> Result<Arc<dyn Source>, Failure> {
    Ok(open_in(config, Arc::default(), SEED, captions)?)
}

/// The evaluator of a classification by class names, with the names and the templates.
fn classes(
    job: &Job,
    named: &Named,
    source: &dyn Source,
) -> Result<(ZeroShotConfig, Vec<String>, Vec<String>), Failure> {
    let zero_shot = |classes| ZeroShotConfig {
        name: job.name.clone(),
        data: None,
        classes,
        image_mask: Default::default(),
    };
    let installed = installed_clip_benchmark();
    let own = source.classes();
    if let Some(config) = named.task_of_file()? {
        return Ok((zero_shot(config), own, Vec::new()));
    }
    let names = match (&named.classes, &installed) {
        (Some(path), _) => class_names(path, &job.name)?,
        (None, _) if !own.is_empty() => own.clone(),
        (None, Some(folder)) => class_names(&folder.join(CLASS_NAMES), &job.name)?,
        (None, None) => {
            return Err(Failure::Usage(format!(
                "{}: the data does not name its classes; give their names with --classes FILE, one a line in the order of the \
                 labels, or install CLIP_benchmark, which has those of its data sets",
                job.place
            )))
        }
    };
    if !own.is_empty() && named.classes.is_some() {
        check_fit(&names, &own).map_err(|detail| {
            let path = named.classes.as_deref().unwrap_or(Path::new("")).display();
            Failure::Usage(format!("--classes {path}: {detail}"))
        })?;
    }
    let of_data = source.templates();
    let of_installed = || {
        let path = installed.as_ref()?.join(TEMPLATES);
        Prompts::File(path).templates(templates_of(&job.name), None).ok()
    };
    let templates = match &named.prompts {
        Some(prompts) => prompts.templates(templates_of(&job.name), installed.as_deref())?,
        None if !of_data.is_empty() => of_data,
        None => of_installed().unwrap_or_default(),
    };
    let known_folder = folder_of(&job.source).is_some();
    if templates.is_empty() && known_folder {
        tracing::warn!(
            target: "flip::evaluate",
            "{}: no prompt templates are there; class names are embedded as they are", job.place
        );
    }
    Ok((zero_shot(ClassesConfig::Source { templates: None }), names, templates))
}
