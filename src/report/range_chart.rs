//! One value of each of several settings, beside each other: a dot for the mean, smaller ones for every seed, a line
//! from the smallest to the largest.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::band_chart::{colour, corners, shortened, Drawn, WIDTH};
use super::chart::{compact, inked, Area, FONT, INK};

/// Height of a setting, pixels.
const ROW: u32 = 30;
/// Above and below the rows.
const AROUND: u32 = 108;
/// Width of a character of a name, on average, and the most that names get.
const CHARACTER: usize = 9;
const MOST_CHARACTERS: usize = 44;

/// Values of several settings.
pub(super) struct RangeChart {
    pub title: String,
    /// Name of the horizontal axis, with its unit.
    pub across: String,
    /// From top to bottom.
    pub rows: Vec<Row>,
    /// A vertical rule at this value.
    pub level: Option<f64>,
}

/// A setting.
pub(super) struct Row {
    pub name: String,
    /// Of every seed; none where nothing is known.
    pub values: Vec<f64>,
}

impl Row {
    fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    fn ends(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// Draws it as SVG. The error is plotters' own.
pub(super) fn draw(chart: &RangeChart) -> Result<String, String> {
    let size = (WIDTH, AROUND + ROW * chart.rows.len() as u32);
    let mut svg = String::new();
    draw_on(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), chart)
        .map_err(|error| error.to_string())?;
    Ok(inked(&svg, &chart.title, &[]))
}

fn draw_on(area: &Area<'_>, chart: &RangeChart) -> Drawn {
    let longest = chart.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let names = (longest.min(MOST_CHARACTERS) * CHARACTER + 16) as u32;
    let (left, right) = ends(chart);
    let rows = chart.rows.len() as f64;
    let mut axes = ChartBuilder::on(area)
        .margin(10)
        .margin_right(26)
        .caption(&chart.title, (FONT, 25, &INK))
        .x_label_area_size(58)
        .y_label_area_size(names)
        .build_cartesian_2d(left..right, 0.0..rows)?;
    axes.configure_mesh()
        .disable_y_mesh()
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.13))
        .light_line_style(INK.mix(0.0))
        .label_style((FONT, 19, &INK))
        .axis_desc_style((FONT, 20, &INK))
        .x_labels(8)
        .y_labels(0)
        .x_desc(&chart.across)
        .x_label_formatter(&|at| compact(*at))
        .draw()?;
    if let Some(level) = chart.level {
        axes.draw_series(DashedLineSeries::new(
            [(level, 0.0), (level, rows)],
            6,
            5,
            INK.mix(0.6).stroke_width(1),
        ))?;
    }
    for (index, row) in chart.rows.iter().enumerate() {
        let height = rows - index as f64 - 0.5;
        if !row.values.is_empty() {
            let (least, most) = row.ends();
            let range =
                PathElement::new([(least, height), (most, height)], colour(index).mix(0.7).stroke_width(2));
            axes.draw_series([range])?;
            let seed = |value: &f64| Circle::new((*value, height), 3, colour(index).mix(0.45).filled());
            axes.draw_series(row.values.iter().map(seed))?;
            let mean =
                EmptyElement::at((row.mean(), height)) + Polygon::new(corners(index), colour(index).filled());
            axes.draw_series([mean])?;
        }
        // Beside the axis, in the area of its labels.
        let (x, y) = axes.backend_coord(&(left, height));
        let right = Pos::new(HPos::Right, VPos::Center);
        let style = (FONT, 19).into_font().color(&INK).pos(right);
        area.draw_text(&shortened(&row.name, MOST_CHARACTERS), &style, (x - 10, y))?;
    }
    area.present()?;
    Ok(())
}

/// Room for every value and the rule, never empty.
fn ends(chart: &RangeChart) -> (f64, f64) {
    let values = || chart.rows.iter().flat_map(|row| row.values.iter().copied()).chain(chart.level);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = if high > low { (high - low) * 0.12 } else { high.abs().max(1e-6) * 0.5 };
    (if low >= 0.0 { (low - room).max(0.0) } else { low - room }, high + room)
}
