//! A chart as PNG, for places that take no SVG: slides, papers, chats.
//!
//! The same drawing commands as those of the SVG, onto a canvas of several pixels for each of the chart's, which are
//! averaged in the end: so everything has smooth edges. Text is set in the one font that comes with the program, so that a
//! chart is the same bytes on every machine.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, ScaleFont};
use image::{ImageFormat, RgbImage};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

const FONT: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");
/// Pixels of the canvas for each of the chart's, in each direction.
const FINE: i32 = 4;
/// Of those, pixels that become one of the image: it is twice as large as the chart, for dense screens.
const AVERAGED: u32 = 2;
/// What is behind the chart.
const PAPER: [u8; 3] = [255, 255, 255];
/// plotters' size of a font is 1.24 times its em.
const SIZE_OF_EM: f64 = 1.24;

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// Draws as large as the SVG would be, in [`PAPER`] and ink.
pub(super) struct Raster<'a> {
    size: (u32, u32),
    canvas: Canvas,
    png: &'a mut Vec<u8>,
}

/// The fine pixels. plotters' own rasterizer draws on them.
struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 3]>,
}

impl<'a> Raster<'a> {
    /// A chart of `size` pixels; `png` is filled when the drawing is presented.
    pub fn new(png: &'a mut Vec<u8>, size: (u32, u32)) -> Self {
        let [width, height] = [size.0, size.1].map(|side| side * FINE as u32);
        let canvas = Canvas { width, height, pixels: vec![PAPER; (width * height) as usize] };
        Raster { size, canvas, png }
    }

    /// The fine pixels, averaged.
    fn image(&self) -> RgbImage {
        let (width, height) = (self.canvas.width / AVERAGED, self.canvas.height / AVERAGED);
        RgbImage::from_fn(width, height, |x, y| {
            let mut sums = [0u32; 3];
            for row in 0..AVERAGED {
                let from = ((y * AVERAGED + row) * self.canvas.width + x * AVERAGED) as usize;
                for pixel in &self.canvas.pixels[from..from + AVERAGED as usize] {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                }
            }
            let count = AVERAGED * AVERAGED;
            // In range: a mean of bytes.
            image::Rgb(sums.map(|sum| ((sum + count / 2) / count) as u8))
        })
    }
}

fn fine((x, y): BackendCoord) -> BackendCoord {
    (x * FINE + FINE / 2, y * FINE + FINE / 2)
}

/// A style on the fine pixels.
struct Fine {
    color: BackendColor,
    stroke_width: u32,
}

impl Fine {
    fn of<S: BackendStyle>(style: &S) -> Self {
        Fine { color: style.color(), stroke_width: style.stroke_width() * FINE as u32 }
    }
}

impl BackendStyle for Fine {
    fn color(&self) -> BackendColor {
        self.color
    }
    fn stroke_width(&self) -> u32 {
        self.stroke_width
    }
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        let mut png = Cursor::new(Vec::new());
        self.image()
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| DrawingErrorKind::FontError(Box::new(error)))?;
        *self.png = png.into_inner();
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        let corner = (x * FINE, y * FINE);
        self.canvas.draw_rect(corner, (corner.0 + FINE - 1, corner.1 + FINE - 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn {
        self.canvas.draw_rect(fine(upper_left), fine(bottom_right), &Fine::of(style), fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        self.canvas.draw_path(path.into_iter().map(fine), &Fine::of(style))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn {
        self.canvas.draw_circle(fine(center), radius * FINE as u32, &Fine::of(style), fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        vertices: I,
        style: &S,
    ) -> Drawn {
        self.canvas.fill_polygon(vertices.into_iter().map(fine), &Fine::of(style))
    }

    /// Where the SVG has it: anchors as there, the same size.
    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Drawn {
        let Some(font) = font() else { return Ok(()) };
        let em = style.size() / SIZE_OF_EM * f64::from(FINE);
        let units = font.units_per_em().unwrap_or(2048.0);
        let font = font.as_scaled(em as f32 * font.height_unscaled() / units);
        let mut width = 0.0;
        let mut glyphs = Vec::new();
        let mut before = None;
        for c in text.chars() {
            let id = font.glyph_id(c);
            width += before.map_or(0.0, |before| font.kern(before, id));
            glyphs.push(id.with_scale_and_position(font.scale(), ab_glyph::point(width, 0.0)));
            width += font.h_advance(id);
            before = Some(id);
        }
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width / 2.0,
            HPos::Right => -width,
        };
        // An ex is about half an em.
        let down = em as f32
            * match style.anchor().v_pos {
                VPos::Top => 0.76,
                VPos::Center => 0.27,
                VPos::Bottom => -0.27,
            };
        let origin = fine(at);
        let transform = style.transform();
        for mut glyph in glyphs {
            glyph.position.x += left;
            glyph.position.y += down;
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            outline.draw(|x, y, covered| {
                let place =
                    transform.transform(bounds.min.x as i32 + x as i32, bounds.min.y as i32 + y as i32);
                let color = style.color();
                let color = BackendColor { alpha: color.alpha * f64::from(covered.min(1.0)), ..color };
                self.canvas.blend((origin.0 + place.0, origin.1 + place.1), color);
            });
        }
        Ok(())
    }
}

/// The font; it is part of the program, so it is one.
fn font() -> Option<&'static FontRef<'static>> {
    static PARSED: OnceLock<Option<FontRef<'static>>> = OnceLock::new();
    PARSED.get_or_init(|| FontRef::try_from_slice(FONT).ok()).as_ref()
}

impl Canvas {
    fn blend(&mut self, (x, y): BackendCoord, color: BackendColor) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        let pixel = &mut self.pixels[(y * self.width + x) as usize];
        let [red, green, blue] = *pixel;
        let mixed = |below: u8, above: u8| {
            (f64::from(below) * (1.0 - color.alpha) + f64::from(above) * color.alpha).round() as u8
        };
        *pixel = [mixed(red, color.rgb.0), mixed(green, color.rgb.1), mixed(blue, color.rgb.2)];
    }
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn {
        self.blend(point, color);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_thick_and_a_text_as_dark_as_asked() {
        let mut png = Vec::new();
        {
            use plotters::prelude::*;
            let area = Raster::new(&mut png, (60, 40)).into_drawing_area();
            area.draw(&PathElement::new(
                [(10, 30), (50, 30)],
                plotters::style::Color::stroke_width(&BLACK, 2),
            ))
            .unwrap();
            area.draw(&Text::new("l", (5, 5), ("sans-serif", 20).into_font().color(&BLACK))).unwrap();
            area.present().unwrap();
        }
        let image = image::load_from_memory(&png).unwrap().to_luma8();
        assert_eq!(image.dimensions(), (120, 80));
        let column: Vec<u8> = (0..80).map(|y| image.get_pixel(60, y).0[0]).collect();
        let ink: u32 = column.iter().map(|value| 255 - u32::from(*value)).sum();
        assert!((3 * 255..=5 * 255).contains(&ink), "two pixels of the chart are four here: {ink}");
        assert!(column[60] < 64 || column[61] < 64, "{column:?}");
        let text = (10..44).flat_map(|y| (10..24).map(move |x| (x, y)));
        let darkest = text.map(|(x, y)| image.get_pixel(x, y).0[0]).min();
        assert!(darkest < Some(64), "a letter is there: {darkest:?}");
    }
}
