//! Limits on the size of samples and on the share of broken ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::ImageLimits;
use crate::data::load::Skipped;
use crate::data::DataError;
use crate::data::{Defect, Image, Raw};

/// Samples after which a share of broken ones says something about a set.
const ENOUGH: u64 = 1000;

/// Limits on samples of any source. The number of pixels is a limit of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Image files of more bytes are skipped, counted as `image_too_large`; at most 256 MiB are ever read.
    #[serde(alias = "picture_bytes")]
    #[schemars(range(min = 1), extend("formerName" = "picture_bytes"))]
    pub image_bytes: u64,
    /// JPEGs of more scans are skipped, counted as `image_scans`: each is a pass over the whole image that costs the
    /// file next to nothing. Encoders write about ten; at most 100 are ever read.
    #[schemars(range(min = 1, max = 100))]
    pub jpeg_scans: u32,
    /// Captions of more bytes are skipped, counted as `caption_too_long`; at most 64 KiB are ever read.
    #[schemars(range(min = 1))]
    pub caption_bytes: u64,
    /// The run stops when more than this share of the samples so far is broken; looked at from a
    /// thousand samples on. 1 is never. What a filter leaves out is not broken.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub broken_share: f64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig { image_bytes: 64 << 20, jpeg_scans: 100, caption_bytes: 64 << 10, broken_share: 0.5 }
    }
}

impl LimitsConfig {
    /// Those of a source with so many pixels.
    pub fn of_images(&self, pixels: u64) -> ImageLimits {
        ImageLimits { pixels, scans: self.jpeg_scans }
    }

    /// Looks at a sample before anything is decoded.
    ///
    /// # Errors
    /// It has to be left out.
    pub(crate) fn check(&self, sample: &Raw) -> Result<(), Defect> {
        if let Image::Encoded(bytes) = &sample.image {
            if bytes.len() as u64 > self.image_bytes {
                let detail = format!(
                    "{} bytes, more than {} (data.limits.image_bytes)",
                    bytes.len(),
                    self.image_bytes
                );
                return Err(Defect::new("image_too_large", detail));
            }
        }
        let longest = sample.captions.iter().map(String::len).max().unwrap_or(0);
        if longest as u64 > self.caption_bytes {
            let detail =
                format!("{longest} bytes, more than {} (data.limits.caption_bytes)", self.caption_bytes);
            return Err(Defect::new("caption_too_long", detail));
        }
        Ok(())
    }

    /// Checks the share of broken samples.
    ///
    /// # Errors
    /// They are too many.
    pub(crate) fn check_share(
        &self,
        broken: u64,
        of: u64,
        source_name: &str,
        skipped: impl FnOnce() -> Skipped,
    ) -> Result<(), DataError> {
        if of < ENOUGH || broken as f64 <= self.broken_share * of as f64 {
            return Ok(());
        }
        Err(DataError::TooManyBroken {
            source_name: source_name.into(),
            broken,
            of,
            limit: self.broken_share,
            skipped: skipped().to_string(),
        })
    }
}
