//! Inspection of tar shards: every sample is read and decoded as training does it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::data::decode::image_file::{self, decode, Rgb};
use crate::data::decode::ImageLimits;
use crate::data::load::Skipped;
use crate::data::shard::Shard;
use crate::data::source::{table, Files};
use crate::data::storage::{Location, Storage};
use crate::data::{DataError, Image, LoadError, Raw, Skip};

/// Report on one sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleReport {
    /// File name of the shard.
    pub shard: String,
    /// Key of the sample.
    pub key: String,
    /// 1, or more where the key occurred before in the shard.
    pub occurrence: u32,
    /// Outcome of loading it.
    pub outcome: Outcome,
    /// The reason for which it is skipped.
    pub reason: Option<&'static str>,
    /// Its first caption, as text.
    pub caption: Option<String>,
    /// Width, pixels, after orientation.
    pub width: Option<u32>,
    /// Height, pixels, after orientation.
    pub height: Option<u32>,
    /// Mean colour of the whole image, 0 to 255.
    pub mean_rgb: Option<[f64; 3]>,
}

/// Outcome of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Training would use it.
    Load,
    /// Training would leave it out.
    Skip,
}

/// Report on one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// File name.
    pub file: String,
    /// Samples that load.
    pub loaded: u64,
    /// Samples that are skipped.
    pub skipped: u64,
    /// True if it stops being an archive somewhere; samples before that place load.
    pub damaged: bool,
    /// The damage.
    pub reason: Option<&'static str>,
}

/// A sample and, where it loads, its image.
pub struct Seen<'a> {
    /// The report on it.
    pub report: SampleReport,
    /// Its decoded image, if it loads.
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
    /// Smallest value.
    pub smallest: u64,
    /// Largest value.
    pub largest: u64,
    /// Sum of all values.
    pub sum: u64,
    /// Number of values.
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

/// Totals over all shards.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Reports on the shards.
    pub shards: Vec<ShardReport>,
    /// By reason; the first few by name.
    pub skipped: Skipped,
    /// Bytes of a shard.
    pub bytes: Spread,
    /// Width of a loaded image, pixels.
    pub width: Spread,
    /// Height of a loaded image, pixels.
    pub height: Spread,
    /// Characters of a loaded caption.
    pub caption: Spread,
    /// Loaded images by format, detected by content.
    pub formats: BTreeMap<&'static str, u64>,
    /// Loaded images whose file occurred before, byte for byte.
    pub duplicates: u64,
    /// Time that it took, on one thread.
    pub took: Duration,
}

impl Inspection {
    /// Samples that load, in all shards.
    pub fn loaded(&self) -> u64 {
        self.shards.iter().map(|shard| shard.loaded).sum()
    }
}

/// Inspects the shards of a pattern; `each` gets every sample in the order of the archives. Hashes of the images
/// and their keys stay in memory, about a hundred bytes a sample.
///
/// # Errors
/// The pattern matches nothing, a shard cannot be read, or `each` fails.
pub fn inspect(
    pattern: &str,
    mut each: impl FnMut(Seen<'_>) -> Result<(), DataError>,
) -> Result<Inspection, DataError> {
    let began = Instant::now();
    let storage = Storage::default();
    let files = Files::from(pattern).locate(&storage)?;
    let all = files.len();
    if let Some(table) = files.iter().find(|file| table::is_table(file)) {
        return Err(DataError::Invalid(format!(
            "{table} is a table, and shards are looked at here; a recipe reads it with `Table(files: ...)`, and \
             `flip data pack` makes shards of a .csv or .tsv"
        )));
    }
    let mut inspector = Inspector::default();
    for (done, location) in files.into_iter().enumerate() {
        let shard = Shard::open_at(&location, &storage)?;
        inspector.inspect_shard(&shard, (done, all), &mut each)?;
    }
    inspector.totals.took = began.elapsed();
    Ok(inspector.totals)
}

#[derive(Default)]
struct Inspector {
    totals: Inspection,
    /// Key of the first sample with an image file of this hash.
    first_of: HashMap<u64, Box<str>>,
}

impl Inspector {
    fn inspect_shard(
        &mut self,
        shard: &Shard,
        shards: (usize, usize),
        each: &mut dyn FnMut(Seen<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.totals.bytes.add(shard.bytes());
        let file = shard.location().file_name();
        let damage = shard.damage().map(|damage| damage.reason);
        let mut report =
            ShardReport { file, loaded: 0, skipped: 0, damaged: damage.is_some(), reason: damage };
        let mut occurrences: HashMap<&str, u32> = HashMap::new();
        for sample in 0..shard.len() {
            let key = shard.key(sample);
            let result = match examine(shard, sample) {
                Err(LoadError::Failed(error)) => return Err(error),
                Err(LoadError::Skip(skip)) => Err(skip),
                Ok(examined) => Ok(examined),
            };
            let mut repeats = None;
            match &result {
                Ok(examined) => {
                    report.loaded += 1;
                    repeats = self.count(examined, key);
                }
                Err(skip) => {
                    self.totals.skipped.add(skip.clone());
                    // Damage outside of any sample is that of the shard.
                    if key.is_empty() {
                        continue;
                    }
                    report.skipped += 1;
                }
            }
            let occurrence = occurrences.entry(key).or_default();
            *occurrence += 1;
            let sample = SampleReport::new(report.file.clone(), key, *occurrence, &result);
            let image = result.as_ref().ok().map(|examined| &examined.image);
            each(Seen { report: sample, image, repeats, shard: shard.location(), shards })?;
        }
        self.totals.shards.push(report);
        Ok(())
    }

    /// Adds a loaded sample to the totals; the key of the earlier one that has the same image, if any.
    fn count(&mut self, examined: &Examined, key: &str) -> Option<String> {
        let Examined { caption, image, format, hash } = examined;
        self.totals.width.add(image.width.into());
        self.totals.height.add(image.height.into());
        self.totals.caption.add(caption.chars().count() as u64);
        *self.totals.formats.entry(format).or_default() += 1;
        let repeats = self.first_of.get(hash).map(|key| key.to_string());
        if repeats.is_some() {
            self.totals.duplicates += 1;
        } else {
            self.first_of.insert(*hash, key.into());
        }
        repeats
    }
}

impl SampleReport {
    fn new(shard: String, key: &str, occurrence: u32, result: &Result<Examined, Skip>) -> Self {
        let loaded = result.as_ref().ok();
        SampleReport {
            shard,
            key: key.to_owned(),
            occurrence,
            outcome: if loaded.is_some() { Outcome::Load } else { Outcome::Skip },
            reason: result.as_ref().err().map(|skip| skip.reason),
            caption: loaded.map(|examined| examined.caption.clone()),
            width: loaded.map(|examined| examined.image.width),
            height: loaded.map(|examined| examined.image.height),
            mean_rgb: loaded.map(|examined| mean(&examined.image)),
        }
    }
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
