//! Curves with bands: for each line the mean over seeds, and around it the smallest and largest value.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{compact, inked, Area, FONT, INK};

/// Width of a chart, pixels.
pub(super) const WIDTH: u32 = 720;
/// Its height without its legend.
const HEIGHT: u32 = 440;
/// Height of a name below the chart, pixels.
const LEGEND_ROW: u32 = 25;
/// Longer names do not fit.
const LEGEND_CHARS: usize = 80;
/// The colours of Okabe and Ito, which people with any kind of colour vision tell apart, in an order in which
/// neighbours differ most; without black, which would be lost on a dark page, and yellow, on a light one. Then a wine red
/// and a grey, for who compares more than six.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x80, 0x80, 0x80),
];

/// Lines with bands.
pub(super) struct BandChart {
    pub title: String,
    /// Names of the axes, with units.
    pub across: String,
    pub up: String,
    pub lines: Vec<Line>,
    /// A horizontal rule, and its name.
    pub level: Option<(f64, String)>,
}

/// A line with its band.
pub(super) struct Line {
    pub name: String,
    pub points: Vec<Point>,
    /// Place where it first crosses the level.
    pub crosses: Option<f64>,
}

/// A point of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub at: f64,
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

/// Draws it as SVG. The error is plotters' own.
pub(super) fn draw(chart: &BandChart) -> Result<String, String> {
    let size = (WIDTH, HEIGHT + chart.lines.len() as u32 * LEGEND_ROW + 14);
    let mut svg = String::new();
    draw_on(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), chart)
        .map_err(|error| error.to_string())?;
    Ok(inked(&svg, &chart.title, &[]))
}

/// A chart that is drawn, or plotters' error.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_on(whole: &Area<'_>, chart: &BandChart) -> Drawn {
    let (area, below) = whole.split_vertically(HEIGHT);
    draw_legend(&below, chart)?;
    let ((left, right), (bottom, top)) = ranges(chart);
    let mut axes = ChartBuilder::on(&area)
        .margin(10)
        .margin_right(26)
        .caption(&chart.title, (FONT, 25, &INK))
        .x_label_area_size(58)
        .y_label_area_size(72)
        .build_cartesian_2d(left..right, bottom..top)?;
    axes.configure_mesh()
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.13))
        .light_line_style(INK.mix(0.0))
        .label_style((FONT, 19, &INK))
        .axis_desc_style((FONT, 20, &INK))
        .x_labels(8)
        .y_labels(8)
        .x_desc(&chart.across)
        .y_desc(&chart.up)
        .x_label_formatter(&|at| compact(*at))
        .y_label_formatter(&|value| compact(*value))
        .draw()?;

    if let Some((level, what)) = &chart.level {
        let dashes =
            DashedLineSeries::new([(left, *level), (right, *level)], 6, 5, INK.mix(0.6).stroke_width(1));
        axes.draw_series(dashes)?;
        let place = (left + (right - left) * 0.012, level + (top - bottom) * 0.05);
        axes.draw_series([Text::new(what.clone(), place, (FONT, 18).into_font().color(&INK.mix(0.75)))])?;
    }
    // Bands first: no line is hidden by the band of another.
    for (index, line) in chart.lines.iter().enumerate() {
        let above = line.points.iter().map(|point| (point.at, point.most));
        let below = line.points.iter().rev().map(|point| (point.at, point.least));
        let outline: Vec<(f64, f64)> = above.chain(below).collect();
        if line.points.len() > 1 && line.points.iter().any(|point| point.most > point.least) {
            axes.draw_series([Polygon::new(outline, colour(index).mix(0.2).filled())])?;
        }
    }
    for (index, line) in chart.lines.iter().enumerate() {
        let points: Vec<(f64, f64)> = line.points.iter().map(|point| (point.at, point.mean)).collect();
        axes.draw_series(LineSeries::new(points.iter().copied(), colour(index).stroke_width(2)))?;
        let marker = |point: &(f64, f64)| {
            EmptyElement::at(*point) + Polygon::new(corners(index), colour(index).filled())
        };
        axes.draw_series(points.iter().map(marker))?;
    }
    if let Some((level, _)) = &chart.level {
        for (index, line) in chart.lines.iter().enumerate() {
            let Some(at) = line.crosses else { continue };
            let drop =
                DashedLineSeries::new([(at, *level), (at, bottom)], 3, 4, colour(index).stroke_width(1));
            axes.draw_series(drop)?;
        }
    }
    area.present()?;
    Ok(())
}

pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The corners of a marker around its point, pixels: each line has a shape of its own, so that more lines than colours,
/// and a print without them, can be read.
pub(super) fn corners(index: usize) -> Vec<(i32, i32)> {
    match (index / COLOURS.len() + index) % 4 {
        0 => (0..12).map(|corner| f64::from(corner) * std::f64::consts::TAU / 12.0).map(around).collect(),
        1 => vec![(-5, 4), (0, -5), (5, 4)],
        2 => vec![(-4, -4), (4, -4), (4, 4), (-4, 4)],
        _ => vec![(-5, 0), (0, -5), (5, 0), (0, 5)],
    }
}

fn around(angle: f64) -> (i32, i32) {
    ((4.6 * angle.cos()).round() as i32, (4.6 * angle.sin()).round() as i32)
}

/// A row a line: its colour, shape and name.
fn draw_legend(area: &Area<'_>, chart: &BandChart) -> Drawn {
    let beside = (FONT, 19).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    for (row, line) in chart.lines.iter().enumerate() {
        let middle = row as i32 * LEGEND_ROW as i32 + LEGEND_ROW as i32 / 2;
        area.draw(&PathElement::new([(76, middle), (108, middle)], colour(row).stroke_width(3)))?;
        area.draw(&(EmptyElement::at((92, middle)) + Polygon::new(corners(row), colour(row).filled())))?;
        let shown = shortened(&line.name, LEGEND_CHARS);
        area.draw_text(&shown, &beside, (120, middle))?;
    }
    Ok(())
}

/// A name of at most so many characters.
pub(super) fn shortened(name: &str, most: usize) -> String {
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['\u{2026}']).collect(),
        false => name.to_owned(),
    }
}

/// Room for every point, never empty: ((left, right), (bottom, top)).
fn ranges(chart: &BandChart) -> ((f64, f64), (f64, f64)) {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.at).fold(0.0, f64::max);
    let level = chart.level.iter().map(|(level, _)| *level);
    let low = points().map(|point| point.least).chain(level.clone()).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.most).chain(level).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = if high > low { (high - low) * 0.07 } else { high.abs().max(1e-6) * 0.5 };
    // No axis of shares goes below zero.
    let bottom = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
    ((0.0, if right > 0.0 { right * 1.02 } else { 1.0 }), (bottom, high + room))
}
