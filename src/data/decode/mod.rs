//! From the bytes of an image file to the pixels that an encoder takes.
//!
//! Training decodes the crop that it drew and no more ([`CropDecoder`]); evaluation takes all of the image and cuts out the
//! centre (`eval_transform`). Every processor gives the same bytes.

mod colour;
mod decode_crop;
mod eval_transform;
pub mod image_file;
mod jpeg;
mod limits;
mod pillow_rounding;
mod planes;
mod png;
mod resample;
mod resizing;
mod transform;

pub use decode_crop::{CropDecoder, View};
pub(crate) use limits::LONGEST_IMAGE;
pub use limits::{ImageLimits, MAX_PIXELS};
pub use resizing::{Interpolation, ResizeMode, Resizing};
pub use transform::{AugmentConfig, Crop, Draw, Placement, Transform};
