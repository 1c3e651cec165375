//! The chart: the cost per GiB of each client, and the distance of each row from its bar.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::report::Report;
use crate::table::{Bar, Figure, Measured};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws two charts, one above the other.
pub(crate) fn draw(path: &Path, report: &Report) -> Result<()> {
    let costs = costs(&report.rows);
    let distances: Vec<Line> = report.rows.iter().filter_map(distance).collect();
    let upper = HEAD + costs.len() as u32 * STEP;
    let height = upper + HEAD + distances.len() as u32 * STEP;
    let canvas = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (above, below) = canvas.split_vertically(upper);
    bars(&above, "Client-side CPU seconds per GiB, median (less is better)", &costs, None)?;
    bars(&below, "Part of what the bar allows (1 is the bar, less is better)", &distances, Some(1.0))?;
    canvas.present()?;
    Ok(())
}

/// One bar.
struct Line {
    label: String,
    value: f64,
    emphasis: bool,
}

/// Returns one line per client and scheme. For ringlift it is the median over its rows.
fn costs(rows: &[Measured]) -> Vec<Line> {
    let mut lines = Vec::new();
    for scheme in ["HTTP,", "HTTPS,"] {
        let costs: Vec<_> = rows
            .iter()
            .filter(|row| row.row.figure == Figure::CpuRatio && row.row.work.starts_with(scheme))
            .collect();
        let mut ours: Vec<f64> = costs.iter().map(|row| row.ours.median).collect();
        ours.sort_by(f64::total_cmp);
        let scheme = scheme.trim_end_matches(',');
        let mut of_scheme: Vec<Line> = costs
            .iter()
            .map(|row| Line {
                label: format!("{}, {scheme}", row.row.against),
                value: row.theirs.median,
                emphasis: false,
            })
            .collect();
        if let Some(value) = ours.get(ours.len() / 2) {
            of_scheme.push(Line { label: format!("ringlift, {scheme}"), value: *value, emphasis: true });
        }
        of_scheme.sort_by(|a, b| a.value.total_cmp(&b.value));
        lines.append(&mut of_scheme);
    }
    lines
}

fn distance(row: &Measured) -> Option<Line> {
    let value = match row.row.bar {
        Bar::AtMost(most) => row.value.median / most,
        Bar::AtLeast(least) => least / row.value.median,
        Bar::Within(part) => (row.value.median - 1.0).abs() / part,
        Bar::None => return None,
    };
    Some(Line { label: row.row.id.to_owned(), value, emphasis: value <= 1.0 })
}

fn bars(area: &Canvas<'_>, title: &str, lines: &[Line], limit: Option<f64>) -> Result<()> {
    let largest =
        lines.iter().map(|line| line.value).fold(limit.unwrap_or(0.0), f64::max).max(f64::MIN_POSITIVE);
    let scale = f64::from(WIDTH - LEFT - RIGHT) / largest;
    let x = |value: f64| LEFT as i32 + (value * scale) as i32;
    area.draw(&Text::new(title.to_owned(), (12, 14), ("sans-serif", 18)))?;
    for (index, line) in lines.iter().enumerate() {
        let top = (HEAD as usize + index * STEP as usize) as i32;
        let colour = if line.emphasis { OURS } else { THEIRS };
        let middle = top + BAR / 2;
        area.draw(&Rectangle::new([(x(0.0), top), (x(line.value), top + BAR)], colour.filled()))?;
        area.draw(&Text::new(line.label.clone(), (LEFT as i32 - 8, middle), anchored(HPos::Right)))?;
        area.draw(&Text::new(
            format!("{:.3}", line.value),
            (x(line.value) + 6, middle),
            anchored(HPos::Left),
        ))?;
    }
    if let Some(limit) = limit {
        let bottom = (HEAD as usize + lines.len() * STEP as usize) as i32;
        area.draw(&PathElement::new([(x(limit), HEAD as i32 - 6), (x(limit), bottom)], RED.stroke_width(2)))?;
    }
    Ok(())
}

fn anchored(side: HPos) -> TextStyle<'static> {
    ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center))
}

const WIDTH: u32 = 960;
const LEFT: u32 = 240;
const RIGHT: u32 = 80;
const HEAD: u32 = 48;
const STEP: u32 = 26;
const BAR: i32 = 18;
const OURS: RGBColor = RGBColor(0, 114, 178);
const THEIRS: RGBColor = RGBColor(160, 160, 160);
