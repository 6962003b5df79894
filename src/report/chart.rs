//! Line charts as SVG.
//!
//! A chart draws text and axes in one colour that follows the reader's light or dark setting, alone or
//! inside a page, and its lines in mid-tones that are readable on both. Text is left to the reader's own
//! sans-serif font; nothing is measured with one here.

use maud::{html, Render};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::history::Points;
use super::page::Text as Escaped;
use crate::outside;

/// Width and height, pixels.
const SIZE: (u32, u32) = (480, 300);
pub(super) const FONT: &str = "sans-serif";
/// Stands for the reader's text colour until the SVG is finished; occurs nowhere else.
pub(super) const INK: RGBColor = RGBColor(1, 2, 3);
const INK_TEXT: &str = "#010203";
/// Readable on white and on near-black.
pub(super) const LINES: [RGBColor; 6] = [
    RGBColor(0x3b, 0x82, 0xc4),
    RGBColor(0xd9, 0x7b, 0x29),
    RGBColor(0x3d, 0x9e, 0x6a),
    RGBColor(0xb3, 0x5f, 0xbf),
    RGBColor(0xc9, 0x4f, 0x4f),
    RGBColor(0x8a, 0x8a, 0x3c),
];
/// Height of a name below the chart, pixels.
const LEGEND_ROW: u32 = 19;
/// Longer names do not fit.
const LEGEND_CHARS: usize = 58;
/// More points than the chart has pixels only make the file larger.
const MOST_POINTS: usize = 480;
/// Points of a line that tell their value under a pointer.
const MOST_HINTS: usize = 48;

/// A line chart.
pub(super) struct Chart<'a> {
    pub title: &'a str,
    /// Unit of the vertical axis.
    pub unit: &'a str,
    /// Name of the horizontal axis.
    pub across: &'a str,
    /// Each with its name in the legend.
    pub lines: Vec<(String, Points)>,
    /// Single points matter more than the line through them.
    pub dots: bool,
    /// Draw a moving average over the points.
    pub smooth: bool,
    /// The vertical axis begins at zero.
    pub from_zero: bool,
    /// Beginnings of stages, with their titles.
    pub stages: Vec<(f64, String)>,
}

/// A place of a chart that tells a value under a pointer.
pub(super) struct Hint {
    /// Pixels from the left and from the top.
    pub at: (i32, i32),
    pub text: String,
}

/// Draws and recolours. The error is plotters' own.
pub(super) fn draw(chart: &Chart<'_>) -> Result<String, String> {
    let mut svg = String::new();
    let hints = {
        let height = SIZE.1 + legend_height(chart);
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        draw_on(&area, chart).map_err(|error| error.to_string())?
    };
    Ok(inked(&svg, chart.title, &hints))
}

/// Gives an SVG that was drawn in [`INK`] the reader's colour, and places that tell values. It has one style sheet: alone,
/// it chooses its ink; inside a page, the page's rule for `.curve` is the same.
pub(super) fn inked(svg: &str, title: &str, hints: &[Hint]) -> String {
    let open = format!(
        "<svg class=\"curve\" role=\"img\" aria-label=\"{}\" style=\"max-width:100%;height:auto\" ",
        Escaped(title).render().into_string()
    );
    let style =
        "\n<style>.curve{color:#24292f}@media(prefers-color-scheme:dark){.curve{color:#d8dee6}}</style>";
    let svg = svg.replacen("<svg ", &open, 1).replace(INK_TEXT, "currentColor");
    let svg = match svg.find('>') {
        Some(end) => format!("{}{style}{}", &svg[..=end], &svg[end + 1..]),
        None => svg,
    };
    let svg = match svg.rfind("</svg>").filter(|_| !hints.is_empty()) {
        Some(end) => format!("{}{}{}", &svg[..end], hints_on_top(hints), &svg[end..]),
        None => svg,
    };
    // plotters escapes what has a meaning in XML; control characters are no XML at all.
    outside::lines(&outside::without_secrets(&svg)).into_owned()
}

/// Invisible circles with the titles that browsers show.
fn hints_on_top(hints: &[Hint]) -> String {
    let circles = html! {
        g fill-opacity="0" {
            @for Hint { at: (x, y), text } in hints {
                circle cx=(x) cy=(y) r="8" { title { (Escaped(text)) } }
            }
        }
    };
    circles.into_string()
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels below the chart; a single line needs no name.
fn legend_height(chart: &Chart<'_>) -> u32 {
    match chart.lines.len() {
        0 | 1 => 0,
        lines => lines as u32 * LEGEND_ROW + 6,
    }
}

/// A row a line: its colour and its name.
fn draw_legend(area: &Area<'_>, chart: &Chart<'_>) -> Result<(), Box<dyn std::error::Error>> {
    for (row, ((name, _), colour)) in chart.lines.iter().zip(LINES.iter().cycle()).enumerate() {
        let top = row as i32 * LEGEND_ROW as i32;
        let middle = top + LEGEND_ROW as i32 / 2;
        area.draw(&PathElement::new([(60, middle), (80, middle)], colour.stroke_width(4)))?;
        let shown: String = match name.chars().count() > LEGEND_CHARS {
            true => name.chars().take(LEGEND_CHARS - 1).chain(['\u{2026}']).collect(),
            false => name.clone(),
        };
        area.draw(&Text::new(shown, (88, top + 2), (FONT, 15).into_font().color(&INK)))?;
    }
    Ok(())
}

fn draw_on(whole: &Area<'_>, chart: &Chart<'_>) -> Result<Vec<Hint>, Box<dyn std::error::Error>> {
    let (area, below) = whole.split_vertically(SIZE.1);
    if legend_height(chart) > 0 {
        draw_legend(&below, chart)?;
    }
    let area = &area;
    let ((left, right), (bottom, top)) = ranges(chart);
    let mut axes = ChartBuilder::on(area)
        .margin(8)
        .margin_right(18)
        .caption(format!("{} ({})", chart.title, chart.unit), (FONT, 20, &INK))
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(left..right, bottom..top)?;
    axes.configure_mesh()
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.13))
        .light_line_style(INK.mix(0.0))
        .label_style((FONT, 17, &INK))
        .x_labels(6)
        .y_labels(6)
        .x_desc(chart.across)
        .x_label_formatter(&|step| compact(*step))
        .y_label_formatter(&|value| compact(*value))
        .draw()?;

    for (index, (begin, title)) in chart.stages.iter().enumerate() {
        if index > 0 {
            axes.draw_series([PathElement::new([(*begin, bottom), (*begin, top)], INK.mix(0.35))])?;
        }
        if chart.stages.len() > 1 {
            // Above the lines of a falling loss, below the frame.
            let place = (begin + (right - left) * 0.01, top - (top - bottom) * 0.01);
            axes.draw_series([Text::new(title.clone(), place, (FONT, 14).into_font().color(&INK.mix(0.6)))])?;
        }
    }
    let mut hints = Vec::new();
    for ((name, points), colour) in chart.lines.iter().zip(LINES.iter().cycle()) {
        let points = thinned(points, MOST_POINTS);
        let strength = if chart.smooth { 0.3 } else { 1.0 };
        let style = colour.mix(strength).stroke_width(2);
        axes.draw_series(LineSeries::new(points.iter().copied(), style))?;
        if chart.smooth {
            for stage in by_stage(&points, &chart.stages) {
                axes.draw_series(LineSeries::new(smoothed(stage), colour.stroke_width(2)))?;
            }
        }
        if chart.dots {
            axes.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        hints.extend(thinned(&points, MOST_HINTS).into_iter().map(|(across, up)| Hint {
            at: axes.backend_coord(&(across, up)),
            text: hint(name, chart, across, up),
        }));
    }
    area.present()?;
    Ok(hints)
}

/// `step 1.2k: 0.5312`, with the name of the line where there are several.
fn hint(name: &str, chart: &Chart<'_>, across: f64, up: f64) -> String {
    let before = if chart.lines.len() > 1 { format!("{name}\n") } else { String::new() };
    format!("{before}{} {}: {} {}", chart.across, compact(across), four_digits(up), chart.unit)
}

/// A value with four digits at least.
fn four_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1e4 || size > 0.0 && size < 1e-3 => compact(value),
        size => format!(
            "{value:.*}",
            if size >= 100.0 {
                1
            } else if size >= 1.0 {
                2
            } else {
                4
            }
        ),
    }
}

/// Room for every point, never empty: ((left, right), (bottom, top)).
fn ranges(chart: &Chart<'_>) -> ((f64, f64), (f64, f64)) {
    let points = || chart.lines.iter().flat_map(|(_, points)| points);
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (_, last) = bounds(&mut points().map(|point| point.0));
    let (low, high) = bounds(&mut points().map(|point| point.1));
    let low = if chart.from_zero { low.min(0.0) } else { low };
    // A flat line gets an axis around it.
    let room = if high > low { (high - low) * 0.06 } else { high.abs().max(1e-6) * 0.5 };
    let bottom = if chart.from_zero && low == 0.0 { 0.0 } else { low - room };
    ((0.0, if last > 0.0 { last } else { 1.0 }), (bottom, high + 2.0 * room))
}

/// At most so many points, each the mean of its neighbours.
fn thinned(points: &[(f64, f64)], most: usize) -> Points {
    let group = points.len().div_ceil(most).max(1);
    points.chunks(group).map(mean).collect()
}

/// The points of each stage, which a moving average must not mix.
fn by_stage<'a>(points: &'a [(f64, f64)], stages: &[(f64, String)]) -> Vec<&'a [(f64, f64)]> {
    let mut rest = points;
    let mut parts = Vec::new();
    for (begin, _) in stages.iter().skip(1) {
        let (before, after) = rest.split_at(rest.partition_point(|point| point.0 <= *begin));
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// A moving average over a thirtieth of the points.
fn smoothed(points: &[(f64, f64)]) -> Points {
    let reach = points.len() / 60;
    (0..points.len())
        .map(|at| {
            // As far to the right as to the left, so that the ends are not pulled.
            let reach = reach.min(at).min(points.len() - 1 - at);
            (points[at].0, mean(&points[at - reach..=at + reach]).1)
        })
        .collect()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (x / n, y / n)
}

/// A number of an axis in few characters: 12k, 1.5M, 0.25, 4e-6.
pub(super) fn compact(value: f64) -> String {
    let size = value.abs();
    let trim = |number: &str| match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => number.to_string(),
    };
    let short = |value: f64, suffix: &str| format!("{}{suffix}", trim(&format!("{value:.2}")));
    match size {
        _ if size < 1e-12 => "0".into(),
        _ if size < 1e-2 => match format!("{value:.2e}").split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", trim(mantissa)),
            None => value.to_string(),
        },
        _ if size < 1e4 => short(value, ""),
        _ if size < 1e6 => short(value / 1e3, "k"),
        _ if size < 1e9 => short(value / 1e6, "M"),
        _ => short(value / 1e9, "G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let expected = [
            (0.0, "0"),
            (0.25, "0.25"),
            (-3.0, "-3"),
            (4e-6, "4e-6"),
            (2.5e-4, "2.5e-4"),
            (0.01, "0.01"),
            (9.9999e-5, "1e-4"),
        ];
        for (value, text) in expected {
            assert_eq!(compact(value), text);
        }
        for (value, text) in [(9_999.0, "9999"), (12_000.0, "12k"), (1.5e6, "1.5M"), (1.28e10, "12.8G")] {
            assert_eq!(compact(value), text);
        }
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_its_ends() {
        let line: Points = (0..300).map(|i| (i as f64, 3.0 * i as f64)).collect();
        for (point, smooth) in line.iter().zip(smoothed(&line)) {
            assert!((point.1 - smooth.1).abs() < 1e-9);
        }
        let long: Points = (0..5_000).map(|i| (i as f64, i as f64)).collect();
        assert!(thinned(&long, MOST_POINTS).len() <= MOST_POINTS);
        assert_eq!(thinned(&line, MOST_POINTS), line);
    }

    #[test]
    fn an_average_ends_where_a_stage_ends() {
        let points: Points = (1..=9).map(|step| (step as f64, 0.0)).collect();
        let stages = [(0.0, "pretrain".to_string()), (4.0, "unmask".into()), (9.0, "next".into())];
        let lengths: Vec<usize> = by_stage(&points, &stages).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [4, 5, 0]);
        assert_eq!(by_stage(&points, &[]).len(), 1);
        assert!(smoothed(&[]).is_empty());
    }
}
