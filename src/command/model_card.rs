//! `flip card`, and the README.md of an exported model: what it is, how to use it, how it was trained, what it
//! reaches.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ron::extensions::Extensions;
use serde::Serialize;

use super::{Failure, Outcome};
use crate::exchange::Format;
use crate::model::ModelConfig;
use crate::outside;
use crate::recipe::{self, Recipe};
use crate::record::{EvaluationRow, RunPaths};
use crate::report;
use crate::train::Stage;
use crate::trained::Weights;
use crate::whole_file;

#[derive(Debug, Args)]
pub struct CardArgs {
    /// Folder of the run.
    run: PathBuf,
    /// File to write [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn card(args: &CardArgs, out: &mut dyn std::io::Write) -> Result<Outcome, Failure> {
    let weights = Weights::open(&args.run)?;
    let name = folder_name(&args.run);
    let card = ModelCard::of(&args.run, &weights, &name, None)?.to_string();
    match &args.out {
        Some(path) => whole_file::replace(path, card.as_bytes())
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?,
        None => out.write_all(card.as_bytes())?,
    }
    Ok(Outcome::Done)
}

/// The last part of a path, by which a model is called.
pub(super) fn folder_name(path: &Path) -> String {
    let canonical = path.canonicalize().ok();
    let name = canonical.as_deref().unwrap_or(path).file_name();
    name.map_or("model".into(), |name| name.to_string_lossy().into_owned())
}

/// Markdown with the front matter that model hubs read.
pub(super) struct ModelCard<'a> {
    name: &'a str,
    /// Format that it was exported to; none for a run as it is.
    format: Option<Format>,
    weights: &'a Weights,
    /// The recipe it was trained with, as text and read, where there was one.
    recipe: Option<(String, Recipe)>,
    results: Vec<EvaluationRow>,
}

impl<'a> ModelCard<'a> {
    /// Of the run in `folder`.
    pub fn of(
        folder: &Path,
        weights: &'a Weights,
        name: &'a str,
        format: Option<Format>,
    ) -> Result<Self, Failure> {
        let paths = RunPaths::new(folder);
        let path = paths.recipe();
        let recipe = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = outside::without_secrets(&text).into_owned();
                let recipe = recipe::read_text(&path.display().to_string(), &text, &[])?;
                Some((text, recipe))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::Usage(format!("{}: {error}", path.display()))),
        };
        let rows = EvaluationRow::read_all(&paths.evaluations())?;
        let results = report::evaluation::tabled(&rows).cloned().collect();
        Ok(ModelCard { name, format, weights, recipe, results })
    }

    fn config(&self) -> &ModelConfig {
        &self.weights.config
    }
}

impl fmt::Display for ModelCard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---\ntags:\n- clip\n- flip")?;
        match self.format {
            Some(Format::Transformers) => writeln!(f, "library_name: transformers")?,
            Some(Format::OpenClip) => writeln!(f, "library_name: open_clip")?,
            Some(Format::Onnx) => writeln!(f, "library_name: onnx")?,
            Some(Format::FlipT5x) | None => {}
        }
        writeln!(
            f,
            "pipeline_tag: zero-shot-image-classification\n---\n\n# {}\n",
            outside::markdown(self.name)
        )?;
        writeln!(
            f,
            "An image encoder and a text encoder into one space, in which an image lies near the texts that describe \
             it.\n"
        )?;
        self.architecture(f)?;
        self.preparation(f)?;
        self.usage(f)?;
        self.training(f)?;
        self.results(f)?;
        self.limits(f)
    }
}

impl ModelCard<'_> {
    fn architecture(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config();
        let (image, text) = (&config.image, &config.text);
        let counts = config.parameter_counts();
        writeln!(f, "## Model\n\n| | image | text |\n|---|---|---|")?;
        writeln!(
            f,
            "| width x depth x heads | {} x {} x {} | {} x {} x {} |",
            image.width, image.depth, image.heads, text.width, text.depth, text.heads
        )?;
        writeln!(
            f,
            "| input | {0} x {0} pixels, patches of {1} | {2} tokens of {3} |",
            image.size, image.patch, text.context, text.vocab_size
        )?;
        writeln!(
            f,
            "| pooling, activation | {:?}, {:?} | {:?}, {:?} |",
            image.pool, image.activation, text.pool, text.activation
        )?;
        let attention = if text.causal { "causal" } else { "bidirectional" };
        writeln!(f, "| attention | bidirectional | {attention} |")?;
        writeln!(f, "| parameters | {} | {} |\n", counts.image, counts.text)?;
        writeln!(f, "Embeddings are {} wide and of unit length.\n", config.embed_dim)
    }

    fn preparation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = &self.config().image;
        writeln!(
            f,
            "Images: RGB, the shortest side resized to {0} pixels (bicubic, antialiased), the {0} x {0} pixels in the \
             centre, then (value / 255 - mean) / std with mean {1:?} and std {2:?}. Texts: the tokenizer of \
             `tokenizer.json`, cut and padded to {3} tokens.\n",
            image.size,
            image.pixels.mean,
            image.pixels.std,
            self.config().text.context
        )
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = python(self.name);
        writeln!(f, "## Use\n")?;
        match self.format {
            None | Some(Format::FlipT5x) => writeln!(
                f,
                "```sh\nflip embed {0} --images 'images/*.jpg' --out images.parquet\nflip embed {0} --texts \
                 texts.txt --out texts.parquet\n```\n",
                shell(self.name)
            ),
            Some(Format::Transformers) => writeln!(
                f,
                "```python\nfrom transformers import CLIPModel, CLIPProcessor\n\nmodel = \
                 CLIPModel.from_pretrained({name})\nprocessor = CLIPProcessor.from_pretrained({name})\n```\n"
            ),
            Some(Format::OpenClip) => writeln!(
                f,
                "```python\nimport open_clip\n\nmodel, _, preprocess = \
                 open_clip.create_model_and_transforms({0})\ntokenizer = open_clip.get_tokenizer({0})\n```\n",
                python(&format!("local-dir:{}", self.name))
            ),
            Some(Format::Onnx) => writeln!(
                f,
                "```python\nimport onnxruntime\n\nimage = onnxruntime.InferenceSession({2})\n(images,) = \
                 image.run(None, {{\"pixels\": pixels}})  # float32 [batch, 3, {0}, {0}], normalised as above\ntext = \
                 onnxruntime.InferenceSession({3})\n(texts,) = text.run(None, {{\"ids\": ids}})  # int64 \
                 [batch, {1}]\nsimilarity = images @ texts.T\n```\n\nEither graph takes any batch size and says in its \
                 `metadata_props` how its input is made (`image.mean`, `image.std`, ...) and which factor similarities \
                 are multiplied with before a softmax (`logit_scale`).\n",
                self.config().image.size,
                self.config().text.context,
                python(&format!("{}/image.onnx", self.name)),
                python(&format!("{}/text.onnx", self.name))
            ),
        }
    }

    fn training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Training\n")?;
        if let Some(origin) = &self.weights.origin {
            writeln!(
                f,
                "The weights were imported from a checkpoint of {} and not trained further.\n",
                outside::markdown(origin)
            )?;
        }
        let Some((text, recipe)) = &self.recipe else { return Ok(()) };
        if let Some(init) = &recipe.init {
            writeln!(
                f,
                "Training began with the weights of {}.\n",
                outside::code(&init.path().display().to_string())
            )?;
        }
        if let Some(samples) = self.weights.samples {
            writeln!(f, "Image-text pairs seen: {samples}.\n")?;
        }
        writeln!(f, "Data: {}.\n", outside::code(&ron_of(&recipe.data.train)))?;
        if let Some(validation) = &recipe.data.validation {
            writeln!(f, "Held out: {}.\n", outside::code(&ron_of(validation)))?;
        }
        stages(f, recipe)?;
        writeln!(
            f,
            "<details><summary>The recipe</summary>\n\n{}\n\n</details>\n",
            outside::code_block("ron", text)
        )
    }

    fn results(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Results\n")?;
        if self.results.is_empty() {
            return writeln!(f, "Not evaluated.\n");
        }
        let titles = self.recipe.as_ref().map_or(Vec::new(), |(text, _)| report::stage_titles(text));
        let mut kinds: Vec<&str> = Vec::new();
        for row in &self.results {
            if !kinds.contains(&row.kind.as_str()) {
                kinds.push(&row.kind);
            }
        }
        for kind in kinds {
            let rows: Vec<&EvaluationRow> = self.results.iter().filter(|row| row.kind == kind).collect();
            writeln!(f, "### {}\n", outside::markdown(&kind.replace('_', " ")))?;
            table(f, &rows, &titles)?;
        }
        Ok(())
    }

    fn limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Limits\n")?;
        writeln!(
            f,
            "The model knows what its training pairs showed and said, their gaps and prejudices included; it has been \
             measured on the data above and on nothing else. Similarities rank; they are no probabilities. Whether the \
             weights may be used for something is a matter of the licence of the training data, which this card does not \
             know.\n"
        )?;
        writeln!(
            f,
            "Written by flip {} from checkpoint {}.",
            env!("CARGO_PKG_VERSION"),
            outside::code(&folder_name(&self.weights.checkpoint))
        )
    }
}

/// The training stages, a row each.
fn stages(f: &mut fmt::Formatter<'_>, recipe: &Recipe) -> fmt::Result {
    let mut rows = String::new();
    for (index, stage) in recipe.stages.iter().enumerate() {
        match stage {
            Stage::Pretrain(config) => writeln!(
                rows,
                "| {index} pretrain | `{}` | {} | `{}` | `{}` | `{}` |",
                ron_of(&config.length),
                config.batch,
                ron_of(&config.image_mask),
                ron_of(&config.text_mask),
                ron_of(&config.schedule)
            )?,
            Stage::Unmask(config) => writeln!(
                rows,
                "| {index} unmask | `{}` | {} | none | none | `{}` |",
                ron_of(&config.length),
                config.batch,
                ron_of(&config.schedule)
            )?,
            Stage::Evaluate(_) => {}
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let head =
        "| stage | length | batch | image mask | text mask | learning rate |\n|---|---|---|---|---|---|";
    writeln!(f, "{head}\n{rows}\nPrecision: {:?}. Seed: {}.\n", recipe.precision, recipe.seed)
}

/// Rows of one kind; a column a metric, in the order in which they come.
fn table(f: &mut fmt::Formatter<'_>, rows: &[&EvaluationRow], titles: &[String]) -> fmt::Result {
    let mut metrics: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.metrics) {
        if !metrics.contains(&name.as_str()) {
            metrics.push(name);
        }
    }
    let names: Vec<_> = metrics.iter().map(|name| outside::markdown(name)).collect();
    writeln!(f, "| stage | data | n | {} |", names.join(" | "))?;
    writeln!(f, "|{}", "---|".repeat(3 + metrics.len()))?;
    for row in rows {
        let task = if row.task.is_empty() { String::new() } else { format!(" ({})", row.task) };
        let stage = titles.get(row.stage).cloned().unwrap_or_else(|| row.stage.to_string());
        let value = |metric: &&str| {
            let found = row.metrics.iter().find(|(name, _)| name == metric);
            found.map_or(String::new(), |(_, value)| shown(*value))
        };
        let values: Vec<String> = metrics.iter().map(value).collect();
        let data = format!("{}{task}", row.dataset);
        let (stage, data) = (outside::markdown(&stage), outside::markdown(&data));
        writeln!(f, "| {stage} | {data} | {} | {} |", row.n, values.join(" | "))?;
    }
    writeln!(f)
}

/// Four decimals, or none for a count.
fn shown(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 && value.abs() >= 2.0 => format!("{value:.0}"),
        value => format!("{value:.4}"),
    }
}

/// As a recipe would write it, on one line.
fn ron_of(value: &impl Serialize) -> String {
    let options = ron::Options::default()
        .with_default_extension(Extensions::IMPLICIT_SOME | Extensions::UNWRAP_VARIANT_NEWTYPES);
    outside::without_secrets(&options.to_string(value).unwrap_or_default()).into_owned()
}

/// A text as Python writes it.
fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A text as one word of a shell.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", outside::shown(text).replace('\'', r"'\''")),
    }
}
