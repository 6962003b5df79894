//! Everything that `flip validate` knows of a recipe.

use serde::Serialize;

use crate::command::memory;
use crate::device;
use crate::exchange::{self, Format};
use crate::interpreter;
use crate::recipe::cluster::ClusterForecast;
use crate::recipe::files::{self, Presence};
use crate::recipe::forecast::{forecast, StageForecast};
use crate::recipe::{Compute, Precision, Recipe};

/// Everything about a recipe that is known before it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub recipe: String,
    pub valid: bool,
    pub precision: Precision,
    pub compute: Compute,
    pub parameters: Parameters,
    pub stages: Vec<StageForecast>,
    /// Of all training stages; `None` where only the source can tell.
    pub flops: Option<f64>,
    pub files: Vec<Presence>,
    /// The training data by the index that the recipe names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed: Option<IndexedData>,
    /// The formats that models are exported to.
    pub exports: Vec<Export>,
    /// Obstacles of a run on this machine, with advice.
    pub warnings: Vec<String>,
    /// Every training stage on many devices, with its index, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<(usize, ClusterForecast)>,
}

/// Training data, counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexedData {
    pub shards: u64,
    /// Pairs of an epoch.
    pub samples: u64,
    /// Of all shards, as they are stored; none where the index does not say it.
    pub bytes: Option<u64>,
    /// Of the index.
    pub hash: String,
}

/// A format of other tools, and what of this model it cannot express.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Export {
    /// `open_clip`, `transformers` or `ONNX`.
    pub format: String,
    /// Options in the way, each with what the format would need; empty where the model can be exported.
    pub in_the_way: Vec<String>,
}

/// Trainable numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The image encoder with its projection.
    pub image: u64,
    /// The text encoder with its projection.
    pub text: u64,
    /// All, the logit scale included.
    pub total: u64,
}

/// The report of a valid recipe.
pub fn report(recipe: &Recipe) -> Report {
    let stages = forecast(recipe);
    let counts = recipe.model.parameter_counts();
    let flops = stages.iter().map(StageForecast::flops).sum();
    let files = files::inventory(recipe);
    let place = interpreter::place(recipe);
    let larger = match (&place, device::host_memory()) {
        (Ok(place), Some(host)) => memory::beyond(recipe, &stages, place.gpu.is_some(), host),
        _ => Vec::new(),
    };
    let refusal = place.err().map(|error| error.to_string());
    let warnings = refusal.into_iter().chain(larger).chain(files.iter().filter_map(warning)).collect();
    Report {
        recipe: recipe.name.clone(),
        valid: true,
        precision: recipe.precision,
        compute: recipe.compute,
        parameters: Parameters { image: counts.image, text: counts.text, total: counts.total() },
        stages,
        flops,
        files,
        indexed: recipe.data.train.index().map(|index| IndexedData {
            shards: index.shards().len() as u64,
            samples: index.samples(),
            bytes: index.bytes(),
            hash: index.hash(),
        }),
        exports: exports(recipe),
        warnings,
        cluster: Vec::new(),
    }
}

/// The formats that models are exported to, with what is in their way.
fn exports(recipe: &Recipe) -> Vec<Export> {
    let of = |format: Format| {
        let obstacles = exchange::obstacles(&recipe.model, format);
        let told =
            obstacles.into_iter().map(|obstacle| format!("model.{}: {}", obstacle.field, obstacle.why));
        Export { format: format.to_string(), in_the_way: told.collect() }
    };
    [Format::Onnx, Format::OpenClip, Format::Transformers].map(of).to_vec()
}

fn warning(file: &Presence) -> Option<String> {
    let Presence { field, path, .. } = file;
    let elsewhere = format!("`flip run` needs it: {}", file.override_hint());
    if file.found == 0 && !file.complete {
        return Some(format!("{field}: {path} could not be looked at in time"));
    }
    match (file.found, file.shards) {
        (0, true) => Some(format!("{field}: {path} matches nothing on this machine; {elsewhere}")),
        (0, false) => Some(format!("{field}: {path} is not on this machine; {elsewhere}")),
        (found, true) if found < file.named && file.complete => {
            let absent = file.named - found;
            Some(format!("{field}: {absent} of the {} shards of {path} are not on this machine", file.named))
        }
        _ => None,
    }
}
