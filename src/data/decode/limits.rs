//! Limits on what decoding an image may cost.

/// Longest image that is read, bytes.
pub(crate) const LONGEST_IMAGE: u64 = 256 << 20;
/// Images with more pixels than this are skipped where a source does not say otherwise.
pub const MAX_PIXELS: u64 = 89_478_485;

/// JPEGs with more scans than this are skipped, whatever a recipe says.
pub(crate) const MAX_SCANS: u32 = 100;

/// Limits on what an image may ask of its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// By its header, which is looked at before any memory is taken.
    pub pixels: u64,
    /// Of a JPEG.
    pub scans: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        ImageLimits { pixels: MAX_PIXELS, scans: MAX_SCANS }
    }
}
