//! Bars of a few values of several runs, beside each other, as SVG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{compact, inked, FONT, INK, LINES};

/// Width, pixels: that of the line charts beside it.
const WIDTH: u32 = 480;
/// Height of a bar, and what is left free below the bars of a run, pixels.
const BAR: u32 = 20;
const BETWEEN: u32 = 12;
/// Title above and axis below, pixels.
const AROUND: u32 = 96;
/// Longer names do not fit.
const NAME_CHARS: usize = 18;
const CHARACTER: usize = 9;

/// Values of several runs.
pub(super) struct BarChart<'a> {
    pub title: &'a str,
    /// Unit of the values.
    pub unit: &'a str,
    pub runs: Vec<Bars>,
}

/// Bars of one run.
pub(super) struct Bars {
    pub name: String,
    /// A value and what it is written as, in the order of the run.
    pub values: Vec<(f64, String)>,
}

/// Draws it. The error is plotters' own.
pub(super) fn draw(chart: &BarChart<'_>) -> Result<String, String> {
    let mut svg = String::new();
    draw_on(&mut svg, chart).map_err(|error| error.to_string())?;
    Ok(inked(&svg, chart.title, &[]))
}

/// Pixels that the bars of a run take.
fn height(bars: &Bars) -> u32 {
    bars.values.len().max(1) as u32 * BAR + BETWEEN
}

fn draw_on(svg: &mut String, chart: &BarChart<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let rows: u32 = chart.runs.iter().map(height).sum();
    let area = SVGBackend::with_string(svg, (WIDTH, AROUND + rows)).into_drawing_area();
    let longest = chart.runs.iter().map(|bars| bars.name.chars().count()).max().unwrap_or(0);
    let names = longest.min(NAME_CHARS) * CHARACTER + 16;
    let most = chart.runs.iter().flat_map(|bars| &bars.values).map(|(value, _)| *value).fold(0.0, f64::max);
    // What is written beside the longest bar needs room.
    let right = if most > 0.0 { most * 1.3 } else { 1.0 };
    let mut axes = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(18)
        .caption(format!("{} ({})", chart.title, chart.unit), (FONT, 20, &INK))
        .x_label_area_size(34)
        .y_label_area_size(names as u32)
        .build_cartesian_2d(0.0..right, f64::from(rows)..0.0)?;
    axes.configure_mesh()
        .disable_y_mesh()
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.13))
        .light_line_style(INK.mix(0.0))
        .label_style((FONT, 17, &INK))
        .x_labels(6)
        .y_labels(0)
        .x_label_formatter(&|value| compact(*value))
        .draw()?;
    let beside = (FONT, 15).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    let before = (FONT, 17).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
    let mut top = f64::from(BETWEEN) / 2.0;
    for (bars, colour) in chart.runs.iter().zip(LINES.iter().cycle()) {
        let tall = f64::from(height(bars) - BETWEEN);
        let (x, y) = axes.backend_coord(&(0.0, top + tall / 2.0));
        area.draw_text(&super::band_chart::shortened(&bars.name, NAME_CHARS), &before, (x - 8, y))?;
        let last = bars.values.len().saturating_sub(1);
        for (index, (value, text)) in bars.values.iter().enumerate() {
            let (above, below) = (top + 2.0, top + f64::from(BAR) - 2.0);
            // Earlier measurements of a run are paler than its last.
            let strength = if index == last { 1.0 } else { 0.45 };
            axes.draw_series([Rectangle::new(
                [(0.0, above), (*value, below)],
                colour.mix(strength).filled(),
            )])?;
            let (x, y) = axes.backend_coord(&(*value, (above + below) / 2.0));
            area.draw_text(text, &beside, (x + 6, y))?;
            top += f64::from(BAR);
        }
        top += f64::from(BETWEEN) + if bars.values.is_empty() { f64::from(BAR) } else { 0.0 };
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_values_keeps_its_row_and_names_are_escaped() {
        let bars = |name: &str, values: &[f64]| Bars {
            name: name.into(),
            values: values.iter().map(|value| (*value, format!("{value} %"))).collect(),
        };
        let runs = vec![bars("<one>", &[10.0, 40.0]), bars("none", &[]), bars("zero", &[0.0])];
        let svg = draw(&BarChart { title: "t", unit: "%", runs }).unwrap();
        assert!(svg.contains("&lt;one&gt;") && svg.contains("40 %") && svg.contains("none"), "{svg}");
        assert!(draw(&BarChart { title: "t", unit: "%", runs: Vec::new() }).is_ok());
    }
}
