//! Evaluated images with what was found for them: `examples/*.json` of a run folder.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use super::{read_if_there, ReportError};
use crate::whole_file;

/// Images with longer sides are made smaller, pixels.
const LONGEST: u32 = 112;
/// Images with longer sides are stored as JPEG; smaller ones are enlarged by browsers, which shows every
/// artefact.
const LOSSLESS: u32 = 64;
const QUALITY: u8 = 85;

/// What one evaluation shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// Index of the evaluating stage in the recipe.
    pub stage: usize,
    pub kind: String,
    pub dataset: String,
    #[serde(default)]
    pub task: String,
    pub examples: Vec<Example>,
}

/// An image, and what was found for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// A `data:` URL, as all images here.
    #[serde(alias = "picture")]
    pub image: String,
    /// Its caption, or its class.
    pub caption: String,
    /// The texts nearest to it, best first.
    pub texts: Vec<Answer>,
    /// The images nearest to the caption, best first.
    #[serde(default, alias = "pictures")]
    pub images: Vec<Answer>,
}

/// One of the nearest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// A text or an image.
    pub what: String,
    /// Cosine.
    pub similarity: f32,
    /// Whether it belongs to what was asked about.
    pub right: bool,
}

impl Examples {
    /// Writes them as JSON; the folder is created where needed.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
        }
        let text = serde_json::to_vec(self)
            .map_err(|source| ReportError::Examples { path: path.to_path_buf(), source })?;
        whole_file::replace(path, &text).map_err(ReportError::io("write", path))
    }

    /// Those of a folder, in the order of stages; none where there is no folder.
    pub fn read_all(folder: &Path) -> Result<Vec<Examples>, ReportError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ReportError::io("list", folder)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(ReportError::io("list", folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut all = Vec::new();
        for path in paths {
            let Some(text) = read_if_there(&path)? else { continue };
            let examples: Examples = serde_json::from_str(&text)
                .map_err(|source| ReportError::Examples { path: path.clone(), source })?;
            all.push(examples);
        }
        all.sort_by_key(|examples| examples.stage);
        Ok(all)
    }
}

/// A `data:` URL of an image, [size, size, 3] bytes.
pub fn thumbnail(pixels: &[u8], size: usize) -> Result<String, ReportError> {
    let drawing = |reason: String| ReportError::Drawing { what: "an example".into(), reason };
    let side = u32::try_from(size).map_err(|_| drawing(format!("{size} pixels are too many")))?;
    let image = RgbImage::from_raw(side, side, pixels.to_vec())
        .ok_or_else(|| drawing(format!("{} bytes are not [{size}, {size}, 3]", pixels.len())))?;
    let image = match side > LONGEST {
        true => image::imageops::resize(&image, LONGEST, LONGEST, FilterType::Triangle),
        false => image,
    };
    let mut bytes = Cursor::new(Vec::new());
    let (written, kind) = match side > LOSSLESS {
        true => (image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY)), "jpeg"),
        false => (image.write_to(&mut bytes, ImageFormat::Png), "png"),
    };
    written.map_err(|error| drawing(error.to_string()))?;
    Ok(format!("data:image/{kind};base64,{}", STANDARD.encode(bytes.into_inner())))
}
