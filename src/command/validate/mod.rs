//! `flip validate`: cost and needs of a recipe, or of each setting of a study, told without building anything.

mod look;
mod print;
mod report;

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::command::number::whole;
use crate::recipe::cluster::{self, Cluster, ClusterError, DataSize};
use crate::recipe::forecast::StageForecast;
use crate::recipe::{self, RecipeError};
use crate::sweep::study;
use crate::terminal;

use super::{Failure, Outcome};
use print::print;

pub use report::{report, Export, IndexedData, Parameters, Report};

/// Devices to forecast for.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// Forecast the training stages on so many devices, one rank each, 1 to 1,048,576 [default: 1].
    #[arg(long, value_name = "N", requires = "device", value_parser = whole(1..=1 << 20))]
    ranks: Option<usize>,
    /// Forecast the training stages on this device: a100, h100, h200 or b200.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Bits or bytes that each of several ranks can send to other hosts in a second: 400Gb, 50GB.
    #[arg(long, value_name = "SPEED", requires = "device")]
    link: Option<String>,
    /// Ranks of a host, which reach each other over NVLink, 1 to 1,024 [default: 8].
    #[arg(long, value_name = "N", requires = "device", value_parser = whole(1..=1 << 10))]
    per_host: Option<usize>,
    /// Pairs a second that one device trains in the first training stage, as `flip bench` measures it [default: an
    /// assumed share of the peak of the data sheet, which is told with its origin].
    #[arg(long, value_name = "X", requires = "device")]
    images_per_s: Option<f64>,
    /// Price of a device for an hour; the cost comes in the same money.
    #[arg(long, value_name = "X", requires = "device")]
    price: Option<f64>,
}

/// Speed of the links of a single host, over which nothing goes.
const NO_LINK: &str = "1Gb";
/// GPUs that reach each other over NVLink in the machines that large models are trained on.
const GPUS_OF_A_HOST: usize = 8;

impl ClusterArgs {
    /// The cluster that is asked for, if any.
    fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        let usage = |error: ClusterError| Failure::Usage(error.to_string());
        let Some(name) = &self.device else { return Ok(None) };
        let ranks = self.ranks.unwrap_or(1);
        let per_host = self.per_host.unwrap_or(GPUS_OF_A_HOST);
        let speed = match &self.link {
            Some(speed) => speed,
            None if ranks <= per_host => NO_LINK,
            None => {
                return Err(Failure::Usage(format!(
                    "--ranks {ranks}: add --link SPEED, which is what each rank can send to other hosts in a second, such \
                     as 400Gb; or --per-host {ranks}, where all are on one"
                )))
            }
        };
        for (flag, value) in [("--images-per-s", self.images_per_s), ("--price", self.price)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(Failure::Usage(format!("{flag}: expected a number above 0, got {value}")));
            }
        }
        let device = cluster::device(name).map_err(usage)?;
        let link = cluster::link(speed).map_err(usage)?;
        let (measured, price) = (self.images_per_s, self.price);
        Ok(Some(Cluster { ranks, per_host, device, link, measured, data: None, price }))
    }
}

/// Reads the recipe and prints its report, as a table or as one line of JSON. With `json`, the errors of a
/// broken recipe are printed there as well: `{"valid": false, "errors": [...]}`.
///
/// # Errors
/// The recipe is wrong, or `out` cannot be written.
pub fn validate(
    path: &Path,
    sets: &[String],
    on: &ClusterArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let cluster = on.cluster()?;
    if study::is_study(path) {
        return super::sweep::validate(path, sets, json, out);
    }
    let recipe = match recipe::read(path, sets) {
        Ok(recipe) => recipe,
        Err(errors) => {
            if json {
                let broken = Broken { valid: false, errors: errors.errors() };
                writeln!(out, "{}", serde_json::to_string(&broken)?)?;
            }
            return Err(Failure::Usage(errors.render(terminal::colours())));
        }
    };
    let mut report = report(&recipe);
    let found = look::look(&recipe, &report.files);
    if !found.refused.is_empty() {
        if json {
            let errors = found.refused.into_iter().map(|(field, message)| of_data(path, field, message));
            let broken = Broken { valid: false, errors: errors.collect() };
            writeln!(out, "{}", serde_json::to_string(&broken)?)?;
            return Err(Failure::Usage("the data does not fit the recipe".into()));
        }
        return Err(Failure::Usage(look::told(path, &found.refused)));
    }
    report.warnings.extend(found.warnings);
    if let Some(mut cluster) = cluster {
        let sized = |data: &IndexedData| {
            let (pairs, bytes) = (data.samples as f64, data.bytes? as f64);
            (pairs > 0.0).then_some(DataSize { pairs, bytes })
        };
        cluster.data = report.indexed.as_ref().and_then(sized);
        let plans: Vec<_> = report.stages.iter().map(StageForecast::training).collect();
        let first = plans.iter().flatten().next();
        let mut forecasts = Vec::new();
        for (stage, plan) in plans.iter().enumerate() {
            let (Some(plan), Some(first)) = (plan, first) else { continue };
            let forecast = cluster.forecast(&recipe, stage, plan, first);
            forecasts.push((stage, forecast.map_err(|error| Failure::Usage(error.to_string()))?));
        }
        report.cluster = forecasts;
    }
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(Outcome::Done)
}

/// An error of the data that a field names, as a fact.
fn of_data(path: &Path, field: String, message: String) -> RecipeError {
    let file = path.display().to_string();
    RecipeError { file, line: None, column: None, set: None, field, message, help: None }
}

#[derive(Serialize)]
pub(super) struct Broken {
    pub valid: bool,
    pub errors: Vec<RecipeError>,
}
