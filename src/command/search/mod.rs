//! `flip search`: the images nearest to a text or to an image.

mod hit;
mod index_args;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

pub(super) use hit::{small, Hit};
pub use index_args::IndexArgs;
pub(super) use index_args::Searched;

use super::{Failure, Outcome};
use crate::command::number::whole;
use crate::data::Image;
use crate::log::{Logging, Progress};
use crate::outside;
use crate::report::found::{self, FoundImage, FoundPage};
use crate::search::Nearest;
use crate::terminal::{grouped, say, say_error};
use crate::trained::Trained;

/// Most images that are asked for.
pub(super) const MOST: usize = 10_000;
/// Longer side of images on a page, pixels.
const LONGEST: u32 = 320;

#[derive(Debug, Args)]
#[command(
    after_help = "The index is kept beside the images; the next search embeds only images that are new or changed. An \
                        update that was killed goes on where it was."
)]
pub struct SearchArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Text that is searched for.
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    text: Option<String>,
    /// Image file that is searched for.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Images that are shown.
    #[arg(short, default_value = "10", value_parser = whole(1..=MOST))]
    k: usize,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
    /// Write what was found as a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Query of a search.
enum Query {
    Text(String),
    File(PathBuf, Vec<u8>),
}

pub fn search(args: &SearchArgs) -> Result<Outcome, Failure> {
    let query = match (&args.text, &args.image) {
        (Some(text), _) if text.trim().is_empty() => return Err(Failure::Usage("the text is empty".into())),
        (Some(text), _) => Query::Text(text.clone()),
        (None, Some(file)) => Query::File(file.clone(), read(file)?),
        (None, None) => return Err(Failure::Usage("give a text or --image FILE".into())),
    };
    let progress = Progress::new();
    let _logging = Logging::start(None, &progress)?;
    let searched = args.index.open(&progress)?;
    let embedding = embed(&searched.trained, &query)?;
    let nearest = Nearest::new()?.to(&searched.index, &embedding, args.k, None);
    let hits: Vec<Hit> =
        nearest.into_iter().map(|found| Hit::of(found, &searched.index, &searched.collection)).collect();
    if let Some(path) = &args.html {
        found::write(&page(&query, &hits, &searched), path)?;
    }
    match args.json {
        true => say!("{:#}", as_json(&query, &hits, &searched)?),
        false => print(&query, &hits, &searched),
    }
    Ok(Outcome::Done)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::Usage(format!("--image {}: {error}", file.display())))
}

fn embed(trained: &Trained, query: &Query) -> Result<Vec<f32>, Failure> {
    match query {
        Query::Text(text) => {
            if let Some((tokens, read)) = too_long(trained, text)? {
                say_error!("the text has {tokens} tokens, of which the model reads the first {read}");
            }
            Ok(trained.embed_text(text)?)
        }
        Query::File(file, bytes) => trained
            .embed_image_data(Image::Encoded(bytes.clone()))
            .map_err(|error| Failure::Usage(format!("--image {}: {error}", file.display()))),
    }
}

/// Tokens of a text and how many of them the model reads, where it does not read all.
pub(super) fn too_long(trained: &Trained, text: &str) -> Result<Option<(usize, usize)>, Failure> {
    let context = trained.model.config().text.context;
    // A token is a byte at least; a few frame them.
    let (_, tokens) = trained.tokenizer()?.encode(text, text.len() * 4 + 64)?;
    Ok((tokens > context).then_some((tokens, context)))
}

impl Query {
    fn told(&self) -> String {
        match self {
            Query::Text(text) => format!("{text:?}"),
            Query::File(file, _) => file.display().to_string(),
        }
    }
}

fn print(query: &Query, hits: &[Hit], searched: &Searched) {
    let images = grouped(searched.index.len() as u64);
    say!("{} of {images} images, nearest to {}", hits.len(), query.told());
    for hit in hits {
        say!("{:>7.3}  {}", hit.score, hit.name());
        if !hit.caption.is_empty() {
            say!("         {}", outside::shown(&hit.caption));
        }
    }
    told_left_out(searched);
}

/// Tells how many images are not searched.
pub(super) fn told_left_out(searched: &Searched) {
    match searched.index.left_out() {
        0 => {}
        n => say_error!("{} images are left out: they are broken", grouped(n as u64)),
    }
}

fn as_json(query: &Query, hits: &[Hit], searched: &Searched) -> Result<serde_json::Value, Failure> {
    let query = match query {
        Query::Text(text) => json!({ "text": text }),
        Query::File(file, _) => json!({ "image": file }),
    };
    Ok(json!({
        "query": query,
        "model": searched.trained.hash()?,
        "index": searched.path,
        "images": searched.index.len(),
        "left_out": searched.index.left_out(),
        "found": hits,
    }))
}

fn page(query: &Query, hits: &[Hit], searched: &Searched) -> FoundPage {
    let image = |hit: &Hit| {
        let raw = searched.collection.load(searched.index.place(hit.id)).ok()?;
        let image = small(raw.image, LONGEST);
        Some(FoundImage { name: hit.name(), caption: hit.caption.clone(), score: hit.score, image })
    };
    let gone = |hit: &Hit| FoundImage {
        name: hit.name(),
        caption: hit.caption.clone(),
        score: hit.score,
        image: None,
    };
    let (title, asked) = match query {
        Query::Text(text) => (text.clone(), None),
        Query::File(file, bytes) => {
            (file.display().to_string(), small(Image::Encoded(bytes.clone()), LONGEST))
        }
    };
    FoundPage {
        query: title,
        asked,
        about: format!(
            "The {} nearest of {} images by the cosine of their embeddings, with the model of {}.",
            hits.len(),
            grouped(searched.index.len() as u64),
            searched.trained.checkpoint.display()
        ),
        images: hits.iter().map(|hit| image(hit).unwrap_or_else(|| gone(hit))).collect(),
    }
}
