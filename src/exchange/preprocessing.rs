//! Preprocessing of images before an encoder, in open_clip's `preprocess_cfg` and in the files of transformers.

use std::path::Path;

use serde_json::{json, Map, Value};

use super::error::{ExchangeError, Obstacle};
use super::options::{read_object, Extent, Options};
use crate::data::decode::{Interpolation, ResizeMode, Resizing};
use crate::model::{ImageTowerConfig, PixelNorm};

/// The file that transformers has for images alone.
pub(super) const PREPROCESSOR: &str = "preprocessor_config.json";
/// The file that transformers has for images and texts; what it says about images wins.
pub(super) const PROCESSOR: &str = "processor_config.json";
/// Its part about images.
const IMAGE_PROCESSOR: &str = "image_processor";
/// Processors that do what their options say and nothing else.
const PROCESSORS: [&str; 6] = [
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPFeatureExtractor",
    "SiglipImageProcessor",
    "SiglipImageProcessorFast",
    "ViTImageProcessor",
];

/// Bytes to numbers, and an image to a square.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preprocessing {
    pub pixels: PixelNorm,
    pub resizing: Resizing,
}

impl Preprocessing {
    /// Behaviour of open_clip where nothing is said.
    pub const OPENAI: Preprocessing = Preprocessing {
        pixels: PixelNorm::OPENAI,
        resizing: Resizing { mode: ResizeMode::Shortest, interpolation: Interpolation::Bicubic, fill: 0 },
    };
}

/// Follows open_clip's `preprocess_cfg`.
pub(super) fn of_open_clip(options: &mut Options) -> Preprocessing {
    let pixels = PixelNorm {
        mean: options.channels("mean", PixelNorm::OPENAI.mean),
        std: options.channels("std", PixelNorm::OPENAI.std),
    };
    options.without("mode", &["RGB"], "images are RGB here");
    // The size is that of the model.
    options.ignore(&["size"]);
    let interpolation = match options.text("interpolation").as_deref() {
        // open_clip evaluates "random" as bicubic.
        None | Some("bicubic" | "random") => Interpolation::Bicubic,
        Some("bilinear") => Interpolation::Bilinear,
        Some(other) => {
            options.object_to("interpolation", format!("\"{other}\": expected bicubic or bilinear"));
            Interpolation::Bicubic
        }
    };
    let mode = match options.text("resize_mode").as_deref() {
        None | Some("shortest") => ResizeMode::Shortest,
        Some("longest") => ResizeMode::Longest,
        Some("squash") => ResizeMode::Squash,
        Some(other) => {
            options.object_to("resize_mode", format!("\"{other}\": expected shortest, longest or squash"));
            ResizeMode::Shortest
        }
    };
    let fill = options.number("fill_color", 0.0);
    if !(0.0..=255.0).contains(&fill) || fill.fract() != 0.0 {
        options.object_to("fill_color", format!("expected a whole number of 0 to 255, got {fill}"));
    }
    options.nothing_else();
    Preprocessing { pixels, resizing: Resizing { mode, interpolation, fill: fill as u8 } }
}

/// The `preprocess_cfg` that [`of_open_clip`] reads back.
pub(super) fn for_open_clip(image: &ImageTowerConfig) -> Value {
    let Resizing { mode, interpolation, fill } = image.resizing;
    let mut config = json!({
        "mean": image.pixels.mean,
        "std": image.pixels.std,
        "interpolation": match interpolation {
            Interpolation::Bicubic => "bicubic",
            Interpolation::Bilinear => "bilinear",
        },
        "resize_mode": match mode {
            ResizeMode::Shortest => "shortest",
            ResizeMode::Longest => "longest",
            ResizeMode::Squash => "squash",
        },
    });
    if fill != 0 {
        config["fill_color"] = fill.into();
    }
    config
}

/// Reads what a folder of transformers says about images of a model that takes `size` x `size` pixels.
pub(super) fn of_transformers(
    folder: &Path,
    size: usize,
    notes: &mut Vec<String>,
) -> Result<Preprocessing, ExchangeError> {
    let nested = folder.join(PROCESSOR);
    let both = if nested.is_file() { read_object(&nested)? } else { Map::new() };
    let (path, object, prefix) = match both.get(IMAGE_PROCESSOR) {
        Some(Value::Object(object)) => (nested, object.clone(), IMAGE_PROCESSOR),
        _ => {
            let path = folder.join(PREPROCESSOR);
            if !path.is_file() {
                notes.push(format!(
                    "neither {PREPROCESSOR} nor {PROCESSOR} says how images are prepared: they are, as OpenAI's"
                ));
                return Ok(Preprocessing::OPENAI);
            }
            let object = read_object(&path)?;
            (path, object, "")
        }
    };
    let mut options = Options::new(prefix, object);
    let told = processor(&mut options, size);
    match options.problems.is_empty() {
        true => Ok(told),
        false => Err(ExchangeError::config(&path, options.problems)),
    }
}

/// Follows an image processor. Defaults are `CLIPImageProcessor`'s, which files may leave out.
fn processor(options: &mut Options, size: usize) -> Preprocessing {
    for key in ["image_processor_type", "feature_extractor_type"] {
        options.without(key, &PROCESSORS, "only what CLIP's and SigLIP's image processors do is read");
    }
    options.ignore(&["processor_class", "do_convert_rgb", "default_to_square", "data_format", "device"]);
    options.ignore(&["input_data_format", "return_tensors", "image_seq_length", "disable_grouping"]);
    options.without("do_pad", &[], "images are not padded here");
    options.ignore(&["pad_size"]);
    let interpolation = match options.number("resample", 3.0) {
        2.0 => Interpolation::Bilinear,
        3.0 => Interpolation::Bicubic,
        other => {
            options.object_to("resample", format!("{other}: expected 2 (bilinear) or 3 (bicubic)"));
            Interpolation::Bicubic
        }
    };
    let mode = square(options, size);
    let pixels = numbers(options);
    options.nothing_else();
    Preprocessing { pixels, resizing: Resizing { mode, interpolation, fill: 0 } }
}

/// The way to a square of `side` x `side` pixels.
fn square(options: &mut Options, side: usize) -> ResizeMode {
    if !options.flag_or("do_resize", true) {
        options.object_to("do_resize", "false: images of any size are brought to the model's here");
    }
    let cropped = options.flag_or("do_center_crop", true);
    let crop = options.extent("crop_size").filter(|_| cropped);
    let wrong = |what: &str, got: usize| format!("{what} {got}: the model takes {side} x {side} pixels");
    let mode = match options.extent("size") {
        None => ResizeMode::Shortest,
        Some(Extent::Shortest(short)) => {
            if short != side {
                options.object_to("size", wrong("the short side becomes", short));
            }
            ResizeMode::Shortest
        }
        Some(Extent::Square(square)) => {
            if square != side {
                options.object_to("size", wrong("both sides become", square));
            }
            ResizeMode::Squash
        }
    };
    match crop {
        Some(Extent::Square(crop) | Extent::Shortest(crop)) if crop != side => {
            options.object_to("crop_size", wrong("cut to", crop));
        }
        _ if !cropped && mode == ResizeMode::Shortest => {
            options.object_to("do_center_crop", "false: what is left of an image is no square");
        }
        _ => {}
    }
    mode
}

/// (byte * factor - mean) / std as (byte / 255 - mean) / std.
fn numbers(options: &mut Options) -> PixelNorm {
    let rescaled = options.flag_or("do_rescale", true);
    let factor = options.number("rescale_factor", 1.0 / 255.0);
    let factor = if rescaled { factor * 255.0 } else { 255.0 };
    // 1/255 in decimals is not quite 1/255.
    let factor = if (factor - 1.0).abs() < 1e-9 { 1.0 } else { factor };
    if !(factor > 0.0 && factor.is_finite()) {
        options.object_to("rescale_factor", format!("expected a positive number, got {}", factor / 255.0));
        return PixelNorm::OPENAI;
    }
    let mean = options.channels("image_mean", PixelNorm::OPENAI.mean);
    let std = options.channels("image_std", PixelNorm::OPENAI.std);
    let (mean, std) = match options.flag_or("do_normalize", true) {
        true => (mean, std),
        false => ([0.0; 3], [1.0; 3]),
    };
    PixelNorm { mean: mean.map(|x| x / factor), std: std.map(|x| x / factor) }
}

/// Settings that `CLIPImageProcessor` reads.
pub(super) fn for_transformers(image: &ImageTowerConfig) -> Value {
    let Resizing { mode, interpolation, .. } = image.resizing;
    let square = json!({ "height": image.size, "width": image.size });
    let squashed = mode == ResizeMode::Squash;
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": if squashed { square.clone() } else { json!({ "shortest_edge": image.size }) },
        // As Pillow numbers them.
        "resample": match interpolation { Interpolation::Bilinear => 2, Interpolation::Bicubic => 3 },
        "do_center_crop": !squashed,
        "crop_size": square,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": image.pixels.mean,
        "image_std": image.pixels.std,
    })
}

/// Obstacles for an image processor of transformers.
pub(super) fn obstacle(image: &ImageTowerConfig) -> Option<Obstacle> {
    let why = "Longest: transformers' image processors fill up no image around its middle; it would need Shortest or Squash";
    (image.resizing.mode == ResizeMode::Longest)
        .then(|| Obstacle { field: "image.resizing.mode", why: why.into() })
}
