//! Images as planes of bytes, as much of them as is looked at.

use std::ops::Range;

use crate::data::decode::image_file::Rgb;
use crate::data::decode::jpeg::Colours;

/// Bytes behind the last row, so that rows can be read sixteen bytes at a time.
const SLACK: usize = 64;

/// One channel of an image, perhaps at another size, in memory as far as it is wanted.
#[derive(Debug, Clone, Default)]
pub struct Plane {
    /// Rows of `stride` bytes.
    pub pixels: Vec<u8>,
    pub stride: usize,
    /// First column and row that are in memory.
    pub left: usize,
    pub top: usize,
    /// The whole plane.
    pub width: usize,
    pub height: usize,
}

/// An image by its channels.
#[derive(Debug, Clone)]
pub struct Planes {
    pub colours: Colours,
    /// One, or three.
    pub planes: Vec<Plane>,
}

impl Plane {
    /// A plane of this size, nothing of it in memory.
    pub fn new(width: usize, height: usize) -> Self {
        Plane { width, height, ..Plane::default() }
    }

    /// Makes room for a rectangle; what it holds is left from before.
    pub fn reserve(&mut self, (left, top): (usize, usize), (width, height): (usize, usize)) {
        (self.left, self.top, self.stride) = (left, top, width);
        self.pixels.resize(width * height + SLACK, 0);
    }

    /// The row `y` from column `x` on, with at least [`SLACK`] bytes behind the last pixel of the plane.
    #[inline(always)]
    pub fn row(&self, x: usize, y: usize) -> &[u8] {
        &self.pixels[(y - self.top) * self.stride + x - self.left..]
    }
}

impl Planes {
    /// These columns and rows of an image.
    pub fn of(image: &Rgb, across: Range<usize>, down: Range<usize>) -> Self {
        let mut planes = vec![Plane::new(image.width as usize, image.height as usize); 3];
        for (channel, plane) in planes.iter_mut().enumerate() {
            plane.reserve((across.start, down.start), (across.len(), down.len()));
            let rows = image.pixels.chunks_exact(3 * plane.width).skip(down.start);
            for (to, row) in plane.pixels.chunks_exact_mut(across.len()).take(down.len()).zip(rows) {
                for (to, pixel) in to.iter_mut().zip(row.chunks_exact(3).skip(across.start)) {
                    *to = pixel[channel];
                }
            }
        }
        Planes { colours: Colours::Rgb, planes }
    }
}
