//! The README.md of an exported model: what it is, how to load it, how it was trained, what it reaches.

use std::fmt;

use crate::exchange::Format;
use crate::model::ModelConfig;
use crate::report::EvalRow;

/// Markdown with the front matter that model hubs read.
pub(super) struct ModelCard<'a> {
    pub name: &'a str,
    pub format: Format,
    pub config: &'a ModelConfig,
    /// Pairs seen in training, where that is known.
    pub samples: Option<u64>,
    /// The recipe it was trained with, where there was one.
    pub recipe: Option<String>,
    pub results: Vec<EvalRow>,
}

impl fmt::Display for ModelCard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = match self.format {
            Format::Transformers => "transformers",
            Format::OpenClip | Format::FlipT5x => "open_clip",
        };
        writeln!(f, "---\ntags:\n- clip\n- flip\nlibrary_name: {library}")?;
        writeln!(f, "pipeline_tag: zero-shot-image-classification\n---\n\n# {}\n", self.name)?;
        writeln!(f, "An image and a text encoder into one space, trained contrastively on image-text pairs with `flip`.\n")?;
        self.architecture(f)?;
        self.usage(f)?;
        self.training(f)?;
        self.results(f)
    }
}

impl ModelCard<'_> {
    fn architecture(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (image, text) = (&self.config.image, &self.config.text);
        let counts = self.config.parameter_counts();
        writeln!(f, "| | image | text |\n|---|---|---|")?;
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
        writeln!(f, "| parameters | {} | {} |\n", counts.image, counts.text)?;
        writeln!(f, "Embeddings are {} wide.\n", self.config.embed_dim)
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Use\n\n```python")?;
        match self.format {
            Format::Transformers => {
                writeln!(f, "from transformers import CLIPModel, CLIPProcessor\n")?;
                writeln!(f, "model = CLIPModel.from_pretrained(\"{}\")", self.name)?;
                writeln!(f, "processor = CLIPProcessor.from_pretrained(\"{}\")", self.name)?;
            }
            Format::OpenClip | Format::FlipT5x => {
                writeln!(f, "import open_clip\n")?;
                writeln!(
                    f,
                    "model, _, preprocess = open_clip.create_model_and_transforms(\"local-dir:{}\")",
                    self.name
                )?;
                writeln!(f, "tokenizer = open_clip.get_tokenizer(\"local-dir:{}\")", self.name)?;
            }
        }
        writeln!(f, "```\n")
    }

    fn training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Training\n")?;
        match self.samples {
            Some(samples) => writeln!(f, "{samples} image-text pairs seen.\n")?,
            None => writeln!(f, "The weights were imported from another tool and not trained further.\n")?,
        }
        match &self.recipe {
            Some(recipe) => writeln!(f, "The recipe, data included:\n\n```ron\n{}\n```\n", recipe.trim_end()),
            None => Ok(()),
        }
    }

    fn results(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Results\n")?;
        if self.results.is_empty() {
            return writeln!(f, "Not evaluated.");
        }
        writeln!(f, "| stage | evaluation | data | n | |\n|---|---|---|---|---|")?;
        for row in &self.results {
            let task = if row.task.is_empty() { String::new() } else { format!(" ({})", row.task) };
            let metrics: Vec<String> =
                row.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            writeln!(
                f,
                "| {} | {}{task} | {} | {} | {} |",
                row.stage,
                row.kind,
                row.dataset,
                row.n,
                metrics.join(", ")
            )?;
        }
        Ok(())
    }
}
