//! Filters good samples: by size, shape, caption, score, and a list of those that are not wanted.
//!
//! The decision about a sample depends on the sample alone, so neither the order of a run nor the place where
//! it was resumed changes it. That is why duplicates are left out by a list: `flip data inspect --duplicates FILE`
//! finds every image that repeats an earlier one, and `exclude: "FILE"` leaves exactly those out, in every
//! epoch.

use std::num::NonZeroU64;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::image_file;
use crate::data::source::exclude::Excluded;
use crate::data::source::{Source, Ticket};
use crate::data::DataError;
use crate::data::{Defect, Image, Raw};

/// Reasons of skipped samples that begin with this are choices, not damage.
pub const CHOSEN: &str = "filter_";

/// Good samples that are left out of training nevertheless.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Shortest side of an image, pixels; counted as `filter_size`. Default: any.
    pub min_side: Option<NonZeroU64>,
    /// Largest ratio of the longer to the shorter side, 1 or more; counted as `filter_aspect`. Default: any.
    #[schemars(range(min = 1.0))]
    pub max_aspect: Option<f64>,
    /// Fewest and most characters of the (first) caption; counted as `filter_caption`. Default: any.
    pub caption_characters: Option<(u64, u64)>,
    /// A number in the sample's json; counted as `filter_score`, and as `filter_score_missing` where there is no
    /// number (NaN is none). A sample whose json cannot be read is a broken one, `json_invalid`. Default: none is
    /// asked for.
    pub score: Option<ScoreConfig>,
    /// A text file with a sample a line, which are left out, counted as `filter_excluded`: `{"shard": "A/0.tar",
    /// "key": "k"}`, as `flip data inspect --duplicates FILE` writes it, or a key alone, which is left out of every
    /// shard. Default: none.
    pub exclude: Option<PathBuf>,
}

/// A number in the json of samples, and its bounds. Samples without the number are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreConfig {
    /// Name of the field, for example `similarity`.
    pub field: String,
    /// Smallest value. Default: any.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest value. Default: any.
    #[serde(default)]
    pub max: Option<f64>,
}

/// A filter with its list read.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    config: FilterConfig,
    excluded: Option<Excluded>,
}

impl Filter {
    /// The filter of a source.
    ///
    /// # Errors
    /// The list cannot be read, or is not one of this source.
    pub fn open(config: &FilterConfig, source: &dyn Source) -> Result<Filter, DataError> {
        let excluded =
            config.exclude.as_deref().map(|list| Excluded::read(list, &source.shards())).transpose()?;
        Ok(Filter { config: config.clone(), excluded })
    }

    /// Looks at a sample before its image is decoded.
    ///
    /// # Errors
    /// It is left out.
    pub(crate) fn check(&self, source: &dyn Source, ticket: &Ticket, sample: &Raw) -> Result<(), Defect> {
        let FilterConfig { min_side, max_aspect, caption_characters, score, .. } = &self.config;
        if self.excluded.as_ref().is_some_and(|list| list.has(source, ticket, &sample.key)) {
            return Err(Defect::new("filter_excluded", "it is in the list"));
        }
        if let Some((fewest, most)) = caption_characters {
            let length = sample.captions.first().map_or(0, |caption| caption.chars().count() as u64);
            if !(*fewest..=*most).contains(&length) {
                return Err(Defect::new("filter_caption", format!("{length} characters")));
            }
        }
        if let Some(ScoreConfig { field, min, max }) = score {
            let value = sample.meta.as_ref().map_err(Clone::clone)?.as_ref().and_then(|meta| meta.get(field));
            let Some(value) = value.and_then(|value| value.as_f64()) else {
                let found = value.map_or("nothing".into(), ToString::to_string);
                let detail = format!("expected a number in {field:?} of its json, found {found}");
                return Err(Defect::new("filter_score_missing", detail));
            };
            if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
                return Err(Defect::new("filter_score", format!("{field} {value}")));
            }
        }
        if min_side.is_none() && max_aspect.is_none() {
            return Ok(());
        }
        let size = match &sample.image {
            Image::Rgb { width, height, .. } => Some((*width, *height)),
            Image::Encoded(bytes) => image_file::size(bytes),
        };
        // What has no readable size fails to decode, and is counted then.
        let Some((width, height)) = size else { return Ok(()) };
        let (shorter, longer) = (width.min(height), width.max(height));
        if min_side.is_some_and(|least| u64::from(shorter) < least.get()) {
            return Err(Defect::new("filter_size", format!("{width} x {height} pixels")));
        }
        if max_aspect.is_some_and(|most| f64::from(longer) > most * f64::from(shorter)) {
            return Err(Defect::new("filter_aspect", format!("{width} x {height} pixels")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::Order;
    use crate::data::Cursor;
    use crate::data::LoadError;

    /// A source without shards.
    struct Nothing;

    impl Source for Nothing {
        fn samples(&self) -> Option<u64> {
            None
        }
        fn ticket(&self, _: Cursor, _: Order) -> Result<Option<Ticket>, DataError> {
            Ok(None)
        }
        fn load(&self, _: &Ticket) -> Result<Raw, LoadError> {
            unreachable!("there are no tickets")
        }
    }

    fn sample(width: u32, height: u32, caption: &str, meta: Option<serde_json::Value>) -> Raw {
        Raw {
            key: "k1".into(),
            image: Image::Rgb { width, height, pixels: vec![0; (width * height * 3) as usize] },
            captions: vec![caption.into()],
            meta: Ok(meta),
            label: None,
            label_set: None,
        }
    }

    fn reason(config: FilterConfig, sample: &Raw) -> Option<&'static str> {
        let ticket = Ticket { epoch: 0, index: 0, item: (0, 0), after: Cursor::default() };
        let filter = Filter::open(&config, &Nothing).expect("opened");
        filter.check(&Nothing, &ticket, sample).err().map(|defect| defect.reason)
    }

    #[test]
    fn each_bound_holds_for_itself() {
        let all = FilterConfig::default();
        let wide = sample(90, 30, "a cat", Some(serde_json::json!({"similarity": 0.3, "text": "0.9"})));
        assert_eq!(reason(all.clone(), &wide), None);
        let side = |side| FilterConfig { min_side: NonZeroU64::new(side), ..all.clone() };
        assert_eq!(reason(side(30), &wide), None);
        assert_eq!(reason(side(31), &wide), Some("filter_size"));
        let aspect = |most| FilterConfig { max_aspect: Some(most), ..all.clone() };
        assert_eq!(reason(aspect(3.0), &wide), None);
        assert_eq!(reason(aspect(2.9), &wide), Some("filter_aspect"));
        let caption = |bounds| FilterConfig { caption_characters: Some(bounds), ..all.clone() };
        assert_eq!(reason(caption((5, 5)), &wide), None);
        assert_eq!(reason(caption((6, 99)), &wide), Some("filter_caption"));
        let score = |field: &str, min, max| FilterConfig {
            score: Some(ScoreConfig { field: field.into(), min, max }),
            ..all.clone()
        };
        assert_eq!(reason(score("similarity", Some(0.3), None), &wide), None);
        assert_eq!(reason(score("similarity", Some(0.31), None), &wide), Some("filter_score"));
        assert_eq!(reason(score("similarity", None, Some(0.2)), &wide), Some("filter_score"));
        assert_eq!(reason(score("text", None, None), &wide), Some("filter_score_missing"));
    }

    #[test]
    fn listed_keys_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("keys.txt");
        std::fs::write(&list, "k0\nk1\n").expect("written");
        let config = FilterConfig { exclude: Some(list), ..FilterConfig::default() };
        let mut one = sample(1, 1, "a", None);
        assert_eq!(reason(config.clone(), &one), Some("filter_excluded"));
        one.key = "k2".into();
        assert_eq!(reason(config.clone(), &one), None);
        let list = config.exclude.as_ref().expect("a list");
        std::fs::write(list, "\u{feff}k1\r\nk0\r\n").expect("written");
        one.key = "k1".into();
        assert_eq!(reason(config.clone(), &one), Some("filter_excluded"));
        std::fs::write(list, b"\xff\xfek\x001\0").expect("written");
        let message = Filter::open(&config, &Nothing).expect_err("UTF-16").to_string();
        assert!(message.contains("keys.txt: this is UTF-16"), "{message}");
        let missing = FilterConfig { exclude: Some("nowhere.txt".into()), ..FilterConfig::default() };
        assert!(Filter::open(&missing, &Nothing).expect_err("missing").to_string().contains("nowhere.txt"));
    }
}
