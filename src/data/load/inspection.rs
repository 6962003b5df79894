//! What a training run would make of tar shards: every sample is read and decoded as training does it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::data::decode::image_file;
use crate::data::decode::image_file::{decode, Rgb};
use crate::data::decode::ImageLimits;
use crate::data::load::Skipped;
use crate::data::shard::Shard;
use crate::data::source::{table, Files};
use crate::data::storage::{Location, Storage};
use crate::data::DataError;
use crate::data::{Image, LoadError, Raw};

/// How one sample ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleReport {
    /// File name of the shard.
    pub shard: String,
    pub key: String,
    /// 1, or more where the key occurred before in the shard.
    pub occurrence: u32,
    pub outcome: Outcome,
    /// Why it is skipped.
    pub reason: Option<&'static str>,
    pub caption: Option<String>,
    /// Pixels, after orientation.
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// Mean colour of the whole image, 0 to 255.
    pub mean_rgb: Option<[f64; 3]>,
}

/// Whether a sample is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Load,
    Skip,
}

/// How one shard ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// File name.
    pub file: String,
    pub loaded: u64,
    pub skipped: u64,
    /// Whether it stops being an archive somewhere; samples before that place load.
    pub damaged: bool,
    /// Why it is damaged.
    pub reason: Option<&'static str>,
}

/// A sample and, where it loads, its image.
pub struct Seen<'a> {
    pub report: SampleReport,
    pub image: Option<&'a Rgb>,
    /// The key of the earlier sample whose image file is the same, byte for byte.
    pub repeats: Option<String>,
    /// The shard, whole.
    pub shard: &'a Location,
    /// Shards that are done, of all.
    pub shards: (usize, usize),
}

/// Smallest, largest and sum of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    pub smallest: u64,
    pub largest: u64,
    pub sum: u64,
    pub count: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { smallest: u64::MAX, largest: 0, sum: 0, count: 0 }
    }
}

impl Spread {
    fn add(&mut self, value: u64) {
        self.smallest = self.smallest.min(value);
        self.largest = self.largest.max(value);
        self.sum += value;
        self.count += 1;
    }
}

impl Serialize for Spread {
    /// Null where there was nothing.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Spread { smallest, largest, sum, count } = *self;
        let shown = (count > 0).then(|| {
            BTreeMap::from([
                ("smallest", smallest),
                ("largest", largest),
                ("mean", sum / count),
                ("sum", sum),
            ])
        });
        shown.serialize(serializer)
    }
}

/// Everything over all shards.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    pub shards: Vec<ShardReport>,
    /// By reason; the first few by name.
    pub skipped: Skipped,
    /// Bytes of a shard.
    pub bytes: Spread,
    /// Pixels of a loaded image.
    pub width: Spread,
    pub height: Spread,
    /// Characters of a loaded caption.
    pub caption: Spread,
    /// Loaded images by format, told by content.
    pub formats: BTreeMap<&'static str, u64>,
    /// Loaded images whose file occurred before, byte for byte.
    pub duplicates: u64,
    /// How long it took, on one thread.
    pub took: Duration,
}

impl Inspection {
    pub fn loaded(&self) -> u64 {
        self.shards.iter().map(|shard| shard.loaded).sum()
    }
}

/// Inspects the shards of a pattern; `told` gets every sample in the order of the archives. Hashes of the images
/// and their keys stay in memory, about a hundred bytes a sample.
///
/// # Errors
/// The pattern matches nothing, or `told` fails.
pub fn inspect(
    pattern: &str,
    mut told: impl FnMut(Seen<'_>) -> Result<(), DataError>,
) -> Result<Inspection, DataError> {
    let mut inspection = Inspection::default();
    let began = Instant::now();
    let mut first_of: HashMap<u64, Box<str>> = HashMap::new();
    let storage = Storage::default();
    let files = Files::from(pattern).locate(&storage)?;
    let all = files.len();
    if let Some(table) = files.iter().find(|file| table::is_table(file)) {
        return Err(DataError::Invalid(format!(
            "{table} is a table, and shards are looked at here; a recipe reads it with `Table(files: ...)`, and \
             `flip data pack` makes shards of a .csv or .tsv"
        )));
    }
    for (done, location) in files.into_iter().enumerate() {
        let shard = Shard::open_at(&location, &storage)?;
        inspection.bytes.add(shard.bytes());
        let file = location.file_name();
        let damage = shard.damage().map(|damage| damage.reason);
        let mut report =
            ShardReport { file, loaded: 0, skipped: 0, damaged: damage.is_some(), reason: damage };
        let mut occurrences: HashMap<&str, u32> = HashMap::new();
        for sample in 0..shard.len() {
            let key = shard.key(sample);
            let result = match examine(&shard, sample) {
                Err(LoadError::Failed(error)) => return Err(error),
                Err(LoadError::Skip(skip)) => Err(skip),
                Ok(examined) => Ok(examined),
            };
            let outcome = if result.is_ok() { Outcome::Load } else { Outcome::Skip };
            let mut told_of = SampleReport {
                shard: report.file.clone(),
                key: key.to_owned(),
                occurrence: 0,
                outcome,
                reason: None,
                caption: None,
                width: None,
                height: None,
                mean_rgb: None,
            };
            let mut repeats = None;
            match &result {
                Ok(Examined { caption, image, format, hash }) => {
                    report.loaded += 1;
                    inspection.width.add(image.width.into());
                    inspection.height.add(image.height.into());
                    inspection.caption.add(caption.chars().count() as u64);
                    *inspection.formats.entry(format).or_default() += 1;
                    repeats = first_of.get(hash).map(|key| key.to_string());
                    if repeats.is_some() {
                        inspection.duplicates += 1;
                    } else {
                        first_of.insert(*hash, key.into());
                    }
                    told_of.caption = Some(caption.clone());
                    (told_of.width, told_of.height) = (Some(image.width), Some(image.height));
                    told_of.mean_rgb = Some(mean(image));
                }
                Err(skip) => {
                    told_of.reason = Some(skip.reason);
                    inspection.skipped.add(skip.clone());
                    // Damage outside of any sample is that of the shard.
                    if key.is_empty() {
                        continue;
                    }
                    report.skipped += 1;
                }
            }
            let occurrence = occurrences.entry(key).or_default();
            *occurrence += 1;
            told_of.occurrence = *occurrence;
            let image = result.as_ref().ok().map(|examined| &examined.image);
            told(Seen { report: told_of, image, repeats, shard: &location, shards: (done, all) })?;
        }
        inspection.shards.push(report);
    }
    inspection.took = began.elapsed();
    Ok(inspection)
}

/// A sample that loads.
struct Examined {
    caption: String,
    image: Rgb,
    format: &'static str,
    /// Of the image's file.
    hash: u64,
}

fn examine(shard: &Shard, sample: usize) -> Result<Examined, LoadError> {
    let Raw { image, captions, .. } = shard.load(sample)?;
    let (format, hash) = match &image {
        Image::Encoded(bytes) => (image_file::format(bytes), hash(bytes)),
        Image::Rgb { pixels, .. } => ("raw", hash(pixels)),
    };
    let image = match image {
        Image::Encoded(bytes) => decode(&bytes, ImageLimits::default())
            .map_err(|defect| defect.of(format!("{}: {}", shard.location(), shard.key(sample))))?,
        Image::Rgb { width, height, pixels } => Rgb { width, height, pixels },
    };
    Ok(Examined { caption: captions.into_iter().next().unwrap_or_default(), image, format, hash })
}

/// The first eight bytes of the SHA-256.
fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Mean of each channel, to a tenth.
fn mean(image: &Rgb) -> [f64; 3] {
    let mut sums = [0u64; 3];
    for pixel in image.pixels.chunks_exact(3) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
        }
    }
    let pixels = f64::from(image.width) * f64::from(image.height);
    sums.map(|sum| (sum as f64 / pixels * 10.0).round() / 10.0)
}
