//! Fills polygons with textures, smooth at the edges.

use super::attribute::Texture;
use super::outline::{Outline, Point};

/// Lines of sight through each row of pixels; along a line, coverage is exact.
const LINES: usize = 4;

/// Coverage of a pixel that is not at the edge, but for rounding.
const INSIDE: f32 = 0.99;

/// Parts of the image's side in which textures are measured.
const TEXTURE_SIDE: f32 = 32.0;

/// A square image of bytes.
pub struct Canvas {
    side: usize,
    /// [side, side, 3]
    pixels: Vec<u8>,
    /// Share of each pixel of the current row that the shape covers; zeros between rows.
    coverage: Vec<f32>,
}

/// A brush: place, size, angle and colours of a shape; lengths in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Brush {
    pub centre: Point,
    pub radius: f32,
    /// Clockwise, radians.
    pub angle: f32,
    pub texture: Texture,
    /// The shape's colour.
    pub colour: [f32; 3],
    /// The other tone of a texture.
    pub second: [f32; 3],
}

/// An edge of a polygon, top to bottom.
struct Edge {
    top: f32,
    bottom: f32,
    /// Its x at `top`, and its step to the right per pixel down.
    x: f32,
    slope: f32,
}

impl Canvas {
    /// Neutral grey, from one level at the top to another at the bottom.
    pub fn new(side: usize, top: f32, bottom: f32) -> Self {
        let mut pixels = Vec::with_capacity(side * side * 3);
        for row in 0..side {
            let level = top + (bottom - top) * row as f32 / side as f32;
            pixels.resize((row + 1) * side * 3, level as u8);
        }
        Canvas { side, pixels, coverage: vec![0.0; side] }
    }

    /// [side, side, 3]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    pub fn paint(&mut self, outline: &Outline, brush: &Brush) {
        let edges = edges(outline, brush);
        let top = edges.iter().map(|edge| edge.top).fold(f32::MAX, f32::min).max(0.0);
        let bottom = edges.iter().map(|edge| edge.bottom).fold(f32::MIN, f32::max).min(self.side as f32);
        let mut crossings = Vec::new();
        for row in top as usize..bottom.ceil() as usize {
            let (mut first, mut last) = (self.side, 0);
            for line in 0..LINES {
                let y = row as f32 + (line as f32 + 0.5) / LINES as f32;
                crossings.clear();
                let crossed = edges.iter().filter(|edge| edge.top <= y && y < edge.bottom);
                crossings.extend(crossed.map(|edge| edge.x + (y - edge.top) * edge.slope));
                crossings.sort_unstable_by(f32::total_cmp);
                for inside in crossings.chunks_exact(2) {
                    let (from, to) = self.cover(inside[0], inside[1]);
                    first = first.min(from);
                    last = last.max(to);
                }
            }
            if first < last {
                self.blend(row, first, last, brush);
            }
        }
    }

    /// Adds one line of sight between two places of the current row; the pixels that it touches.
    fn cover(&mut self, from: f32, to: f32) -> (usize, usize) {
        let side = self.side as f32;
        let (from, to) = (from.clamp(0.0, side), to.clamp(0.0, side));
        let (first, last) = (from as usize, (to.ceil() as usize).min(self.side));
        for column in first..last {
            let inside = to.min(column as f32 + 1.0) - from.max(column as f32);
            self.coverage[column] += inside / LINES as f32;
        }
        (first, last)
    }

    /// Lays the brush over the covered pixels of a row, and forgets the coverage.
    fn blend(&mut self, row: usize, first: usize, last: usize, brush: &Brush) {
        let scale = TEXTURE_SIDE / self.side as f32;
        let down = (row as f32 + 0.5 - brush.centre.1) * scale;
        let pixels =
            self.pixels[(row * self.side + first) * 3..(row * self.side + last) * 3].chunks_exact_mut(3);
        for (column, (pixel, covered)) in pixels.zip(&mut self.coverage[first..last]).enumerate() {
            let right = ((first + column) as f32 + 0.5 - brush.centre.0) * scale;
            // The rim stays in the first tone: holes at the edge would blur the outline of a small shape.
            let second = *covered > INSIDE && is_second(brush.texture, right, down);
            let colour = if second { &brush.second } else { &brush.colour };
            for (channel, colour) in pixel.iter_mut().zip(colour) {
                let below = f32::from(*channel);
                *channel = (below + (colour - below) * *covered + 0.5) as u8;
            }
            *covered = 0.0;
        }
    }
}

/// True if a texture shows its second tone at a place, in 32nds of the image from the shape's centre.
fn is_second(texture: Texture, right: f32, down: f32) -> bool {
    // Far enough for the coordinates to be positive, so that truncation rounds down.
    const AWAY: f32 = 1024.0;
    let odd = |place: f32| (place + AWAY) as u32 % 2 == 1;
    match texture {
        Texture::Plain => false,
        Texture::Striped => odd((right + down) / 2.8),
        Texture::Checked => odd(right / 3.0) != odd(down / 3.0),
        Texture::Dotted => {
            // Round spots, 5 apart, one of them in the middle.
            let from_spot = |place: f32| (place + 5.0 * AWAY + 2.5) % 5.0 - 2.5;
            let (right, down) = (from_spot(right), from_spot(down));
            right * right + down * down < 1.9
        }
    }
}

/// The outline's edges on the canvas; level ones enclose nothing and are left out.
fn edges(outline: &Outline, brush: &Brush) -> Vec<Edge> {
    let (sin, cos) = brush.angle.sin_cos();
    let place = |&(x, y): &Point| {
        let (x, y) = (x * cos - y * sin, x * sin + y * cos);
        (brush.centre.0 + brush.radius * x, brush.centre.1 + brush.radius * y)
    };
    let mut edges = Vec::new();
    for contour in &outline.contours {
        let points: Vec<Point> = contour.iter().map(place).collect();
        for (index, &a) in points.iter().enumerate() {
            let b = points[(index + 1) % points.len()];
            let (upper, lower) = if a.1 <= b.1 { (a, b) } else { (b, a) };
            if upper.1 < lower.1 {
                let slope = (lower.0 - upper.0) / (lower.1 - upper.1);
                edges.push(Edge { top: upper.1, bottom: lower.1, x: upper.0, slope });
            }
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brush(centre: Point, radius: f32) -> Brush {
        let (colour, second) = ([255.0; 3], [0.0; 3]);
        Brush { centre, radius, angle: 0.0, texture: Texture::Plain, colour, second }
    }

    #[test]
    fn coverage_is_the_area_of_each_pixel_inside() {
        let square = Outline { contours: vec![vec![(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]] };
        let mut canvas = Canvas::new(4, 0.0, 0.0);
        // From 0.75 to 3.25 both ways: 2.5 x 2.5 pixels.
        canvas.paint(&square, &brush((2.0, 2.0), 1.25));
        let red: Vec<u8> = canvas.into_pixels().chunks(3).map(|pixel| pixel[0]).collect();
        let (corner, edge, full) = (16, 64, 255);
        assert_eq!(red[..8], [corner, edge, edge, corner, edge, full, full, edge]);
        assert_eq!(red[8..], [edge, full, full, edge, corner, edge, edge, corner]);
    }

    #[test]
    fn shapes_may_leave_the_image() {
        let disc = Outline::of(super::super::attribute::Shape::Circle);
        let mut canvas = Canvas::new(8, 0.0, 0.0);
        for centre in [(-2.0, 4.0), (9.0, 9.0), (4.0, -30.0), (40.0, 4.0)] {
            canvas.paint(&disc, &brush(centre, 4.0));
        }
        assert!(canvas.into_pixels().iter().any(|&byte| byte > 0));
    }
}
